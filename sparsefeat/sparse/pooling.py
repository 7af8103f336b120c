"""Pooling of rows: over the neighbours of a kernel map, and over groups such as whole clouds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsefeat.sparse import operators
from sparsefeat.sparse.coordinate_map import Clouds
from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import widen
from sparsefeat.sparse.sums import group_sums

_DEGREES = (0, 1, *(n << shift for shift in range(40) for n in (2, 3)))
"""Numbers of neighbours that output rows are reduced with: 0, 1, 2, 3, 4, 6, 8, 12, 16, ..."""

_CHUNK = {"cpu": 2**19}
"""Elements gathered at once, by device type: a CPU's cache holds them."""

_CHUNK_ELSEWHERE = 2**27


def sum_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum ``values`` (P, C) by row, in float32 for the half types. Shape: (count, C)."""
    wide = widen(values)
    return wide.new_zeros(count, values.shape[1]).index_add(0, rows, wide).to(values.dtype)


def pool_neighbours(features: Tensor, plan: KernelMap, mode: str) -> Tensor:
    """Pool what each output row sees; ``mode`` is ``"max"``, ``"average"`` or ``"sum"``.

    Shape: (n_in, C) -> (n_out, C); a row that sees nothing is zero. Sums of integers are int64.
    """
    if _check(mode) == "max":
        if operators.wanted():
            handle = plan.out_handle
            rows = torch.ops.sparsefeat.largest(
                features.detach(), handle, plan.transposed, handle.shape[0]
            )
        elif torch.is_grad_enabled():
            rows = _largest(features.detach(), plan)
        else:  # no gradient has to know where a value came from
            out = features.new_zeros(plan.n_out, features.shape[1])
            return _reduce(features, plan, lambda seen, _: seen.amax(1), out)
        return _take(features, rows)
    # Integers too: torch adds rows by splits in floating point alone.
    wide, one_group = (
        widen(features) if features.is_floating_point() else features.double(),
        (0,) * plan.volume,
    )
    total = group_sums(wide, plan, one_group)
    if (
        mode == "average"
    ):  # divided before it is rounded: in float16 the sum or the count may be infinite
        # Counted by a sum: a compiler sees the sizes of that, while those of a map's parts depend on data.
        total = total / group_sums(wide.new_ones(len(wide), 1), plan, one_group).clamp(min=1)
    return total.to(_sum_dtype(features) if mode == "sum" else features.dtype)


def pool_clouds(features: Tensor, clouds: Clouds, mode: str) -> Tensor:
    """Pool each cloud; modes as for :func:`pool_neighbours`. Shape: (V, C) -> (B, C)."""
    return pool_groups(features, clouds.rows, len(clouds.indices), mode, clouds.counts)


def pool_groups(
    features: Tensor, groups: Tensor, count: int, mode: str, sizes: Tensor | None = None
) -> Tensor:
    """Pool the rows of each group; modes as for :func:`pool_neighbours`.

    Args:
        features: Shape (N, C).
        groups: Shape (N,), the group of each row, from 0 to ``count - 1``.
        sizes: Shape (count,), the rows of each group, where they are known.

    Returns:
        Shape (count, C); zero for a group without rows. Sums of integers are int64, their averages of torch's default
        type.
    """
    if _check(mode) == "max":
        return _take(features, _largest_of_groups(features.detach(), groups, count))
    dtype = _sum_dtype(features)
    wide = widen(features.to(dtype))
    if mode == "average" and dtype == torch.int64:
        wide, dtype = features.double(), torch.get_default_dtype()
    total = sum_rows(wide, groups, count)
    if mode == "average":
        sizes = torch.bincount(groups, minlength=count) if sizes is None else sizes
        total = total / sizes.clamp(min=1)[:, None].to(total.dtype)
    return total.to(dtype)


def _sum_dtype(features: Tensor) -> torch.dtype:
    """That of a sum: narrow integers would wrap around."""
    exact = features.is_floating_point() or features.is_complex()
    return features.dtype if exact else torch.int64


def _check(mode: str) -> str:
    if mode not in ("max", "average", "sum"):
        raise ValueError(f"pooling: expected 'max', 'average' or 'sum', got {mode!r}")
    return mode


def _take(values: Tensor, source: Tensor) -> Tensor:
    """``values`` from the rows in ``source`` (R, C), zero where it is their number."""
    return torch.cat([values, values.new_zeros(1, values.shape[1])]).gather(0, source)


def _neighbours(plan: KernelMap) -> list[tuple[Tensor, Tensor]]:
    """Output rows that see something, by how much, and their input rows in cell order.

    Shape: (m,), (m, d) for each d of ``_DEGREES`` that is needed; the last input row fills up what is less.
    """
    order = plan.out_order
    rows, degrees = plan.in_rows.index_select(0, order.pairs), order.splits.diff()
    kind = torch.searchsorted(constant(_DEGREES, rows.device), degrees)
    kind, targets = torch.sort(kind, stable=True)
    # All at once, so that a device is waited for once.
    bounds = torch.searchsorted(kind, torch.arange(len(_DEGREES) + 1, device=rows.device)).tolist()
    groups = []
    for degree, start, stop in zip(_DEGREES, bounds, bounds[1:]):
        if degree and stop > start:
            chosen = targets[start:stop]
            rank = torch.arange(degree, device=rows.device)
            place = torch.minimum(rank, degrees[chosen, None] - 1) + order.splits[chosen, None]
            groups.append((chosen, rows[place]))
    return groups


def _reduce(
    values: Tensor, plan: KernelMap, what: Callable[[Tensor, Tensor], Tensor], out: Tensor
) -> Tensor:
    """``what`` of the values (m, d, C) that output rows see and of those rows (m, d), written to ``out``.

    Shape: (n_in, C), (n_out, C) -> (n_out, C), as it was for a row that sees nothing.
    """
    channels = values.shape[1]
    for chosen, neighbours in plan.derived(("neighbours",), lambda: _neighbours(plan)):
        degree = neighbours.shape[1]
        size = _CHUNK.get(values.device.type, _CHUNK_ELSEWHERE)
        size = max(1, size // (degree * max(channels, 1)))
        for there, rows in zip(chosen.split(size), neighbours.split(size)):
            seen = values.index_select(0, rows.flatten()).view(len(rows), degree, channels)
            out.index_copy_(0, there, what(seen, rows))
    return out


def _largest(values: Tensor, plan: KernelMap) -> Tensor:
    """The row of the largest value that each output row sees, per channel, and n_in where it sees nothing.

    The first NaN wins, and of several that are equal the first: the gradient goes to one input alone.
    Shape: (n_in, C) -> (n_out, C).
    """
    wide = widen(values) if values.is_floating_point() else values
    out = torch.full((plan.n_out, values.shape[1]), plan.n_in, device=values.device)
    return _reduce(wide, plan, lambda seen, rows: rows.gather(1, _first_largest(seen)), out)


def _first_largest(values: Tensor) -> Tensor:
    """Where the largest value is on the second axis. Shape: (m, d, C) -> (m, C)."""
    count = values.shape[1]
    if values.device.type == "cpu" and values.is_floating_point() and count <= 2**24:
        # On a CPU torch finds largest values several times as fast as their places, so these are made values.
        largest = values.amax(1, keepdim=True)
        if not largest.isnan().any():
            backwards = torch.arange(count, 0, -1, dtype=values.dtype)[:, None]
            return count - values.eq_(largest).mul_(backwards).amax(1).long()
    return values.max(1).indices


def _largest_of_groups(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """As :func:`_largest`, of each group of rows. Shape: (N, C), (N,) -> (count, C)."""
    rows = groups[:, None].expand_as(values)
    # The gradient of torch's scatter_reduce is wrong where the largest value is what the output held before, here 0.
    largest = values.new_zeros(count, values.shape[1]).scatter_reduce(
        0, rows, values, "amax", include_self=False
    )
    number = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    number = torch.where((values == largest.gather(0, rows)) | values.isnan(), number, len(values))
    return torch.full_like(largest, len(values), dtype=torch.int64).scatter_reduce(
        0, rows, number, "amin"
    )


def _run_largest(values: Tensor, handle: Tensor, transposed: bool, n_out: int) -> Tensor:
    return _largest(values, KernelMap.behind(handle, transposed))


operators.define(
    "largest",
    "(Tensor values, Tensor handle, bool transposed, SymInt n_out) -> Tensor",
    _run_largest,
    lambda values, handle, transposed, n_out: values.new_empty(
        n_out, values.shape[1], dtype=torch.int64
    ),
)
