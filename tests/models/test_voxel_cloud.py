"""The voxelised cloud: cells, means, batches, and features read off at points."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from sparsefeat.errors import InputError
from sparsefeat.models.voxel_cloud import join, voxelize


def cloud_of(count: int = 400, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 3)) + shift)


def cells(cloud) -> torch.Tensor:
    return cloud.cells + torch.tensor(cloud.origin)


@pytest.mark.parametrize("shift", [0.0, 4.5e6])
def test_voxels_are_the_floors_in_order_and_hold_the_means(shift):
    points = cloud_of(shift=shift)
    normals = torch.nn.functional.normalize(cloud_of(seed=1))
    cloud = voxelize(points, 0.3, normals=normals)
    floors = torch.floor(points / 0.3).long()
    expected = torch.unique(floors, dim=0)
    assert torch.equal(cells(cloud), expected) and (cloud.cells >= 0).all()
    assert torch.equal(cells(cloud)[cloud.inverse], floors)
    for row, cell in enumerate(expected):
        inside = (floors == cell).all(1)
        torch.testing.assert_close(cloud.points[row], points[inside].mean(0))
        torch.testing.assert_close(cloud.normal[row], normals[inside].mean(0))
    offset = points.div(0.3) - floors - 0.5
    torch.testing.assert_close(
        cloud.offset, cloud.average(offset), atol=1e-8 if shift else 1e-12, rtol=0
    )
    assert (cloud.coordinates[:, 0] == 0).all() and cloud.coordinates.dtype == torch.int32


def test_cells_count_from_a_multiple_of_the_stride():
    cloud = voxelize(cloud_of(shift=100.0), 0.1, stride=8)
    assert all(start % 8 == 0 for start in cloud.origin) and cloud.cells.amin(0).max() < 8


def test_nearest_is_the_feature_of_the_voxel_that_holds_the_point():
    points = cloud_of()
    cloud = voxelize(points, 0.3)
    features = torch.arange(len(cloud) * 2.0).view(-1, 2)
    assert torch.equal(cloud.read_off(features), features[cloud.inverse])
    assert torch.equal(cloud.read_off(features, points), features[cloud.inverse])


@pytest.mark.parametrize("occupied", [False, True])
def test_trilinear_is_the_weighted_mean_of_the_voxels_around_a_point(occupied):
    points = cloud_of(2000)
    cloud = voxelize(points, 0.3)
    if occupied:
        share = torch.linspace(0.1, 1, len(cloud), dtype=torch.float64)
        cloud = type(cloud)(**{**vars(cloud), "occupancy": share})
    features = torch.from_numpy(np.random.default_rng(2).normal(size=(len(cloud), 3)))
    found = cloud.read_off(features, points[:40], "trilinear")
    rows = {tuple(cell.tolist()): row for row, cell in enumerate(cells(cloud))}
    for point, value in zip(points[:40] / 0.3 - 0.5, found, strict=True):
        base = point.floor()
        total, weights = torch.zeros(3, dtype=torch.float64), 0.0
        for shift in itertools.product((0, 1), repeat=3):
            row = rows.get(tuple((base.long() + torch.tensor(shift)).tolist()))
            if row is not None:
                near = 1 - (point - base - torch.tensor(shift)).abs()
                weight = near.prod() * (cloud.occupancy[row] if occupied else 1)
                total, weights = total + weight * features[row], weights + weight
        torch.testing.assert_close(value, total / weights)


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_the_order_of_the_voxels_does_not_matter(mode):
    points = cloud_of()
    cloud = voxelize(points, 0.3)
    features = torch.rand(len(cloud), 2)
    order = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        cloud.rows(order).read_off(features[order], points, mode),
        cloud.read_off(features, points, mode),
    )


def test_an_empty_cloud_has_features_nowhere():
    nothing = voxelize(torch.zeros(0, 3), 0.3)
    assert nothing.read_off(torch.zeros(0, 2), torch.zeros(0, 3)).shape == (0, 2)
    with pytest.raises(InputError, match="1 points have no voxel around them; the cloud is empty"):
        nothing.read_off(torch.zeros(0, 2), torch.zeros(1, 3))


def test_a_batch_gives_features_of_its_own_points_alone():
    """Two clouds in one place: a point would be in a voxel of either."""
    points = cloud_of()
    cloud = voxelize(points, 0.3)
    both = join([cloud, cloud])
    features = torch.rand(len(both), 2)
    assert torch.equal(
        both.read_off(features), features[torch.cat([cloud.inverse, cloud.inverse + len(cloud)])]
    )
    with pytest.raises(InputError, match="need one cloud, got a batch"):
        both.read_off(features, points)


def test_points_away_from_the_cloud_are_refused():
    cloud = voxelize(cloud_of(), 0.3)
    for mode in ("nearest", "trilinear"):
        with pytest.raises(ValueError, match="1 of 1 points have no voxel around them"):
            cloud.read_off(torch.ones(len(cloud), 1), torch.tensor([[9.0, 9, 9]]), mode)


def test_joined_clouds_keep_their_places_and_are_numbered():
    clouds = [voxelize(cloud_of(seed=k, shift=50.0 * k), 0.3) for k in range(3)]
    both = join([join(clouds[:2]), clouds[2]])
    start = 0
    for number, cloud in enumerate(clouds):
        rows = slice(start, start + len(cloud))
        assert torch.equal(cells(both)[rows], cells(cloud)) and (both.batch[rows] == number).all()
        assert torch.equal(both.points[rows], cloud.points)
        start += len(cloud)
    assert len(both) == start and torch.equal(
        both.coordinates, torch.unique(both.coordinates, dim=0)
    )


def test_empty_clouds_keep_their_numbers():
    one, nothing = voxelize(cloud_of(1), 0.3), voxelize(torch.zeros(0, 3), 0.3)
    flat = join([one, nothing, one, nothing, nothing, one])
    nested = join([join([one, nothing]), join([one, join([nothing, nothing])]), one])
    assert flat.batch.tolist() == nested.batch.tolist() == [0, 2, 5]
    assert flat.clouds == nested.clouds == 6


def test_clouds_that_do_not_go_together_are_not_joined():
    one = voxelize(cloud_of(), 0.3)
    with pytest.raises(ValueError, match=r"voxel sizes \[0.2, 0.3\], expected one"):
        join([one, voxelize(cloud_of(), 0.2)])
    with pytest.raises(ValueError, match="normals or occupancies"):
        join([one, voxelize(cloud_of(), 0.3, normals=cloud_of())])
    with pytest.raises(ValueError, match="at least one cloud"):
        join([])


def test_some_rows_of_a_cloud_are_a_cloud():
    cloud = voxelize(cloud_of(), 0.3, normals=cloud_of(seed=1))
    rows = torch.arange(0, len(cloud), 3)
    part = cloud.rows(rows)
    assert torch.equal(part.cells, cloud.cells[rows]) and torch.equal(
        part.offset, cloud.offset[rows]
    )
    assert torch.equal(part.normal, cloud.normal[rows])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0, 0], [1e12, 0, 0]], "voxels of 0.01 along x, expected at most"),
        ([[0, 0, 0], [1e6, 1e6, 1e6]], "beyond the key range; are there stray points far away"),
    ],
)
def test_clouds_too_large_for_their_voxels_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        voxelize(torch.tensor(points, dtype=torch.float64), 0.01)


@pytest.mark.parametrize("voxel_size", [0, -1.0, math.inf, math.nan, "x"])
def test_a_voxel_size_is_a_positive_number(voxel_size):
    with pytest.raises(InputError, match="voxel size .*, expected a positive number"):
        voxelize(torch.zeros(2, 3), voxel_size)


def test_features_that_cannot_be_read_off_are_refused():
    cloud = voxelize(torch.rand(20, 3), 0.5)
    with pytest.raises(InputError, match="mode 'cubic', expected one of nearest, trilinear"):
        cloud.read_off(torch.zeros(len(cloud), 2), torch.rand(3, 3), "cubic")
    with pytest.raises(InputError, match=rf"features: \(3, 2\), expected \({len(cloud)}, C\)"):
        cloud.read_off(torch.zeros(3, 2))
