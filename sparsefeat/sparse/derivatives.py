"""The derivatives of a convolution over a kernel map, in terms of convolutions.

The gradient of a convolution is a convolution over the transposed map and a weight gradient, and those two
are each other's gradients. So three operations are closed under differentiation; whoever has them gets
derivatives of any order from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Operations(NamedTuple):
    """The three operations as differentiable functions; a plan is anything with a ``transpose``."""

    convolve: Callable[[Tensor, Tensor, Any], Tensor]
    """(features, weight, plan) to output."""
    gradients: Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Tensor]]
    """(features, weight, gradient of the output, plan) to the gradients of both: their gathers are shared."""
    weight_gradient: Callable[[Tensor, Tensor, Any], Tensor]
    """(features, gradient of the output, plan) to the gradient of the weight."""


Gradient = Tensor | None
"""None where none is asked for."""


def save(ctx, features: Tensor, weight: Tensor) -> None:
    """Save for backward what a convolution was made of.

    Leaves are also kept past the first backward, since they outlive it anyway: a second one over the same layer
    needs no ``retain_graph``, as in MinkowskiEngine. Keeping all would hold a whole step's features in memory.
    """
    ctx.save_for_backward(features, weight)
    given = features, weight
    if all(t.is_leaf and not t.is_inference() for t in given):
        ctx.leaves = given, [t._version for t in given]


def saved(ctx) -> tuple[Tensor, Tensor]:
    """Features and weight that :func:`save` was given.

    Raises:
        RuntimeError: torch's own, where they were freed or have changed since.
    """
    try:
        return ctx.saved_tensors
    except RuntimeError:
        leaves, versions = getattr(ctx, "leaves", ((), ()))
        if not leaves or [t._version for t in leaves] != versions:
            raise
        return leaves


def of_convolve(
    do: Operations, needs: Sequence[bool], features: Tensor, weight: Tensor, grad: Tensor, plan: Any
) -> tuple[Gradient, Gradient]:
    """Gradients to features and weight."""
    if needs[0] and needs[1]:
        return do.gradients(features, weight, grad, plan)
    return (
        do.convolve(grad, weight.transpose(1, 2), plan.transpose) if needs[0] else None,
        do.weight_gradient(features, grad, plan) if needs[1] else None,
    )


def of_gradients(
    do: Operations,
    needs: Sequence[bool],
    features: Tensor,
    weight: Tensor,
    grad: Tensor,
    to_features: Tensor,
    to_weight: Tensor,
    plan: Any,
) -> tuple[Gradient, Gradient, Gradient]:
    """Gradients to features, weight and the output's gradient, from those to the two results."""
    return (
        do.convolve(grad, to_weight.transpose(1, 2), plan.transpose) if needs[0] else None,
        do.weight_gradient(to_features, grad, plan) if needs[1] else None,
        do.convolve(to_features, weight, plan) + do.convolve(features, to_weight, plan)
        if needs[2]
        else None,
    )


def of_weight_gradient(
    do: Operations,
    needs: Sequence[bool],
    features: Tensor,
    grad: Tensor,
    to_weight: Tensor,
    plan: Any,
) -> tuple[Gradient, Gradient]:
    """Gradients to features and the output's gradient."""
    return (
        do.convolve(grad, to_weight.transpose(1, 2), plan.transpose) if needs[0] else None,
        do.convolve(features, to_weight, plan) if needs[1] else None,
    )
