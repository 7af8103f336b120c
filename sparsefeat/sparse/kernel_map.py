"""The plan of a sparse convolution: which input row meets which output row under which kernel cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from sparsefeat.sparse.coordinates import KEY_LIMIT, SortedIndex
from sparsefeat.sparse.kernel import Kernel

T = TypeVar("T")

_LOOK_UPS_AT_ONCE = 2**21


class RowOrder:
    """The pairs of a kernel map grouped by the row on one side: a CSR matrix of pair numbers."""

    def __init__(self, rows: Tensor, count: int):
        self.pairs = torch.sort(rows, stable=True).indices
        """Pair numbers, those of row 0 first, within a row in cell order. Shape: (P,)."""
        counts = torch.bincount(rows, minlength=count)
        self.splits = torch.zeros(count + 1, dtype=torch.int64, device=rows.device)
        """Row r has the pairs ``pairs[splits[r]:splits[r + 1]]``. Shape: (rows + 1,)."""
        torch.cumsum(counts, 0, out=self.splits[1:])


class _Pairs:
    """The pairs of one map and what is derived from them; shared by the map and its transpose."""

    def __init__(self, rows: tuple[Tensor, Tensor], counts: list[int], sizes: tuple[int, int]):
        self.rows = rows
        self.counts = counts
        self.sizes = sizes
        self.orders: list[RowOrder | None] = [None, None]
        self.cells: Tensor | None = None
        self.by_cell: list[tuple[Tensor, Tensor]] | None = None
        self.derived: dict[tuple, object] = {}


class KernelMap:
    """Pairs (input row, output row), grouped by kernel cell.

    Built once per coordinates and kernel, then shared by all layers, the backward pass (as its
    transpose) and later steps on the same coordinates. Immutable.

    Args:
        in_rows, out_rows: Shape (P,) int64, those of cell 0 first; within a cell no output row occurs twice.
        counts: pairs per cell, K values that sum to P.
        n_in, n_out: rows on either side.
        identity_cell: a cell that pairs every row with itself (stride 1, offset zero), if there is one.
    """

    def __init__(
        self,
        in_rows: Tensor,
        out_rows: Tensor,
        counts: list[int],
        n_in: int,
        n_out: int,
        identity_cell: int | None = None,
    ):
        self._pairs = _Pairs((in_rows, out_rows), counts, (n_in, n_out))
        self._side = 0
        self.identity_cell = identity_cell

    @property
    def in_rows(self) -> Tensor:
        """Input row of each pair. Shape: (P,)."""
        return self._pairs.rows[self._side]

    @property
    def out_rows(self) -> Tensor:
        """Output row of each pair. Shape: (P,)."""
        return self._pairs.rows[1 - self._side]

    @property
    def counts(self) -> list[int]:
        """Pairs per kernel cell, K values."""
        return self._pairs.counts

    @property
    def n_in(self) -> int:
        """Rows of the input."""
        return self._pairs.sizes[self._side]

    @property
    def n_out(self) -> int:
        """Rows of the output."""
        return self._pairs.sizes[1 - self._side]

    @property
    def volume(self) -> int:
        """Kernel cells K."""
        return len(self.counts)

    @property
    def device(self) -> torch.device:
        return self.in_rows.device

    @property
    def transpose(self) -> KernelMap:
        """The map with input and output exchanged; the cells keep their numbers."""
        other = object.__new__(KernelMap)
        other._pairs = self._pairs
        other._side = 1 - self._side
        other.identity_cell = self.identity_cell
        return other

    @property
    def out_order(self) -> RowOrder:
        """The pairs grouped by output row, made when first asked for."""
        side = 1 - self._side
        if self._pairs.orders[side] is None:
            self._pairs.orders[side] = RowOrder(self.out_rows, self.n_out)
        return self._pairs.orders[side]

    @property
    @torch.inference_mode(False)
    def cells(self) -> Tensor:
        """Kernel cell of each pair. Shape: (P,) int64."""
        if self._pairs.cells is None:
            counts = torch.tensor(self.counts, device=self.device)
            self._pairs.cells = torch.repeat_interleave(torch.arange(self.volume, device=self.device), counts)
        return self._pairs.cells

    @property
    def by_cell(self) -> list[tuple[Tensor, Tensor]]:
        """Input and output rows of each cell's pairs, K views."""
        pairs = self._pairs
        if pairs.by_cell is None:
            pairs.by_cell = list(zip(*(rows.split(pairs.counts) for rows in pairs.rows)))
        return pairs.by_cell if self._side == 0 else [(i, o) for o, i in pairs.by_cell]

    def derived(self, name: tuple, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept with the pairs under ``name`` for this direction of the map."""
        key = (self._side, *name)
        if key not in self._pairs.derived:
            self._pairs.derived[key] = make()
        return self._pairs.derived[key]

    @property
    def out_counts(self) -> Tensor:
        """Inputs that each output row sees. Shape: (n_out,) int64."""
        return torch.bincount(self.out_rows, minlength=self.n_out)

    def __repr__(self) -> str:
        return f"KernelMap({self.n_in} -> {self.n_out} rows, {self.volume} cells, {len(self.in_rows)} pairs)"


def build_kernel_map(
    source: SortedIndex, target: SortedIndex, target_keys: Tensor, kernel: Kernel, tensor_stride: tuple[int, ...],
    same: bool,
) -> KernelMap:
    """Pair input row i with output row o under cell k wherever ``input[i] = output[o] + offset[k]``.

    Args:
        source: the input's sorted index; its margin must be at least the reach of the kernel. Whatever
            an offset then shifts out of a line of keys, or a key of -1, falls into a margin, where no input is.
        target: the output's sorted index (only its row order is used).
        target_keys: Shape (n_out,): the output's coordinates in the key space of ``source``, in the
            order of ``target``; -1 for those that lie outside it.
        kernel: the window.
        tensor_stride: of the input.
        same: input and output are one coordinate map, so a symmetric kernel needs half of the look-ups.
    """
    cells_in: list[Tensor | None] = [None] * kernel.volume
    cells_out: list[Tensor | None] = [None] * kernel.volume
    mirrored = same and kernel.is_symmetric
    offsets = kernel.offsets(tensor_stride)
    search = _look_up if source.table is not None else _search_columns
    for cells, found in search(source, target_keys, kernel, offsets, mirrored):
        present = found >= 0
        counts = present.sum(1).tolist()
        positions = present.nonzero()[:, 1]
        hits = found[present].long()
        for cell, i, o in zip(cells, hits.split(counts), positions.split(counts)):
            cells_in[cell], cells_out[cell] = i, o
            if mirrored and cell != kernel.volume - 1 - cell:
                # Ascending output rows within a cell keep the gathers of a layer in memory order:
                # i grows with o, because both are positions in the same sorted keys.
                cells_in[kernel.volume - 1 - cell], cells_out[kernel.volume - 1 - cell] = o, i
    n_in, n_out = len(source.keys), len(target_keys)
    counts = [len(i) for i in cells_in]
    return KernelMap(
        source.rows(torch.cat(cells_in)),
        target.rows(torch.cat(cells_out)),
        counts,
        n_in,
        n_out,
        kernel.identity_cell if same else None,
    )


_Found = Iterator[tuple[list[int], Tensor]]
"""Cells, and the position of the input under each of them for each output: (cells, n_out) int32, -1 for none."""


def _look_up(
    source: SortedIndex, target_keys: Tensor, kernel: Kernel, offsets: list[list[int]], mirrored: bool
) -> _Found:
    """One look-up in the dense table per cell and output, in blocks of bounded memory."""
    cells = list(range((kernel.volume + 1) // 2 if mirrored else kernel.volume))
    shifts = torch.tensor([source.space.shift(offsets[c]) for c in cells], device=target_keys.device)
    block = max(1, _LOOK_UPS_AT_ONCE // max(len(target_keys), 1))
    for start in range(0, len(cells), block):
        keys = shifts[start : start + block, None] + target_keys
        # Only the shifts of a key of -1 can leave the table.
        yield cells[start : start + block], source.table[keys.clamp_(0, len(source.table) - 1)]


def _search_columns(
    source: SortedIndex, target_keys: Tensor, kernel: Kernel, offsets: list[list[int]], mirrored: bool
) -> _Found:
    """A column of cells along the last axis is a stretch of consecutive keys: one binary search serves it all."""
    for column in _columns(kernel, mirrored):
        start = target_keys + source.space.shift(offsets[column[0]])
        step = 1
        if len(column) > 1:
            step = source.space.shift([b - a for a, b in zip(offsets[column[0]], offsets[column[1]])])
        if step == 0:  # a globally pooled tensor: with tensor stride 0 all cells are one
            yield column, _find_run(source.keys, start, 1, 1).expand(len(column), -1).clone()
        else:
            yield column, _find_run(source.keys, start, step, len(column))


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
        position, columns, start, distance = position[going], columns[going], start[going], distance[going]
        if step == 1:
            found[distance, columns] = position.int()
        else:
            on_step = (distance % step == 0).nonzero()[:, 0]
            cell = torch.div(distance[on_step], step, rounding_mode="floor")
            found[cell, columns[on_step]] = position[on_step].int()
        position = position + 1
