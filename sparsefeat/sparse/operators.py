"""Convolution as operators of torch.library: what torch.compile puts into its graphs, as one node each.

A kernel map is no tensor, so a handle goes in its place; numbers of rows come from the tensors' shapes. The
derivatives are those of rules.py, taken again by the same operators.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.sparse import rules
from sparsefeat.sparse.backends import arithmetic
from sparsefeat.sparse.kernel_map import KernelMap

AVAILABLE = hasattr(torch.library, "custom_op")
"""torch.library can register operators like these since torch 2.4."""


class _Ticket(NamedTuple):
    """A kernel map as the operators take it: its handle, which direction, and its sizes."""

    handle: Tensor
    transposed: bool
    volume: int
    n_in: int
    n_out: int

    @property
    def transpose(self) -> _Ticket:
        return _Ticket(self.handle, not self.transposed, self.volume, self.n_out, self.n_in)


def convolve(features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``, plus a bias, for a map with a handle.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), bias (1, C_out) -> (n_out, C_out).
    """
    handle = plan.handles[0 if plan.transposed else 1]
    # The number of outputs from a tensor's shape: a compiler follows those, while it may lose a number's origin.
    ticket = _Ticket(handle, plan.transposed, weight.shape[0], features.shape[0], handle.shape[0])
    out = _convolve(features, weight, ticket)
    return out if bias is None else out + bias.to(out.dtype)


def _convolve(features: Tensor, weight: Tensor, plan: _Ticket) -> Tensor:
    return torch.ops.sparsefeat.convolve(features, weight, plan.handle, plan.transposed, plan.n_out)


def _gradients(features: Tensor, weight: Tensor, grad: Tensor, plan: _Ticket) -> tuple[Tensor, Tensor]:
    return torch.ops.sparsefeat.convolve_gradients(features, weight, grad, plan.handle, plan.transposed)


def _weight_gradient(features: Tensor, grad: Tensor, plan: _Ticket) -> Tensor:
    operator = torch.ops.sparsefeat.convolve_weight_gradient
    return operator(features, grad, plan.handle, plan.transposed, plan.volume)


_operations = rules.Operations(_convolve, _gradients, _weight_gradient)


def _register() -> None:
    """Make the three operators known to torch, with the shapes of their results and their derivatives."""

    @torch.library.custom_op(
        "sparsefeat::convolve", mutates_args=(),
        schema="(Tensor features, Tensor weight, Tensor handle, bool transposed, SymInt n_out) -> Tensor",
    )
    def convolve(features, weight, handle, transposed, n_out):
        return arithmetic.convolve(features, weight, KernelMap.behind(handle, transposed))

    @convolve.register_fake
    def _(features, weight, handle, transposed, n_out):
        return features.new_empty(n_out, weight.shape[2])

    def keep(ctx, inputs, output):
        features, weight, handle, ctx.transposed, _ = inputs
        ctx.save_for_backward(features, weight, handle)

    def backward(ctx, grad):
        features, weight, handle = ctx.saved_tensors
        ticket = _Ticket(handle, ctx.transposed, weight.shape[0], features.shape[0], grad.shape[0])
        needs = ctx.needs_input_grad
        return *rules.of_convolve(_operations, needs, features, weight, grad, ticket), None, None, None

    convolve.register_autograd(backward, setup_context=keep)

    @torch.library.custom_op(
        "sparsefeat::convolve_gradients", mutates_args=(),
        schema="(Tensor features, Tensor weight, Tensor grad, Tensor handle, bool transposed)"
        " -> (Tensor, Tensor)",
    )
    def gradients(features, weight, grad, handle, transposed):
        return arithmetic.gradients(features, weight, grad, KernelMap.behind(handle, transposed))

    @gradients.register_fake
    def _(features, weight, grad, handle, transposed):
        return features.new_empty(features.shape), weight.new_empty(weight.shape)

    def keep_gradients(ctx, inputs, output):
        *tensors, ctx.transposed = inputs
        ctx.save_for_backward(*tensors)

    def backward_gradients(ctx, to_features, to_weight):
        features, weight, grad, handle = ctx.saved_tensors
        ticket = _Ticket(handle, ctx.transposed, weight.shape[0], features.shape[0], grad.shape[0])
        needs, to = ctx.needs_input_grad, (to_features, to_weight)
        return *rules.of_gradients(_operations, needs, features, weight, grad, *to, ticket), None, None

    gradients.register_autograd(backward_gradients, setup_context=keep_gradients)

    @torch.library.custom_op(
        "sparsefeat::convolve_weight_gradient", mutates_args=(),
        schema="(Tensor features, Tensor grad, Tensor handle, bool transposed, SymInt volume) -> Tensor",
    )
    def weight_gradient(features, grad, handle, transposed, volume):
        return arithmetic.weight_gradient(features, grad, KernelMap.behind(handle, transposed))

    @weight_gradient.register_fake
    def _(features, grad, handle, transposed, volume):
        return features.new_empty(volume, features.shape[1], grad.shape[1])

    def keep_weight_gradient(ctx, inputs, output):
        features, grad, handle, ctx.transposed, _ = inputs
        ctx.save_for_backward(features, grad, handle)

    def backward_weight_gradient(ctx, to):
        features, grad, handle = ctx.saved_tensors
        ticket = _Ticket(handle, ctx.transposed, to.shape[0], features.shape[0], grad.shape[0])
        needs = ctx.needs_input_grad
        return *rules.of_weight_gradient(_operations, needs, features, grad, to, ticket), None, None, None

    weight_gradient.register_autograd(backward_weight_gradient, setup_context=keep_weight_gradient)


if AVAILABLE:
    _register()
