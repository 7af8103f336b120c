"""Sums over the neighbours of a kernel map, by group of cells, and the transpose of that.

A map is seen as a sparse 0/1 matrix from input rows to (output row, group). The derivative of a product with it
is the product with its transpose, so that one operation has derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sparsefeat.sparse import operators
from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.kernel_map import KernelMap, RowOrder


def group_sums(features: Tensor, plan: KernelMap, groups: tuple[int, ...]) -> Tensor:
    """``out[o, g] = sum over pairs (i, o, k) of features[i]``, over the cells k of group g.

    Args:
        features: Shape (n_in, C), float32 or float64.
        groups: of each cell, K numbers counted from 0.

    Returns:
        Shape (n_out, G C).
    """
    if operators.wanted():
        handle = plan.out_handle
        return _as_operator(features, handle, plan.transposed, groups, False, handle.shape[0])
    return _Sums.apply(features, plan, groups, False)


def _add_up(rows: Tensor, plan: KernelMap, groups: tuple[int, ...], back: bool) -> Tensor:
    """Shape: (n_in, C) -> (n_out, G C), or (n_out, G C) -> (n_in, C) if ``back``."""
    count = max(groups) + 1
    if not rows.shape[1]:
        return rows.new_empty(plan.n_in if back else plan.n_out, 0)
    if back:
        rows = rows.reshape(-1, rows.shape[1] // count)
    indices, splits = plan.derived(
        ("group sums", groups, back), lambda: (_spread if back else _gather)(plan, groups)
    )
    sums = F.embedding_bag(indices, rows.contiguous(), splits, mode="sum", include_last_offset=True)
    return sums if back else sums.view(plan.n_out, count * rows.shape[1])


def _places(plan: KernelMap, groups: tuple[int, ...]) -> Tensor:
    return plan.out_rows * (max(groups) + 1) + constant(groups, plan.device)[plan.cells]


def _gather(plan: KernelMap, groups: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Input rows in order of (output row, group), and where each of these begins."""
    order = RowOrder(_places(plan, groups), plan.n_out * (max(groups) + 1))
    return plan.in_rows[order.pairs], order.splits


def _spread(plan: KernelMap, groups: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Numbers of (output row, group) in order of input row, and where each input row begins."""
    if plan.mirrored and groups == groups[::-1]:
        # i sees o as o sees i, under the mirrored cell, which is in the same group: row i's list is already there.
        count = max(groups) + 1
        rows, splits = plan.derived(("group sums", groups, False), lambda: _gather(plan, groups))
        group = torch.arange(len(splits) - 1, device=rows.device) % count
        return rows * count + group.repeat_interleave(splits.diff(), output_size=len(rows)), splits[
            ::count
        ].contiguous()
    order = plan.transpose.out_order
    return _places(plan, groups)[order.pairs], order.splits


class _Sums(Function):
    @staticmethod
    def forward(ctx, rows: Tensor, plan: KernelMap, groups: tuple[int, ...], back: bool) -> Tensor:
        ctx.of = plan, groups, back
        return _add_up(rows, *ctx.of)

    @staticmethod
    def backward(ctx, grad: Tensor):
        plan, groups, back = ctx.of
        return _Sums.apply(grad, plan, groups, not back), None, None, None


def _as_operator(
    rows: Tensor, handle: Tensor, transposed: bool, groups: Sequence[int], back: bool, count: int
) -> Tensor:
    return torch.ops.sparsefeat.group_sums(rows, handle, transposed, groups, back, count)


def _shaped(rows, handle, transposed, groups, back, count):
    kinds = max(groups) + 1
    return rows.new_empty(count, rows.shape[1] // kinds if back else rows.shape[1] * kinds)


operators.define(
    "group_sums",
    "(Tensor rows, Tensor handle, bool transposed, int[] groups, bool back, SymInt count) -> Tensor",
    lambda rows, handle, transposed, groups, back, count: _add_up(
        rows, KernelMap.behind(handle, transposed), tuple(groups), back
    ),
    _shaped,
    lambda needs, rows, handle, transposed, groups, back, count, grad: (
        _as_operator(grad, handle, transposed, groups, not back, rows.shape[0]),
        *[None] * 5,
    ),
)
