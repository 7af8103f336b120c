"""Things that are done around the library: spawned processes, other working folders, the same bytes twice."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsefeat
from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.extract import FeatureExtractor

ROOT = Path(__file__).resolve().parents[2]
NAME = "sparsefeat/rooms-5cm-oriented-v1"


def _cloud() -> np.ndarray:
    return np.random.default_rng(0).random((300, 3)) * [1, 1, 0.01]


def _features(extractor: FeatureExtractor) -> np.ndarray:
    return extractor(_cloud(), viewpoint=(0.5, 0.5, 2.0))


def test_a_released_network_computes_the_same_in_a_spawned_process():
    extractor = FeatureExtractor.from_pretrained(NAME)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_features, (extractor,))
    np.testing.assert_allclose(there, _features(extractor), atol=1e-6)


class _Clouds(torch.utils.data.Dataset):
    def __init__(self, extractor: FeatureExtractor):
        self.extractor = extractor

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray:
        return _features(self.extractor)


def test_a_released_network_computes_the_same_in_a_worker_of_a_data_loader():
    extractor = FeatureExtractor.from_pretrained(NAME)
    loader = torch.utils.data.DataLoader(
        _Clouds(extractor), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    np.testing.assert_allclose(next(iter(loader)), _features(extractor), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"max_voxels": 250, "halo": 2}, {"views": 2}])
def test_features_do_not_depend_on_the_default_type(options):
    def features():
        extractor = FeatureExtractor.from_pretrained(NAME)
        return extractor(_cloud(), viewpoint=(0.5, 0.5, 2.0), **options)

    expected = features()
    torch.set_default_dtype(torch.float64)
    try:
        found = features()
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_features_of_a_survey_in_utm_are_those_at_the_origin():
    extractor = FeatureExtractor.from_pretrained(NAME)
    # Whole voxels of 5 cm, so that the grid is the same; float64 holds such places to a nanometre.
    easting, northing, height = 691_600.0, 5_334_800.0, 515.0
    far = _cloud() + [easting, northing, height]
    found = extractor(far, viewpoint=(easting + 0.5, northing + 0.5, height + 2))
    np.testing.assert_allclose(found, _features(extractor), atol=1e-4)


def test_released_names_are_found_from_another_working_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import sparsefeat; print(sparsefeat.from_pretrained({NAME!r}).voxel_size)"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "0.05", done.stderr


def test_a_checkpoint_written_twice_has_the_same_bytes(tmp_path):
    model = sparsefeat.from_pretrained(NAME)
    save_checkpoint(tmp_path / "a.safetensors", model, 0.05, {"b": 1, "a": 2})
    command = (
        "import sparsefeat, sys; from sparsefeat.checkpoint import save_checkpoint; "
        f"save_checkpoint('b.safetensors', sparsefeat.from_pretrained({NAME!r}), 0.05, {{'b': 1, 'a': 2}})"
    )
    # Another process has other hash seeds.
    subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = sparsefeat.from_pretrained(tmp_path / "a.safetensors")
    assert again.config == model.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )
