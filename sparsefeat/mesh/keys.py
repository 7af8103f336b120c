"""Cells of a box of the grid as single whole numbers, in the order x, y, z."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MAX_CELLS = 1 << 62
# A table of flags, one byte for each cell of the box, is faster than sorting where it is not much larger
# than what is put into it.
_CELLS_PER_KEY = 64


class Box:
    """Cells of a box, numbered from 0.

    Args:
        low: cell of the lower corner.
        extent: number of cells along each axis.

    Raises:
        ValueError: more cells than there are numbers.
    """

    def __init__(self, low: Sequence[int], extent: Sequence[int]):
        self.low, self.extent = [int(x) for x in low], [int(x) for x in extent]
        self.cells = math.prod(self.extent)
        if self.cells > _MAX_CELLS:
            shown = " x ".join(map(str, self.extent))
            raise ValueError(f"a box of {shown} voxels is beyond the key range; is something far away?")

    def keys(self, cells: Sequence[Tensor]) -> Tensor:
        """Numbers of cells in the box. Shape: 3 x (P,), int64 or whole float64 -> (P,) int64"""
        x, y, z = (c - low for c, low in zip(cells, self.low, strict=True))
        if self.cells > 1 << 53:
            x, y, z = x.long(), y.long(), z.long()
        return ((x * self.extent[1] + y) * self.extent[2] + z).long()

    def contains(self, cells: Sequence[Tensor]) -> Tensor:
        """Whether cells, of any size, are in the box. Shape: 3 x (P,) -> (P,) bool"""
        inside = [
            (c >= low) & (c < low + size) for c, low, size in zip(cells, self.low, self.extent, strict=True)
        ]
        return inside[0] & inside[1] & inside[2]

    def coordinates(self, keys: Tensor) -> Tensor:
        """The cells with these numbers. Shape: (P,) -> (P, 3) int64"""
        rest = torch.div(keys, self.extent[2], rounding_mode="floor")
        x = torch.div(rest, self.extent[1], rounding_mode="floor")
        cells = torch.stack([x, rest - x * self.extent[1], keys - rest * self.extent[2]], 1)
        return cells + torch.tensor(self.low, device=keys.device)


class DistinctKeys:
    """The distinct ones of many keys.

    Args:
        box: whose keys they are.
        expected: about how many will be added.
        device: where they are.
    """

    def __init__(self, box: Box, expected: int, device: torch.device):
        self._flags = None
        if box.cells <= _CELLS_PER_KEY * expected:
            self._flags = torch.zeros(box.cells, dtype=torch.bool, device=device)
        self._found: list[Tensor] = []
        self._pending, self._limit = 0, 1 << 25

    def add(self, keys: Tensor) -> None:
        if self._flags is not None:
            self._flags[keys] = True
            return
        self._found.append(torch.unique(keys))
        self._pending += len(self._found[-1])
        if self._pending > self._limit:
            # Triangles that share cells by the million would otherwise fill the memory with repetitions.
            self._found = [torch.unique(torch.cat(self._found))]
            self._pending, self._limit = 0, max(self._limit, 2 * len(self._found[0]))

    def sorted(self) -> Tensor:
        """The keys in ascending order. Shape: (V,) int64"""
        if self._flags is not None:
            return torch.nonzero(self._flags)[:, 0]
        return torch.unique(torch.cat(self._found))
