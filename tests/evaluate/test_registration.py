"""Registration recall: the error of a pose, which pairs count, and Open3D's RANSAC and FPFH."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError, MissingExtraError
from sparsefeat.evaluate import (
    RansacRegister,
    evaluate_matching,
    fpfh_descriptor,
    transformation_error,
)
from sparsefeat.evaluate.keypoints import Fragment
from sparsefeat.evaluate.registration import counts_for_recall


def pose(rotation_vector=(0, 0, 0), translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def information_of(points):
    """Sum of G^T G with G = [I | -[p]_x], the definition behind gt.info."""
    total = np.zeros((6, 6))
    for x, y, z in points:
        g = np.hstack([np.eye(3), np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])])
        total += g.T @ g
    return total


# ---- the error of a pose


def test_a_translation_counts_with_its_squared_length():
    information = np.diag([50.0, 50, 50, 200, 100, 60])
    error = transformation_error(pose(translation=[0.1, 0.2, 0]), np.eye(4), information)
    assert error == pytest.approx(0.05)


def test_a_rotation_counts_with_the_vector_part_of_its_quaternion():
    information = np.diag([50.0, 50, 50, 200, 100, 60])
    error = transformation_error(pose([0.3, 0, 0]), np.eye(4), information)
    assert error == pytest.approx(math.sin(0.15) ** 2 * 200 / 50)


def test_the_quaternion_has_a_positive_scalar_part():
    """Nearly a full turn is a small rotation the other way."""
    information = np.eye(6)
    turn = transformation_error(pose([0, 0, 2 * np.pi - 0.1]), np.eye(4), information)
    assert turn == pytest.approx(math.sin(0.05) ** 2)


def test_the_error_is_of_inverse_truth_times_estimate():
    truth = pose([0.2, -0.4, 1.0], [1, 2, 3])
    off = pose([0, 0.1, 0], [0.05, 0, 0])
    information = np.diag([10.0, 10, 10, 30, 20, 40])
    expected = 0.05**2 + 2 * math.sin(0.05) ** 2
    assert transformation_error(truth @ off, truth, information) == pytest.approx(expected)
    assert transformation_error(truth, truth, information) == pytest.approx(0, abs=1e-15)


def test_a_turn_about_the_centre_of_the_overlap_is_a_small_error():
    """Rotation and translation of such a pose cancel at the points; with the other sign they would add up."""
    points = np.array([[0.1, 0, 2.0], [-0.1, 0, 2.0], [0, 0.1, 2.0], [0, -0.1, 2.0]])
    turn = pose([0, 0.2, 0])
    about_centre = pose(translation=[0, 0, 2]) @ turn @ pose(translation=[0, 0, -2])
    information = information_of(points)
    # The half angle in the quaternion leaves half of the translation uncancelled: (2 * 0.2 / 2)^2.
    assert transformation_error(about_centre, np.eye(4), information) == pytest.approx(
        0.04, rel=0.05
    )
    opposite = pose(translation=[0, 0, 2]) @ turn.T @ pose(translation=[0, 0, -2])
    opposite[:3, 3] *= -1
    assert transformation_error(opposite, np.eye(4), information) > 0.3


def test_real_information_matrices_are_of_points_in_the_targets_frame(dataset):
    """The sign that the quaternion needs: Info[0, 4] / Info[0, 0] is +mean(z), Info[0, 5] is -mean(y)."""
    for listed in threedmatch.test_pairs(dataset("threedmatch_test")).values():
        pair = listed[3]
        moved = load_fragment(pair.source) @ pair.transform[:3, :3].T + pair.transform[:3, 3]
        overlap = moved[cKDTree(load_fragment(pair.target)).query(moved)[0] < 0.05]
        info = pair.information / pair.information[0, 0]
        assert info[0, 4] == pytest.approx(overlap[:, 2].mean(), abs=0.25)
        assert info[0, 5] == pytest.approx(-overlap[:, 1].mean(), abs=0.25)


def test_what_has_no_error_is_said_or_infinite():
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        transformation_error(np.eye(4), np.eye(4), np.ones((5, 6)))
    with pytest.raises(ValueError, match=r"Info\[0, 0\] > 0"):
        transformation_error(np.eye(4), np.eye(4), np.zeros((6, 6)))
    mirrored, flat, tripled = (
        np.diag(d) for d in ([1.0, 1, -1, 1], [1.0, 1, 0, 1], [3.0, 3, 3, 1])
    )
    for wrong in (np.full((4, 4), np.nan), np.zeros((4, 4)), mirrored, flat, tripled):
        assert transformation_error(wrong, np.eye(4), np.eye(6)) == math.inf
        with pytest.raises(InputError, match="expected a rigid motion as the truth"):
            transformation_error(np.eye(4), wrong, np.eye(6))


# ---- the recall


@pytest.fixture
def pairs(tmp_path):
    """Scene a: (0, 1), (0, 2), (0, 3), (1, 3); scene b: (0, 2). All of one cloud in random poses."""
    rng = np.random.default_rng(0)
    cloud = rng.random((60, 3)) * 4
    poses = [pose(rng.normal(size=3), rng.normal(size=3)) for _ in range(4)]
    files = []
    for k, frame in enumerate(poses):
        world_to_frame = np.linalg.inv(frame)
        files.append(tmp_path / f"cloud_bin_{k}.npz")
        np.savez(files[-1], pcd=cloud @ world_to_frame[:3, :3].T + world_to_frame[:3, 3])

    def pair(scene, i, j):
        transform = np.linalg.inv(poses[i]) @ poses[j]
        return FragmentPair(scene, files[j], files[i], transform, 1.0, 60 * np.eye(6), i, j)

    return {
        "a": [pair("a", *ij) for ij in ((0, 1), (0, 2), (0, 3), (1, 3))],
        "b": [pair("b", 0, 2)],
    }


def pairwise_distances(points, viewpoint=None):
    """Features that do not depend on the pose: the sorted distances to the other points."""
    return np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 1:9]


def kabsch(source, target, matches, mutual, seed):
    a, b = source.points[matches[:, 0]], target.points[matches[:, 1]]
    rotation, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = b.mean(0) - matrix[:3, :3] @ a.mean(0)
    return matrix


@pytest.mark.parametrize("rotate", [False, True])
def test_exact_poses_give_a_recall_of_one(pairs, rotate):
    result = evaluate_matching(pairs, pairwise_distances, 1e-4, register=kabsch, rotate=rotate)
    assert result.IR == 1 and result.RR == 1
    assert max(p.registration_error for p in result.pairs if p.j - p.i > 1) < 1e-12


def test_only_pairs_that_are_not_neighbours_count_and_the_first_pair_does(pairs):
    a, b = pairs["a"], pairs["b"]
    assert [counts_for_recall(pair) for pair in a] == [False, True, True, True]
    result = evaluate_matching({"a": a[1:], "b": b}, pairwise_distances, 1e-4, register=kabsch)
    assert result.per_scene()["a"]["n_pairs_RR"] == 3 and result.per_scene()["b"]["n_pairs_RR"] == 1
    result = evaluate_matching(pairs, pairwise_distances, 1e-4, register=kabsch)
    assert [pair.registered for pair in result.pairs] == [None, True, True, True, True]


def test_the_recall_is_a_mean_over_scenes_of_poses_within_20_cm(pairs):
    """Off by 0.19 m, by 0.21 m, and none found in scene a; exact in scene b: (1/3 + 1) / 2."""
    shifts = iter([0.19, 0.21, None, 0.0])

    def register(source, target, matches, mutual, seed):
        shift = next(shifts)
        if shift is None:
            return None
        return kabsch(source, target, matches, mutual, seed) @ pose(translation=[shift, 0, 0])

    result = evaluate_matching(pairs, pairwise_distances, 1e-4, register=register)
    assert result.RR == pytest.approx((1 / 3 + 1) / 2)
    errors = [pair.registration_error for pair in result.pairs]
    assert errors[1:3] == pytest.approx([0.19**2, 0.21**2]) and errors[3] == math.inf
    row = result.to_json()["per_pair"][3]
    assert row["registered"] is False and row["registration_error"] is None


def test_a_register_that_mirrors_has_found_nothing_and_one_of_another_shape_is_refused(pairs):
    def mirrored(*given):
        return kabsch(*given) @ np.diag([1.0, 1, -1, 1])

    result = evaluate_matching(pairs, pairwise_distances, 1e-4, register=mirrored)
    assert result.RR == 0 and result.pairs[1].registration_error == math.inf
    with pytest.raises(InputError, match=r"register: a transform of \(3, 4\), expected \(4, 4\)"):
        evaluate_matching(
            pairs, pairwise_distances, 1e-4, register=lambda *given: kabsch(*given)[:3]
        )


def test_true_poses_of_real_scenes_are_found(dataset):
    for listed in threedmatch.test_pairs(dataset("threedmatch_test")).values():
        for pair in listed:
            assert transformation_error(pair.transform, pair.transform, pair.information) < 1e-10


def test_a_missing_information_matrix_is_said(pairs):
    pairs = {"a": [replace(pairs["a"][1], information=None)]}
    with pytest.raises(ValueError, match="gt.info.*the first is 0 2"):
        evaluate_matching(pairs, pairwise_distances, 1e-4, register=kabsch)


# ---- Open3D


def test_without_open3d_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[open3d\]"):
        RansacRegister()
    with pytest.raises(ValueError, match=r"FPFH.*pip install .*\[open3d\]"):
        fpfh_descriptor(np.zeros((5, 3)), 0.05)


@pytest.fixture
def open3d():
    return pytest.importorskip(
        "open3d", reason="the extra open3d is not installed", exc_type=ImportError
    )


def test_ransac_finds_the_pose_among_wrong_matches(open3d):
    rng = np.random.default_rng(0)
    points0 = rng.random((400, 3)) * 3
    truth = pose([0.3, 0.8, -0.5], [1, -2, 0.5])
    points1 = points0 @ truth[:3, :3].T + truth[:3, 3] + rng.normal(scale=0.005, size=(400, 3))
    matches = np.stack([np.arange(400)] * 2, 1)
    matches[100:, 1] = rng.integers(0, 400, 300)
    source, target = (
        Fragment(points, np.zeros((400, 1)), np.eye(4)) for points in (points0, points1)
    )
    estimate = RansacRegister()(source, target, matches, seed=[1])
    assert transformation_error(estimate, truth, information_of(points1)) < 0.02**2
    assert RansacRegister()(source, target, matches[:2]) is None


def test_fpfh_has_33_channels_and_ignores_the_pose(open3d, dataset):
    pair = next(iter(threedmatch.test_pairs(dataset("threedmatch_test")).values()))[0]
    points = load_fragment(pair.target)[::20]
    rotation = Rotation.from_rotvec([0.4, -1, 2]).as_matrix()
    features = fpfh_descriptor(points, 0.1)
    turned = fpfh_descriptor(points @ rotation.T, 0.1)
    assert features.shape == (len(points), 33) and features.dtype == np.float32
    assert np.median(np.abs(features - turned).max(1)) < 1
    unsided = fpfh_descriptor(points @ rotation.T, 0.1, viewpoint=None)
    assert np.median(np.abs(features - unsided).max(1)) > 5
