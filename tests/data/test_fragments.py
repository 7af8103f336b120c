"""Fragments are read from every format the field keeps them in, and never execute anything."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from sparsefeat.data.fragments import FragmentCache, load_fragment


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_pickled_array_of_predator_is_read(tmp_path, dtype, legacy):
    points = np.random.default_rng(0).random((7, 3)).astype(dtype)
    torch.save(points, tmp_path / "cloud.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_fragment(tmp_path / "cloud.pth")
    assert loaded.dtype == np.float64 and np.array_equal(loaded, points)


def test_a_pickle_written_with_the_other_major_version_of_numpy_is_read(tmp_path):
    points = np.random.default_rng(0).random((7, 3))
    torch.save(points, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "new.pth").read_bytes()
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert old in raw or new in raw
    other = raw.replace(new, old) if new in raw else raw.replace(old, new)
    (tmp_path / "other.pth").write_bytes(other)
    assert np.array_equal(load_fragment(tmp_path / "other.pth"), points)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_malicious_pickle_is_refused_by_name_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Malicious(), "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth: the file asks for \w+\.mkdir.* refused"):
        load_fragment("evil.pth")
    assert not (tmp_path / "executed").exists()


def test_broken_fragments_are_named(tmp_path):
    points = np.random.default_rng(0).random((100, 3))
    np.savez(tmp_path / "whole.npz", pcd=points)
    torch.save(points, tmp_path / "whole.pth")
    for suffix in ("npz", "pth"):
        raw = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(raw[: len(raw) // 2])
        (tmp_path / f"text.{suffix}").write_text("hello")
        (tmp_path / f"empty.{suffix}").write_bytes(b"")
    bad = points.copy()
    bad[[3, 5], 1] = np.nan
    np.savez(tmp_path / "nan.npz", pcd=bad)
    torch.save(bad, tmp_path / "nan.pth")
    np.savez(tmp_path / "zero.npz", pcd=np.empty((0, 3)))
    np.savez(tmp_path / "key.npz", cloud=points)
    np.savez(tmp_path / "shape.npz", pcd=points[:, :2])
    np.savez(tmp_path / "object.npz", pcd=np.array([[None] * 3]))
    torch.save({"a": 1}, tmp_path / "dict.pth")
    torch.save(points[:, :2], tmp_path / "shape.pth")
    torch.save(np.array([[None] * 3]), tmp_path / "object.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(points, protocol=2))
    for name, said in [
        ("cut.npz", "not a complete npz"),
        ("text.npz", "not a complete npz"),
        ("empty.npz", "not a complete npz"),
        ("nan.npz", "2 of 100 points have a NaN or infinite coordinate, first in row 3"),
        ("zero.npz", "the fragment has no points"),
        ("key.npz", "no points; it has the keys cloud"),
        ("shape.npz", "shape (100, 2), expected (N, 3)"),
        ("object.npz", "cannot be read"),
        ("absent.npz", "no such file"),
        ("cut.pth", "truncated"),
        ("text.pth", "neither a torch file nor safetensors"),
        ("empty.pth", "the file is empty"),
        ("plain.pth", "a pickle, but not of torch.save"),
        ("nan.pth", "2 of 100 points have a NaN or infinite coordinate, first in row 3"),
        ("shape.pth", "shape (100, 2), expected numbers, (N, 3)"),
        ("object.pth", "refused"),
        ("dict.pth", "holds a dict"),
        ("absent.pth", "no such file"),
    ]:
        with pytest.raises(ValueError) as error:
            load_fragment(tmp_path / name)
        assert (
            said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
        )


def test_a_cache_keeps_points_to_a_tenth_of_a_millimetre(tmp_path):
    points = np.random.default_rng(0).random((100, 3)) * 3
    for place, kept in ((0, np.float32), (900, np.float32), (1100, np.float64), (5e6, np.float64)):
        np.savez(tmp_path / f"{place}.npz", pcd=points + place)
        cached = FragmentCache()(tmp_path / f"{place}.npz")
        assert cached.dtype == kept
        np.testing.assert_allclose(cached, points + place, 0, 1e-4)


def test_a_cache_reads_a_fragment_once_and_keeps_none_beyond_its_size(tmp_path):
    for k in range(3):
        np.savez(tmp_path / f"{k}.npz", pcd=np.full((10, 3), float(k)))
    cache = FragmentCache()
    first = cache(tmp_path / "0.npz")
    assert first is cache(tmp_path / "0.npz") and first.dtype == np.float32
    with pytest.raises(ValueError):
        first[0] = 1
    assert len(pickle.loads(pickle.dumps(cache))) == 0
    small = FragmentCache(max_bytes=2 * first.nbytes)
    for k in (0, 1, 0, 2):
        assert small(tmp_path / f"{k}.npz")[0, 0] == k
    kept, read = small(tmp_path / "0.npz"), small(tmp_path / "2.npz")
    assert len(small) == 2 and small.bytes == 2 * first.nbytes and small.full
    assert small(tmp_path / "0.npz") is kept and small(tmp_path / "2.npz") is not read
    assert (
        len(none := FragmentCache(0)) == 0
        and none(tmp_path / "1.npz")[0, 0] == 1
        and len(none) == 0
    )
