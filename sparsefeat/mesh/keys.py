"""Cells of a box of the grid as single whole numbers, in the order x, y, z."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefeat.errors import InputError

_MAX_CELLS = 1 << 62
# A table of flags, one byte for each cell of the box, is faster than sorting where it is not much larger
# than what is put into it.
_CELLS_PER_KEY = 16
# Keys that wait for being put into the table or sorted.
_MAX_WAITING = 1 << 22


class Box:
    """Cells of a box, numbered from 0.

    Args:
        low: cell of the lower corner.
        extent: number of cells along each axis.

    Raises:
        InputError: more cells than there are numbers.
    """

    def __init__(self, low: Sequence[int], extent: Sequence[int]):
        self.low, self.extent = [int(x) for x in low], [int(x) for x in extent]
        self.cells = math.prod(self.extent)
        self.strides = self.extent[1] * self.extent[2], self.extent[2], 1
        if self.cells > _MAX_CELLS:
            shown = " x ".join(map(str, self.extent))
            raise InputError(
                f"a box of {shown} voxels is beyond the key range; is something far away?"
            )

    def keys(self, cells: Sequence[Tensor]) -> Tensor:
        """Numbers of cells in the box. Shape: 3 x (P,), int64 or whole float64 -> (P,) int64"""
        x, y, z = (c - low for c, low in zip(cells, self.low, strict=True))
        if self.cells > 1 << 53:
            x, y, z = x.long(), y.long(), z.long()
        return ((x * self.extent[1] + y) * self.extent[2] + z).long()

    def contains(self, cells: Sequence[Tensor]) -> Tensor:
        """Whether cells, of any size, are in the box. Shape: 3 x (P,) -> (P,) bool"""
        inside = [
            (c >= low) & (c < low + size)
            for c, low, size in zip(cells, self.low, self.extent, strict=True)
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
    """

    def __init__(self, box: Box):
        self._box = box
        self._flags: Tensor | None = None
        self._sorted: Tensor | None = None
        self._waiting: list[Tensor] = []
        self._count, self._limit = 0, _MAX_WAITING

    def add(self, keys: Tensor) -> None:
        self._waiting.append(keys)
        self._count += len(keys)
        if self._count > self._limit:
            self._merge()

    def contains(self, keys: Tensor) -> Tensor:
        """Whether keys are known to have been added; of those of late some may not be. Shape: (P,) -> (P,) bool"""
        settled = 0 if self._sorted is None else len(self._sorted)
        # Sorting only when there are half as many new ones keeps the time in proportion to their number.
        if self._flags is not None or 3 * settled <= 2 * self._count:
            self._merge()
        if self._flags is not None:
            return self._flags.index_select(0, keys)
        if self._sorted is None or not len(self._sorted):
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(self._sorted, keys).clamp_(max=len(self._sorted) - 1)
        return self._sorted.index_select(0, place) == keys

    def sorted(self) -> Tensor:
        """The keys in ascending order. Shape: (V,) int64"""
        self._merge()
        return self._sorted if self._flags is None else _places(self._flags)

    def _merge(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        if self._sorted is not None:
            waiting.append(self._sorted)
        if self._flags is None and self._box.cells <= _CELLS_PER_KEY * self._count:
            # In words of 8 flags; see _places.
            size = -(-self._box.cells // 8) * 8
            self._flags, self._sorted = (
                torch.zeros(size, dtype=torch.bool, device=waiting[0].device),
                None,
            )
        if self._flags is not None:
            for keys in waiting:
                self._flags.index_fill_(0, keys, True)
            self._count = 0
            return
        keys = torch.cat(waiting)
        short = self._box.cells <= 1 << 31
        self._sorted = torch.unique(keys.int() if short else keys).long()
        self._count = len(self._sorted)
        # Triangles that share cells by the million would otherwise be sorted again and again.
        self._limit = max(self._limit, 2 * self._count)


def _places(flags: Tensor) -> Tensor:
    """Where flags are set, most of them being not. Shape: (8 W,) bool -> (V,) int64"""
    words = torch.nonzero(flags.view(torch.int64))[:, 0]
    word, bit = torch.nonzero(flags.view(-1, 8).index_select(0, words)).unbind(1)
    return words.index_select(0, word) * 8 + bit
