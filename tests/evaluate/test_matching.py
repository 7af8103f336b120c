"""Matching evaluation: neighbours, inlier ratio, feature-match recall."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError
from sparsefeat.evaluate import FragmentDescriber, evaluate_matching, inlier_ratio
from sparsefeat.evaluate.matching import TAU1_CURVE, TAU2_CURVE
from sparsefeat.extract import FeatureExtractor
from sparsefeat.match.nearest import is_mutual, nearest_both_ways, nearest_neighbours

# ---- nearest neighbours


def brute_force(f0, f1):
    distances = ((f0[:, None].astype(np.float64) - f1[None].astype(np.float64)) ** 2).sum(-1)
    return distances.argmin(1)


@pytest.mark.parametrize("block", [11, 64, 4096])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 200.0])
def test_blocked_neighbours_equal_brute_force(block, scale):
    rng = np.random.default_rng(0)
    f0 = (scale * rng.random((90, 33))).astype(np.float32)
    f1 = (scale * rng.random((70, 33))).astype(np.float32)
    assert (nearest_neighbours(f0, f1, block) == brute_force(f0, f1)).all()
    forward, backward = nearest_both_ways(f0, f1, block)
    assert (forward == brute_force(f0, f1)).all()
    assert (backward == brute_force(f1, f0)).all()


@pytest.mark.parametrize("block", [5, 64, 2048])
def test_of_equally_near_features_the_lowest_row_is_taken(block):
    rng = np.random.default_rng(1)
    f1 = np.tile(rng.normal(size=(37, 32)).astype(np.float32), (5, 1))
    f0 = f1[37:90] + np.float32(1e-4)
    assert (nearest_neighbours(f0, f1, block) == brute_force(f0, f1[:37])).all()
    zeros = np.zeros((11, 4), np.float32)
    forward, backward = nearest_both_ways(zeros, zeros[:7], block)
    assert (forward == 0).all() and (backward == 0).all()


def test_neighbours_take_tensors_and_float64():
    f = torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (nearest_neighbours(f, f.flip(0)) == np.arange(20)[::-1]).all()


def test_neighbours_refuse_what_has_no_answer():
    f = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\)"):
        nearest_neighbours(f, np.ones((3, 5), np.float32))
    with pytest.raises(ValueError, match="no features on the second side"):
        nearest_neighbours(f, f[:0])
    with pytest.raises(ValueError, match=r"second features are not finite \(row 2\)"):
        nearest_neighbours(f, np.array([[0] * 4, [1] * 4, [np.nan] * 4]))
    assert len(nearest_neighbours(f[:0], f)) == 0


def test_mutual_matches_are_neighbours_both_ways():
    f0 = np.array([[0.0], [1.0], [1.2]])
    f1 = np.array([[0.1], [1.15]])
    forward, backward = nearest_both_ways(f0, f1)
    assert forward.tolist() == [0, 1, 1]
    assert backward.tolist() == [0, 2]
    assert is_mutual(forward, backward).tolist() == [True, False, True]


# ---- hand-computed cases


def test_inlier_ratio_counts_matches_strictly_closer_than_tau1():
    p0 = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    transform = np.eye(4)
    transform[:3, 3] = [0, 5, 0]
    p1 = p0 + [0, 5, 0]
    p1[:, 2] += [0, 0.0625, 0.125, 0.5]
    matches = np.stack([np.arange(4)] * 2, 1)
    assert inlier_ratio(p0, p1, matches, transform, tau1=0.125) == 0.5
    assert inlier_ratio(p0, p1, matches, transform, tau1=0.126) == 0.75
    assert inlier_ratio(p0, p1, np.empty((0, 2), int), transform) == 0.0


def write_fragment(folder, name, points):
    path = folder / f"{name}.npz"
    np.savez(path, pcd=points)
    return path


def make_pair(folder, scene, index, wrong, points=20, transform=None):
    """A pair of ``points`` matches of which ``wrong`` are off by 0.5 m; coordinates serve as features."""
    source = np.stack([10.0 * np.arange(points), np.zeros(points), np.zeros(points)], 1) + 0.5
    target = source.copy()
    target[:wrong, 2] += 0.5
    a = write_fragment(folder, f"{scene}_{index}_source", source)
    b = write_fragment(folder, f"{scene}_{index}_target", target)
    pose = np.eye(4) if transform is None else transform
    return FragmentPair(
        scene, a, b, pose, 1.0, np.diag([points] * 3 + [points] * 3).astype(float), 0, index
    )


@pytest.fixture
def two_scenes(tmp_path):
    """Inlier shares 1, 0.5, 0.05 in scene a and 0 in scene b."""
    wrong = {"a": [0, 10, 19], "b": [20]}
    return {
        s: [make_pair(tmp_path, s, k + 2, w) for k, w in enumerate(ws)] for s, ws in wrong.items()
    }


def coordinates(points, viewpoint=None):
    return points


def test_means_are_over_pairs_of_a_scene_and_then_over_scenes(two_scenes):
    result = evaluate_matching(two_scenes, coordinates, voxel_size=0.05)
    a, b = result.per_scene()["a"], result.per_scene()["b"]
    # A share of exactly tau2 does not exceed it: the third pair of scene a is not recalled.
    assert a["FMR"] == pytest.approx(2 / 3) and a["IR"] == pytest.approx(1.55 / 3)
    assert b["FMR"] == 0 and b["IR"] == 0
    assert result.FMR == pytest.approx(1 / 3) and result.IR == pytest.approx(1.55 / 6)
    assert result.summary("FMR").sd == pytest.approx(1 / 3)
    assert result.FMR_mutual == result.FMR and result.IR_mutual == result.IR
    assert result.RR is None


def test_the_share_must_exceed_tau2(two_scenes):
    assert evaluate_matching(two_scenes, coordinates, 0.05, tau2=0.049).per_scene()["a"]["FMR"] == 1


def test_wrong_nearest_neighbours_drop_out_of_the_mutual_column(tmp_path):
    source = np.array([[0.0, 0, 0], [10, 0, 0], [20, 0, 0]])
    target = source[:2]
    pair = FragmentPair(
        "s",
        write_fragment(tmp_path, "a", source),
        write_fragment(tmp_path, "b", target),
        np.eye(4),
        i=0,
        j=1,
    )
    result = evaluate_matching({"s": [pair]}, coordinates, 0.1)
    assert result.IR == pytest.approx(2 / 3) and result.IR_mutual == 1
    assert result.pairs[0].nearest.count == 3 and result.pairs[0].mutual.count == 2


def test_curves_pass_through_the_reported_numbers_and_are_monotone(two_scenes):
    result = evaluate_matching(two_scenes, coordinates, 0.05)
    over1, over2 = result.curve_over_tau1(), result.curve_over_tau2()
    at = int(np.flatnonzero(TAU1_CURVE == 0.10)[0])
    assert over1["FMR"][at] == result.FMR and over1["IR"][at] == pytest.approx(result.IR)
    at = int(np.flatnonzero(TAU2_CURVE == 0.05)[0])
    assert over2["FMR"][at] == result.FMR
    assert (np.diff(over1["IR"]) >= 0).all() and (np.diff(over2["FMR"]) <= 0).all()


def test_json_is_plain_and_complete(two_scenes):
    result = evaluate_matching(two_scenes, coordinates, 0.05)
    report = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {"FMR", "IR", "FMR_mutual", "IR_mutual", "RR", "n_pairs", "scenes", "settings"} <= set(
        report
    )
    assert report["n_pairs"] == 4 and report["scenes"]["a"]["n_pairs"] == 3
    assert (
        report["per_pair"][1] | {"scene": "a", "inliers": 10, "matches": 20}
        == report["per_pair"][1]
    )


# ---- key points


def test_every_descriptor_is_given_the_same_key_points(tmp_path):
    rng = np.random.default_rng(3)
    path = write_fragment(tmp_path, "cloud", rng.random((4000, 3)))
    first = FragmentDescriber(coordinates, 0.05, points=100, seed=5)("s", path)
    second = FragmentDescriber(lambda p, viewpoint: np.ones((len(p), 7)), 0.05, points=100, seed=5)(
        "s", path
    )
    assert (first.points == second.points).all() and len(first.points) == 100
    assert (first.features == first.points.astype(np.float32)).all()
    other = FragmentDescriber(coordinates, 0.05, points=100, seed=6)("s", path)
    assert not (first.points == other.points).all()


def test_salient_key_points_lie_where_the_surface_is_curved(tmp_path):
    rng = np.random.default_rng(3)
    flat = np.concatenate([rng.uniform(0, 4, (4000, 2)), np.zeros((4000, 1))], 1)
    lump = rng.normal(size=(400, 3)) * 0.1 + [2, 2, 0.5]
    path = write_fragment(tmp_path, "cloud", np.concatenate([flat, lump]))
    evenly, salient = (
        FragmentDescriber(coordinates, 0.05, points=100, salient=salient)("s", path)
        for salient in (False, True)
    )
    assert (evenly.points[:, 2] > 0.1).mean() < 0.3
    assert (salient.points[:, 2] > 0.1).mean() > 0.8
    assert len(np.unique(salient.points, axis=0)) == 100


class Recorder(FeatureExtractor):
    """An extractor that keeps what it is given."""

    def __init__(self):
        self.given = {}

    def __call__(self, points, interpolation="nearest", **given):
        self.given = given
        return np.ones((len(points), 2))


@pytest.mark.parametrize("bound", [False, True])
def test_an_extractor_is_told_the_viewpoint_of_the_layout_and_not_asked_to_judge_it(
    tmp_path, bound
):
    points = np.random.default_rng(0).random((50, 3)) + 1
    path = tmp_path / "cloud.npz"
    np.savez(path, pcd=points, viewpoint=np.zeros(3))
    extractor = Recorder()
    describe = partial(extractor, interpolation="trilinear", views=2) if bound else extractor
    FragmentDescriber(describe, 1e-4)("s", path)
    np.testing.assert_array_equal(extractor.given["normals"], -points)
    assert "viewpoint" not in extractor.given


def test_a_viewpoint_that_is_unknown_or_wrong_is_what_a_user_would_give(tmp_path):
    points = np.random.default_rng(0).random((50, 3)) + 1
    paths = [tmp_path / f"{name}.npz" for name in "ab"]
    for path in paths:
        np.savez(path, pcd=points, viewpoint=np.array([1.0, 0.0, 0.0]))
    extractor = Recorder()
    FragmentDescriber(extractor, 1e-4, orientation="unknown")("s", paths[0])
    assert extractor.given == {"viewpoint": None}
    wrong = []
    for path in paths:
        FragmentDescriber(extractor, 1e-4, orientation="wrong")("s", path)
        assert list(extractor.given) == ["viewpoint"]
        wrong.append(extractor.given["viewpoint"])
        assert np.linalg.norm(wrong[-1] - (1, 0, 0)) == pytest.approx(3)
    assert np.linalg.norm(wrong[0] - wrong[1]) > 0.1
    np.savez(tmp_path / "c.npz", pcd=points)
    with pytest.raises(InputError, match="no viewpoint"):
        FragmentDescriber(extractor, 1e-4, orientation="wrong")("s", tmp_path / "c.npz")
    with pytest.raises(InputError, match="orientation 'turned', expected given, unknown, wrong"):
        FragmentDescriber(extractor, 1e-4, orientation="turned")


def test_a_fragment_keeps_the_first_point_of_every_voxel(tmp_path):
    points = np.array([[0.01, 0, 0], [0.04, 0, 0], [-0.01, 0, 0], [0.06, 0, 0], [0.02, 0, 0]])
    fragment = FragmentDescriber(coordinates, 0.05)("s", write_fragment(tmp_path, "cloud", points))
    assert (fragment.points == points[[0, 2, 3]]).all()


def test_each_fragment_is_described_once(tmp_path):
    rng = np.random.default_rng(0)
    files = [write_fragment(tmp_path, f"c{k}", rng.random((50, 3))) for k in range(3)]
    pairs = [
        FragmentPair("s", files[j], files[i], np.eye(4), i=i, j=j)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    calls = []
    evaluate_matching({"s": pairs}, lambda p, viewpoint: (calls.append(len(p)), p)[1], 0.01)
    assert len(calls) == 3


def test_the_cache_of_fragments_is_bounded(tmp_path):
    rng = np.random.default_rng(0)
    files = [write_fragment(tmp_path, f"c{k}", rng.random((50, 3))) for k in range(6)]
    describer = FragmentDescriber(coordinates, 0.01, cache_bytes=1)
    for path in files:
        describer("s", path)
    assert len(describer._cache) == 2


def test_rotations_are_seeded_differ_between_fragments_and_reach_the_descriptor(tmp_path):
    points = 3 * np.random.default_rng(0).random((40, 3))
    files = [write_fragment(tmp_path, name, points) for name in ("a", "b")]
    a, b = (FragmentDescriber(coordinates, 0.01, rotate=True)("s", f) for f in files)
    again = FragmentDescriber(coordinates, 0.01, rotate=True)("s", files[0])
    assert (a.rotation == again.rotation).all() and not np.allclose(a.rotation, b.rotation)
    assert np.allclose(a.points, points @ a.rotation[:3, :3].T)
    assert np.isclose(np.linalg.det(a.rotation), 1)


def test_the_ground_truth_follows_the_rotations(tmp_path):
    rng = np.random.default_rng(2)
    points = np.stack([np.arange(1, 41) * 0.5, *rng.random((2, 40))], 1)
    transform = np.eye(4)
    transform[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    a = write_fragment(tmp_path, "a", points)
    b = write_fragment(tmp_path, "b", points @ transform[:3, :3].T)
    pair = FragmentPair("s", a, b, transform, i=0, j=1)
    # The distance from the origin is the same in every pose.
    result = evaluate_matching(
        {"s": [pair]}, lambda p, viewpoint: np.linalg.norm(p, axis=1)[:, None], 0.01, rotate=True
    )
    assert result.IR == 1 and result.FMR == 1


# ---- real scenes


def some_pairs(root, step=80):
    pairs = threedmatch.test_pairs(root)
    return {scene: listed[::step] for scene, listed in pairs.items()}


def in_target_frame(pair):
    """A descriptor of one pair: where a point lies in the target's frame under the ground truth."""
    source = load_fragment(pair.source)

    def describe(points, viewpoint=None):
        if len(points) <= len(source) and (points[0] == source[0]).all():
            return points @ pair.transform[:3, :3].T + pair.transform[:3, 3]
        return points

    return describe


def test_ground_truth_features_recall_every_real_pair_up_to_its_overlap(dataset):
    """True positions as features: all pairs are recalled, the inlier ratio is what the geometry allows."""
    for scene, listed in some_pairs(dataset("threedmatch_test")).items():
        for pair in listed:
            describe = in_target_frame(pair)
            result = evaluate_matching({scene: [pair]}, describe, 0.05, points=2000)
            describer = FragmentDescriber(describe, 0.05, points=2000)
            source, target = describer(scene, pair.source), describer(scene, pair.target)
            nearest = cKDTree(target.features).query(source.features)[0]
            assert result.FMR == 1
            assert result.IR == pytest.approx((nearest < 0.1).mean(), abs=1e-3)


def test_ground_truth_features_give_one_within_the_overlap(dataset, tmp_path):
    for scene, listed in some_pairs(dataset("threedmatch_test"), step=150).items():
        for pair in listed:
            source, target = load_fragment(pair.source), load_fragment(pair.target)
            moved = source @ pair.transform[:3, :3].T + pair.transform[:3, 3]
            near = cKDTree(target).query(moved)[0] < 0.03
            # A metre around a point of the overlap is enough, and keeps the test small.
            centre = moved[near][0]
            near &= np.linalg.norm(moved - centre, axis=1) < 1.0
            far = np.linalg.norm(target - centre, axis=1) < 1.1
            a = write_fragment(tmp_path, f"{scene}{pair.j}", source[near])
            b = write_fragment(tmp_path, f"{scene}{pair.i}", target[far])
            cropped = FragmentPair(scene, a, b, pair.transform, i=pair.i, j=pair.j)
            # A neighbour within 3 cm, and its voxel's point at most a diagonal of 4.3 cm away from it.
            result = evaluate_matching(
                {scene: [cropped]}, in_target_frame(cropped), 0.025, points=None
            )
            assert result.IR == 1 and result.FMR == 1


def test_random_features_give_what_chance_gives(dataset):
    """A match to a random point is an inlier with the share of point pairs that lie within tau1."""
    rng = np.random.default_rng(0)
    pairs = some_pairs(dataset("threedmatch_test"), step=80)

    def describe(points, viewpoint=None):
        return rng.normal(size=(len(points), 32)).astype(np.float32)

    result = evaluate_matching(pairs, describe, 0.05, points=2000)
    chance, matches = [], 0
    for scene, listed in pairs.items():
        describer = FragmentDescriber(describe, 0.05, points=2000)
        shares = []
        for pair in listed:
            source, target = describer(scene, pair.source), describer(scene, pair.target)
            moved = source.points @ pair.transform[:3, :3].T + pair.transform[:3, 3]
            within = cKDTree(moved).count_neighbors(cKDTree(target.points), 0.1)
            shares.append(within / (len(moved) * len(target.points)))
            matches += len(moved)
        chance.append(np.mean(shares))
    expected = np.mean(chance)
    # Hubs, points that are near to many in feature space, make the count vary more than a binomial's.
    assert abs(result.IR - expected) < 6 * np.sqrt(expected / matches) * 2
    assert expected < 0.02 and result.FMR == 0


# ---- wrong input


def test_what_cannot_be_evaluated_is_said(two_scenes, tmp_path):
    with pytest.raises(ValueError, match="no pairs"):
        evaluate_matching({"a": []}, coordinates, 0.05)
    with pytest.raises(ValueError, match="tau1"):
        evaluate_matching(two_scenes, coordinates, 0.05, tau1=0)
    with pytest.raises(ValueError, match="tau2"):
        evaluate_matching(two_scenes, coordinates, 0.05, tau2=1.0)
    with pytest.raises(ValueError, match="seed -1, expected a whole number of at least 0"):
        evaluate_matching(two_scenes, coordinates, 0.05, seed=-1)
    with pytest.raises(ValueError, match="voxel_size"):
        evaluate_matching(two_scenes, coordinates, 0.0)
    with pytest.raises(
        ValueError, match=r"a_2_source.npz: the descriptor returned shape \(19, 3\)"
    ):
        evaluate_matching(two_scenes, lambda p, viewpoint: p[1:], 0.05)
    with pytest.raises(
        ValueError, match=r"a_2_source.npz: the descriptor of point 0 .* not finite"
    ):
        evaluate_matching(two_scenes, lambda p, viewpoint: p * np.nan, 0.05)


def test_a_dense_descriptor_sees_all_points_and_keeps_the_same_key_points(tmp_path):
    points = np.random.default_rng(4).random((3000, 3))
    path = write_fragment(tmp_path, "cloud", points)
    seen = []

    def describe(given, viewpoint=None):
        seen.append(len(given))
        return given

    thin = FragmentDescriber(describe, 0.1, points=200)("s", path)
    dense = FragmentDescriber(describe, 0.1, points=200, dense=True)("s", path)
    assert seen[0] < seen[1] == 3000
    assert np.array_equal(dense.points, thin.points)
    np.testing.assert_allclose(dense.features, dense.points, atol=1e-6)


def test_descriptors_far_from_the_origin_are_told_apart():
    features = np.random.default_rng(0).normal(size=(200, 3)) + 1e6
    assert nearest_neighbours(features, features).tolist() == list(range(200))


def test_a_row_of_large_norm_does_not_make_the_others_equal():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(200, 8))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    others = np.concatenate([f + 1e-3 * rng.normal(size=f.shape), np.full((1, 8), 1e6)])
    assert (nearest_neighbours(f, others) == np.arange(200)).all()
    assert (nearest_both_ways(f, others)[1][:200] == np.arange(200)).all()
    # The far row is nobody's neighbour, and ties are ties all the same.
    assert (nearest_neighbours(others[:200], np.concatenate([others, f, f])) <= 400).all()
