"""Convolution over a kernel map, differentiable to any order (derivatives.py).

While a program is compiled it is an operator that a compiler sees as one node (operators.py). Run directly it is
an autograd function, which spares each call some 50 microseconds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from sparsefeat.sparse import arithmetic, derivatives, operators
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import autocast_dtype


class _Convolve(Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
        derivatives.save(ctx, features, weight)
        ctx.plan = plan
        return arithmetic.convolve(features, weight, plan)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return *derivatives.of_convolve(
            _eager, ctx.needs_input_grad, *derivatives.saved(ctx), grad, ctx.plan
        ), None


class _Gradients(Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, grad: Tensor, plan: KernelMap
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, weight, grad)
        ctx.plan = plan
        return arithmetic.gradients(features, weight, grad, plan)

    @staticmethod
    def backward(ctx, *to: Tensor):
        return *derivatives.of_gradients(
            _eager, ctx.needs_input_grad, *ctx.saved_tensors, *to, ctx.plan
        ), None


class _WeightGradient(Function):
    @staticmethod
    def forward(ctx, features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
        ctx.save_for_backward(features, grad)
        ctx.plan = plan
        return arithmetic.weight_gradient(features, grad, plan)

    @staticmethod
    def backward(ctx, to: Tensor):
        return *derivatives.of_weight_gradient(
            _eager, ctx.needs_input_grad, *ctx.saved_tensors, to, ctx.plan
        ), None


_eager = derivatives.Operations(_Convolve.apply, _Gradients.apply, _WeightGradient.apply)


def convolve_rows(
    features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None = None
) -> Tensor:
    """Convolve feature rows over a kernel map.

    Args:
        features: Shape (n_in, C_in).
        weight: Shape (K, C_in, C_out).
        plan: which rows meet under which cell.
        bias: Shape (1, C_out), added to every row.

    Returns:
        Shape (n_out, C_out); a row that sees nothing is zero, or the bias.

    Raises:
        ValueError: shapes do not fit the plan or each other.
    """
    if weight.ndim != 3 or weight.shape[0] != plan.volume or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"convolution: expected a kernel [{plan.volume}, {features.shape[1]}, C_out], got {list(weight.shape)}"
        )
    if len(features) != plan.n_in:
        raise ValueError(
            f"convolution: the kernel map has {plan.n_in} input rows, the features {len(features)}"
        )
    cast = autocast_dtype(features.device.type)
    if cast is not None and features.dtype != torch.float64:
        features, weight = features.to(cast), weight.to(cast)
    if features.dtype != weight.dtype:
        raise ValueError(
            f"convolution: features are {features.dtype}, the kernel is {weight.dtype}"
        )
    if features.device != weight.device:
        raise ValueError(
            f"convolution: features on {features.device}, the kernel on {weight.device}"
        )
    if operators.wanted():
        return operators.convolve(features, weight, plan, bias)
    if not torch.is_grad_enabled():
        return arithmetic.convolve(features, weight, plan, bias)
    out = _Convolve.apply(features, weight, plan)
    return out if bias is None else out + bias.to(out.dtype)
