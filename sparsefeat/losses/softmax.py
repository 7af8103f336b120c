"""The softmaxes from each of two sets of features to the other, without keeping the matrix of all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_AT_ONCE = 2**19
"""Pairs whose exponentials are computed at once on a CPU: they stay in its cache."""
_AT_ONCE_ELSEWHERE = 2**26


def log_partitions(f: Tensor, g: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of both softmaxes of ``f g^T / t``: over g for each f, and over f for each g.

    A log-probability is the logit less these, so that the few that a loss needs are had without all n m of them.

    Args:
        f, g: Shape (n, C), (m, C), neither empty; half types are computed in float32.
        temperature: t.

    Returns:
        Shape (n,), (m,). Differentiable once, save for features so long that a number of their type cannot hold the
        exponentials: those take the usual way.
    """
    with torch.autocast(f.device.type, enabled=False):
        f, g = (part if part.dtype == torch.float64 else part.float() for part in (f, g))
        with torch.no_grad():
            largest = float(f.norm(dim=1).amax() * g.norm(dim=1).amax()) / temperature
        if not 2 * largest < -math.log(torch.finfo(f.dtype).tiny):
            logits = f @ g.t() / temperature
            return logits.logsumexp(1), logits.logsumexp(0)
        return _LogPartitions.apply(f, g, temperature, largest)


class _LogPartitions(Function):
    @staticmethod
    def forward(
        ctx, f: Tensor, g: Tensor, temperature: float, largest: float
    ) -> tuple[Tensor, Tensor]:
        over_g, over_f = f.new_empty(len(f)), g.new_zeros(len(g))
        for rows, exponentials in _blocks(f, g, temperature, largest):
            torch.sum(exponentials, 1, out=over_g[rows])
            over_f += exponentials.sum(0)
        ctx.save_for_backward(f, g, over_g, over_f)
        ctx.temperature, ctx.largest = temperature, largest
        return over_g.log() + largest, over_f.log() + largest

    @staticmethod
    @once_differentiable
    def backward(ctx, to_over_g: Tensor, to_over_f: Tensor):
        f, g, over_g, over_f = ctx.saved_tensors
        to_f, to_g = torch.empty_like(f), torch.zeros_like(g)
        rows_share, columns_share = to_over_g / over_g, to_over_f / over_f
        with torch.autocast(f.device.type, enabled=False):
            for rows, exponentials in _blocks(f, g, ctx.temperature, ctx.largest):
                # What the logits get: the probabilities of either hop, times its gradient.
                exponentials *= rows_share[rows, None] + columns_share
                torch.mm(exponentials, g, out=to_f[rows])
                to_g.addmm_(exponentials.t(), f[rows])
        return to_f / ctx.temperature, to_g / ctx.temperature, None, None


def _blocks(f: Tensor, g: Tensor, temperature: float, largest: float):
    """Rows of f, and exp(logit - largest) of these with all of g. Shape: (B, m)."""
    at_once = _AT_ONCE if f.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    step = max(1, at_once // len(g))
    for start in range(0, len(f), step):
        rows = slice(start, start + step)
        yield rows, ((f[rows] / temperature) @ g.t()).sub_(largest).exp_()
