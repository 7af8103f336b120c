"""Pooling of rows: over the neighbours of a kernel map, and over whole clouds."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.sparse import operators
from sparsefeat.sparse.coordinate_map import Clouds
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import widen
from sparsefeat.sparse.sums import group_sums


def sum_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum ``values`` (P, C) by row, in float32 for the half types. Shape: (count, C)."""
    wide = widen(values)
    return wide.new_zeros(count, values.shape[1]).index_add(0, rows, wide).to(values.dtype)


def pool_neighbours(features: Tensor, plan: KernelMap, mode: str) -> Tensor:
    """Pool what each output row sees; ``mode`` is ``"max"``, ``"average"`` or ``"sum"``.

    Shape: (n_in, C) -> (n_out, C); a row that sees nothing is zero.
    """
    if _check(mode) == "max":
        return _take(features, _largest(features.detach(), plan))
    # Integers too: torch adds rows by splits in floating point alone.
    wide, one_group = widen(features) if features.is_floating_point() else features.double(), (0,) * plan.volume
    total = group_sums(wide, plan, one_group)
    if mode == "average":  # divided before it is rounded: in float16 the sum or the count may be infinite
        # Counted by a sum: a compiler sees the sizes of that, while those of a map's parts depend on data.
        total = total / group_sums(wide.new_ones(len(wide), 1), plan, one_group).clamp(min=1)
    return total.to(features.dtype)


def pool_clouds(features: Tensor, clouds: Clouds, mode: str) -> Tensor:
    """Pool each cloud; modes as for :func:`pool_neighbours`. Shape: (V, C) -> (B, C)."""
    if _check(mode) == "max":
        everyone = torch.arange(len(features), device=features.device)
        return _take(features, _winners(features.detach(), everyone, clouds.rows, len(clouds.indices)))
    total = sum_rows(widen(features), clouds.rows, len(clouds.indices))
    if mode == "average":
        total = total / clouds.counts[:, None].to(total.dtype)
    return total.to(features.dtype)


def _check(mode: str) -> str:
    if mode not in ("max", "average", "sum"):
        raise ValueError(f"pooling: expected 'max', 'average' or 'sum', got {mode!r}")
    return mode


def _take(values: Tensor, source: Tensor) -> Tensor:
    """``values`` from the rows in ``source`` (R, C), zero where it is -1."""
    if len(values) == 0:
        return values.new_zeros(source.shape) + values.sum()
    return torch.where(source >= 0, values.gather(0, source.clamp(min=0)), 0)


def _largest(values: Tensor, plan: KernelMap) -> Tensor:
    """The row of the largest value that each output row sees, per channel. Shape: (n_in, C) -> (n_out, C)."""
    if operators.wanted():
        handle = plan.out_handle
        return torch.ops.sparsefeat.largest(values, handle, plan.transposed, handle.shape[0])
    return _winners(values.index_select(0, plan.in_rows), plan.in_rows, plan.out_rows, plan.n_out)


def _winners(values: Tensor, sources: Tensor, rows: Tensor, count: int) -> Tensor:
    """``sources`` of the largest values (P, C) of each of ``count`` rows and channel, -1 where there is none.

    The first NaN wins, and of several that are equal the first: the gradient goes to one input alone.
    """
    if len(values) == 0:
        return sources.new_full((count, values.shape[1]), -1)
    rows = rows[:, None].expand_as(values)
    largest = values.new_zeros(count, values.shape[1]).scatter_reduce(0, rows, values, "amax", include_self=False)
    number = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    number = torch.where((values == largest.gather(0, rows)) | values.isnan(), number, len(values))
    winner = torch.full_like(largest, len(values), dtype=torch.int64).scatter_reduce(0, rows, number, "amin")
    return torch.where(winner < len(values), sources[winner.clamp(max=len(values) - 1)], -1)


def _run_largest(values: Tensor, handle: Tensor, transposed: bool, n_out: int) -> Tensor:
    return _largest(values, KernelMap.behind(handle, transposed))


operators.define(
    "largest", "(Tensor values, Tensor handle, bool transposed, SymInt n_out) -> Tensor", _run_largest,
    lambda values, handle, transposed, n_out: values.new_empty(n_out, values.shape[1], dtype=torch.int64),
)
