"""Runs a network over a cloud in overlapping tiles, and finds how much they must overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class Tile:
    """Voxels to run together, and those of them whose output is kept.

    Attributes:
        rows: (T,) int64, ascending rows of the cloud.
        core: (T,) bool; every row of the cloud is in the core of exactly one tile.
    """

    rows: Tensor
    core: Tensor


def measure_reach(model: nn.Module, channels: int) -> Reach:
    """Follow one voxel through the network and add up what each layer sees.

    A convolution or pooling with kernel size k and dilation d between tensor strides s and t looks
    (k - 1) / 2 * d * min(s, t) voxels to each side (k - 1 instead, to one side, if k is even). Layers that
    lie side by side are added as if they followed each other, so that the radius may be too large, never
    too small. For ResUNetBN2C with a first kernel of 7 it is 61, a receptive field of 123 voxels.

    Args:
        model: in eval mode, made of the modules of sparsefeat.sparse.modules, which have a ``window``;
            windows of functions that are called without a module are not seen.
        channels: of its input.
    """
    radius, stride, layers = 0, 1, 0
    unbounded: list[str] = []

    def visit(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal radius, stride, layers
        name = type(module).__name__
        if any(part in name for part in _GLOBAL_MODULES) and name not in unbounded:
            unbounded.append(name)
        tensors = [x for x in (*inputs, output) if isinstance(x, SparseTensor)]
        strides = [x.tensor_stride for x in tensors]
        # Global pooling leaves a tensor stride of zero.
        stride = max(stride, *(max(s) for s in strides)) if strides else stride
        window = getattr(module, "window", None)
        if isinstance(window, Kernel) and strides:
            spacing = tuple(max(1, min(axis)) for axis in zip(*strides, strict=True))
            radius += max(abs(offset) for cell in window.offsets(spacing) for offset in cell)
            layers += 1

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    hooks = [module.register_forward_hook(visit) for module in model.modules()]
    try:
        with torch.no_grad():
            coordinates = torch.zeros(1, 4, dtype=torch.int32, device=device)
            model(SparseTensor(torch.ones(1, channels, device=device, dtype=dtype), coordinates=coordinates))
    finally:
        for hook in hooks:
            hook.remove()
    return Reach(radius, stride, layers, tuple(unbounded))


def split_into_tiles(cells: Tensor, max_voxels: int, halo: int, stride: int) -> Iterator[Tile]:
    """Split a cloud at planes across its longest side until tile and halo have at most ``max_voxels``.

    The planes lie at multiples of ``stride``, and the halo ends at such multiples beyond ``halo`` voxels.
    So every coarse voxel within reach is there exactly if it is there in the whole cloud, and with
    ``halo`` at least the radius of the network's reach the outputs in the core are those of the whole.

    Args:
        cells: (V, 3) distinct integer coordinates.
        max_voxels: of one tile with its halo. A tile is not split below the width of the halo, where
            splitting no longer makes it smaller; a very dense cloud may therefore exceed this.
        halo: width of the margin in voxels.
        stride: the network's largest tensor stride.

    Yields:
        Tiles whose cores together are all rows, each once.
    """
    if not len(cells):
        return
    low, high = cells.amin(0), cells.amax(0) + 1
    smallest = max(stride, halo)
    pending = [(torch.arange(len(cells), device=cells.device), low, high)]
    while pending:
        rows, low, high = pending.pop()
        members = cells[rows]
        core = _inside(members, low, high)
        inner = members[core]
        # The box shrinks to its core's voxels; where they are few, the halo around them is small too.
        low, high = inner.amin(0), inner.amax(0) + 1
        near = _inside(members, _align(low - halo, stride), _align(high + halo + stride - 1, stride))
        rows, members, core = rows[near], members[near], core[near]
        axis = int((high - low).argmax())
        plane = _splitting_plane(inner[:, axis], int(low[axis]), int(high[axis]), stride)
        if len(rows) <= max_voxels or plane is None or int(high[axis] - low[axis]) <= smallest:
            yield Tile(rows, core)
            continue
        left, right = high.clone(), low.clone()
        left[axis] = right[axis] = plane
        pending += [(rows, right, high), (rows, low, left)]


def _splitting_plane(positions: Tensor, low: int, high: int, stride: int) -> int | None:
    """The multiple of ``stride`` nearest to the median with voxels on both sides, None if there is none."""
    first, last = (low // stride + 1) * stride, (high - 1) // stride * stride
    if first > last:
        return None
    median = int(positions.median())
    return min(max(round(median / stride) * stride, first), last)


def _inside(cells: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return ((cells >= low) & (cells < high)).all(1)


def _align(values: Tensor, stride: int) -> Tensor:
    return torch.div(values, stride, rounding_mode="floor") * stride
