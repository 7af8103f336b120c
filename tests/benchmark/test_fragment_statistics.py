"""Statistics of fragments are those of surfaces that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparsefeat.benchmark.fragments import main, statistics
from sparsefeat.errors import InputError


def wall(noise: float = 0.0) -> np.ndarray:
    """A square of 2 m, a point every 2 cm, with noise across it: (10201, 3)."""
    x, y = np.meshgrid(np.linspace(-1, 1, 101), np.linspace(-1, 1, 101))
    height = noise * np.random.default_rng(0).standard_normal(x.size)
    return np.c_[x.ravel(), y.ravel(), height]


def test_a_wall_that_is_seen_from_its_front():
    found = statistics(wall(), np.array([0.0, 0.0, 2.0]), np.random.default_rng(1))
    assert found["roughness_mm"] < 1e-6 and found["waves_mm"] < 1e-6 and found["flat"] == 1
    assert found["normal_deg"] == pytest.approx(0, abs=1e-5)
    # The frame of 2 cm around a square of 2 m: its outermost points alone have nothing on one side.
    assert found["boundary"] == pytest.approx(1 - 99**2 / 101**2, abs=0.02)
    assert 2 < found["near_m"] < found["range_m"] < found["far_m"] < 2.45
    # Half of a square of side 2 lies within a circle of radius sqrt(2 / pi).
    assert found["incidence_deg"] == pytest.approx(
        np.degrees(np.arctan(np.sqrt(2 / np.pi) / 2)), abs=1
    )


def test_noise_is_rough_and_waves_are_wavy():
    rough = statistics(wall(0.004), np.array([0.0, 0.0, 2.0]), np.random.default_rng(1))
    # A plane through twenty points takes some of their noise, and the flattest places have the least of it.
    assert rough["roughness_mm"] == pytest.approx(4, rel=0.15)
    assert rough["waves_mm"] == pytest.approx(4, abs=0.3)
    bent = wall()
    bent[:, 2] = 0.02 * np.sin(2 * np.pi * bent[:, 0] / 0.6)
    wavy = statistics(bent, np.array([0.0, 0.0, 2.0]), np.random.default_rng(1))
    assert wavy["waves_mm"] > 3 * wavy["roughness_mm"]


def test_groups_of_files_are_measured(tmp_path, monkeypatch):
    for k in range(3):
        np.savez(tmp_path / f"a_{k}.npz", pcd=wall(0.001).astype(np.float32), viewpoint=[0, 0, 2.0])
        np.savez(tmp_path / f"b_{k}.npz", pcd=wall(0.01).astype(np.float32), viewpoint=[0, 0, 4.0])
    monkeypatch.chdir(tmp_path)
    main(["--fragments", "smooth=a_*.npz", "rough=b_*.npz", "--every", "2", "--result", "walls"])
    numbers = json.loads((tmp_path / "results/fragments/walls.json").read_text())["numbers"]
    assert list(numbers) == ["smooth", "rough"]
    assert numbers["smooth"]["files"] == 2
    assert numbers["smooth"]["roughness_mm"] == pytest.approx(1, rel=0.2)
    assert numbers["rough"]["roughness_mm"] == pytest.approx(10, rel=0.2)
    assert numbers["rough"]["near_m"] > 4


def test_a_group_without_files_or_without_viewpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="finds files"):
        main(["--fragments", f"none={tmp_path}/*.npz"])
    np.savez(tmp_path / "blind.npz", pcd=wall().astype(np.float32))
    with pytest.raises(InputError, match="no viewpoint"):
        main(["--fragments", f"blind={tmp_path}/*.npz"])
