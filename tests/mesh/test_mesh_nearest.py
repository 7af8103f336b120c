"""The voxel of each point: the one that contains it, else the nearest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sparsefeat.mesh import nearest_voxels, read_mesh, voxelize_mesh


def scattered(seed: int = 0, share: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around the origin and some of the voxels there, in no order."""
    rng = np.random.default_rng(seed)
    cells = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    cells = rng.permutation(cells)[: int(share * len(cells))]
    return torch.from_numpy(rng.uniform(-4, 5, (200, 3))), torch.from_numpy(cells.astype(np.int32))


def test_nearest_is_the_containing_voxel_else_the_nearest_centre():
    points, cells = scattered()
    points[0] = cells[7].double()  # on the lower corner, as near to seven others
    index = nearest_voxels(points, cells)
    assert index[0] == 7
    there = {tuple(c): k for k, c in enumerate(cells.tolist())}
    distance = torch.cdist(points, cells.double() + 0.5)
    for k, cell in enumerate(torch.floor(points).int().tolist()):
        if tuple(cell) in there:
            assert index[k] == there[tuple(cell)]
        else:
            assert distance[k, index[k]] == pytest.approx(float(distance[k].min()))


def test_a_point_far_from_all_voxels_gets_the_nearest():
    points = torch.tensor(
        [[1e12, 0.0, 0.0], [-50.0, 3.0, 2.0], [0.5, 0.5, 0.5]], dtype=torch.float64
    )
    assert nearest_voxels(points, torch.tensor([[0, 0, 0], [9, 0, 0]])).tolist() == [1, 0, 0]


def test_no_points_have_no_voxels():
    assert nearest_voxels(torch.empty(0, 3), torch.tensor([[0, 0, 0]])).shape == (0,)
    assert nearest_voxels(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64)).shape == (0,)


def test_arrays_and_lists_are_taken_as_tensors_are():
    points, cells = scattered()
    expected = nearest_voxels(points, cells)
    assert torch.equal(nearest_voxels(points.numpy(), cells.numpy()), expected)
    assert torch.equal(nearest_voxels(points.tolist(), cells.tolist()), expected)


CELLS = torch.tensor([[0, 0, 0], [1, 0, 0]])
POINTS = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("points", "cells", "message"),
    [
        (POINTS, CELLS[:0], "3 points and no voxel"),
        (POINTS, CELLS[[0, 1, 0]], r"voxel \[0, 0, 0\] is there more than once"),
        (POINTS, CELLS.float(), "whole numbers"),
        (POINTS[:, :2], CELLS, r"points: shape \(3, 2\)"),
        (POINTS * torch.nan, CELLS, "NaN"),
        ([["a", "b", "c"]], CELLS, "points: <U1, expected numbers"),
        (POINTS, [[0, 0, 0], [1, 1]], "coordinates: list that is no array"),
    ],
)
def test_what_does_not_fit_is_refused(points, cells, message):
    with pytest.raises(ValueError, match=message):
        nearest_voxels(points, cells)


@pytest.mark.parametrize("size", [5e-4, 0.02, 5.0])
def test_every_vertex_has_a_voxel_however_fine_or_coarse(dataset, size):
    mesh = read_mesh(sorted((dataset("psb")).glob("*/*.off"))[0])
    faces = mesh.faces if size > 1e-3 else mesh.faces[:4]
    cells = voxelize_mesh(mesh.vertices, faces, size).coordinates
    position = torch.from_numpy(mesh.vertices) / size
    distance = (cells[nearest_voxels(position, cells)].double() + 0.5 - position).abs().amax(1)
    used = np.unique(faces)
    assert distance[torch.from_numpy(used)].max() <= 0.5 + 1e-6
