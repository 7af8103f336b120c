"""Kernel maps against their definition, one look-up at a time; and derivatives against finite differences."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import (
    PATHS,
    assert_close,
    cloud,
    convolve_by_definition,
    neighbours,
    numbers,
    sparse,
    take_path,
    window,
)

from sparsefeat.sparse import (
    CoordinateManager,
    Kernel,
    SparseTensor,
    TensorField,
    coordinates,
    modules,
)
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse.coordinate_map import APART


@pytest.fixture(params=["table", "search"])
def look_up(request, monkeypatch):
    """Both ways of finding neighbours: in a dense table of the box, and by search in sorted keys."""
    cells = 2**24 if request.param == "table" else 0
    for setting in ("TABLE_CELLS", "TABLE_CELLS_PER_VOXEL"):
        assert hasattr(coordinates, setting)
        monkeypatch.setattr(coordinates, setting, cells)


def triples(
    manager: CoordinateManager, in_key, out_key, kernel: Kernel
) -> list[tuple[int, int, int]]:
    plan = manager.kernel_map(in_key, out_key, kernel)
    assert plan.counts == torch.bincount(plan.cells, minlength=kernel.volume).tolist()
    assert plan.n_in == len(manager[in_key]) and plan.n_out == len(manager[out_key])
    for side, rows, count in (
        (plan, plan.out_rows, plan.n_out),
        (plan.transpose, plan.in_rows, plan.n_in),
    ):
        order = side.out_order
        assert torch.equal(
            rows[order.pairs], torch.arange(count).repeat_interleave(order.splits.diff())
        )
    return sorted(zip(plan.cells.tolist(), plan.in_rows.tolist(), plan.out_rows.tolist()))


CASES = [  # dimension, kernel size, dilation, tensor stride, spacing of the voxels
    (1, (7,), (1,), (1,), 1),
    (1, (3,), (5,), (2,), 2),
    (2, (4, 3), (1, 2), (1, 1), 1),
    (2, (3, 3), (1, 1), (3, 3), 1),
    (3, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1),
    (3, (7, 7, 7), (1, 1, 1), (1, 1, 1), 1),
    (3, (1, 2, 5), (2, 1, 3), (1, 1, 1), 1),
    (3, (3, 3, 3), (1, 1, 1), (4, 4, 4), 4),
    (3, (3, 3, 3), (1, 1, 1), (2, 2, 2), 1),  # misaligned: the stride is a label
    (3, (5, 3, 4), (1, 2, 1), (1, 2, 4), 1),  # aligned on one axis alone
    (3, (2, 2, 2), (2, 2, 2), (1, 2, 1), 2),
    (4, (3, 3, 3, 3), (1, 1, 1, 1), (1, 1, 1, 1), 1),
    (4, (2, 3, 1, 2), (1, 2, 1, 1), (2, 2, 2, 2), 2),
]


@pytest.mark.parametrize(
    "shift", [0, -(2**31) + 100, 2**31 - 100], ids=["near zero", "lowest", "highest"]
)
@pytest.mark.parametrize("dimension, size, dilation, stride, spacing", CASES)
def test_kernel_map_onto_the_same_voxels(
    look_up, dimension, size, dilation, stride, spacing, shift
):
    voxels = cloud(
        90, dimension=dimension, side=5 if dimension > 1 else 60, batches=3, stride=spacing
    )
    voxels[:, 1:] += shift - shift % 12  # a multiple of all strides here
    manager = CoordinateManager(dimension)
    key = manager.insert(voxels, stride)
    expected = neighbours(voxels, voxels, window(size, dilation, stride))
    assert triples(manager, key, key, Kernel(size, dilation)) == sorted(expected)


@pytest.mark.parametrize("dimension, size, dilation, stride, spacing", CASES)
def test_kernel_map_onto_other_voxels(look_up, dimension, size, dilation, stride, spacing):
    """Targets inside, just outside and far outside of the input's box, in other clouds too."""
    manager = CoordinateManager(dimension)
    source = cloud(60, seed=1, dimension=dimension, side=5, batches=2, stride=spacing)
    near = cloud(60, seed=2, dimension=dimension, side=14, batches=4, stride=max(1, spacing // 2))
    far = near[:5].clone()
    far[:, 1] += 10**6
    far[:2, 1] *= -1
    target = torch.cat([near, far])
    source_key, target_key = manager.insert(source, stride), manager.insert(target, 7)
    kernel, offsets = Kernel(size, dilation), window(size, dilation, stride)
    assert triples(manager, source_key, target_key, kernel) == sorted(
        neighbours(source, target, offsets)
    )
    offsets = window(size, dilation, (7,) * dimension)
    assert triples(manager, target_key, source_key, kernel) == sorted(
        neighbours(target, source, offsets)
    )


@pytest.mark.parametrize("size, dilation", [(2, 7), (3, 8), (4, 1), (5, 2), (5, 9)])
def test_kernel_map_between_single_voxels_on_a_line(look_up, size, dilation):
    """At all distances: windows that begin before the first key of the space, or end behind the last."""
    manager = CoordinateManager(1)
    source = torch.tensor([[2, 7]], dtype=torch.int32)
    source_key, kernel = manager.insert(source), Kernel((size,), (dilation,))
    offsets = window((size,), (dilation,), (1,))
    for place in range(-60, 60):
        target = torch.tensor([[2, place]], dtype=torch.int32)
        found = triples(manager, source_key, manager.insert(target), kernel)
        assert found == neighbours(source, target, offsets)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [9, 17, 18, 33])
def test_long_kernels_on_a_line(monkeypatch, path, size):
    """Windows that begin before the first key of the space, or end behind the last, of strided and given outputs."""
    take_path(monkeypatch, path)
    for low in range(3):
        x = sparse(torch.tensor([[1, low + i] for i in range(5)], dtype=torch.int32), grad=True)
        weight = numbers(size, 3, 2, seed=1).requires_grad_()
        given = torch.tensor([[1, place] for place in range(-40, 40, 3)], dtype=torch.int32)
        for stride, target in ((1, None), (2, None), (4, None), (1, given)):
            y = fn.convolution(x, weight, None, Kernel((size,), (1,)), stride, coordinates=target)
            pairs = neighbours(x.C, y.C, window((size,), (1,), (1,)))
            expected = convolve_by_definition(x.F, weight, pairs, len(y))
            assert_close(y.F, expected, tolerance=1e-12)
            for ours, theirs in zip(
                torch.autograd.grad(y.F.square().sum(), [x.F, weight]),
                torch.autograd.grad(expected.square().sum(), [x.F, weight]),
            ):
                assert_close(ours, theirs, tolerance=1e-12)


@pytest.mark.parametrize("dimension, size, dilation, stride, spacing", CASES)
def test_kernel_map_onto_strided_voxels(look_up, dimension, size, dilation, stride, spacing):
    manager = CoordinateManager(dimension)
    source = cloud(80, dimension=dimension, side=7, batches=2, stride=spacing)
    key = manager.insert(source, stride)
    for factor in (2, 3):
        coarse = manager.stride(key, factor)
        target = manager[coarse].coordinates
        unit = [s * factor for s in stride]
        floored = {(b, *(c // u * u for c, u in zip(space, unit))) for b, *space in source.tolist()}
        assert {tuple(c) for c in target.tolist()} == floored and len(target) == len(floored)
        expected = neighbours(source, target, window(size, dilation, stride))
        assert triples(manager, key, coarse, Kernel(size, dilation)) == sorted(expected)


@pytest.mark.parametrize(
    "kernel",
    [
        Kernel((3, 3, 3), (1, 1, 1), "cross"),
        Kernel((5, 1, 3), (2, 1, 1), "cross"),
        Kernel((3, 3, 3), (1, 1, 1), "custom", ((0, 0, 0), (1, -2, 0))),
        Kernel((3, 3, 3), (1, 2, 1), "custom", ((-1, 0, 0), (0, 0, 0), (1, 0, 0))),  # symmetric
        Kernel(
            (3, 3, 3), (1, 1, 1), "custom", ((-1, 1, 0), (1, -1, 0))
        ),  # symmetric without a centre
        Kernel((3, 3, 3), (1, 1, 1), "custom", ((2, 0, 0), (2, 0, 0))),  # one offset twice
        Kernel((3, 3, 3), (1, 1, 1), "custom", ((0, 0, 0), (0, 0, 0))),
    ],
    ids=lambda kernel: f"{kernel.region} {kernel.volume}",
)
def test_kernels_that_are_no_cubes(look_up, kernel):
    x = sparse(cloud(60, side=4))
    offsets = [tuple(c * d for c, d in zip(cell, kernel.dilation)) for cell in kernel.cells]
    expected = neighbours(x.C, x.C, offsets)
    assert triples(x.manager, x.key, x.key, kernel) == sorted(expected)
    weight = numbers(kernel.volume, 3, 2, seed=1)
    y = fn.convolution(x, weight, None, kernel)
    assert_close(y.F, convolve_by_definition(x.F, weight, expected, len(x)), tolerance=1e-12)


def test_a_globally_pooled_tensor_meets_all_cells_of_a_kernel_at_its_only_voxel(look_up):
    summary = modules.GlobalSumPooling()(sparse(cloud(20)))
    weight = numbers(27, 3, 2, seed=1)
    y = fn.convolution(summary, weight, None, Kernel.of(3))
    assert_close(y.F, summary.F @ weight.sum(0), tolerance=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_convolution_in_four_dimensions(monkeypatch, path):
    take_path(monkeypatch, path)
    x = sparse(cloud(60, dimension=4, side=3), grad=True)
    kernel = Kernel.of((3, 2, 1, 3), dimension=4)
    weight = numbers(kernel.volume, 3, 2, seed=1).requires_grad_()
    offsets = window(kernel.size, kernel.dilation, x.tensor_stride)
    for stride in (1, 2):
        y = fn.convolution(x, weight, None, kernel, stride)
        pairs = neighbours(x.C, y.C, offsets)
        expected = convolve_by_definition(x.F, weight, pairs, len(y))
        assert_close(y.F, expected, tolerance=1e-12)
        z = fn.convolution_transpose(y, weight.transpose(1, 2), None, kernel, stride)
        assert z.key == x.key
        back = convolve_by_definition(
            expected, weight.transpose(1, 2), pairs, len(x), transposed=True
        )
        assert_close(z.F, back, tolerance=1e-12)
        for ours, theirs in zip(
            torch.autograd.grad(z.F.square().sum(), [x.F, weight]),
            torch.autograd.grad(back.square().sum(), [x.F, weight]),
        ):
            assert_close(ours, theirs, tolerance=1e-12)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize(
    "size, stride, tensor_stride",
    [(3, 1, 1), (2, 1, 1), (2, 2, 1), (4, 2, 1), (3, 2, 2), (3, 1, 2)],
)
def test_expanded_and_generated_coordinates(size, stride, tensor_stride, expand):
    """Also where the input is not aligned with its own tensor stride."""
    coordinates = cloud(20, side=5)
    offsets = window((size,) * 3, (1,) * 3, (tensor_stride,) * 3)
    if (
        expand
    ):  # an output sees what lies at its offsets, so that an input is seen from the other side
        offsets = [tuple(-o for o in offset) for offset in offsets]
    reached = {
        (b, x + dx, y + dy, z + dz) for b, x, y, z in coordinates.tolist() for dx, dy, dz in offsets
    }
    if expand:
        x = sparse(coordinates, tensor_stride=tensor_stride)
        y = modules.Convolution(3, 2, size, stride, expand_coordinates=True).double()(x)
        if stride > 1:
            unit = stride * tensor_stride
            reached = {c for c in reached if all(v % unit == 0 for v in c[1:])}
    else:
        x = sparse(coordinates, tensor_stride=tensor_stride * stride)
        y = modules.GenerativeConvolutionTranspose(3, 2, size, stride).double()(x)
    assert {tuple(c) for c in y.C.tolist()} == reached and len(y) == len(reached)


def test_blocks_are_generated_whole():
    """A cube as large as its stride is the block [u, u + stride), of an odd size too."""
    coarse = sparse(torch.tensor([[0, 3, 0, -3], [1, 6, 0, 0]], dtype=torch.int32), tensor_stride=3)
    fine = modules.PoolingTranspose(3, 3)(coarse)
    assert len(fine) == 2 * 27
    assert torch.equal(modules.AvgPooling(3, 3)(fine).C, coarse.C)
    assert_close(modules.AvgPooling(3, 3)(fine).F, coarse.F)


def small(grad: bool = True) -> SparseTensor:
    return sparse(cloud(12, side=3), channels=2, grad=grad)


DIFFERENTIABLE = {
    "convolution": lambda x, w: fn.convolution(x, w, None, Kernel.of(3)).F,
    "strided convolution": lambda x, w: fn.convolution(x, w, None, Kernel.of(3), 2).F,
    "transposed convolution": lambda x, w: (
        fn.convolution_transpose(fn.pool(x, "sum", Kernel.of(2), 2), w, None, Kernel.of(3), 2).F
    ),
    "generative convolution": lambda x, w: (
        fn.convolution_transpose(x, w, None, Kernel.of(3), expand_coordinates=True).F
    ),
    "channelwise convolution": lambda x, w: (
        fn.channelwise_convolution(x, w[:, 0], None, Kernel.of(3)).F
    ),
    "average pooling": lambda x, w: fn.pool(x, "average", Kernel.of(3), 2).F,
    "sum pooling": lambda x, w: fn.pool(x, "sum", Kernel.of(2), 2).F,
    "max pooling": lambda x, w: fn.pool(x, "max", Kernel.of(3)).F,
    "transposed pooling": lambda x, w: (
        fn.pool_transpose(fn.pool(x, "sum", Kernel.of(2), 2), Kernel.of(2), 2).F
    ),
    "global maximum": lambda x, w: fn.global_pool(x, "max").F,
    "global average": lambda x, w: fn.global_pool(x, "average").F,
    "instance norm": lambda x, w: fn.instance_norm(x, w[0, :1], w[1, :1]).F,
    "broadcast": lambda x, w: fn.broadcast(x, fn.global_pool(x, "sum"), "multiply").F,
    "normalize": lambda x, w: fn.normalize(x).F,
    "interpolation": lambda x, w: fn.interpolate(
        x, torch.tensor([[0, 0.3, 0.6, -0.7], [1, -0.2, 0.1, 0.4]]).double()
    ),
    "quotient across maps": lambda x, w: (x / fn.prune(x, torch.arange(len(x)) % 2 == 0)).F,
    "dense": lambda x, w: x.dense()[0],
}


@pytest.mark.parametrize("operation", DIFFERENTIABLE)
def test_first_and_second_derivatives(operation):
    x = small()
    weight = (numbers(27, 2, 2, seed=1) * 0.3).requires_grad_()

    def of(features, weight):
        return DIFFERENTIABLE[operation](x.replace(features), weight)

    assert torch.autograd.gradcheck(of, (x.F, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(of, (x.F, weight), fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
def test_derivatives_of_every_way_to_convolve(monkeypatch, path):
    take_path(monkeypatch, path)
    x = small()
    weight = (numbers(8, 2, 3, seed=1) * 0.3).requires_grad_()

    def of(features, weight):
        return fn.convolution(x.replace(features), weight, None, Kernel.of(2), 2).F

    assert torch.autograd.gradcheck(of, (x.F, weight))
    assert torch.autograd.gradgradcheck(of, (x.F, weight), fast_mode=True)


def test_derivatives_of_fields_and_by_position():
    x = small(grad=False)
    points = torch.tensor(
        [[0, 0.3, 0.6, -0.7], [1, -0.2, 0.1, 0.4]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda p: fn.interpolate(x, p), points)

    leaf = numbers(9, 2, seed=2).requires_grad_()
    positions = torch.cat([torch.zeros(9, 1).double(), numbers(9, 3, seed=3) * 2], 1)
    for reduce in ("first", "average", "sum", "max"):
        assert torch.autograd.gradcheck(
            lambda f, r=reduce: TensorField(f, positions).sparse(r).F, leaf
        )
    assert torch.autograd.gradcheck(lambda f: TensorField(f, positions).splat().F, leaf)


def test_by_position_the_derivative_on_a_plane_of_voxels_is_that_of_the_cell_above():
    corners = torch.cartesian_prod(torch.zeros(1), *[torch.arange(2.0)] * 3).int()
    x = SparseTensor(numbers(8, 2), corners)
    leaf = numbers(3, 2, seed=1)
    places = torch.tensor([[0, 0, 0.5, 0.25], [0, 0, 0, 0.5], [0, 0, 0, 0]], dtype=torch.float64)

    def slopes(points, of):
        points = points.clone().requires_grad_()
        return torch.autograd.grad(of(points).sum(), points)[0]

    for of in (
        lambda p: fn.interpolate(x, p) * leaf,
        lambda p: (lambda y: y.F * y.C[:, 1:2])(TensorField(leaf, p).splat()),
    ):
        above = places + torch.tensor([0, 1e-9, 1e-9, 1e-9])
        assert_close(slopes(places, of), slopes(above, of), tolerance=1e-6)
        assert slopes(places, of).abs().max() > 0.1
    assert torch.equal(
        fn.interpolate(x, places), fn.interpolate(x, places.clone().requires_grad_())
    )


def test_splat_is_the_adjoint_of_interpolation():
    positions = torch.cat([torch.zeros(30, 1).double(), numbers(30, 3, seed=3) * 2], 1)
    a = numbers(30, 3)
    grid = TensorField(a, positions).splat()
    b = numbers(*grid.F.shape, seed=4)
    assert_close(
        (grid.F * b).sum(), (a * fn.interpolate(grid.replace(b), positions)).sum(), tolerance=1e-12
    )


def test_corners_keep_differences_up_to_the_widest_gap_in_every_cloud():
    generator = torch.Generator().manual_seed(0)
    near = torch.unique(torch.randint(-9, 9, (60, 3), generator=generator), dim=0)
    # Two parts, one far below the other along the second axis and 500 above it along the third; a second cloud.
    parts = [near, near + torch.tensor([0, -(10**7), 500]), near + torch.tensor([10**7, 0, 0])]
    batch = [4, 4, 7]
    rows = torch.cat([torch.nn.functional.pad(p, (1, 0), value=b) for p, b in zip(parts, batch)])
    order = torch.randperm(len(rows), generator=generator)
    x = SparseTensor(torch.ones(len(rows), 1), rows[order].int(), reduce="error")
    found = torch.empty_like(rows[:, 1:])
    found[order] = x.coordinate_map.corners
    first, second, other = found.split([len(near)] * 3)
    for part in (first, second, other):
        torch.testing.assert_close(part - part[0], near - near[0])
    assert torch.equal(other.amin(0), torch.zeros(3, dtype=torch.int64))
    extent = near.amax(0) - near.amin(0)
    apart = first[0] - second[0]
    assert apart.tolist() == [0, APART + int(extent[1]), -500]
