"""How far a network looks, followed through its layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sparsefeat.sparse import Kernel, SparseTensor

# Modules whose output at one voxel depends on all voxels, however far: no tile is large enough for them.
_GLOBAL_MODULES = ("InstanceNorm", "Global", "Broadcast")


@dataclass(frozen=True)
class Reach:
    """How far a network looks.

    Attributes:
        radius: voxels to each side of an output voxel that can influence it; the theoretical receptive
            field is 2 * radius + 1 voxels wide.
        layers: windows (convolutions and poolings) that were met; 0 says that nothing is known.
        stride: the largest tensor stride; the outputs of a cloud moved by a multiple of it are the same.
        unbounded: names of modules that look at the whole cloud.
    """

    radius: int
    stride: int
    layers: int
    unbounded: tuple[str, ...] = ()


def measure_reach(model: nn.Module, channels: int) -> Reach:
    """Follow one voxel through the network and add up what each layer sees.

    A convolution or pooling with kernel size k and dilation d between tensor strides s and t looks
    (k - 1) / 2 * d * min(s, t) voxels to each side (k - 1 instead, to one side, if k is even); attention says in
    ``cells`` how many of its level it sees. Layers that
    lie side by side are added as if they followed each other, so that the radius may be too large, never
    too small. For ResUNetBN2C with a first kernel of 7 it is 61, a receptive field of 123 voxels.

    Args:
        model: made of the modules of sparsefeat.sparse.modules, which have a ``window``;
            windows of functions that are called without a module are not seen.
        channels: of its input.
    """
    radius, stride, layers = 0, 1, 0
    unbounded: list[str] = []

    def visit(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal radius, stride, layers
        name = type(module).__name__
        whole = any(part in name for part in _GLOBAL_MODULES) or _mixes_rows(module)
        if whole and name not in unbounded:
            unbounded.append(name)
        tensors = [x for x in (*inputs, output) if isinstance(x, SparseTensor)]
        strides = [x.tensor_stride for x in tensors]
        # Global pooling leaves a tensor stride of zero.
        stride = max(stride, *(max(s) for s in strides)) if strides else stride
        # What stands in for a layer's forward, as at another dilation, says what it ran with.
        window = getattr(module.forward, "window", getattr(module, "window", None))
        if isinstance(window, Kernel) and strides:
            spacing = tuple(max(1, min(axis)) for axis in zip(*strides, strict=True))
            radius += max(abs(offset) for cell in window.offsets(spacing) for offset in cell)
            layers += 1
        cells = getattr(module, "cells", 0)
        if isinstance(cells, int) and cells and strides:
            radius += cells * max(max(s) for s in strides)
            layers += 1

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    windows = (getattr(module, "window", None) for module in model.modules())
    dimension = next((len(w.size) for w in windows if isinstance(w, Kernel)), 3)
    hooks = [module.register_forward_hook(visit) for module in model.modules()]
    try:
        with evaluating(model):
            coordinates = torch.zeros(1, 1 + dimension, dtype=torch.int32, device=device)
            model(
                SparseTensor(
                    torch.ones(1, channels, device=device, dtype=dtype), coordinates=coordinates
                )
            )
    finally:
        for hook in hooks:
            hook.remove()
    return Reach(radius, stride, layers, tuple(unbounded))


def _mixes_rows(module: nn.Module) -> bool:
    """Whether a layer on features takes them from all rows in eval mode, too."""
    norm = getattr(module, "bn", module)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return norm.running_mean is None
    return isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and module.dim in (0, -2)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
