"""Networks for inference alone: batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from sparsefeat.sparse import modules
from sparsefeat.sparse.tensor import SparseTensor

Network = TypeVar("Network", bound=nn.Module)

_CONVOLUTIONS = (
    modules.Convolution,
    modules.ConvolutionTranspose,
    modules.GenerativeConvolutionTranspose,
)

TOLERANCE = 1e-4
"""Largest difference that folding may make on the example, as a share of the largest output: float32's rounding."""


def fuse(network: Network, example: SparseTensor | None = None) -> Network:
    """A copy of a network that computes the same in eval mode with fewer passes over the features.

    A batch norm that follows a convolution becomes part of its kernel and bias. Which one follows which is seen
    by running ``example``, so no names are relied on; the copy's output on it is compared with the network's.
    The copy is for inference: its parameters require no gradients, and its state dict is its own.

    Args:
        network: on any device; it is left as it is.
        example: input to run; by default a small random cloud with ``network.in_channels`` channels.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: the network has no ``in_channels`` and no example was given, or the copy's output differs: a
            convolution's output is used by something else beside its norm.
    """
    fused = copy.deepcopy(network).eval().requires_grad_(False)
    x = example_input(fused) if example is None else example
    with torch.no_grad():
        before = network_output(fused, x)
        pairs = _followers(fused, x)
        for convolution, norm in pairs:
            _fold(convolution, norm)
        _replace(fused, {id(norm) for _, norm in pairs})
        after = network_output(fused, x)
    difference = (after.double() - before.double()).abs().max() / before.double().abs().max().clamp(
        min=1e-12
    )
    if not difference <= TOLERANCE * (1 if before.dtype in (torch.float32, torch.float64) else 500):
        raise ValueError(
            f"fuse: {type(network).__name__} computes something else once its batch norms are folded (by "
            f"{difference:.1e}): the output of a convolution seems to be used beside its norm"
        )
    return fused


def network_output(network: nn.Module, x: SparseTensor) -> Tensor:
    """Features of the output, whichever kind of tensor the network returns. Shape: (V, C)."""
    out = network(x)
    return out if isinstance(out, Tensor) else out.features


def example_input(network: nn.Module) -> SparseTensor:
    """A small random cloud with ``network.in_channels`` channels, on the network's device and in its dtype.

    Raises:
        ValueError: the network has no ``in_channels``.
    """
    channels = getattr(network, "in_channels", None)
    parameter = next(network.parameters(), None)
    if channels is None or parameter is None:
        raise ValueError(
            f"{type(network).__name__} does not say its in_channels; give an example input"
        )
    dimension = next((m.dimension for m in network.modules() if isinstance(m, _CONVOLUTIONS)), 3)
    random = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 12, (600, dimension), generator=random)
    coordinates = nn.functional.pad(torch.unique(cells, dim=0), (1, 0)).int()
    features = torch.rand(len(coordinates), channels, generator=random)
    return SparseTensor(features.to(parameter), coordinates.to(parameter.device), reduce="error")


def _followers(network: nn.Module, x: SparseTensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions and the batch norm that each one's output goes to, where both are run exactly once."""
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}
    followers: list[tuple[nn.Module, nn.Module]] = []
    runs: dict[int, int] = {}

    def ran(module: nn.Module, inputs: tuple, out: SparseTensor) -> None:
        runs[id(module)] = runs.get(id(module), 0) + 1
        if isinstance(module, modules.BatchNorm):
            convolution, features = outputs.get(id(inputs[0].features), (None, None))
            if features is inputs[0].features:
                followers.append((convolution, module))
        else:
            outputs[id(out.features)] = (
                module,
                out.features,
            )  # kept, so that no other tensor takes its id

    kinds = (*_CONVOLUTIONS, modules.BatchNorm)
    hooks = [m.register_forward_hook(ran) for m in network.modules() if isinstance(m, kinds)]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (convolution, norm)
        for convolution, norm in followers
        if runs[id(convolution)] == runs[id(norm)] == 1 and norm.bn.running_mean is not None
    ]


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    bn = norm.bn
    # In float64: folding then costs one rounding and not three.
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    scale = scale if bn.weight is None else scale * bn.weight.double()
    bias = -bn.running_mean.double() * scale
    bias = bias if bn.bias is None else bias + bn.bias.double()
    kernel = convolution.kernel
    if convolution.bias is not None:
        bias = bias + convolution.bias.double()[0] * scale
    convolution.bias = nn.Parameter(bias[None].to(kernel.dtype), requires_grad=False)
    convolution.kernel = nn.Parameter(
        (kernel.double() * scale).to(kernel.dtype), requires_grad=False
    )


def _replace(network: nn.Module, norms: set[int]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if id(child) in norms:
                setattr(module, name, nn.Identity())
