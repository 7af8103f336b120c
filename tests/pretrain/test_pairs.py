"""Training pairs: samples, batches and their order have the properties that training relies on."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.utils.data import DataLoader

from sparsefeat.data import threedmatch
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.pretrain.augment import AugmentConfig, random_rotation
from sparsefeat.pretrain.matches import find_matches, nearest_matches
from sparsefeat.pretrain.pairs import PairDataset, collate_pairs, one_point_per_voxel
from sparsefeat.pretrain.sampling import PairRequest, PairSampler, select_pairs

VOXEL = 0.05


def corner(seed: int, count: int = 1000) -> np.ndarray:
    """Points on three walls that meet: (count, 3), metres."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1.5, (count, 3))
    points[np.arange(count), rng.integers(0, 3, count)] = 0
    return points + (1.0, 2.0, 3.0)


@pytest.fixture
def pairs(tmp_path) -> list[FragmentPair]:
    """Six pairs of four clouds of one corner, each stored in a frame of its own."""
    rng = np.random.default_rng(7)
    frames = []
    for k in range(4):
        frame = np.eye(4)
        frame[:3, :3], frame[:3, 3] = random_rotation(rng), rng.uniform(-1, 1, 3)
        frames.append(frame)
        np.savez(tmp_path / f"room_{k}.npz", pcd=corner(k) @ frame[:3, :3].T + frame[:3, 3])
    return [
        FragmentPair(
            "room",
            tmp_path / f"room_{j}.npz",
            tmp_path / f"room_{i}.npz",
            frames[i] @ np.linalg.inv(frames[j]),
            overlap=0.1 * (i + j),
            i=i,
            j=j,
        )
        for i, j in itertools.combinations(range(4), 2)
    ]


def tensors(sample) -> list[torch.Tensor]:
    clouds = (sample.source, sample.target)
    return [
        sample.matches,
        *(part for cloud in clouds for part in (cloud.points, cloud.coordinates, cloud.normal)),
    ]


def same_bits(one, other) -> bool:
    return torch.equal(one.transform, other.transform) and all(
        map(torch.equal, tensors(one), tensors(other))
    )


def cells(cloud) -> np.ndarray:
    """Voxels in the frame of the points. Shape: (V, 3)."""
    return (cloud.cells + torch.tensor(cloud.origin)).numpy()


# voxels and matches ---------------------------------------------------------------------------------------


def test_every_occupied_voxel_gives_one_of_its_points_and_rows_are_sorted():
    points = (corner(0) - 2).astype(np.float32)
    for rng in (None, np.random.default_rng(0)):
        cloud = one_point_per_voxel(points, VOXEL, rng)
        kept = cloud.points.numpy()
        assert kept.dtype == np.float32
        assert np.array_equal(
            cells(cloud), np.unique(np.floor(points.astype(np.float64) / VOXEL), axis=0)
        )
        if rng is not None:
            assert np.array_equal(cells(cloud), np.floor(kept.astype(np.float64) / VOXEL))
            assert {tuple(point) for point in kept} <= {tuple(point) for point in points}


def test_which_point_of_a_voxel_is_kept_is_drawn_evenly():
    points = np.array([[0.01, 0, 0], [0.02, 0, 0], [0.03, 0, 0]], dtype=np.float32)
    rng = np.random.default_rng(0)
    drawn = [
        round(float(one_point_per_voxel(points, 0.05, rng).points[0, 0]) * 100) for _ in range(600)
    ]
    assert all(150 < drawn.count(k) < 250 for k in (1, 2, 3))


def test_clouds_in_the_wrong_unit_are_an_error_and_not_an_overflow():
    points = np.array([[0, 0, 0], [1e9, 1e9, 1e9]], dtype=np.float32)
    with pytest.raises(ValueError, match="are the coordinates in the unit of the voxel size"):
        one_point_per_voxel(points, 0.01)


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_all_pairs_within_the_radius_nearest_first(seed):
    rng = np.random.default_rng(seed)
    points0, points1 = (
        rng.random((300, 3)).astype(np.float32),
        rng.random((200, 3)).astype(np.float32) + 0.3,
    )
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = random_rotation(rng, 30), rng.uniform(-0.1, 0.1, 3)
    matches = find_matches(points0, points1, transform, 0.15)
    moved = points0.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]
    distance = np.linalg.norm(moved[:, None] - points1[None].astype(np.float64), axis=2)
    assert {tuple(match) for match in matches.tolist()} == {
        tuple(pair) for pair in np.argwhere(distance <= 0.15).tolist()
    }
    assert len(matches) == (distance <= 0.15).sum() > 0
    order = np.lexsort((distance[tuple(matches.T)], matches[:, 0]))
    assert np.array_equal(order, np.arange(len(matches)))
    nearest = nearest_matches(matches)
    rows = np.flatnonzero((distance <= 0.15).any(axis=1))
    assert np.array_equal(nearest, np.stack([rows, distance[rows].argmin(axis=1)], axis=1))
    assert torch.equal(nearest_matches(torch.from_numpy(matches)), torch.from_numpy(nearest))


def test_clouds_apart_have_no_matches():
    points = np.zeros((1, 3), dtype=np.float32)
    none = find_matches(points, points + 1, np.eye(4), 0.1)
    assert none.shape == (0, 2) and none.dtype == np.int64
    assert nearest_matches(none).shape == (0, 2) and nearest_matches(
        torch.from_numpy(none)
    ).shape == (0, 2)
    assert find_matches(points, points, np.eye(4), 0.1).tolist() == [[0, 0]]


# samples --------------------------------------------------------------------------------------------------


def test_the_true_motion_brings_matching_points_together(pairs):
    dataset = PairDataset(pairs, VOXEL, AugmentConfig())
    for k in range(len(pairs)):
        sample = dataset[PairRequest(k, seed=k)]
        rotation, shift = sample.transform[:3, :3].numpy(), sample.transform[:3, 3].numpy()
        source, target = sample.source.points.numpy(), sample.target.points.numpy()
        assert (
            np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(rotation) > 0
        )
        moved = source @ rotation.T + shift
        distance = np.linalg.norm(moved[:, None] - target[None], axis=2)
        assert len(sample.matches) == pytest.approx((distance <= 1.5 * VOXEL).sum(), abs=2)
        assert distance[tuple(sample.matches.T)].max() <= 1.5 * VOXEL + 1e-5
        assert (distance.min(axis=1) < 1.5 * VOXEL).mean() > 0.6
        for cloud in (sample.source, sample.target):
            assert np.array_equal(np.floor(cloud.points.double().numpy() / VOXEL), cells(cloud))
            assert np.array_equal(cells(cloud), np.unique(cells(cloud), axis=0))


def test_without_augmentation_only_the_two_rotations_are_drawn(pairs):
    sample = PairDataset(pairs, VOXEL)[PairRequest(0, 0, max_angle_deg=0.0)]
    expected = pairs[0].transform.copy()
    assert np.allclose(sample.transform[:3, :3], expected[:3, :3], atol=1e-9)


def test_the_same_request_gives_the_same_bits_and_another_seed_others(pairs):
    one, two = (
        PairDataset(pairs, VOXEL, AugmentConfig()),
        PairDataset(pairs, VOXEL, AugmentConfig(), cache_bytes=0),
    )
    for k in (3, 1):
        one[PairRequest(k, 99)]
    assert same_bits(one[PairRequest(2, 5)], two[PairRequest(2, 5)])
    assert same_bits(pickle.loads(pickle.dumps(one))[PairRequest(2, 5)], two[PairRequest(2, 5)])
    assert not same_bits(one[PairRequest(2, 5)], one[PairRequest(2, 6)])


def test_both_clouds_are_rotated_and_scaled_each_in_its_own_way_but_alike_in_size(pairs):
    extent = []
    for scale in ((0.5, 0.5), (2.0, 2.0)):
        config = AugmentConfig(scale, 0.0, 0.0, 0.0, 1.0, 0.0)
        sample = PairDataset(pairs, VOXEL, config)[PairRequest(0, 1)]
        extent.append(
            [np.ptp(cloud.points.numpy(), axis=0) for cloud in (sample.source, sample.target)]
        )
        assert np.isclose(np.linalg.det(sample.transform[:3, :3]), 1)
    assert np.allclose(np.array(extent[1]) / extent[0], 4, rtol=0.1)


def test_large_clouds_are_cut_where_they_overlap(pairs):
    whole = PairDataset(pairs, VOXEL)[PairRequest(0, 1)]
    small = PairDataset(pairs, VOXEL, max_voxels=100)[PairRequest(0, 1)]
    assert len(whole.source) > 100 and len(small.source) == len(small.target) == 100
    assert len(small.matches) > 100
    assert np.array_equal(
        small.matches,
        find_matches(
            small.source.points.numpy(),
            small.target.points.numpy(),
            small.transform.numpy(),
            1.5 * VOXEL,
        ),
    )
    assert np.array_equal(small.source.cells, np.unique(small.source.cells, axis=0))


def test_a_pair_without_overlap_has_no_matches_and_stays_in_its_batch(tmp_path):
    np.savez(tmp_path / "a.npz", pcd=corner(0))
    np.savez(tmp_path / "b.npz", pcd=corner(1) + 100)
    paths = (tmp_path / "a.npz", tmp_path / "b.npz")
    dataset = PairDataset(
        [FragmentPair("x", *paths, np.eye(4)), FragmentPair("x", paths[0], paths[0], np.eye(4))],
        VOXEL,
        max_voxels=300,
    )
    batch = collate_pairs(
        [dataset[PairRequest(0, 0)], dataset[PairRequest(1, 0)], dataset[PairRequest(0, 1)]]
    )
    assert (
        batch.match_splits[0]
        == batch.match_splits[2]
        == 0
        < batch.match_splits[1]
        == len(batch.matches)
    )


def test_wrong_arguments_are_named(pairs):
    for arguments, said in [
        (([], 0.05), "the list of pairs is empty"),
        ((pairs, 0.0), "voxel_size is 0.0, expected a positive number"),
        ((pairs, 0.05, None, 0), "max_voxels is 0"),
        ((pairs, 0.05, None, None, -1), "positive_radius is -1"),
    ]:
        with pytest.raises(ValueError, match=said):
            PairDataset(*arguments)
    with pytest.raises(ValueError, match="pair 6 is out of range, there are 6"):
        PairDataset(pairs, 0.05)[PairRequest(6, 0)]
    with pytest.raises(ValueError, match="at least one sample"):
        collate_pairs([])


def test_a_broken_fragment_is_found_before_training(pairs):
    pairs[0].source.write_bytes(b"")
    with pytest.raises(ValueError, match=pairs[0].source.name):
        PairDataset(pairs, VOXEL).preload()


# batches --------------------------------------------------------------------------------------------------


def test_a_batch_joins_its_samples_and_its_matches_point_into_the_joined_rows(pairs):
    dataset = PairDataset(pairs, VOXEL, AugmentConfig())
    samples = [dataset[PairRequest(k, k)] for k in range(3)]
    batch = collate_pairs(samples)
    assert (
        len(batch) == 3
        and batch.transforms.shape == (3, 4, 4)
        and batch.matches.dtype == torch.int64
    )
    rows = batch.source.coordinates.numpy()
    assert rows.dtype == np.int32 and rows.shape == (sum(batch.source_splits), 4)
    assert np.array_equal(rows, np.unique(rows, axis=0))
    ends0, ends1 = np.cumsum([0, *batch.source_splits]), np.cumsum([0, *batch.target_splits])
    for k, matches in enumerate(batch.matches.split(batch.match_splits)):
        assert np.array_equal(matches.numpy() - (ends0[k], ends1[k]), samples[k].matches)
        assert (batch.source.coordinates[matches[:, 0], 0] == k).all() and (
            batch.target.coordinates[matches[:, 1], 0] == k
        ).all()
        moved = (
            batch.source.points[matches[:, 0]] @ batch.transforms[k, :3, :3].T
            + batch.transforms[k, :3, 3]
        )
        assert (moved - batch.target.points[matches[:, 1]]).norm(dim=1).max() < 1.5 * VOXEL + 1e-4
    assert batch.requests == [sample.request for sample in samples]
    assert len(nearest_matches(batch.matches)) == sum(
        len(nearest_matches(sample.matches)) for sample in samples
    )
    moved = batch.to("meta")
    assert (
        moved.source.points.is_meta
        and moved.transforms.is_meta
        and moved.match_splits == batch.match_splits
    )


def test_batches_are_the_same_bits_with_and_without_workers(pairs):
    dataset = PairDataset(pairs, VOXEL, AugmentConfig())
    dataset.preload()

    def batches(**workers):
        sampler = PairSampler(len(pairs), 2, seed=4, steps=3, angle=lambda step: 30.0 * (step + 1))
        return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_pairs, **workers))

    plain = batches()
    worked = batches(num_workers=2)
    assert len(plain) == len(worked) == 3
    for one, other in zip(plain, worked, strict=True):
        assert all(map(torch.equal, tensors(one), tensors(other))) and torch.equal(
            one.transforms, other.transforms
        )
        assert one.requests == other.requests
    assert [batch.requests[0].max_angle_deg for batch in plain] == [30.0, 60.0, 90.0]


# the order of pairs ---------------------------------------------------------------------------------------


def test_each_epoch_draws_every_pair_once_in_an_order_of_its_own():
    drawn = [request.pair for batch in PairSampler(10, 3, seed=1, steps=20) for request in batch]
    epochs = [drawn[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_resuming_at_a_step_gives_the_batches_of_that_step():
    whole = list(PairSampler(10, 3, seed=1, steps=20, angle=lambda step: step))
    assert (
        list(PairSampler(10, 3, seed=1, start_step=13, steps=20, angle=lambda step: step))
        == whole[13:]
    )
    assert PairSampler(10, 3, seed=1).batch(7)[0].seed == whole[7][0].seed
    assert (
        len(PairSampler(10, 3, start_step=13, steps=20)) == 7
        and len(PairSampler(10, 3, start_step=30, steps=20)) == 0
    )
    assert list(PairSampler(10, 3, seed=2, steps=20)) != whole


def test_every_request_has_a_seed_of_its_own():
    seeds = [request.seed for batch in PairSampler(5, 4, seed=1, steps=50) for request in batch]
    assert len(set(seeds)) == 200


def test_ranks_share_out_what_one_process_would_train_on():
    one = list(PairSampler(23, 6, seed=3, steps=9))
    ranks = [
        list(PairSampler(23, 2, seed=3, steps=9, rank=rank, world_size=3)) for rank in range(3)
    ]
    assert [sum((rank[step] for rank in ranks), []) for step in range(9)] == one
    drawn = [request.seed for rank in ranks for batch in rank for request in batch]
    assert len(set(drawn)) == len(drawn)


def test_a_sampler_without_a_last_step_goes_on_and_wrong_arguments_are_named():
    endless = PairSampler(3, 2)
    assert len(list(itertools.islice(endless, 50))) == 50
    assert endless.epoch(3) == 2.0
    with pytest.raises(TypeError, match="no length"):
        len(endless)
    for arguments, said in [
        ({"n_pairs": 0}, "n_pairs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"start_step": -1}, "start_step is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2, expected 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=said):
            PairSampler(**{"n_pairs": 3, "batch_size": 2, **arguments})


def test_pairs_are_selected_by_overlap_and_drawn_by_seed(pairs):
    assert [round(pair.overlap, 1) for pair in select_pairs(pairs, 0.2, 0.35)] == [0.2, 0.3, 0.3]
    few = select_pairs(pairs, limit=3, seed=1)
    assert len(few) == 3 and few == select_pairs(pairs, limit=3, seed=1)
    assert [pairs.index(pair) for pair in few] == sorted(pairs.index(pair) for pair in few)
    assert (
        len(
            {tuple(map(pairs.index, select_pairs(pairs, limit=3, seed=seed))) for seed in range(10)}
        )
        > 3
    )
    unknown = FragmentPair("x", pairs[0].source, pairs[0].target, np.eye(4))
    assert select_pairs([unknown], 0.9) == [unknown]
    with pytest.raises(ValueError, match="none of 6 pairs has an overlap from 0.9 to 1"):
        select_pairs(pairs, 0.9)
    for wrong in ({"min_overlap": 0.5, "max_overlap": 0.3}, {"limit": 0}):
        with pytest.raises(ValueError):
            select_pairs(pairs, **wrong)


# real scans -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_size", [0.05, 0.025])
def test_real_fragments_match_where_they_overlap(dataset, voxel_size):
    found = threedmatch.test_pairs(dataset("threedmatch_test"), ["mit_lab"])
    pairs = next(iter(found.values()))[:6]
    samples = PairDataset(pairs, voxel_size)
    for k, pair in enumerate(pairs):
        sample = samples[PairRequest(k, k)]
        matched = len(np.unique(sample.matches[:, 0])) / len(sample.source)
        assert matched > 0.3 * pair.overlap
        moved = sample.source.points.double() @ sample.transform[:3, :3].T + sample.transform[:3, 3]
        distance = (moved[sample.matches[:, 0]] - sample.target.points[sample.matches[:, 1]]).norm(
            dim=1
        )
        assert distance.max() <= 1.5 * voxel_size + 1e-5


def test_voxels_may_take_the_mean_of_their_points():
    points = np.random.default_rng(8).random((500, 3)).astype(np.float32)
    cloud = one_point_per_voxel(points, 0.25)
    for mean, cell in zip(cloud.points.numpy(), cells(cloud)):
        inside = (np.floor(points / 0.25) == cell).all(1)
        np.testing.assert_allclose(mean, points[inside].mean(0), atol=1e-6)


def test_the_side_of_a_fragment_without_a_sensor_is_estimated_and_turns_with_it(tmp_path):
    rng = np.random.default_rng(3)
    walls = rng.uniform(0, (4.0, 3.0, 2.5), (9000, 3))
    wall = rng.integers(0, 4, len(walls))  # two walls that meet, one opposite, and the floor
    for k, (axis, place) in enumerate(((0, 0.0), (1, 0.0), (0, 4.0), (2, 0.0))):
        walls[wall == k, axis] = place
    for k in range(2):
        np.savez(tmp_path / f"room_{k}.npz", pcd=walls)
    files = [tmp_path / f"room_{k}.npz" for k in range(2)]
    pairs = [FragmentPair("room", *files, np.eye(4))]
    request = PairRequest(0, 11)
    known = PairDataset(pairs, VOXEL, AugmentConfig(scale=(1.3, 1.3)), oriented=True)
    sample, unknown = known[request], PairDataset(pairs, VOXEL, AugmentConfig())[request]
    assert not unknown.source.normal.any(), "not asked for"
    for cloud in (sample.source, sample.target):
        inwards = cloud.points.mean(0) - cloud.points
        assert ((cloud.normal * inwards).sum(1) > 0).float().mean() > 0.9
    assert set(known._sides) == set(files), "once for each"


@pytest.mark.parametrize("seen", [True, False])
def test_pairs_far_from_the_origin_are_those_near_it(tmp_path, seen):
    samples = []
    for name, place in (("near", (0, 0, 0)), ("far", (500_000, 5_000_000, 100))):
        files = [tmp_path / f"{name}_{k}.npz" for k in range(2)]
        for k, path in enumerate(files):
            viewpoint = {"viewpoint": np.add((1.0, 2.0, 1.0), place)} if seen else {}
            np.savez(path, pcd=corner(k, 3000) + place, **viewpoint)
        pairs = [FragmentPair("room", *files, np.eye(4))]
        dataset = PairDataset(pairs, VOXEL, AugmentConfig(), average=True, oriented=not seen)
        samples.append(dataset[PairRequest(0, 5)])
    near, far = samples
    # A voxel's border may lie between two roundings of a point.
    assert len(far.source) == pytest.approx(len(near.source), rel=0.01)
    assert len(far.matches) == pytest.approx(len(near.matches), rel=0.02)
    for one, other in ((near.source, far.source), (near.target, far.target)):
        apart, rows = cKDTree(one.points).query(other.points)
        assert np.quantile(apart, 0.95) < 1e-5
        agree = (one.normal[rows] * other.normal).sum(1)
        assert agree.median() > 0.99 * one.normal.square().sum(1).median()
