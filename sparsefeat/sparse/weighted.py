"""Weighted sums of neighbours: a convolution's arithmetic where weights depend on pairs, not on cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sparsefeat.sparse import operators
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.kernel_map import KernelMap, RowOrder

_PAIRING = ("pairing",)


class Pairing(NamedTuple):
    """The pairs of a kernel map in the order of its output rows.

    Attributes:
        rows: input row of each pair. Shape: (P,) int32 where that is enough, since it halves what a sum reads
            beside the features; else int64.
        splits: output row o has the pairs from ``splits[o]`` to ``splits[o + 1]``. Shape: (n_out + 1,), as rows.
        targets: output row of each pair. Shape: (P,) int64.
    """

    rows: Tensor
    splits: Tensor
    targets: Tensor


def pairing(plan: KernelMap) -> Pairing:
    """That of a kernel map, made once for each of its directions."""
    return plan.derived(_PAIRING, lambda: _make_pairing(plan))


def has_pairing(plan: KernelMap) -> bool:
    """Whether :func:`pairing` has been asked for."""
    return plan.has(_PAIRING)


@compile_disabled
def _make_pairing(plan: KernelMap) -> Pairing:
    order = plan.out_order
    rows = plan.in_rows.index_select(0, order.pairs)
    targets = torch.repeat_interleave(
        torch.arange(plan.n_out, device=rows.device), order.splits.diff(), output_size=len(rows)
    )
    index = _index_dtype(plan.n_in, len(rows))
    return Pairing(rows.to(index), order.splits.to(index), targets)


def _index_dtype(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 else torch.int64


class PairWeights:
    """W weights for each pair of a kernel map.

    Args:
        plan: which rows meet.
        weigh: returns the weights (W, P) of pairs from their input and output rows, (P,) each.
        own: inputs and outputs are the same rows, and each sum is preceded by the row itself.
    """

    def __init__(self, plan: KernelMap, weigh: Callable[[Tensor, Tensor], Tensor], own: bool = False):
        pairs = pairing(plan)
        self.plan, self.own = plan, own
        self.columns = weigh(pairs.rows, pairs.targets).contiguous()
        self._back: _Back | None = None

    @property
    def back(self) -> _Back:
        """What the transpose of the sums needs, made when first asked for."""
        if self._back is None:
            self._back = _back(self.plan, self.columns.detach(), self.own)
        return self._back


def weighted_sums(features: Tensor, weights: PairWeights) -> Tensor:
    """``out[o, w] = sum over pairs (i, o) of weight[pair, w] * features[i]``.

    Shape: (n_in, C) -> (n_out, W, C), or (n_out, 1 + W, C) with the rows themselves. Differentiable in the
    features to any order, and once in weights that have a gradient.
    """
    if operators.wanted():
        plan = weights.plan
        handle = plan.out_handle
        return _as_operator(features, weights.columns, handle, plan.transposed, weights.own, False, handle.shape[0])
    return _Gather.apply(features, weights.columns, weights)


class _Back(NamedTuple):
    """Numbers of (output row, sum) in order of input row, where each row begins, and their weights."""

    rows: Tensor
    splits: Tensor
    weights: Tensor


def _back(plan: KernelMap, columns: Tensor, own: bool) -> _Back:
    order, rows, splits = plan.derived(
        ("pairing back", len(columns), own), lambda: _order_back(plan, len(columns), own)
    )
    return _Back(rows, splits, columns.t().contiguous().index_select(0, order).flatten())


def _order_back(plan: KernelMap, weights: int, own: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs in order of input row, and what of :class:`_Back` does not depend on the weights."""
    pairs, count = pairing(plan), weights + own
    order = RowOrder(pairs.rows.long(), plan.n_in)
    index = _index_dtype(plan.n_out * count, len(pairs.rows) * weights)
    numbers = torch.arange(int(own), count, dtype=index, device=pairs.rows.device)
    rows = (pairs.targets.index_select(0, order.pairs) * count).to(index)[:, None] + numbers
    return order.pairs, rows.flatten(), (order.splits * weights).to(index)


def _gather(features: Tensor, columns: Tensor, plan: KernelMap, own: bool) -> Tensor:
    out = features.new_empty(plan.n_out, len(columns) + own, features.shape[1])
    rows, pairs = features.contiguous(), pairing(plan)
    if own:
        out[:, 0] = rows
    for number, column in enumerate(columns, int(own)):
        out[:, number] = _bag(rows, pairs.rows, pairs.splits, column)
    return out


def _spread(sums: Tensor, back: _Back, own: bool) -> Tensor:
    out = _bag(sums.reshape(-1, sums.shape[2]), *back)
    return out.add_(sums[:, 0]) if own else out


def _by_weight(features: Tensor, grad: Tensor, plan: KernelMap, own: bool) -> Tensor:
    """Gradient to the weights. Shape: (n_in, C), (n_out, W, C) -> (W, P)."""
    pairs = pairing(plan)
    given, sums = features.index_select(0, pairs.rows), grad[:, int(own) :]
    return torch.stack([
        (sums[:, n].index_select(0, pairs.targets) * given).sum(1) for n in range(sums.shape[1])
    ])


def _bag(rows: Tensor, indices: Tensor, splits: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(
        indices, rows, splits, mode="sum", include_last_offset=True, per_sample_weights=weights.to(rows.dtype)
    )


class _Gather(Function):
    @staticmethod
    def forward(ctx, features: Tensor, columns: Tensor, weights: PairWeights) -> Tensor:
        ctx.weights = weights
        ctx.save_for_backward(features if ctx.needs_input_grad[1] else None)
        return _gather(features, columns, weights.plan, weights.own)

    @staticmethod
    def backward(ctx, grad: Tensor):
        weights, by_weight = ctx.weights, None
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(ctx.saved_tensors[0].detach(), grad.detach(), weights.plan, weights.own)
            by_weight = by_weight.to(weights.columns.dtype)
        return _Spread.apply(grad, weights) if ctx.needs_input_grad[0] else None, by_weight, None


class _Spread(Function):
    """The transpose of :class:`_Gather`. Shape: (n_out, W, C) -> (n_in, C)."""

    @staticmethod
    def forward(ctx, sums: Tensor, weights: PairWeights) -> Tensor:
        ctx.weights = weights
        return _spread(sums, weights.back, weights.own)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Gather.apply(grad, ctx.weights.columns.detach(), ctx.weights), None


def _as_operator(
    rows: Tensor, columns: Tensor, handle: Tensor, transposed: bool, own: bool, back: bool, count: int
) -> Tensor:
    return torch.ops.sparsefeat.weighted_sums(rows, columns, handle, transposed, own, back, count)


def _run(rows, columns, handle, transposed, own, back, count):
    plan = KernelMap.behind(handle, transposed)
    return _spread(rows, _back(plan, columns, own), own) if back else _gather(rows, columns, plan, own)


def _shaped(rows, columns, handle, transposed, own, back, count):
    return rows.new_empty(count, rows.shape[2]) if back else rows.new_empty(count, len(columns) + own, rows.shape[1])


def _backward(needs, rows, columns, handle, transposed, own, back, count, grad):
    fixed, by_weight = columns.detach(), None
    if needs[1] and not back:
        by_weight = torch.ops.sparsefeat.weighted_sums_by_weight(
            rows.detach(), grad.detach(), handle, transposed, own, columns.shape[1]
        ).to(columns.dtype)
    to_rows = _as_operator(grad, fixed, handle, transposed, own, not back, rows.shape[0]) if needs[0] else None
    return to_rows, by_weight, *[None] * 5


operators.define(
    "weighted_sums",
    "(Tensor rows, Tensor columns, Tensor handle, bool transposed, bool own, bool back, SymInt count) -> Tensor",
    _run, _shaped, _backward,
)
operators.define(
    "weighted_sums_by_weight",
    "(Tensor features, Tensor grad, Tensor handle, bool transposed, bool own, SymInt pairs) -> Tensor",
    lambda features, grad, handle, transposed, own, pairs: _by_weight(
        features, grad, KernelMap.behind(handle, transposed), own
    ),
    lambda features, grad, handle, transposed, own, pairs: grad.new_empty(grad.shape[1] - own, pairs),
)
