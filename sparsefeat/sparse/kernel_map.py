"""The plan of a sparse convolution: which input row meets which output row under which kernel cell."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sparsefeat.sparse.coordinate_map import keep_for_training
from sparsefeat.sparse.coordinates import SortedIndex, constant
from sparsefeat.sparse.kernel_search import Search, Windows

T = TypeVar("T")


class RowOrder:
    """The pairs of a kernel map grouped by the row on one side: a CSR matrix of pair numbers."""

    def __init__(self, rows: Tensor, count: int):
        # Small numbers are sorted in a fraction of the time.
        rows = rows.to(
            torch.int16 if count < 2**15 else torch.int32 if count < 2**31 else torch.int64
        )
        ascending, self.pairs = torch.sort(rows, stable=True)
        """Pair numbers, those of row 0 first, within a row in cell order. Shape: (P,)."""
        # Looked up, not counted: for a count the host would have to wait for the largest row.
        self.splits = torch.searchsorted(
            ascending, torch.arange(count + 1, dtype=rows.dtype, device=rows.device)
        )
        """Row r has the pairs ``pairs[splits[r]:splits[r + 1]]``. Shape: (rows + 1,)."""


class Segment(NamedTuple):
    """The pairs of one cell in one block.

    Shape: sources, targets (count,) int32, positions on either side.
    ``identical``: sources and targets are all positions of the block, in order.
    """

    cell: int
    count: int
    sources: Tensor
    targets: Tensor
    identical: bool


class Block(NamedTuple):
    """The output positions from ``start`` to ``stop`` and all pairs that lead there, cell by cell."""

    start: int
    stop: int
    segments: list[Segment]
    counts: list[int]
    """Pairs of each segment. The pairs of the block are numbered segment by segment."""
    order: Tensor
    """The block's pairs grouped by output, in cell order for each. Shape: (pairs,) int32."""
    splits: Tensor
    """Output ``start + r`` has the pairs ``order[splits[r]:splits[r + 1]]``. Shape: (rows + 1,) int32."""


class _Pairs:
    """The pairs of one map and what is derived from them; shared by the map and its transpose.

    ``find`` returns positions on either side, cell by cell, and the pairs of each cell.
    """

    def __init__(
        self,
        find: Callable[[], tuple[Tensor, Tensor, list[int]]],
        volume: int,
        sizes: tuple[int, int],
        indices: tuple[SortedIndex | None, SortedIndex | None] = (None, None),
        mirrored: bool = False,
        ascending: bool = False,
        identity_cell: int | None = None,
        windows: Windows | None = None,
    ):
        self.find = find
        self.volume = volume
        self.sizes = sizes
        self.indices = indices
        self.mirrored = mirrored
        self.ascending = ascending
        self.identity_cell = identity_cell
        self.windows = windows
        self.search: Search | None = None
        self.found: tuple[Tensor, Tensor, list[int]] | None = None
        self.rows: list[Tensor | None] = [None, None]
        self.row_orders: list[RowOrder | None] = [None, None]
        self.cells: Tensor | None = None
        self.derived: dict[tuple, object] = {}


_with_handle: dict[int, _Pairs] = {}
"""Pairs by the number in their handle, for as long as that tensor exists."""

_numbers = itertools.count()


@keep_for_training
def _make_handles(pairs: _Pairs) -> tuple[Tensor, Tensor]:
    """Tensors that stand for a map where only tensors can go, one as long as either side: a compiled graph.

    They keep the pairs alive, not the pairs them: a graph may outlive every other reference to its maps.
    """
    number = next(_numbers)
    one = torch.tensor(number)
    _with_handle[number] = pairs
    weakref.finalize(one.untyped_storage(), _with_handle.pop, number, None).atexit = False
    return one.expand(pairs.sizes[0]), one.expand(pairs.sizes[1])


class KernelMap:
    """Pairs (input row, output row), grouped by kernel cell.

    Built once per coordinates and kernel, then shared by all layers, the backward pass (as its
    transpose) and later steps on the same coordinates. Immutable; pairs are searched when first asked for.

    Beside rows there are positions: a row's place in the order of coordinates. Arithmetic goes by
    positions, since neighbours in space are then neighbours in memory.

    Args:
        in_rows, out_rows: Shape (P,) int64, those of cell 0 first; within a cell no output row occurs twice.
        counts: pairs per cell, K values that sum to P.
        n_in, n_out: rows on either side.
        identity_cell: a cell that pairs every row with itself (stride 1, offset zero), if there is one.

    Attributes:
        handles: integer tensors on the CPU, as long as input and output of the map that was searched, that
            stand for it in a compiled graph; None for a map that was got back from its handle.
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
        self._pairs = _Pairs(
            functools.partial(_given, in_rows, out_rows, counts),  # a map can be pickled
            len(counts),
            (n_in, n_out),
            identity_cell=identity_cell,
        )
        self._pairs.rows = [in_rows, out_rows]
        self._side = 0
        self.handles: tuple[Tensor, Tensor] | None = _make_handles(self._pairs)

    @classmethod
    def of(cls, search: Search, target: SortedIndex) -> KernelMap:
        """The map of what a search will find; ``target`` is the output's sorted index."""
        pairs = _Pairs(
            search.find_pairs,
            search.kernel.volume,
            (len(search.source.keys), len(search.target_keys)),
            (search.source, target),
            search.mirrored,
            ascending=True,
            identity_cell=search.kernel.identity_cell if search.same else None,
            windows=search.windows(),
        )
        pairs.search = search
        return cls._view(pairs, 0, _make_handles(pairs))

    @classmethod
    def _view(cls, pairs: _Pairs, side: int, handles: tuple[Tensor, Tensor] | None) -> KernelMap:
        plan = object.__new__(cls)
        plan._pairs = pairs
        plan._side = side
        plan.handles = handles
        return plan

    @classmethod
    def behind(cls, handle: Tensor, transposed: bool) -> KernelMap:
        """The map that has this handle, or its transpose."""
        # All elements are one number, which is there even where a side has no rows.
        return cls._view(_with_handle[int(handle.as_strided((), ()))], int(transposed), None)

    def __reduce__(self):
        # A copy, or this map in another process, is another map: it needs handles of its own.
        return _restore, (self._pairs, self._side, self.handles is not None)

    @keep_for_training
    def _found(self) -> tuple[Tensor, Tensor, list[int]]:
        if self._pairs.found is None:
            self._pairs.found = self._pairs.find()
        return self._pairs.found

    def _rows(self, side: int) -> Tensor:
        if self._pairs.rows[side] is None:
            self._make_rows(side)
        return self._pairs.rows[side]

    @keep_for_training
    def _make_rows(self, side: int) -> None:
        positions, order = self._found()[side], self._pairs.indices[side].order
        self._pairs.rows[side] = (
            positions.long() if order is None else order.index_select(0, positions)
        )

    @property
    def in_rows(self) -> Tensor:
        """Input row of each pair. Shape: (P,) int64."""
        return self._rows(self._side)

    @property
    def out_rows(self) -> Tensor:
        """Output row of each pair. Shape: (P,) int64."""
        return self._rows(1 - self._side)

    def by_position(self, features: Tensor, out: Tensor | None = None) -> Tensor:
        """Input rows in the order of their coordinates, written to ``out`` if given. Shape: (n_in, C) -> same."""
        if self.in_order:
            return features
        return torch.index_select(features, 0, self._pairs.indices[self._side].order, out=out)

    @keep_for_training
    def by_row(self, values: Tensor) -> Tensor:
        """Output rows from values by position, the inverse of ``transpose.by_position``. Shape: (n_out, C) -> same."""
        index = self._pairs.indices[1 - self._side]
        return (
            values
            if index is None or index.order is None
            else values.index_select(0, index.positions)
        )

    @property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Position of input and output of each pair. Shape: (P,), (P,) int32."""
        found = self._found()
        return found[self._side], found[1 - self._side]

    @property
    def in_order(self) -> bool:
        """Whether the input's rows are in the order of their coordinates, so that positions are rows."""
        index = self._pairs.indices[self._side]
        return index is None or index.order is None

    @property
    def mirrored(self) -> bool:
        """Whether input i is under cell k of output o where input o is under cell K - 1 - k of output i."""
        return self._pairs.mirrored

    @property
    def mirrored_transpose(self) -> bool:
        """Whether this is a transpose that has the other's pairs: those of its cell K - 1 - k under cell k."""
        return self.mirrored and self._side == 1

    @property
    def counts(self) -> list[int]:
        """Pairs per kernel cell, K values."""
        return self._found()[2]

    @property
    def n_pairs(self) -> int:
        """The number P of pairs."""
        return len(self._found()[0])

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
        return self._pairs.volume

    @property
    def device(self) -> torch.device:
        return self._found()[0].device

    @property
    def identity_cell(self) -> int | None:
        """A cell that pairs every row with itself (stride 1, offset zero), if there is one."""
        return self._pairs.identity_cell

    @property
    def windows(self) -> Windows | None:
        """The cells as stretches of a dense box, where they are some; of the map as it was searched only."""
        return self._pairs.windows if self._side == 0 else None

    @property
    def transposed(self) -> bool:
        """Whether this is the transpose of the map that was searched."""
        return self._side == 1

    @property
    def transpose(self) -> KernelMap:
        """The map with input and output exchanged; the cells keep their numbers."""
        return self._view(self._pairs, 1 - self._side, self.handles)

    @property
    def out_handle(self) -> Tensor:
        """The handle whose length is ``n_out``: a compiler follows that, while it may lose a number's origin."""
        return self.handles[0 if self.transposed else 1]

    @property
    @keep_for_training
    def out_order(self) -> RowOrder:
        """The pairs grouped by output row, made when first asked for."""
        side = 1 - self._side
        if self._pairs.row_orders[side] is None:
            self._pairs.row_orders[side] = RowOrder(self.out_rows, self.n_out)
        return self._pairs.row_orders[side]

    @keep_for_training
    def by_output(self) -> tuple[Tensor, Tensor]:
        """Input row of each pair, those of output row 0 first, within a row in cell order; and pairs per output row.

        Shape: (P,), (n_out,)
        """
        search = self._pairs.search if self._side == 0 else None
        if search is not None:
            source, target = self._pairs.indices
            found = search.find_by_output(target.positions)
            if found is not None:
                return source.rows(found[0]), found[1]
        order = RowOrder(self.out_rows, self.n_out)
        return self.in_rows.index_select(0, order.pairs), order.splits.diff()

    @property
    @keep_for_training
    def cells(self) -> Tensor:
        """Kernel cell of each pair. Shape: (P,) int64."""
        if self._pairs.cells is None:
            counts = constant(self.counts, self.device)
            # The size is known here; left to itself, torch would fetch it from the device.
            self._pairs.cells = torch.repeat_interleave(counts, output_size=self.n_pairs)
        return self._pairs.cells

    def derived(self, name: tuple, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept with the pairs under ``name`` for this direction of the map.

        Made in inference mode, too, it serves for training.
        """
        key = (self._side, *name)
        if key not in self._pairs.derived:
            with torch.inference_mode(False):
                self._pairs.derived[key] = make()
        return self._pairs.derived[key]

    def has(self, name: tuple) -> bool:
        """Whether there is something kept under ``name``."""
        return (self._side, *name) in self._pairs.derived

    def forget(self, name: tuple) -> None:
        """Drop what is kept under ``name``, if there is something."""
        self._pairs.derived.pop((self._side, *name), None)

    def blocks(self, rows: int) -> list[Block]:
        """The pairs in blocks of ``rows`` output positions, made when first asked for."""
        return self.derived(("blocks", rows), lambda: self._make_blocks(rows))

    def _make_blocks(self, rows: int) -> list[Block]:
        if self.mirrored_transpose:
            # Input i lies under cell k of output o exactly where o lies under cell K - 1 - k of i.
            last = self.volume - 1
            return [
                block._replace(segments=[s._replace(cell=last - s.cell) for s in block.segments])
                for block in self.transpose.blocks(rows)
            ]
        (sources, targets), lengths = self.positions, self.counts
        if not self._pairs.ascending:
            order = torch.argsort(self.cells * self.n_out + targets, stable=True)
            sources, targets = sources[order], targets[order]
        starts = list(range(0, self.n_out, rows)) or [0]
        if len(starts) > 1:
            borders = constant([*starts, self.n_out], targets.device, torch.int32)
            bounds = [
                torch.searchsorted(part, borders) for part in targets.split_with_sizes(lengths)
            ]
            lengths = torch.stack(bounds).diff(dim=1).flatten().tolist()
        segments: list[list[Segment]] = [[] for _ in starts]
        identity = self.identity_cell
        places = itertools.product(range(self.volume), segments)
        parts = zip(
            places, lengths, sources.split_with_sizes(lengths), targets.split_with_sizes(lengths)
        )
        for (cell, there), length, i, o in parts:
            if length:
                there.append(Segment(cell, length, i, o, cell == identity))
        stops = [*starts[1:], self.n_out]
        return [
            _block(start, stop, there, targets)
            for start, stop, there in zip(starts, stops, segments)
        ]

    def __repr__(self) -> str:
        return f"KernelMap({self.n_in} -> {self.n_out} rows, {self.volume} cells, {self.n_pairs} pairs)"


def _given(
    in_rows: Tensor, out_rows: Tensor, counts: list[int]
) -> tuple[Tensor, Tensor, list[int]]:
    return in_rows.int(), out_rows.int(), counts


def _restore(pairs: _Pairs, side: int, handles: bool) -> KernelMap:
    return KernelMap._view(pairs, side, _make_handles(pairs) if handles else None)


def _block(start: int, stop: int, segments: list[Segment], like: Tensor) -> Block:
    targets = torch.cat([s.targets for s in segments]) - start if segments else like[:0]
    splits = like.new_zeros(stop - start + 1)
    torch.cumsum(
        torch.bincount(targets, minlength=stop - start), 0, dtype=torch.int32, out=splits[1:]
    )
    if stop - start < 2**15:
        targets = targets.short()  # sorted in less than half of the time
    order = torch.sort(targets, stable=True).indices.int()
    return Block(start, stop, segments, [s.count for s in segments], order, splits)
