"""Random rotations are uniform, and augmentation reports what it did to the points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sparsefeat.pretrain.augment import AugmentConfig, augment, random_rotation


def corner(seed: int, count: int = 1000) -> np.ndarray:
    """Points on three walls that meet: (count, 3), metres."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1.5, (count, 3))
    points[np.arange(count), rng.integers(0, 3, count)] = 0
    return points + (1.0, 2.0, 3.0)


def angle_of(rotation: np.ndarray) -> float:
    return math.acos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))


# rotations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [180.0, 90.0, 35.0, 1.0])
def test_angles_follow_the_haar_measure_up_to_the_limit(limit):
    rng = np.random.default_rng(0)
    angles = np.sort([angle_of(random_rotation(rng, limit)) for _ in range(2000)])
    top = math.radians(limit)
    assert angles[-1] <= top + 1e-6
    expected = (angles - np.sin(angles)) / (top - math.sin(top))
    # The Kolmogorov-Smirnov statistic of 2000 samples is below 0.043 in 99.9 % of all seeds.
    assert np.abs(expected - np.arange(2000) / 2000).max() < 0.043


def test_full_rotations_are_uniform_over_all_orientations():
    rng = np.random.default_rng(1)
    rotations = np.array([random_rotation(rng) for _ in range(2000)])
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1)
    # Each image of an axis is uniform on the sphere: its coordinates are uniform on [-1, 1] (Archimedes).
    for entry in rotations.reshape(-1, 9).T:
        assert np.abs(np.sort(entry) - np.linspace(-1, 1, 2000)).max() < 0.09
    # A fixed rotation before or after changes nothing: the mean over the group is 0.
    assert np.abs(rotations.mean(axis=0)).max() < 0.06


def test_an_angle_of_zero_is_no_rotation_and_angles_out_of_range_are_errors():
    assert np.allclose(random_rotation(np.random.default_rng(0), 0.0), np.eye(3), atol=1e-15)
    for angle in (-1.0, 181.0, math.nan):
        with pytest.raises(ValueError, match="expected 0 to 180"):
            random_rotation(np.random.default_rng(0), angle)


# augmentation of one cloud --------------------------------------------------------------------------------


def test_the_returned_transform_is_what_happened_to_the_points():
    points = corner(0).astype(np.float32)
    config = AugmentConfig((0.9, 1.1), jitter_m=0.0, crop_probability=0.0, dropout=0.0)
    moved, transform = augment(points, np.random.default_rng(3), 180.0, config, scale=1.07)
    assert np.allclose(points @ transform[:3, :3].T + transform[:3, 3], moved, atol=1e-5)
    assert np.allclose(np.linalg.det(transform[:3, :3]), 1.07**3)
    assert moved.dtype == np.float32 and transform.dtype == np.float64
    assert np.abs(moved.mean(axis=0)).max() <= config.shift_m + 1e-5


def test_jitter_is_bounded_and_as_wide_as_asked():
    points = corner(0, 20000)
    config = AugmentConfig((1.0, 1.0), jitter_m=0.01, crop_probability=0.0, dropout=0.0)
    moved, transform = augment(points, np.random.default_rng(3), 180.0, config)
    noise = moved - (points @ transform[:3, :3].T + transform[:3, 3])
    assert np.abs(noise).max() <= 0.03 + 1e-6 and abs(noise.std() - 0.01) < 3e-4


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_keeps_at_least_its_share_and_one_side(seed):
    points = corner(0, 2000)
    config = AugmentConfig((1.0, 1.0), 0.0, 0.0, crop_probability=1.0, crop_keep=0.5, dropout=0.0)
    moved, transform = augment(points, np.random.default_rng(seed), 0.0, config)
    assert 1000 <= len(moved) <= 2000
    distance, rows = cKDTree(points).query(moved - transform[:3, 3])
    assert distance.max() < 1e-5 and np.array_equal(rows, np.unique(rows))


def test_drop_out_leaves_out_at_most_its_share_and_keeps_the_order():
    points = corner(0, 2000)
    config = AugmentConfig((1.0, 1.0), 0.0, 0.0, crop_probability=0.0, dropout=0.4)
    counts = []
    for seed in range(20):
        moved, transform = augment(points, np.random.default_rng(seed), 0.0, config)
        counts.append(len(moved))
        distance, rows = cKDTree(points).query(moved - transform[:3, 3])
        assert distance.max() < 1e-5 and np.array_equal(rows, np.unique(rows))
    assert min(counts) >= 1200 and max(counts) <= 2000 and len(set(counts)) > 10


def test_one_point_survives_everything():
    config = AugmentConfig(crop_probability=1.0, crop_keep=0.01, dropout=0.99)
    for seed in range(10):
        moved, _ = augment(np.zeros((1, 3)), np.random.default_rng(seed), 180.0, config)
        assert moved.shape == (1, 3) and np.isfinite(moved).all()
    with pytest.raises(ValueError, match="without points"):
        augment(np.zeros((0, 3)), np.random.default_rng(0), 180.0, config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (1.1, 0.9)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, math.inf)},
        {"shift_m": -1},
        {"jitter_m": math.inf},
        {"crop_probability": 1.5},
        {"crop_keep": 0},
        {"dropout": 1.0},
    ],
)
def test_settings_out_of_range_are_errors_that_name_the_setting(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is "):
        AugmentConfig(**wrong)
