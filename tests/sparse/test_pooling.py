"""Max pooling: which of several inputs is taken, in every type, by every way that leads to it; pooling of groups."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import cloud, numbers
from torch.autograd import forward_ad

from sparsefeat.sparse import (
    CoordinateManager,
    Kernel,
    SparseTensor,
    TensorField,
    modules,
    pooling,
    quantize,
)
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.pooling import pool_groups, pool_neighbours

KINDS = ("window", "strided", "block", "transposed", "elsewhere")


def plan_of(kind: str, voxels: int = 90) -> KernelMap:
    manager = CoordinateManager(3)
    fine = manager.insert(cloud(voxels, side=5))
    coarse, other = manager.stride(fine, 2), manager.insert(cloud(40, seed=1, side=9))
    return {
        "window": lambda: manager.kernel_map(fine, fine, Kernel.of(3)),
        "strided": lambda: manager.kernel_map(fine, coarse, Kernel.of(3)),
        "block": lambda: manager.block_map(fine, manager.stride(fine, 4)),
        "transposed": lambda: manager.kernel_map(fine, coarse, Kernel.of(2)).transpose,
        "elsewhere": lambda: manager.kernel_map(fine, other, Kernel.of(3)),
    }[kind]()


def by_definition(values: torch.Tensor, plan: KernelMap) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value, or the first NaN, that each output sees, and the gradient of the sum of them all."""
    out, grad = values.new_zeros(plan.n_out, values.shape[1]), torch.zeros_like(values)
    seen: list[list[int]] = [[] for _ in range(plan.n_out)]
    for source, target in zip(plan.in_rows.tolist(), plan.out_rows.tolist()):
        seen[target].append(source)
    for target, sources in enumerate(seen):
        for channel in range(values.shape[1] if sources else 0):
            column = values[sources, channel].tolist()
            chosen = next((i for i, v in enumerate(column) if v != v), None)
            row = sources[column.index(max(column)) if chosen is None else chosen]
            out[target, channel] = values[row, channel]
            grad[row, channel] += 1
    return out, grad


def features(kind: str, rows: int, dtype: torch.dtype) -> torch.Tensor:
    values = numbers(rows, 3) * 9
    if kind == "ties":
        values = values.sign()
    elif kind == "not numbers":
        values[numbers(rows, 3, seed=1) > 0.8] = torch.inf
        values[numbers(rows, 3, seed=2) > 0.8] = -torch.inf
        values[numbers(rows, 3, seed=3) > 1] = torch.nan
    return values.to(dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("values", ["distinct", "ties", "not numbers"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_the_largest_is_taken_and_gets_the_gradient(kind, values, dtype):
    plan = plan_of(kind)
    x = features(values, plan.n_in, dtype).requires_grad_()
    expected, gradient = by_definition(x.detach(), plan)
    y = pool_neighbours(x, plan, "max")
    assert y.dtype == dtype and torch.allclose(y.detach(), expected, 0, 0, equal_nan=True)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], gradient)
    assert torch.allclose(pool_neighbours(x.detach(), plan, "max"), expected, 0, 0, equal_nan=True)


PAIR = torch.tensor([[0, 4, 4, 4], [0, 4, 4, 4], [1, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.int32)
LINE = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.int32)
MAXIMA = {
    "duplicates of a tensor": lambda x: SparseTensor(x, PAIR, reduce="max").F,
    "quantised points": lambda x: quantize(PAIR, x, reduce="max").features,
    "points of a field": lambda x: TensorField(x, PAIR + 0.5).sparse("max").F,
    "clouds": lambda x: modules.GlobalMaxPooling()(SparseTensor(x, LINE)).F,
    "blocks": lambda x: modules.MaxPooling(2, 2)(SparseTensor(x, LINE)).F,
    "windows": lambda x: modules.MaxPooling(3, 2)(SparseTensor(x, LINE)).F,
    "groups": lambda x: pool_groups(x, torch.tensor([0, 0, 1, 1]), 2, "max"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", MAXIMA)
def test_a_largest_value_of_zero_has_a_whole_gradient(name, dtype):
    """torch's own reduction halves it: there it counts the zero that the output was made of as one of the largest."""
    columns = [[0.0, -1, -1, 0], [-2, 0, 0, -2], [0, 0, 0, 0], [-1, -3, 5, 5], [-0.0, 0, 0, -0.0]]
    x = torch.tensor(columns, dtype=dtype).t().contiguous().requires_grad_()
    y = MAXIMA[name](x)
    assert y.tolist() == [[0, 0, 0, -1, 0], [0, 0, 0, 5, 0]]
    given = torch.tensor([[2.0, 3, 4, 5, 6], [7, 8, 9, 10, 11]], dtype=dtype)
    gradient = torch.autograd.grad(y, x, given)[0]
    # Of several that are equal the first has it all.
    first = [[2, 0, 4, 5, 6], [0, 3, 0, 0, 0], [0, 8, 9, 10, 11], [7, 0, 0, 0, 0]]
    assert gradient.tolist() == first


@pytest.mark.parametrize("mode", ["max", "average", "sum"])
def test_groups_without_rows_are_zero(mode):
    x = numbers(4, 2).requires_grad_()
    y = pool_groups(x, torch.tensor([3, 1, 3, 3]), 5, mode)
    there = x[[0, 2, 3]]
    expected = {"max": there.amax(0), "average": there.mean(0), "sum": there.sum(0)}[mode]
    assert torch.allclose(y[3], expected) and torch.equal(y[1], x[1])
    assert not y[[0, 2, 4]].any()
    assert torch.autograd.gradcheck(
        lambda x: pool_groups(x, torch.tensor([3, 1, 3, 3]), 5, mode), x
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_integers(kind, dtype):
    plan = plan_of(kind)
    x = features("distinct", plan.n_in, torch.float64).abs().to(dtype)
    expected, gradient = by_definition(x, plan)
    assert torch.equal(pool_neighbours(x, plan, "max"), expected)
    rows = pooling._largest(x, plan)  # what a compiled graph asks for, of any type
    counted = torch.zeros(plan.n_in + 1, 3).scatter_add(0, rows, torch.ones(rows.shape))[:-1]
    assert torch.equal(counted.to(dtype), gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_row_by_row_is_the_same_as_all_at_once(monkeypatch, kind):
    plan = plan_of(kind)
    x = features("ties", plan.n_in, torch.float32)
    values, rows = pool_neighbours(x, plan, "max"), pooling._largest(x, plan)
    monkeypatch.setitem(pooling._CHUNK, "cpu", 1)
    assert torch.equal(pool_neighbours(x, plan, "max"), values)
    assert torch.equal(pooling._largest(x, plan), rows)


@pytest.mark.parametrize("voxels, channels", [(0, 3), (1, 3), (90, 0), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_voxels_and_no_channels(kind, voxels, channels):
    plan = plan_of(kind, voxels)
    x = numbers(plan.n_in, channels).requires_grad_()
    y = pool_neighbours(x, plan, "max")
    y.sum().backward()
    assert y.shape == (plan.n_out, channels) and x.grad.shape == x.shape
    assert torch.equal(pool_neighbours(x.detach(), plan, "max"), y.detach())


def test_maps_pooled_in_inference_mode_serve_training():
    plan = plan_of("window")
    x = numbers(plan.n_in, 2)
    with torch.inference_mode():
        expected = pool_neighbours(x, plan, "max")
    y = pool_neighbours(x.clone().requires_grad_(), plan, "max")
    y.sum().backward()
    assert torch.equal(y.detach(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tangents_follow_the_first_of_several_largest(kind):
    plan = plan_of(kind)
    x = features("ties", plan.n_in, torch.float64)
    tangent = numbers(plan.n_in, x.shape[1]).double()
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(pool_neighbours(forward_ad.make_dual(x, tangent), plan, "max"))
    wanted = pooling._take(tangent, pooling._largest(x, plan))
    assert torch.equal(out.tangent, wanted) and out.tangent.abs().sum() > 0
