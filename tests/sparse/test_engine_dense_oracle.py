"""Every operation against dense PyTorch on small grids, in float64, forward and backward."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from engine_oracle import assert_close, numbers, take_path
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.sparse import Kernel, SparseTensor
from sparsefeat.sparse import functional as fn

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
SIDES = (6, 7, 5)

FILLS = pytest.mark.parametrize("fill", [1.0, 0.3], ids=["full grid", "part of a grid"])


class Grid:
    """Voxels on a regular grid of two clouds, and the dense tensor of the same features.

    Voxel ``c`` lies in dense cell ``(c - low) / tensor stride``; ``low`` is negative and a multiple of
    every output stride that occurs.
    """

    def __init__(self, dimension: int, tensor_stride, fill: float, channels: int = 3, stride=1):
        self.dimension = dimension
        self.unit = per_axis(tensor_stride, dimension)
        self.sides = SIDES[:dimension]
        self.low = tuple(-u * s for u, s in zip(self.unit, per_axis(stride, dimension)))
        generator = torch.Generator().manual_seed(3)
        cells = torch.tensor(list(product(range(2), *map(range, self.sides))))
        kept = torch.rand(len(cells), generator=generator) < fill
        cells = cells[kept][torch.randperm(int(kept.sum()), generator=generator)]
        self.cells = tuple(cells.unbind(1))
        self.features = numbers(len(cells), channels).requires_grad_()
        space = cells[:, 1:] * torch.tensor(self.unit) + torch.tensor(self.low)
        self.x = SparseTensor(
            self.features,
            torch.cat([cells[:, :1], space], 1),
            tensor_stride=self.unit,
            reduce="error",
        )

    def dense(self, features: Tensor | None = None, empty: float = 0.0) -> Tensor:
        """Shape: (2, C, *sides)."""
        features = self.features if features is None else features
        grid = features.new_full((2, *self.sides, features.shape[1]), empty)
        return grid.index_put(self.cells, features).movedim(-1, 1)

    def read(self, dense: Tensor, coordinates: Tensor, unit: tuple[int, ...]) -> Tensor:
        """Values of a dense output with cells of ``unit`` at sparse coordinates. Shape: (V, C)."""
        cells = (coordinates[:, 1:].long() - torch.tensor(self.low)) // torch.tensor(unit)
        assert torch.equal(
            cells * torch.tensor(unit) + torch.tensor(self.low), coordinates[:, 1:].long()
        )
        return dense.movedim(1, -1)[(coordinates[:, 0].long(), *cells.unbind(1))]


def per_axis(value, dimension: int) -> tuple[int, ...]:
    return (value,) * dimension if isinstance(value, int) else tuple(value)


def dense_weight(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """From [K, C_in, C_out], first axis fastest, to torch's (C_out, C_in, *size)."""
    spatial = len(size)
    cells = weight.view(*reversed(size), *weight.shape[1:])
    return cells.permute(spatial + 1, spatial, *reversed(range(spatial)))


def pad_windows(dense: Tensor, size, stride, dilation, empty: float = 0.0) -> Tensor:
    """Room for windows that begin at every cell: an odd axis reaches back by half, an even one does not."""
    pads = []
    for k, s, d in zip(size, stride, dilation):
        before = d * (k // 2) if k % 2 else 0
        pads.append((before, d * (k - 1) - before + s - 1))
    return F.pad(dense, [side for pair in reversed(pads) for side in pair], value=empty)


def check(y: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Values and gradients of all leaves agree."""
    assert_close(y, expected, tolerance=1e-12)
    grad_out = numbers(*y.shape, seed=9)
    for ours, dense in zip(
        torch.autograd.grad(y, leaves, grad_out, allow_unused=True),
        torch.autograd.grad(expected, leaves, grad_out, allow_unused=True),
    ):
        assert_close(ours, dense, tolerance=1e-12)


CONVOLUTIONS = [  # dimension, kernel size, stride, dilation, tensor stride
    (3, 1, 1, 1, 1),
    (3, 2, 1, 1, 1),
    (3, 3, 1, 1, 1),
    (3, 5, 1, 1, 1),
    (3, 4, 1, 2, 1),
    (3, 3, 1, 2, 2),
    (3, (1, 2, 3), 1, (3, 1, 2), 1),
    (3, (7, 1, 1), 1, 1, 4),
    (3, (3, 1, 2), 1, 1, (1, 2, 3)),
    (3, 1, 2, 1, 1),
    (3, 2, 2, 1, 1),
    (3, 2, 3, 1, 2),
    (3, 3, 2, 1, 1),
    (3, 3, 2, 2, 2),
    (3, 4, 2, 1, 1),
    (3, (3, 2, 5), (1, 2, 3), (2, 1, 1), (1, 3, 2)),
    (2, 3, 1, 1, 1),
    (2, 2, 2, 1, 2),
    (2, (5, 2), (2, 1), (1, 3), 1),
    (1, 7, 1, 1, 1),
    (1, 3, 2, 2, 3),
    (1, 4, 3, 1, 1),
    (1, 1, 2, 1, 1),
]


@pytest.mark.parametrize("path", ["unfolded", "unfolded from pairs", "by cell in blocks"])
@FILLS
@pytest.mark.parametrize("dimension, size, stride, dilation, tensor_stride", CONVOLUTIONS)
def test_convolution(monkeypatch, dimension, size, stride, dilation, tensor_stride, fill, path):
    take_path(monkeypatch, path)
    size, stride, dilation = (per_axis(v, dimension) for v in (size, stride, dilation))
    grid = Grid(dimension, tensor_stride, fill, stride=stride)
    kernel = Kernel(size, dilation)
    weight = numbers(kernel.volume, 3, 2, seed=1).requires_grad_()
    bias = numbers(1, 2, seed=2).requires_grad_()
    y = fn.convolution(grid.x, weight, bias, kernel, stride)
    out_unit = tuple(u * s for u, s in zip(grid.unit, stride))
    assert y.tensor_stride == out_unit
    if set(stride) == {1}:
        assert torch.equal(y.C, grid.x.C)
    dense = CONVOLVE[dimension](
        pad_windows(grid.dense(), size, stride, dilation),
        dense_weight(weight, size),
        bias[0],
        stride,
        0,
        dilation,
    )
    check(y.F, grid.read(dense, y.C, out_unit), [grid.features, weight, bias])


TRANSPOSED = [  # dimension, kernel size, stride, dilation, tensor stride of the fine level
    (3, 1, 1, 1, 1),
    (3, 2, 1, 1, 1),
    (3, 3, 1, 2, 1),
    (3, 1, 2, 1, 1),
    (3, 2, 2, 1, 1),
    (3, 3, 2, 1, 1),
    (3, 3, 2, 2, 2),
    (3, 4, 2, 1, 1),
    (3, (3, 2, 1), (1, 2, 3), (2, 1, 1), (1, 2, 1)),
    (2, 5, 2, 1, 1),
    (1, 3, 3, 1, 2),
]


def transposed_dense(
    coarse: Tensor, weight: Tensor, size, stride, dilation, cells: tuple[int, ...]
) -> Tensor:
    """The adjoint of the strided convolution on a dense grid, on ``cells`` fine cells.

    Shape: coarse (B, C, ...), weight (C, C', *size).
    """
    out = CONVOLVE_TRANSPOSED[len(size)](coarse, weight, stride=stride, dilation=dilation)
    for axis, (k, d, n) in enumerate(zip(size, dilation, cells), start=2):
        before = d * (k // 2) if k % 2 else 0
        missing = max(0, before + n - out.shape[axis])
        padding = [0, 0] * (out.ndim - 1 - axis) + [0, missing]
        out = F.pad(out, padding).narrow(axis, before, n)
    return out


@pytest.mark.parametrize("path", ["unfolded", "unfolded from pairs", "by cell in blocks"])
@FILLS
@pytest.mark.parametrize("dimension, size, stride, dilation, tensor_stride", TRANSPOSED)
def test_transposed_convolution_onto_the_finer_level(
    monkeypatch, dimension, size, stride, dilation, tensor_stride, fill, path
):
    take_path(monkeypatch, path)
    size, stride, dilation = (per_axis(v, dimension) for v in (size, stride, dilation))
    fine = Grid(dimension, tensor_stride, fill, stride=stride)
    manager, key = fine.x.manager, fine.x.key
    coarse_key = manager.stride(key, stride) if max(stride) > 1 else key
    coarse_map = manager[coarse_key]
    features = numbers(len(coarse_map), 3, seed=4).requires_grad_()
    kernel = Kernel(size, dilation)
    weight = numbers(kernel.volume, 3, 2, seed=1).requires_grad_()
    y = fn.convolution_transpose(
        SparseTensor(features, manager=manager, key=coarse_key), weight, None, kernel, stride
    )
    assert y.key == key

    unit = torch.tensor(coarse_map.tensor_stride)
    cells = (coarse_map.coordinates[:, 1:].long() - torch.tensor(fine.low)) // unit
    sides = [-(-n // s) for n, s in zip(fine.sides, stride)]
    coarse = features.new_zeros(2, *sides, 3)
    coarse = coarse.index_put(
        (coarse_map.coordinates[:, 0].long(), *cells.unbind(1)), features
    ).movedim(-1, 1)
    dense = transposed_dense(
        coarse, dense_weight(weight, size).transpose(0, 1), size, stride, dilation, fine.sides
    )
    check(y.F, fine.read(dense, y.C, fine.unit), [features, weight])

    # The same layer without the finer level makes every coordinate that it reaches, and agrees on these.
    alone = SparseTensor(features, coarse_map.coordinates, coarse_map.tensor_stride, reduce="error")
    free = fn.convolution_transpose(alone, weight, None, kernel, stride, expand_coordinates=True)
    rows = free.coordinate_map.find(y.C)
    here = rows >= 0
    assert_close(free.F[rows[here]], y.F[here], tolerance=1e-12)
    assert not y.F[~here].any()
    assert_close(free.F.sum(0), (features.sum(0) @ weight).sum(0), tolerance=1e-12)


POOLINGS = [  # dimension, kernel size, stride, dilation, tensor stride
    (3, 2, 2, 1, 1),
    (3, 3, 3, 1, 2),
    (3, 3, 1, 1, 1),
    (3, 3, 2, 1, 1),
    (3, 2, 1, 2, 1),
    (3, (2, 3, 1), (1, 2, 2), (1, 2, 1), (1, 2, 1)),
    (3, (2, 3, 1), (2, 3, 1), 1, 1),
    (2, 2, 2, 1, 2),
    (2, 5, 2, 1, 1),
    (1, 3, 2, 1, 1),
    (1, 4, 4, 1, 1),
]


@pytest.mark.parametrize("mode", ["max", "sum", "average"])
@FILLS
@pytest.mark.parametrize("dimension, size, stride, dilation, tensor_stride", POOLINGS)
def test_pooling(dimension, size, stride, dilation, tensor_stride, fill, mode):
    size, stride, dilation = (per_axis(v, dimension) for v in (size, stride, dilation))
    grid = Grid(dimension, tensor_stride, fill, stride=stride)
    y = fn.pool(grid.x, mode, Kernel(size, dilation), stride)
    out_unit = tuple(u * s for u, s in zip(grid.unit, stride))
    assert y.tensor_stride == out_unit

    def windows(dense: Tensor, empty: float) -> Tensor:
        if size == stride:  # a block begins at its voxel on odd axes too
            return F.pad(
                dense, [side for s in reversed(stride) for side in (0, s - 1)], value=empty
            )
        return pad_windows(dense, size, stride, dilation, empty)

    if mode == "max":
        dense = MAX_POOL[dimension](
            windows(grid.dense(empty=-torch.inf), -torch.inf), size, stride, 0, dilation
        )
        dense = torch.where(dense.isinf(), 0, dense)
    else:
        ones = grid.features.new_ones(3, 1, *size)
        dense = CONVOLVE[dimension](
            windows(grid.dense(), 0), ones, None, stride, 0, dilation, groups=3
        )
        if mode == "average":
            present = grid.dense(torch.ones_like(grid.features))
            count = CONVOLVE[dimension](
                windows(present, 0), ones, None, stride, 0, dilation, groups=3
            )
            dense = dense / count.clamp(min=1)
    check(y.F, grid.read(dense, y.C, out_unit), [grid.features])


@FILLS
@pytest.mark.parametrize(
    "size, stride, dilation", [(2, 2, 1), (3, 3, 1), (3, 2, 1), (3, 1, 2), (4, 2, 1)]
)
def test_transposed_pooling(size, stride, dilation, fill):
    fine = Grid(3, 1, fill, stride=stride)
    coarse = fn.pool(fine.x, "sum", Kernel.of(max(stride, 1)), stride) if stride > 1 else fine.x
    features = numbers(len(coarse), 3, seed=4).requires_grad_()
    y = fn.pool_transpose(coarse.replace(features), Kernel.of(size, dilation), stride)
    assert y.key == fine.x.key
    cells = (coarse.C[:, 1:].long() - torch.tensor(fine.low)) // stride
    sides = [-(-n // stride) for n in fine.sides]
    totals = []
    for values in (features, torch.ones_like(features)):
        grid = values.new_zeros(2, *sides, 3).index_put(
            (coarse.C[:, 0].long(), *cells.unbind(1)), values
        )
        ones = torch.einsum("ab,xyz->abxyz", torch.eye(3), torch.ones((size,) * 3)).double()
        block = transposed_dense(
            grid.movedim(-1, 1), ones, (size,) * 3, (stride,) * 3, (dilation,) * 3, fine.sides
        )
        if size == stride:  # a block: the window begins at the voxel
            block = CONVOLVE_TRANSPOSED[3](grid.movedim(-1, 1), ones, stride=stride)
        totals.append(fine.read(block, y.C, fine.unit))
    check(y.F, totals[0] / totals[1].clamp(min=1), [features])


def test_dense_and_back():
    grid = Grid(3, 2, 0.4)
    dense, low, stride = grid.x.dense()
    assert (
        torch.equal(dense, grid.dense()) and tuple(low.tolist()) == grid.low and stride == (2, 2, 2)
    )
    assert_close(torch.autograd.grad(dense, grid.features, dense)[0], grid.features)
    back = SparseTensor.from_dense(dense)
    rows = SparseTensor(grid.features, torch.stack(grid.cells, 1)).coordinate_map.find(back.C)
    assert torch.equal(back.F, grid.features[rows])


def test_interpolation_between_the_cells_of_a_grid():
    """grid_sample is multilinear too."""
    grid = Grid(3, 2, 0.6)
    generator = torch.Generator().manual_seed(5)
    places = torch.rand(2, 40, 3, generator=generator, dtype=torch.float64) * (
        torch.tensor(SIDES) - 1
    )
    expected = (
        F.grid_sample(
            grid.dense().transpose(2, 4),  # grid_sample wants x last
            (places / (torch.tensor(SIDES) - 1) * 2 - 1)[:, :, None, None],
            align_corners=True,
        )[..., 0, 0]
        .transpose(1, 2)
        .reshape(80, 3)
    )
    batch = torch.tensor([0.0, 1.0]).repeat_interleave(40)[:, None].double()
    points = torch.cat([batch, (places * 2 + torch.tensor(grid.low)).reshape(80, 3)], 1)
    check(fn.interpolate(grid.x, points), expected, [grid.features])
