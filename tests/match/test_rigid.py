"""Poses from matches: exact under noise and outliers, refused where nothing fixes them, the same
in any frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sparsefeat.errors import InputError
from sparsefeat.match.estimate import PoseEstimator, inlier_mask
from sparsefeat.match.refine import refine_pose
from sparsefeat.match.rigid import SpatialCompatibility, compatible, kabsch


def pose(rotation_vector=(0, 0, 0), translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def apply(transform, points):
    return points @ transform[:3, :3].T + transform[:3, 3]


TRUTH = pose([0.3, 0.8, -0.5], [1, -2, 0.5])


def matched(right, wrong, noise, seed=0):
    """Matched points, the first ``right`` of them related by TRUTH."""
    rng = np.random.default_rng(seed)
    source = rng.uniform(-2, 2, (right + wrong, 3))
    target = apply(TRUTH, source) + rng.normal(scale=noise, size=source.shape)
    target[right:] = apply(TRUTH, rng.uniform(-2, 2, (wrong, 3)))
    return torch.from_numpy(source), torch.from_numpy(target)


def off(transform, truth=TRUTH):
    """Degrees and metres between two poses."""
    difference = np.linalg.inv(truth) @ np.asarray(transform)
    return np.degrees(Rotation.from_matrix(difference[:3, :3]).magnitude()), np.linalg.norm(
        difference[:3, 3]
    )


def test_exact_matches_give_the_exact_pose():
    poses, support = SpatialCompatibility()(*matched(100, 0, 0))
    assert off(poses[0])[0] < 1e-6 and off(poses[0])[1] < 1e-9
    assert support[0] == pytest.approx(100)


@pytest.mark.parametrize("seed", range(3))
def test_ninety_percent_of_wrong_matches_and_noise_are_survived(seed):
    poses, _ = SpatialCompatibility()(*matched(50, 450, 0.02, seed))
    degrees, metres = off(poses[0])
    assert degrees < 0.5 and metres < 0.02


def test_compatibility_does_not_depend_on_where_the_origin_is():
    """Coordinates of map projections, of more matches than those whose distances are exact anyway."""
    source, target = matched(30, 30, 0.01)
    away = torch.tensor([5e5, 5.4e6, 300.0], dtype=torch.float64)
    near = compatible(source, target, 0.1)
    torch.testing.assert_close(
        compatible(source + away, target - away, 0.1), near, atol=1e-5, rtol=0
    )


def test_kabsch_weighs_and_never_mirrors():
    source, target = matched(4, 1, 0)
    weights = torch.tensor([1.0, 1, 1, 1, 0]).double()
    np.testing.assert_allclose(
        kabsch(source[None], target[None], weights[None])[0], TRUTH, atol=1e-12
    )
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()
    mirrored = flat * torch.tensor([1.0, 1, -1])
    assert (
        torch.linalg.det(kabsch(flat[None], mirrored[None], torch.ones(1, 4).double())[0, :3, :3])
        > 0
    )


def test_three_matches_are_enough_and_two_are_not():
    source, target = matched(3, 0, 0)
    poses, support = SpatialCompatibility()(source, target)
    assert len(poses) == 1 and off(poses[0])[1] < 1e-9 and support[0] == pytest.approx(3)
    for count in (0, 1, 2):
        poses, support = SpatialCompatibility()(source[:count], target[:count])
        assert poses.shape == (0, 4, 4) and support.shape == (0,)


def test_matches_on_a_line_or_in_a_point_fix_no_pose():
    line = torch.linspace(-2, 2, 50).double()[:, None] * torch.tensor([1.0, 2, 0.5]).double()
    assert len(SpatialCompatibility()(line, torch.from_numpy(apply(TRUTH, line.numpy())))[0]) == 0
    point = torch.ones(50, 3).double()
    assert len(SpatialCompatibility()(point, point)[0]) == 0


def test_what_does_not_fit_is_refused():
    source, target = matched(10, 0, 0)
    with pytest.raises(InputError, match=r"\(10, 3\) and \(9, 3\)"):
        SpatialCompatibility()(source, target[:9])
    with pytest.raises(InputError, match="NaN"):
        SpatialCompatibility()(source, target * torch.nan)
    with pytest.raises(InputError, match="distance 0, expected a positive number"):
        SpatialCompatibility(0)
    with pytest.raises(InputError, match="keep 2.5, expected a whole number"):
        SpatialCompatibility(keep=2.5)


def test_the_same_input_gives_the_same_bits():
    source, target = matched(40, 200, 0.01)
    first, second = (SpatialCompatibility()(source, target) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_turning_either_side_turns_the_pose():
    source, target = matched(40, 200, 0.01)
    plain = SpatialCompatibility()(source, target)[0][0].numpy()
    turn = pose([1, -2, 0.3], [3, 1, -1])
    moved = torch.from_numpy(apply(turn, source.numpy()))
    np.testing.assert_allclose(
        SpatialCompatibility()(moved, target)[0][0], plain @ np.linalg.inv(turn), atol=1e-5
    )
    moved = torch.from_numpy(apply(turn, target.numpy()))
    np.testing.assert_allclose(SpatialCompatibility()(source, moved)[0][0], turn @ plain, atol=1e-5)


# ---- with surfaces and features


def corner(count, seed):
    """Points of three walls of different length that meet, and their normals as features."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 3)) * [3, 2, 1]
    wall = np.arange(count) % 3
    points[np.arange(count), wall] = 0
    return points, np.eye(3)[wall].astype(np.float32)


def estimate(right, wrong, points=3000):
    source, features = corner(points, 0)
    target = apply(TRUTH, source)
    rng = np.random.default_rng(1)
    rows = rng.permutation(points)[: right + wrong]
    matches = np.stack([rows, rows], 1)
    matches[right:, 1] = rng.integers(0, points, wrong)
    return PoseEstimator(0.1)(source, features, target, features, matches), source, target, matches


def test_the_estimate_says_how_well_everything_agrees():
    result, source, target, matches = estimate(60, 300)
    degrees, metres = off(result.best)
    assert degrees < 0.1 and metres < 0.005
    assert result.statistics["overlap"][0] == 1 and result.statistics["close_overlap"][0] == 1
    inliers = inlier_mask(result.best, source, target, matches, 0.1)
    assert inliers[:60].all() and result.statistics["inliers"][0] == inliers.sum()
    assert (np.diff(result.scores) <= 0).all()


def test_a_match_that_is_given_twice_counts_once():
    _, source, target, matches = estimate(60, 300)
    features = np.ones((len(source), 1), dtype=np.float32)
    once = PoseEstimator(0.1)(source, features, target, features, matches)
    twice = PoseEstimator(0.1)(
        source, features, target, features, np.concatenate([matches, matches])
    )
    np.testing.assert_array_equal(once.transforms, twice.transforms)
    np.testing.assert_array_equal(once.statistics["inliers"], twice.statistics["inliers"])


def test_no_matches_give_no_hypothesis_and_wrong_rows_are_refused():
    points, features = corner(30, 0)
    empty = PoseEstimator(0.1)(points, features, points, features, np.zeros((0, 2)))
    assert len(empty) == 0 and empty.best is None
    with pytest.raises(InputError, match="beyond the 30 points of side 1"):
        PoseEstimator(0.1)(points, features, points, features, np.array([[0, 30]]))
    with pytest.raises(InputError, match="distance"):
        PoseEstimator(0.0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"points1": np.full((30, 3), np.nan)}, "points1: row 0 is not finite"),
        ({"points0": np.zeros((30, 2))}, r"points0: \(30, 2\)"),
        ({"features0": np.zeros((29, 3))}, r"features0: \(29, 3\) .* expected numbers \(30, C\)"),
        ({"features1": np.zeros((30, 4))}, "3 and 4 channels"),
        ({"features1": np.full((30, 3), np.nan)}, "features1: row 0 is not finite"),
        ({"matches": np.array([[0.7, 1.0]])}, "of float64, expected whole numbers"),
        ({"matches": np.zeros((4, 3), int)}, r"matches: \(4, 3\)"),
        ({"matches": [[0, 1], [2]]}, "matches: list that is no array"),
    ],
)
def test_what_the_estimate_cannot_use_is_named(change, line):
    points, features = corner(30, 0)
    given = {"points0": points, "features0": features, "points1": points, "features1": features}
    with pytest.raises(InputError, match=line):
        PoseEstimator(0.1)(**{**given, "matches": np.zeros((1, 2), int), **change})
    with pytest.raises(InputError, match="hypotheses 2.5"):
        PoseEstimator(hypotheses=2.5)


def test_tensors_and_lists_give_the_estimate_of_arrays():
    _, source, target, matches = estimate(60, 300)
    features = corner(len(source), 0)[1]
    given = source, features, target, features, matches
    expected = PoseEstimator(0.1)(*given)
    for kind in (torch.from_numpy, np.ndarray.tolist):
        found = PoseEstimator(0.1)(*map(kind, given))
        np.testing.assert_allclose(found.best, expected.best, atol=1e-6)


def test_refinement_brings_surfaces_together_and_leaves_what_slides():
    source, _ = corner(3000, 0)
    target = apply(TRUTH, corner(3000, 1)[0])
    near = TRUTH @ pose([0.02, -0.01, 0.02], [0.03, -0.02, 0.03])
    assert off(near)[1] > 0.04
    degrees, metres = off(refine_pose(near, source, target, 0.15))
    assert degrees < 0.2 and metres < 0.005
    plane = np.random.default_rng(0).uniform(0, 1, (3000, 3)) * [3, 2, 0]
    np.testing.assert_array_equal(refine_pose(near, plane, apply(TRUTH, plane), 0.15), near)


def test_matches_hold_what_surfaces_leave_open():
    plane = np.random.default_rng(0).uniform(0, 1, (3000, 3)) * [3, 2, 0]
    near = TRUTH @ pose([0.01, -0.01, 0.02], [0.03, -0.02, 0.03])
    target = apply(TRUTH, plane)
    rows = np.arange(0, 3000, 100)
    wrong = np.concatenate([target[rows[:20]], target[rows[20:]] + [0, 0, 1.0]])
    degrees, metres = off(refine_pose(near, plane, target, 0.15, (plane[rows], wrong)))
    assert degrees < 0.02 and metres < 1e-3


def test_few_matches_do_not_spoil_what_surfaces_say():
    source, _ = corner(3000, 0)
    target = apply(TRUTH, corner(3000, 1)[0])
    near = TRUTH @ pose([0.02, -0.01, 0.02], [0.03, -0.02, 0.03])
    rows = np.arange(30)
    rough = apply(TRUTH, source[rows]) + np.random.default_rng(2).normal(scale=0.03, size=(30, 3))
    degrees, metres = off(refine_pose(near, source, target, 0.15, (source[rows], rough)))
    assert degrees < 0.2 and metres < 0.005
