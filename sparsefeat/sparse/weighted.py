"""Weighted sums of neighbours: a convolution's arithmetic where weights depend on pairs, not on cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sparsefeat.sparse.kernel_map import KernelMap, RowOrder


class PairWeights:
    """W weights for each pair of a kernel map, in the two orders in which sums need them.

    Args:
        plan: which rows meet.
        weigh: returns the weights (W, P) of pairs from their input and output rows, (P,) each.
        own: inputs and outputs are the same rows, and each sum is preceded by the row itself.
    """

    def __init__(self, plan: KernelMap, weigh: Callable[[Tensor, Tensor], Tensor], own: bool = False):
        self.n_in, self.n_out, self.own = plan.n_in, plan.n_out, int(own)
        order = plan.out_order
        rows = plan.in_rows.index_select(0, order.pairs)
        targets = torch.repeat_interleave(torch.arange(self.n_out, device=rows.device), order.splits.diff())
        self.columns = weigh(rows, targets).contiguous()
        self.count = len(self.columns) + self.own
        # Indices of 32 bits halve what a sum reads beside the features.
        small = max(self.n_in, self.n_out * self.count, self.columns.numel()) < 2**31
        self._index = torch.int32 if small else torch.int64
        self.in_rows, self.out_splits = rows.to(self._index), order.splits.to(self._index)
        self.targets = targets
        self._back: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def back(self) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of (output row, sum) in order of input row, where each row begins, and their weights."""
        if self._back is None:
            order = RowOrder(self.in_rows.long(), self.n_in)
            rows = self.targets.index_select(0, order.pairs) * self.count
            numbers = torch.arange(self.own, self.count, dtype=self._index, device=rows.device)
            rows = rows.to(self._index)[:, None] + numbers
            weights = self.columns.detach().t().contiguous().index_select(0, order.pairs)
            self._back = rows.flatten(), (order.splits * len(numbers)).to(self._index), weights.flatten()
        return self._back


def weighted_sums(features: Tensor, weights: PairWeights) -> Tensor:
    """``out[o, w] = sum over pairs (i, o) of weight[pair, w] * features[i]``.

    Shape: (n_in, C) -> (n_out, W, C), or (n_out, 1 + W, C) with the rows themselves. Differentiable in the
    features to any order, and once in weights that have a gradient.
    """
    return _Gather.apply(features, weights.columns, weights)


class _Gather(Function):
    @staticmethod
    def forward(ctx, features: Tensor, columns: Tensor, weights: PairWeights) -> Tensor:
        ctx.weights = weights
        ctx.save_for_backward(features if ctx.needs_input_grad[1] else None)
        out = features.new_empty(weights.n_out, weights.count, features.shape[1])
        rows = features.contiguous()
        if weights.own:
            out[:, 0] = rows
        for number, column in enumerate(columns, weights.own):
            out[:, number] = _bag(rows, weights.in_rows, weights.out_splits, column)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        weights, by_weight = ctx.weights, None
        if ctx.needs_input_grad[1]:
            given = ctx.saved_tensors[0].detach().index_select(0, weights.in_rows)
            sums = grad.detach()[:, weights.own :]
            by_weight = torch.stack([
                (sums[:, n].index_select(0, weights.targets) * given).sum(1) for n in range(sums.shape[1])
            ]).to(weights.columns.dtype)
        return _Spread.apply(grad, weights) if ctx.needs_input_grad[0] else None, by_weight, None


class _Spread(Function):
    """The transpose of :class:`_Gather`. Shape: (n_out, W, C) -> (n_in, C)."""

    @staticmethod
    def forward(ctx, sums: Tensor, weights: PairWeights) -> Tensor:
        ctx.weights = weights
        out = _bag(sums.reshape(-1, sums.shape[2]), *weights.back)
        return out.add_(sums[:, 0]) if weights.own else out

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Gather.apply(grad, ctx.weights.columns.detach(), ctx.weights), None


def _bag(rows: Tensor, indices: Tensor, splits: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(
        indices, rows, splits, mode="sum", include_last_offset=True, per_sample_weights=weights.to(rows.dtype)
    )
