"""Scenes in 3DMatch's layouts: also those without a pair are read back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment, load_viewpoint
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.synthetic.fragments import Fragment, check_fusion, thin, write_scene


def fragments(apart: float) -> list[Fragment]:
    points = np.random.default_rng(0).random((500, 3)) * [1, 1, 0.01]
    return [Fragment(points + [apart * k, 0, 0], np.eye(4)) for k in range(2)]


@pytest.mark.parametrize("layout", ["test", "both"])
def test_a_scene_without_pairs_does_not_spoil_the_set(tmp_path, layout):
    write_scene(tmp_path, "alone", fragments(5.0), layout)
    write_scene(tmp_path, "room", fragments(0.1), layout)
    assert (
        not (tmp_path / "alone-evaluation").exists()
        and not (tmp_path / "room-evaluation-lo").exists()
    )
    assert [len(listed) for listed in threedmatch.test_pairs(tmp_path).values()] == [1]
    assert [pair.scene for pair in threedmatch.find_pairs(tmp_path, ["alone", "room"])] == ["room"]
    with pytest.raises(InputError, match="no list of these pairs"):
        threedmatch.test_pairs(tmp_path, pairs="3DLoMatch")


def test_lists_of_an_earlier_run_go_where_there_are_no_pairs_any_more(tmp_path):
    write_scene(tmp_path, "room", fragments(0.1), "test")
    assert (tmp_path / "room-evaluation" / "gt.log").is_file()
    write_scene(tmp_path, "room", fragments(5.0), "test")
    assert not (tmp_path / "room-evaluation").exists()


def test_overlaps_hardly_depend_on_how_far_the_points_are_thinned(tmp_path):
    rng = np.random.default_rng(0)
    whole = []
    for start in (0, 2):  # the second begins in the middle of the first
        x, y = start + 4 * rng.random(200_000), 3 * rng.random(200_000)
        whole.append(np.column_stack([x, y, 0.2 * np.sin(x)]))
    for spacing in (0.025, 0.05, 0.1):
        pieces = [Fragment(thin(points, spacing), np.eye(4)) for points in whole]
        folder = tmp_path / str(spacing)
        write_scene(folder, "room", pieces, "both", spacing)
        (pair,) = threedmatch.train_pairs(folder)
        assert pair.overlap == pytest.approx(0.5, abs=0.04)  # a row of 10 cm is 0.025


def test_fragments_far_from_the_origin_keep_their_points(tmp_path):
    start = np.eye(4)
    start[:3, 3] = 500_000.3, 5_000_000.7, 100.1
    near = fragments(0.1)
    far = [Fragment(one.points + start[:3, 3], start) for one in near]
    write_scene(tmp_path, "near", near, "both")
    write_scene(tmp_path, "far", far, "both")
    for k in range(2):
        stem = f"far@seq-01_{k:03d}.npz"
        np.testing.assert_allclose(load_fragment(tmp_path / stem), far[k].points, 0, 1e-4)
        np.testing.assert_allclose(load_viewpoint(tmp_path / stem), start[:3, 3], 0, 1e-4)
        local = load_fragment(tmp_path / "far" / f"cloud_bin_{k}.ply")
        np.testing.assert_allclose(local, near[k].points, 0, 1e-4)
        with np.load(tmp_path / stem.replace("far", "near")) as archive:
            assert {array.dtype for array in archive.values()} == {np.dtype(np.float32)}


def test_a_scene_without_pairs_is_said(tmp_path):
    with pytest.warns(InputWarning, match="no two fragments of room overlap by 30 %"):
        write_scene(tmp_path, "room", fragments(5.0), "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_scene(tmp_path, "alone", fragments(5.0)[:1], "train")
        write_scene(tmp_path, "pair", fragments(0.1), "train")


@pytest.mark.parametrize(
    ("voxel_size", "spacing", "name"),
    [(0.01, -1, "spacing"), (0.01, 2, "spacing"), (0, 0, "voxel")],
)
def test_a_fusion_that_cannot_be_is_refused(voxel_size, spacing, name):
    with pytest.raises(InputError, match=name):
        check_fusion(voxel_size, spacing)


def test_a_scene_of_low_overlaps_alone_is_read_where_they_are_asked_for(tmp_path):
    write_scene(tmp_path, "high", fragments(0.1), "test")
    write_scene(tmp_path, "low", fragments(0.8), "test")
    assert not (tmp_path / "low-evaluation").exists()
    for scenes in (None, ["high", "low"]):
        found = threedmatch.find_pairs(tmp_path, scenes, 0.1)
        assert [pair.scene for pair in found] == ["high", "low"]
    assert [pair.scene for pair in threedmatch.find_pairs(tmp_path, ["low"], 0.1)] == ["low"]
    assert [pair.scene for pair in threedmatch.find_pairs(tmp_path)] == ["high"]
