"""Operators of torch.library: what torch.compile puts into its graphs, as one node each; those of convolution.

A kernel map is no tensor, so a handle goes in its place; numbers of rows come from the tensors' shapes. The
derivatives are those of derivatives.py, taken again by the same operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.sparse import arithmetic, derivatives
from sparsefeat.sparse.compile_disabled import is_compiling
from sparsefeat.sparse.kernel_map import KernelMap

AVAILABLE = hasattr(torch.library, "custom_op")
"""torch.library can register operators like these since torch 2.4."""


def wanted() -> bool:
    """Whether a program is being compiled, into which operators go in place of autograd functions."""
    return is_compiling() and AVAILABLE


def define(
    name: str, schema: str, run: Callable, shaped: Callable, backward: Callable | None = None
) -> None:
    """Make ``torch.ops.sparsefeat.<name>`` known to torch, where it can be.

    Args:
        schema: arguments, tensors before all others, and results.
        run: computes the results from the arguments.
        shaped: empty tensors like the results, from the arguments.
        backward: ``backward(needs, *arguments, *gradients)`` gives a gradient, or None, for each argument, by
            operations that have derivatives themselves. None: there is no derivative.
    """
    if not AVAILABLE:
        return
    operator = torch.library.custom_op(f"sparsefeat::{name}", run, mutates_args=(), schema=schema)
    operator.register_fake(shaped)
    if backward is None:
        return

    def keep(ctx, inputs, output):
        tensors = [i for i in inputs if isinstance(i, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.others = inputs[len(tensors) :]

    def gradients(ctx, *grads):
        return backward(ctx.needs_input_grad, *ctx.saved_tensors, *ctx.others, *grads)

    operator.register_autograd(gradients, setup_context=keep)


class PlanHandle(NamedTuple):
    """A kernel map as the operators take it: its handle, which direction, and its sizes."""

    handle: Tensor
    transposed: bool
    volume: int
    n_in: int
    n_out: int

    @property
    def transpose(self) -> PlanHandle:
        return PlanHandle(self.handle, not self.transposed, self.volume, self.n_out, self.n_in)


def convolve(features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``, plus a bias.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), bias (1, C_out) -> (n_out, C_out).
    """
    handle = plan.out_handle
    plan_handle = PlanHandle(
        handle, plan.transposed, weight.shape[0], features.shape[0], handle.shape[0]
    )
    out = _convolve(features, weight, plan_handle)
    return out if bias is None else out + bias.to(out.dtype)


def _convolve(features: Tensor, weight: Tensor, plan: PlanHandle) -> Tensor:
    return torch.ops.sparsefeat.convolve(features, weight, plan.handle, plan.transposed, plan.n_out)


def _gradients(
    features: Tensor, weight: Tensor, grad: Tensor, plan: PlanHandle
) -> tuple[Tensor, Tensor]:
    return torch.ops.sparsefeat.convolve_gradients(
        features, weight, grad, plan.handle, plan.transposed
    )


def _weight_gradient(features: Tensor, grad: Tensor, plan: PlanHandle) -> Tensor:
    operator = torch.ops.sparsefeat.convolve_weight_gradient
    return operator(features, grad, plan.handle, plan.transposed, plan.volume)


_operations = derivatives.Operations(_convolve, _gradients, _weight_gradient)


def _convolve_backward(needs, features, weight, handle, transposed, n_out, grad):
    plan_handle = PlanHandle(handle, transposed, weight.shape[0], features.shape[0], grad.shape[0])
    return (
        *derivatives.of_convolve(_operations, needs, features, weight, grad, plan_handle),
        None,
        None,
        None,
    )


def _gradients_backward(needs, features, weight, grad, handle, transposed, to_features, to_weight):
    plan_handle = PlanHandle(handle, transposed, weight.shape[0], features.shape[0], grad.shape[0])
    to = to_features, to_weight
    return (
        *derivatives.of_gradients(_operations, needs, features, weight, grad, *to, plan_handle),
        None,
        None,
    )


def _weight_gradient_backward(needs, features, grad, handle, transposed, volume, to):
    plan_handle = PlanHandle(handle, transposed, to.shape[0], features.shape[0], grad.shape[0])
    return (
        *derivatives.of_weight_gradient(_operations, needs, features, grad, to, plan_handle),
        None,
        None,
        None,
    )


define(
    "convolve",
    "(Tensor features, Tensor weight, Tensor handle, bool transposed, SymInt n_out) -> Tensor",
    lambda x, w, handle, transposed, n_out: arithmetic.convolve(
        x, w, KernelMap.behind(handle, transposed)
    ),
    lambda x, w, handle, transposed, n_out: x.new_empty(n_out, w.shape[2]),
    _convolve_backward,
)
define(
    "convolve_gradients",
    "(Tensor features, Tensor weight, Tensor grad, Tensor handle, bool transposed) -> (Tensor, Tensor)",
    lambda x, w, grad, handle, transposed: arithmetic.gradients(
        x, w, grad, KernelMap.behind(handle, transposed)
    ),
    lambda x, w, grad, handle, transposed: (x.new_empty(x.shape), w.new_empty(w.shape)),
    _gradients_backward,
)
define(
    "convolve_weight_gradient",
    "(Tensor features, Tensor grad, Tensor handle, bool transposed, SymInt volume) -> Tensor",
    lambda x, grad, handle, transposed, volume: arithmetic.weight_gradient(
        x, grad, KernelMap.behind(handle, transposed)
    ),
    lambda x, grad, handle, transposed, volume: x.new_empty(volume, x.shape[1], grad.shape[1]),
    _weight_gradient_backward,
)
