"""Finding the neighbours of voxels: which input lies under each kernel cell of each output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsefeat.sparse.coordinates import KEY_LIMIT, SortedIndex, constant
from sparsefeat.sparse.kernel import Kernel

_LOOK_UPS_AT_ONCE = {"cpu": 2**21}
_LOOK_UPS_AT_ONCE_ELSEWHERE = 2**25
"""On a GPU every block costs two round trips, and its memory is large."""


@dataclass(frozen=True)
class Search:
    """Inputs and outputs to be paired wherever ``input = output + offset of a cell``.

    Args:
        source: the input's sorted index; its margin must be at least the reach of the kernel. Whatever
            an offset then shifts out of a line of keys, or a key of -1, falls into a margin, where no input is.
        target_keys: Shape (n_out,): the output's coordinates in the key space of ``source``, in the output's
            own key order; -1 for those that lie outside it.
        kernel: the window.
        tensor_stride: of the input.
        same: input and output are one coordinate map, so a symmetric kernel needs half of the look-ups.
    """

    source: SortedIndex
    target_keys: Tensor
    kernel: Kernel
    tensor_stride: tuple[int, ...]
    same: bool

    @property
    def mirrored(self) -> bool:
        """Whether input i lies under cell k of output o exactly where o lies under cell K - 1 - k of i."""
        return self.same and self.kernel.is_symmetric

    def find_pairs(self) -> tuple[Tensor, Tensor, list[int]]:
        """Positions of inputs and of outputs, cell by cell, ascending within a cell, and pairs per cell.

        Shape: (P,), (P,) int32, K counts.
        """
        volume = self.kernel.volume
        pairs: list[tuple[Tensor, Tensor, int] | None] = [None] * volume
        n_out = len(self.target_keys)
        search = self._look_up if self.source.table is not None else self._search_columns
        for cells, found in search():
            places = _places(found >= 0)
            borders = torch.arange(len(cells) + 1, device=places.device) * n_out
            counts = torch.searchsorted(places, borders).diff()
            sources = found.view(-1).index_select(0, places)
            # The size is known here; left to itself, torch would fetch it from the device.
            starts = borders[:-1].repeat_interleave(counts, output_size=len(places))
            targets = (places - starts).int()
            counts = counts.tolist()
            # The method split itself is written in Python, and takes ten times as long.
            parts = sources.split_with_sizes(counts), targets.split_with_sizes(counts)
            for cell, i, o, count in zip(cells, *parts, counts):
                pairs[cell] = i, o, count
                if self.mirrored and cell != volume - 1 - cell:
                    # i grows with o, because both are positions in the same sorted keys.
                    pairs[volume - 1 - cell] = o, i, count
        cells_in, cells_out, counts = zip(*pairs)
        return torch.cat(cells_in), torch.cat(cells_out), list(counts)

    def find_by_output(self, order: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The same pairs output by output, in cell order for each: positions of inputs, and pairs per output.

        Args:
            order: the outputs' positions in the order that is wanted; None: as they are. Shape: (n_out,).

        Returns:
            Shape (P,), (n_out,) int32; None where there is no dense table, without which this is slow.
        """
        table = self.source.table
        if table is None:
            return None
        keys = self.target_keys.int()
        keys = keys if order is None else keys.index_select(0, order)
        shifts = constant(self._shifts(), keys.device, torch.int32)
        at_once = _LOOK_UPS_AT_ONCE.get(keys.device.type, _LOOK_UPS_AT_ONCE_ELSEWHERE)
        sources, counts = [], []
        for part in keys.split(max(1, at_once // len(shifts))):
            places = part[:, None] + shifts
            if not self.same:
                places.clamp_(0, len(table) - 1)
            found = table.index_select(0, places.view(-1))
            there = found >= 0
            sources.append(found.index_select(0, _places(there)))
            counts.append(there.view(places.shape).sum(1, dtype=torch.int32))
        return torch.cat(sources), torch.cat(counts)

    def _look_up(self) -> _Found:
        """One look-up in the dense table per cell and output, in blocks of bounded memory."""
        volume, table = self.kernel.volume, self.source.table
        cells = list(range((volume + 1) // 2 if self.mirrored else volume))
        # A table has less than 2^31 cells, and int32 keys are half the memory traffic.
        keys = self.target_keys.int()
        shifts = constant(self._shifts()[: len(cells)], keys.device, torch.int32)
        at_once = _LOOK_UPS_AT_ONCE.get(keys.device.type, _LOOK_UPS_AT_ONCE_ELSEWHERE)
        block = max(1, at_once // max(len(keys), 1))
        for start in range(0, len(cells), block):
            places = shifts[start : start + block, None] + keys
            if not self.same:
                # Only the shifts of a key of -1 can leave the table.
                places.clamp_(0, len(table) - 1)
            yield (
                cells[start : start + block],
                table.index_select(0, places.view(-1)).view(places.shape),
            )

    def _search_columns(self) -> _Found:
        """A column of cells along the last axis is a stretch of consecutive keys: one binary search serves it all."""
        shifts, last_step = self._shifts().tolist(), self._steps()[-1]
        for column in _columns(self.kernel, self.mirrored):
            start = self.target_keys + shifts[column[0]]
            step = last_step if len(column) > 1 else 1
            if step == 0:  # a globally pooled tensor: with tensor stride 0 all cells are one
                yield (
                    column,
                    _find_run(self.source.keys, start, 1, 1).expand(len(column), -1).clone(),
                )
            else:
                yield column, _find_run(self.source.keys, start, step, len(column))

    def _steps(self) -> list[int]:
        """The difference of keys between neighbouring cells along each axis. D values."""
        return self.source.space.steps(self.kernel.spacing(self.tensor_stride))

    def _shifts(self) -> np.ndarray:
        """The difference of keys between an output and what lies under each cell. Shape: (K,) int64."""
        return self.kernel.cell_positions @ np.array(self._steps(), dtype=np.int64)

    def windows(self) -> Windows | None:
        """The cells of each output as stretches of a dense box; None where keys are too sparse for one, or a
        column of cells is no stretch."""
        kernel, table, device = self.kernel, self.source.table, self.target_keys.device
        length = kernel.size[-1]
        if table is None or kernel.region != "cube" or (length > 1 and self._steps()[-1] != 1):
            return None
        if len(kernel.size) == 1 and not self.same:
            # On a line a stretch that begins before the box may end among its inputs; with more axes all
            # lines at the ends of the box are margin.
            return None
        # The first cells are those at the low end of the last axis: one of each column.
        shifts = self._shifts()[: kernel.volume // length]
        return Windows(
            len(table),
            self.source.keys,
            self.target_keys.int(),
            constant(shifts, device, torch.int32),
            length,
            torch.arange(kernel.volume, device=device).view(length, -1).t().flatten(),
            not self.same,
        )


@dataclass(frozen=True)
class Windows:
    """A cubic kernel's cells as stretches of a dense box of ``cells`` cells.

    Attributes:
        source_keys: Shape (n_in,): where the inputs lie in the box, by position.
        target_keys: Shape (n_out,) int32: where the outputs do; -1 for outputs outside it.
        shifts: Shape (columns,) int32: from an output to the first cell of each column.
        length: cells of a column.
        order: Shape (K,): the kernel cells, column by column.
        outside: whether there may be outputs outside the box.
    """

    cells: int
    source_keys: Tensor
    target_keys: Tensor
    shifts: Tensor
    length: int
    order: Tensor
    outside: bool

    def box(self, features: Tensor) -> Tensor:
        """Features by position (n_in, C), in the box (cells, C), which is zero elsewhere."""
        return features.new_zeros(self.cells, features.shape[1]).index_copy_(
            0, self.source_keys, features
        )

    def unfold(self, box: Tensor, start: int, stop: int, out: Tensor) -> Tensor:
        """What outputs ``start`` to ``stop`` see, in the order of ``order``. Shape: (stop - start, K C)."""
        places = self.target_keys[start:stop, None] + self.shifts
        channels = box.shape[1]
        starts = self.cells - self.length + 1
        if self.outside:
            places.clamp_(0, starts - 1)  # the margins, where no input is
        stretches = box.as_strided((starts, self.length * channels), (channels, 1))
        out = out[: places.numel() * self.length * channels].view(places.numel(), -1)
        torch.index_select(stretches, 0, places.view(-1), out=out)
        return out.view(stop - start, -1)


_Found = Iterator[tuple[list[int], Tensor]]
"""Cells, and the position of the input under each of them for each output: (cells, n_out) int32, -1 for none."""


def _places(present: Tensor) -> Tensor:
    """Flat places of what is true, ascending. Shape: any -> (n,) int64."""
    if present.device.type == "cpu":
        return torch.from_numpy(
            np.flatnonzero(present.numpy())
        )  # a quarter of the time of torch's nonzero
    return present.view(-1).nonzero()[:, 0]


def _columns(kernel: Kernel, mirrored: bool) -> list[list[int]]:
    """Cells grouped into columns along the last axis; of a mirrored kernel only the first half and the centre."""
    if kernel.region != "cube":
        cells = range((kernel.volume + 1) // 2 if mirrored else kernel.volume)
        return [[c] for c in cells]
    base = kernel.volume // kernel.size[-1]
    columns = [list(range(c, kernel.volume, base)) for c in range(base)]
    if mirrored:
        # Columns c and base - 1 - c mirror each other; the middle one mirrors itself.
        columns = columns[: (base + 1) // 2]
        columns[-1] = columns[-1][: (kernel.size[-1] + 1) // 2]
    return columns


def _find_run(keys: Tensor, start: Tensor, step: int, length: int) -> Tensor:
    """Positions of ``start + j * step`` in sorted unique ``keys``, j < length, -1 where absent.

    Shape: keys (V,), start (n,) -> (length, n) int32.
    """
    # int32 halves the memory traffic of this table, which is most of the cost of a map.
    found = torch.full((length, len(start)), -1, dtype=torch.int32, device=keys.device)
    if len(keys) == 0 or len(start) == 0:
        return found
    if keys.device.type != "cpu":
        return _find_each(keys, start, step, length)
    span = (length - 1) * step
    position = torch.searchsorted(keys, start)
    # A last key that is in nobody's reach spares the look-ups a bounds check. No difference to it overflows.
    keys = torch.cat([keys, keys.new_full((1,), 3 * KEY_LIMIT)])
    columns = torch.arange(len(start), device=keys.device)
    while True:
        # Most windows on a surface hold one or two keys at most: only those that have another go on.
        distance = keys[position] - start
        going = (distance <= span).nonzero()[:, 0]
        if len(going) == 0:
            return found
        position, columns, start, distance = (
            position[going],
            columns[going],
            start[going],
            distance[going],
        )
        if step == 1:
            found[distance, columns] = position.int()
        else:
            on_step = (distance % step == 0).nonzero()[:, 0]
            cell = torch.div(distance[on_step], step, rounding_mode="floor")
            found[cell, columns[on_step]] = position[on_step].int()
        position = position + 1


def _find_each(keys: Tensor, start: Tensor, step: int, length: int) -> Tensor:
    """What :func:`_find_run` returns, by one search per key.

    A GPU does them all at once, and nobody has to wait to learn how many windows go on.
    """
    wanted = start + step * torch.arange(length, device=keys.device)[:, None]
    position = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where(keys[position] == wanted, position, -1).int()
