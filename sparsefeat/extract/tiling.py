"""Splits a cloud into overlapping tiles, so that a network runs over each with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Voxels to run together, and those of them whose output is kept.

    Attributes:
        rows: (T,) int64, ascending rows of the cloud.
        core: (T,) bool; every row of the cloud is in the core of exactly one tile.
    """

    rows: Tensor
    core: Tensor


def split_into_tiles(cells: Tensor, max_voxels: int, halo: int, stride: int) -> Iterator[Tile]:
    """Split a cloud at planes across its longest side until tile and halo have at most ``max_voxels``.

    The planes lie at multiples of ``stride``, and the halo ends at such multiples beyond ``halo`` voxels.
    So every coarse voxel within reach is there exactly if it is there in the whole cloud, and with
    ``halo`` at least the radius of the network's reach the outputs in the core are those of the whole.

    Args:
        cells: (V, 3) distinct integer coordinates.
        max_voxels: of one tile with its halo. Only a tile whose core lies within one voxel of the coarsest
            level cannot be split, and may have more: the caller decides.
        halo: width of the margin in voxels.
        stride: the network's largest tensor stride.

    Yields:
        Tiles whose cores together are all rows, each once.
    """
    if not len(cells):
        return
    low, high = cells.amin(0), cells.amax(0) + 1
    pending = [(torch.arange(len(cells), device=cells.device), low, high)]
    while pending:
        rows, low, high = pending.pop()
        members = cells[rows]
        core = _inside(members, low, high)
        inner = members[core]
        # The box shrinks to its core's voxels; where they are few, the halo around them is small too.
        low, high = inner.amin(0), inner.amax(0) + 1
        near = _inside(
            members, _align(low - halo, stride), _align(high + halo + stride - 1, stride)
        )
        rows, members, core = rows[near], members[near], core[near]
        split = _split(inner, low, high, stride) if len(rows) > max_voxels else None
        if split is None:
            yield Tile(rows, core)
            continue
        axis, plane = split
        left, right = high.clone(), low.clone()
        left[axis] = right[axis] = plane
        pending += [(rows, right, high), (rows, low, left)]


def _split(cells: Tensor, low: Tensor, high: Tensor, stride: int) -> tuple[int, int] | None:
    """The longest axis that a plane can split, and the plane; None: all cells are in one coarse voxel."""
    for axis in (high - low).argsort(descending=True, stable=True).tolist():
        plane = _splitting_plane(cells[:, axis], int(low[axis]), int(high[axis]), stride)
        if plane is not None:
            return axis, plane
    return None


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
