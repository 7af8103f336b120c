"""Convolution of each channel with a kernel of its own, differentiable to any order (backwards).

Its gradient to the features is such a convolution over the transposed map, and that to the kernel has
convolutions for gradients again: two operations are closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from sparsefeat.sparse import derivatives, operators
from sparsefeat.sparse.kernel_map import KernelMap


def convolve_channels(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    """``out[o, c] = sum over pairs (i, o, k) of features[i, c] * weight[k, c]``, in float32 for the half types.

    Shape: features (n_in, C), weight (K, C) -> (n_out, C).
    """
    dtype = torch.promote_types(features.dtype, weight.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    do, over = _eager, plan
    if operators.wanted():
        handle = plan.out_handle
        do = _compiled
        over = operators.PlanHandle(
            handle, plan.transposed, weight.shape[0], features.shape[0], handle.shape[0]
        )
    return do.convolve(features.to(wide), weight.to(wide), over).to(dtype)


def _cells(plan: KernelMap) -> Iterator[tuple[Tensor, Tensor]]:
    """Input and output rows of the pairs of each cell."""
    return zip(plan.in_rows.split(plan.counts), plan.out_rows.split(plan.counts))


def _convolve(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    out = features.new_zeros(plan.n_out, features.shape[1])
    for row, (sources, targets) in zip(weight, _cells(plan)):
        out.index_add_(0, targets, features.index_select(0, sources).mul_(row))
    return out


def _weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    """Shape: (n_in, C), (n_out, C) -> (K, C)."""
    return torch.stack(
        [
            features.index_select(0, sources).mul_(grad.index_select(0, targets)).sum(0)
            for sources, targets in _cells(plan)
        ]
    )


class _Operations(NamedTuple):
    """Both as differentiable functions; a plan is anything with a ``transpose``."""

    convolve: Callable[[Tensor, Tensor, Any], Tensor]
    weight_gradient: Callable[[Tensor, Tensor, Any], Tensor]

    def of_convolve(
        self, needs: Sequence[bool], features: Tensor, weight: Tensor, grad: Tensor, plan: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients to features and weight, None where none is asked for."""
        return (
            self.convolve(grad, weight, plan.transpose) if needs[0] else None,
            self.weight_gradient(features, grad, plan) if needs[1] else None,
        )

    def of_weight_gradient(
        self, needs: Sequence[bool], features: Tensor, grad: Tensor, to: Tensor, plan: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients to features and the output's gradient, from that to the weight's gradient."""
        return (
            self.convolve(grad, to, plan.transpose) if needs[0] else None,
            self.convolve(features, to, plan) if needs[1] else None,
        )


class _Convolve(Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
        derivatives.save(ctx, features, weight)
        ctx.plan = plan
        return _convolve(features, weight, plan)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return *_eager.of_convolve(
            ctx.needs_input_grad, *derivatives.saved(ctx), grad, ctx.plan
        ), None


class _WeightGradient(Function):
    @staticmethod
    def forward(ctx, features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
        ctx.save_for_backward(features, grad)
        ctx.plan = plan
        return _weight_gradient(features, grad, plan)

    @staticmethod
    def backward(ctx, to: Tensor):
        return *_eager.of_weight_gradient(
            ctx.needs_input_grad, *ctx.saved_tensors, to, ctx.plan
        ), None


_eager = _Operations(_Convolve.apply, _WeightGradient.apply)

_compiled = _Operations(
    lambda x, w, plan: torch.ops.sparsefeat.convolve_channels(
        x, w, plan.handle, plan.transposed, plan.n_out
    ),
    lambda x, grad, plan: torch.ops.sparsefeat.convolve_channels_weight_gradient(
        x, grad, plan.handle, plan.transposed, plan.volume
    ),
)


def _convolve_backward(needs, features, weight, handle, transposed, n_out, grad):
    plan_handle = operators.PlanHandle(
        handle, transposed, weight.shape[0], features.shape[0], grad.shape[0]
    )
    return *_compiled.of_convolve(needs, features, weight, grad, plan_handle), None, None, None


def _weight_gradient_backward(needs, features, grad, handle, transposed, volume, to):
    plan_handle = operators.PlanHandle(
        handle, transposed, to.shape[0], features.shape[0], grad.shape[0]
    )
    return *_compiled.of_weight_gradient(needs, features, grad, to, plan_handle), None, None, None


operators.define(
    "convolve_channels",
    "(Tensor features, Tensor weight, Tensor handle, bool transposed, SymInt n_out) -> Tensor",
    lambda x, w, handle, transposed, n_out: _convolve(x, w, KernelMap.behind(handle, transposed)),
    lambda x, w, handle, transposed, n_out: x.new_empty(n_out, x.shape[1]),
    _convolve_backward,
)
operators.define(
    "convolve_channels_weight_gradient",
    "(Tensor features, Tensor grad, Tensor handle, bool transposed, SymInt volume) -> Tensor",
    lambda x, grad, handle, transposed, volume: _weight_gradient(
        x, grad, KernelMap.behind(handle, transposed)
    ),
    lambda x, grad, handle, transposed, volume: x.new_empty(volume, x.shape[1]),
    _weight_gradient_backward,
)
