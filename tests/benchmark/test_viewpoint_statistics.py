"""Statistics of pairs are those of viewpoints that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsefeat.benchmark.viewpoints import main, statistics
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError
from sparsefeat.match.scans import Scan


def scan(points: np.ndarray, features: np.ndarray) -> Scan:
    return Scan(points, np.arange(len(points)), features.astype(np.float32), 0.05, "a scan")


def test_a_patch_that_is_seen_from_two_sides():
    rng = np.random.default_rng(0)
    patch = rng.uniform(-0.02, 0.02, (60, 3)) + [0, 0, 2.0]
    turn = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])  # a quarter around y
    transform = np.eye(4)
    transform[:3, :3] = turn
    transform[:3, 3] = np.array([0, 0, 2.0]) - turn @ [0, 0, 4.0]
    away = (patch - transform[:3, 3]) @ turn  # the same points, 4 m in front of the other camera
    features = np.eye(60)
    found = statistics(
        FragmentPair("", Path(), Path(), transform), scan(away, features), scan(patch, features)
    )
    assert found is not None
    assert found["overlap"] == 1 and found["right"] == 1
    assert found["angle_deg"] == pytest.approx(90, abs=0.5)
    assert found["baseline_m"] == pytest.approx(np.hypot(2, 4))
    assert found["distance_ratio"] == pytest.approx(2, rel=0.02)


def test_nothing_in_common_is_no_pair():
    far = np.eye(4)
    far[0, 3] = 9
    points, features = np.zeros((5, 3)) + [0, 0, 1.0], np.eye(5)
    pair = FragmentPair("", Path(), Path(), far)
    assert statistics(pair, scan(points, features), scan(points, features)) is None


def test_a_group_without_a_root_is_refused():
    with pytest.raises(InputError, match="NAME=ROOT"):
        main(["--pairs", "rooms"])
