"""Cells of the unit grid that triangles touch, found column by column.

Along a column of cells every separating axis is a linear function of z, so that the touched cells are an
interval. Its ends are those of the triangle seen along y, in a slab of one cell along x; along x, in a row of
one cell along y; and of its plane. Which columns there are follows likewise, from the triangle seen along z.
So the work grows as the number of columns, and a cell costs no more than being listed.

The ends are found in float64, with a bound of their error: from those of the triangle seen along an axis, a
little outside, to as much inside lie the few cells that are left to :func:`touches_closely`. Errors count in
voxels, and all coordinates here are relative to the triangle's bounding box.

Of a triangle seen along an axis, an edge with both ends in one slab decides nothing: where a cell beside the
triangle, but within its bounding rectangle, is to be told from it, the edge that crosses the slab's side
there does. So every edge that is left crosses a side of a slab, and has a slope.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsefeat.mesh.keys import Box
from sparsefeat.mesh.touching import Triangles

# Bounds of errors, in units of what the magnitudes of the terms add up to. A rounding is 2^-53: of them 20
# meet in the end of an interval from an edge and 30 in that from a plane; the rest is to be safe.
_EDGE_ERROR, _PLANE_ERROR = 2.0**-46, 2.0**-45

# Beyond all bounds: slopes stay below 2^300.
_FAR = 2.0**400


@dataclass(frozen=True)
class Runs:
    """Runs of cells along z, each touched by a triangle, or to be looked at.

    Attributes:
        triangle: (R,) int64.
        key: of a run's first cell. Shape: (R,) int64
        count: number of cells, may be 0. Shape: (R,) int64
    """

    triangle: Tensor
    key: Tensor
    count: Tensor

    def __len__(self) -> int:
        return len(self.key)

    @staticmethod
    def joined(parts: list[Runs]) -> Runs:
        """One after the other."""
        return Runs(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("triangle", "key", "count"))
        )

    def cut(self, limit: int) -> Iterator[Runs]:
        """In parts of at most so many cells, or a single run."""
        for start, stop in chunks(self.count, limit):
            part = slice(start, stop)
            yield Runs(self.triangle[part], self.key[part], self.count[part])

    def keys(self) -> Tensor:
        """Those of all cells, run by run. Shape: (P,) int64"""
        end = torch.cumsum(self.count, 0)
        total = int(end[-1]) if len(end) else 0
        # Ascending by 1 but for the jumps from the end of a run to the next, which add up where runs are
        # empty, whatever their keys.
        result = self.key.new_ones(total + 1)
        jump = self.key.clone()
        jump[1:] -= self.key[:-1] + self.count[:-1]
        jump[:1] -= 1
        result.index_add_(0, end - self.count, jump)
        return torch.cumsum(result[:total], 0)

    def triangles(self) -> Tensor:
        """Those of all cells, likewise. Shape: (P,) int64"""
        return torch.repeat_interleave(self.triangle, self.count)


def runs_in_rows(triangles: Triangles, box: Box, limit: int) -> Iterator[Runs]:
    """Yield the cells of bounding boxes that are single rows: each is touched, as triangles are connected.

    Args:
        triangles: M of them.
        box: of the keys.
        limit: runs at a time, up to those of one triangle.
    """
    first = box.keys(triangles.low)
    x, y, z = (triangles.high - triangles.low).long()
    step = torch.where(x > 0, box.strides[0], box.strides[1])
    columns = (x + y + 1) * triangles.in_row
    for start, stop in chunks(columns, limit):
        row, place = expand(columns[start:stop])
        row += start
        key = torch.addcmul(first.index_select(0, row), step.index_select(0, row), place)
        yield Runs(triangles.index.index_select(0, row), key, z.index_select(0, row) + 1)


def runs_in_columns(triangles: Triangles, box: Box, limit: int) -> Iterator[tuple[Runs, Runs]]:
    """Yield runs of cells that are touched, and of those to be looked at closely.

    Args:
        triangles: M of them, whose bounding boxes are not single rows.
        box: of the keys.
        limit: columns at a time, up to those of one slab.
    """
    extent = triangles.high - triangles.low
    slabs_of, rows_of = (extent[:2] + 1).long()
    bounds = _bounds(triangles, extent)
    first_key = box.keys(triangles.low)
    for start, stop in chunks(slabs_of + rows_of, limit):
        part = slice(start, stop)
        slabs = _slabs(
            triangles, bounds, extent, first_key, slabs_of[part], rows_of[part], start, box
        )
        for slab_start, slab_stop in chunks(slabs.columns, limit):
            yield _columns(slabs, slice(slab_start, slab_stop), box)


@dataclass(frozen=True)
class _Bounds:
    """Bounds of intervals, linear in the place of a slab: along x for 0 and 1, along y for 2.

    Attributes:
        edges: of y in (x, y), of z in (x, z) and of z in (y, z), the slopes, lower and upper bounds by edge.
            Where an edge is no bound on a side, that is far away. Shape: 3 x 3 x 3 edges x (M,)
        plane_slope: those of z on the triangle's plane, by x and by y. Shape: (2, M)
        plane_lower, plane_upper: of z at x = y = 0. Shape: (M,)
        slack: how far at most a bound is outside of where it should be. Shape: (M,)
    """

    edges: list[tuple[tuple[Tensor, ...], ...]]
    plane_slope: Tensor
    plane_lower: Tensor
    plane_upper: Tensor
    slack: Tensor

    def at(self, view: int, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """The interval in some slabs of some triangles. Shape: (S,), (S,) -> (S,), (S,)"""
        lower = upper = None
        for edge in range(3):
            slope, low, high = (x[edge].index_select(0, rows) for x in self.edges[view])
            low.addcmul_(slope, place)
            high.addcmul_(slope, place)
            lower = low if lower is None else torch.maximum(lower, low, out=low)
            upper = high if upper is None else torch.minimum(upper, high, out=high)
        return lower, upper


def _bounds(triangles: Triangles, extent: Tensor) -> _Bounds:
    corners, (area, size, sign) = triangles.corners - triangles.low, triangles.normal
    reach = extent + 2
    furthest = reach.amax(0)
    # 1 where the triangle crosses the sides of cells, 0 where it is in one layer of them.
    deep = extent.clamp(max=1)
    views, slack = [], None
    # By axis p along which there are slabs and axes q of bounds, and their signs. A corner of the cell is
    # inside of an edge if sign ((p - p0) edge_q - (q - q0) edge_p) <= 0: below or above it, by the sign.
    for p, q, turned in (
        (slice(0, 1), slice(1, 3), torch.stack([sign[2], -sign[1]])),
        (slice(1, 2), slice(2, 3), sign[:1]),
    ):
        crosses = (triangles.cells[:, p].roll(-1, 0) - triangles.cells[:, p]).abs_().clamp_(max=1)
        run, rise = triangles.edges[:, p], triangles.edges[:, q]
        # Within one slab, and so not to be used, a run is longer than -1; + 2 keeps it from being zero.
        slope = rise / torch.add(run, 1 - crosses, alpha=2)
        crosses = crosses * deep[q]
        slope *= crosses
        start = torch.addcmul(corners[:, q], slope, corners[:, p], value=-1)
        error = (slope.abs() + 1).mul_(_EDGE_ERROR * furthest)
        # On the one side an edge is no bound, unless the triangle is seen edge-on; unused ones on neither.
        side = torch.sign(run) * turned
        crosses -= 1
        lower = (slope.clamp(max=0) - 1).add_(start).sub_(error)
        lower.add_(side.clamp(max=0).add_(crosses), alpha=_FAR)
        upper = slope.clamp(min=0).add_(start).add_(error)
        upper.add_(side.clamp_(min=0).sub_(crosses), alpha=_FAR)
        parts = zip(*(x.unbind(1) for x in (slope, lower, upper)), strict=True)
        views += [tuple(x.unbind(0) for x in view) for view in parts]
        largest = error.flatten(0, 1).amax(0)
        slack = largest if slack is None else torch.maximum(slack, largest)
    # Seen edge-on along z, the plane bounds x and y alone, as the edges do; within a layer it bounds nothing.
    used = sign[2].abs() * deep[0] * deep[1] * deep[2]
    # What may have been rounded to zero is made as large as its error.
    height = used / (torch.maximum(area[2].abs(), size[2] * 2.0**-52) + (1 - used))
    plane_slope = area[:2] * -(height * sign[2])
    error = (size * reach).sum(0).mul_(height).mul_(_PLANE_ERROR)
    start = corners[0, 2] - plane_slope[0] * corners[0, 0] - plane_slope[1] * corners[0, 1]
    away = (1 - used).mul_(_FAR)
    plane_lower = start + (plane_slope.clamp(max=0).sum(0) - 1) - error - away
    plane_upper = start + plane_slope.clamp(min=0).sum(0) + error + away
    slack = 2 * torch.maximum(slack, error)
    return _Bounds(views, plane_slope, plane_lower, plane_upper, slack)


@dataclass(frozen=True)
class _Slabs:
    """Slabs of triangles, or parts of slabs, with their columns.

    Attributes:
        triangle: (S,) int64.
        first: y of the first column. Shape: (S,) int64
        columns: their number. Shape: (S,) int64
        slack: as that of the triangle; infinite where no column is certain to be touched. Shape: (S,)
        key: of the cell at y = z = 0. Shape: (S,) int64
        lower, upper: of z seen along y, and within the bounding box. Shape: (S,)
        plane_slope, plane_lower, plane_upper: of z on the plane, by y. Shape: (S,)
        row: place of y = 0 in the following. Shape: (S,) int64
        row_lower, row_upper: of z seen along x, for all y of all triangles. Shape: (R,)
    """

    triangle: Tensor
    first: Tensor
    columns: Tensor
    slack: Tensor
    key: Tensor
    lower: Tensor
    upper: Tensor
    plane_slope: Tensor
    plane_lower: Tensor
    plane_upper: Tensor
    row: Tensor
    row_lower: Tensor
    row_upper: Tensor


def _slabs(
    triangles: Triangles,
    bounds: _Bounds,
    extent: Tensor,
    first_key: Tensor,
    slabs_of: Tensor,
    rows_of: Tensor,
    start: int,
    box: Box,
) -> _Slabs:
    owner, y = expand(rows_of)
    row_lower, row_upper = bounds.at(2, owner + start, y.double())
    owner, step = expand(slabs_of)
    row = (torch.cumsum(rows_of, 0) - rows_of).index_select(0, owner)
    owner += start
    x = step.double()
    slack = bounds.slack.index_select(0, owner)
    # The ends of the box are certain: half a cell is beyond any slack that leaves something certain.
    lower, upper = bounds.at(0, owner, x)
    lower.clamp_(min=-0.5)
    upper = torch.minimum(upper, extent[1].index_select(0, owner) + 0.5)
    first, last, sure_first, sure_last = _ends(lower, upper, slack)
    lower, upper = bounds.at(1, owner, x)
    lower.clamp_(min=-0.5)
    upper = torch.minimum(upper, extent[2].index_select(0, owner) + 0.5)
    slope = bounds.plane_slope[0].index_select(0, owner)
    common = (
        torch.add(first_key.index_select(0, owner), step, alpha=box.strides[0]),
        lower,
        upper,
        bounds.plane_slope[1].index_select(0, owner),
        bounds.plane_lower.index_select(0, owner).addcmul_(slope, x),
        bounds.plane_upper.index_select(0, owner).addcmul_(slope, x),
        row,
    )
    columns = _number(sure_first, sure_last)
    index = triangles.index.index_select(0, owner)
    fields = (index, sure_first.long(), columns, slack, *common)
    unsure = torch.nonzero(_number(first, last) != columns)[:, 0]
    if len(unsure):
        parts = [fields]
        for begin, count in _left_over(*(v[unsure] for v in (first, last, sure_first, sure_last))):
            rest = (index[unsure], begin.long(), count, slack.new_full(count.shape, torch.inf))
            parts.append((*rest, *(v[unsure] for v in common)))
        fields = map(torch.cat, zip(*parts, strict=True))
    return _Slabs(*fields, row_lower, row_upper)


def _columns(slabs: _Slabs, part: slice, box: Box) -> tuple[Runs, Runs]:
    slab, y = expand(slabs.columns[part])
    slab += part.start
    y += slabs.first.index_select(0, slab)
    row = slabs.row.index_select(0, slab).add_(y)
    key = slabs.key.index_select(0, slab).add_(y, alpha=box.strides[1])
    triangle, slack = slabs.triangle.index_select(0, slab), slabs.slack.index_select(0, slab)
    y, slope = y.double(), slabs.plane_slope.index_select(0, slab)
    lower = slabs.plane_lower.index_select(0, slab).addcmul_(slope, y)
    upper = slabs.plane_upper.index_select(0, slab).addcmul_(slope, y)
    for ends, rows in ((slabs.lower, slab), (slabs.row_lower, row)):
        torch.maximum(lower, ends.index_select(0, rows), out=lower)
    for ends, rows in ((slabs.upper, slab), (slabs.row_upper, row)):
        torch.minimum(upper, ends.index_select(0, rows), out=upper)
    first, last, sure_first, sure_last = _ends(lower, upper, slack)
    count = _number(sure_first, sure_last)
    touched = Runs(triangle, key + sure_first.long(), count)
    unsure = torch.nonzero(_number(first, last) != count)[:, 0]
    key, triangle = key[unsure], triangle[unsure]
    if not len(unsure):
        return touched, Runs(triangle, key, unsure)
    rests = _left_over(*(v[unsure] for v in (first, last, sure_first, sure_last)))
    keys, counts = zip(*((key + begin.long(), number) for begin, number in rests), strict=True)
    return touched, Runs(torch.cat([triangle, triangle]), torch.cat(keys), torch.cat(counts))


def _ends(lower: Tensor, upper: Tensor, slack: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last whole number of intervals as they are, and of what is certain to be in them."""
    return (
        torch.ceil(lower),
        torch.floor(upper),
        torch.ceil(lower + slack),
        torch.floor(upper - slack),
    )


def _number(first: Tensor, last: Tensor) -> Tensor:
    return (last - first).add_(1).clamp_(min=0).long()


def _left_over(
    first: Tensor, last: Tensor, sure_first: Tensor, sure_last: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Firsts and numbers of what is below and above the certain part, all below where there is none."""
    none = sure_first > sure_last
    sure_first = torch.where(none, last + 1, sure_first)
    sure_last = torch.where(none, last, sure_last)
    return [(first, _number(first, sure_first - 1)), (sure_last + 1, _number(sure_last + 1, last))]


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (2, 0, 3): parents (0, 0, 2, 2, 2) and steps (0, 1, 0, 1, 2)."""
    parent = torch.repeat_interleave(counts)
    starts = torch.cumsum(counts, 0) - counts
    return parent, torch.arange(len(parent), device=counts.device) - starts.index_select(0, parent)


def chunks(counts: Tensor, limit: int) -> Iterator[tuple[int, int]]:
    """Cut a list of counts into ranges that add up to at most ``limit``, or are a single one."""
    ends = torch.cumsum(counts, 0).cpu()
    start, before = 0, 0
    while start < len(ends):
        stop = int(torch.searchsorted(ends, before + limit, right=True))
        stop = min(max(stop, start + 1), len(ends))
        yield start, stop
        start, before = stop, int(ends[stop - 1])
