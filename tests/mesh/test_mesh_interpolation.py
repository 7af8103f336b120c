"""From voxels to points: one sparse operator, an exact adjoint, and a value for every point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sparsefeat.mesh import VoxelInterpolation, nearest_voxels, read_mesh, trilinear_weights, voxelize_mesh
from sparsefeat.mesh.interpolation import MODES


def scattered(seed: int = 0, share: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around the origin and some of the voxels there, in no order."""
    rng = np.random.default_rng(seed)
    cells = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    cells = rng.permutation(cells)[: int(share * len(cells))]
    return torch.from_numpy(rng.uniform(-4, 5, (200, 3))), torch.from_numpy(cells.astype(np.int32))


def by_hand(point: np.ndarray, cells: np.ndarray) -> dict[int, float]:
    """Row -> weight, from the definition."""
    rows = {tuple(c): k for k, c in enumerate(cells.tolist())}
    weights = {}
    for cell in itertools.product(
        *(range(int(np.floor(x - 0.5)), int(np.floor(x - 0.5)) + 2) for x in point)
    ):
        weight = np.prod([1 - abs(x - (c + 0.5)) for x, c in zip(point, cell, strict=True)])
        if cell in rows and weight > 0:
            weights[rows[cell]] = weight
    if not weights:
        return {int(((cells + 0.5 - point) ** 2).sum(1).argmin()): 1.0}
    return {row: weight / sum(weights.values()) for row, weight in weights.items()}


def test_trilinear_weights_are_those_of_the_definition():
    points, cells = scattered()
    dense = VoxelInterpolation(points, cells, 1.0).matrix().to_dense().numpy()
    for row, point in zip(dense, points.numpy(), strict=True):
        expected = np.zeros(len(cells))
        for column, weight in by_hand(point, cells.numpy()).items():
            expected[column] = weight
        np.testing.assert_allclose(row, expected, atol=1e-12)


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
    dense = VoxelInterpolation(points, cells, 1.0, "nearest").matrix().to_dense()
    assert torch.equal(dense.argmax(1), index) and torch.equal(dense.sum(1), torch.ones(200).double())


@pytest.mark.parametrize("mode", MODES)
def test_the_adjoint_is_exact(mode):
    points, cells = scattered(1)
    operator = VoxelInterpolation(points * 0.37, cells, 0.37, mode)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(cells), 5, dtype=torch.float64, generator=generator)
    y = torch.randn(len(points), 5, dtype=torch.float64, generator=generator)
    assert float(((operator(x) * y).sum() - (x * operator.adjoint(y)).sum()).abs()) < 1e-11
    torch.testing.assert_close(operator(x), operator.matrix().to_dense() @ x)
    torch.testing.assert_close(operator.adjoint(y), operator.matrix().to_dense().T @ y)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_pass_through_both_ways_and_twice(mode):
    points, cells = scattered(2)
    operator = VoxelInterpolation(points[:20], cells[:30], 1.0, mode)
    x = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x) and torch.autograd.gradcheck(operator.adjoint, y)
    assert torch.autograd.gradgradcheck(operator, x)
    operator(x).mul(y).sum().backward()
    torch.testing.assert_close(x.grad, operator.adjoint(y.detach()))


def test_constants_stay_and_linear_functions_are_kept_inside():
    cells = torch.tensor(list(itertools.product(range(5), repeat=3)))
    points = torch.rand(50, 3, dtype=torch.float64) * 3.9 + 0.55
    operator = VoxelInterpolation(points * 0.1, cells, 0.1)
    torch.testing.assert_close(operator(torch.ones(125, 1).double()), torch.ones(50, 1).double())
    torch.testing.assert_close(operator((cells.double() + 0.5) * 0.1), points * 0.1)


@pytest.mark.parametrize("mode", MODES)
def test_a_point_far_from_all_voxels_gets_the_nearest(mode):
    points = torch.tensor([[1e12, 0.0, 0.0], [-50.0, 3.0, 2.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    cells = torch.tensor([[0, 0, 0], [9, 0, 0]])
    operator = VoxelInterpolation(points, cells, 1.0, mode)
    assert operator(torch.tensor([1.0, 2.0]).double()).tolist() == [2, 1, 1]


def test_a_point_on_the_centre_of_a_missing_voxel():
    # Its neighbours are among the eight, all with weight zero.
    index, weight = trilinear_weights(torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[1, 0, 0], [5, 5, 5]]))
    assert index[0, weight[0] > 0].tolist() == [0] and weight.sum() == 1


def test_weights_are_differentiable_in_the_points():
    points, cells = scattered(3)
    # Away from where the weights have kinks, and not equally near to two voxels.
    away = torch.tensor([0.2, 0.13, 0.31]) * torch.sign(points - torch.floor(points) - 0.5)
    points = (torch.floor(points) + 0.5 + away)[:15].requires_grad_()
    values = torch.randn(len(cells), dtype=torch.float64)

    def interpolate(position):
        index, weight = trilinear_weights(position, cells)
        return (values[index] * weight).sum(1)

    assert torch.autograd.gradcheck(interpolate, points)
    index, weight = trilinear_weights(points, cells)
    assert index.shape == weight.shape == (15, 8) and index.dtype == torch.int64
    assert torch.isfinite(torch.autograd.grad(weight.square().sum(), points)[0]).all()


def test_the_gradient_of_the_voxel_size_goes_through_the_points():
    points, cells = scattered(4)
    size = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    values = torch.randn(len(cells), dtype=torch.float64)

    def loss(s):
        index, weight = trilinear_weights(points / s, cells)
        return (values[index] * weight).sum()

    (gradient,) = torch.autograd.grad(loss(size), size)
    step = 1e-7
    with torch.no_grad():
        numeric = (loss(size + step) - loss(size - step)) / (2 * step)
    assert float(gradient) == pytest.approx(float(numeric), rel=1e-4)


def test_average_takes_values_back_to_voxels():
    points, cells = scattered(5)
    operator = VoxelInterpolation(points, cells, 1.0, "nearest")
    back = operator.average(points)
    index = nearest_voxels(points, cells)
    for voxel in range(len(cells)):
        own = points[index == voxel]
        torch.testing.assert_close(back[voxel], own.mean(0) if len(own) else torch.zeros(3).double())


def test_faces_are_interpolated_at_their_centroids():
    vertices, cells = scattered(6)
    faces = np.random.default_rng(0).integers(0, 200, (40, 3))
    one = VoxelInterpolation.to_faces(vertices, faces, cells, 1.0)
    two = VoxelInterpolation(vertices[torch.from_numpy(faces)].mean(1), cells, 1.0)
    x = torch.randn(len(cells), 3)
    torch.testing.assert_close(one(x), two(x))
    assert one.shape == (40, len(cells))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions_round_what_double_gives(dtype):
    points, cells = scattered(7)
    operator = VoxelInterpolation(points, cells, 1.0)
    x = torch.rand(len(cells), 4).to(dtype)
    result = operator(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), operator(x.double()), atol=2 * torch.finfo(dtype).eps, rtol=0)


def test_nothing_to_interpolate():
    empty = torch.empty(0, 3, dtype=torch.float64)
    for mode in MODES:
        operator = VoxelInterpolation(empty, torch.tensor([[0, 0, 0]]), 1.0, mode)
        assert operator(torch.ones(1, 2)).shape == (0, 2) and operator.adjoint(torch.ones(0, 2)).tolist() == [
            [0, 0]
        ]


CELLS = torch.tensor([[0, 0, 0], [1, 0, 0]])
POINTS = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VoxelInterpolation(POINTS, CELLS[:0], 1.0), "3 points and no voxel"),
        (
            lambda: VoxelInterpolation(POINTS, CELLS[[0, 1, 0]], 1.0),
            r"voxel \[0, 0, 0\] is there more than once",
        ),
        (lambda: VoxelInterpolation(POINTS, CELLS.float(), 1.0), "whole numbers"),
        (lambda: VoxelInterpolation(POINTS[:, :2], CELLS, 1.0), r"points: shape \(3, 2\)"),
        (lambda: VoxelInterpolation(POINTS * torch.nan, CELLS, 1.0), "NaN"),
        (lambda: VoxelInterpolation(POINTS, CELLS, 0.0), "voxel size 0.0"),
        (lambda: VoxelInterpolation(POINTS, CELLS, 1.0, "cubic"), "mode 'cubic', expected one of nearest"),
        (lambda: VoxelInterpolation(POINTS, CELLS, 1.0)(torch.ones(3, 1)), "features: 3 rows, expected 2"),
        (
            lambda: VoxelInterpolation(POINTS, CELLS, 1.0).adjoint(torch.ones(2, 1)),
            "values: 2 rows, expected 3",
        ),
        (lambda: VoxelInterpolation(POINTS, CELLS, 1.0)(torch.ones(2, 1).int()), "of floats"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("size", [5e-4, 0.02, 5.0])
def test_every_vertex_gets_a_feature_however_fine_or_coarse(dataset, size):
    mesh = read_mesh(sorted((dataset("psb")).glob("*/*.off"))[0])
    faces = mesh.faces if size > 1e-3 else mesh.faces[:4]
    cells = voxelize_mesh(mesh.vertices, faces, size).coordinates
    for mode in MODES:
        operator = VoxelInterpolation(mesh.vertices, cells, size, mode)
        result = operator(torch.ones(len(cells), 1))
        torch.testing.assert_close(result, torch.ones(len(mesh.vertices), 1))
