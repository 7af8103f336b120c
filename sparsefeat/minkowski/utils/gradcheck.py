"""Gradients against finite differences (MinkowskiEngine.utils.gradcheck)."""

from __future__ import annotations

import torch

from sparsefeat.minkowski.errors import ArgumentError


def gradcheck(func, inputs, **options) -> bool:
    """``torch.autograd.gradcheck`` of ``func.apply``; inputs that are no tensors are passed along."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    places = [
        i
        for i, value in enumerate(inputs)
        if isinstance(value, torch.Tensor) and value.requires_grad
    ]
    if not places:
        raise ArgumentError("gradcheck: no input requires a gradient")

    def of_tensors(*tensors):
        values = list(inputs)
        for place, tensor in zip(places, tensors):
            values[place] = tensor
        return func.apply(*values)

    return torch.autograd.gradcheck(of_tensors, tuple(inputs[i] for i in places), **options)
