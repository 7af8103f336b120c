"""Pairs of triangles and cells of the unit grid that may touch: few too many, none too few.

A triangle is cut into slabs of one cell along x, each slab into columns along y, and the range of z in each
column gives cells. The cuts are made in float64 a little wide of the cells, so that rounding loses none, and
along edges and chords of the triangle, never on its plane, which a needle barely has. So the number of pairs
grows as the number of touched cells: no bounding box of a large triangle is ever listed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsefeat.mesh.touching import Triangles

# How far the cuts are wide of the cells, in units of the largest coordinate: 2^10 times the rounding.
_MARGIN = 2.0**-43
_TINY = 1e-300


def pairs_in_columns(triangles: Triangles, limit: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield (rows (P,), cells 3 x (P,) float64): the cells in each triangle's range of z in each column.

    Args:
        triangles: M of them.
        limit: pairs at a time, up to one column's.
    """
    low, high, corners = triangles.low, triangles.high, triangles.corners
    margin = _MARGIN * (1 + float(corners.abs().max()))
    ordered = torch.gather(corners, 0, corners[:, 0].argsort(0)[:, None].expand(-1, 3, -1))
    slabs_of = (high[0] - low[0]).long() + 1
    for start, stop in chunks(slabs_of, limit // 4):
        of_slab, step = expand(slabs_of[start:stop])
        of_slab += start
        x = low[0][of_slab] + step
        slabs = _slab_polygons(ordered, of_slab, x, margin)
        first = torch.maximum(torch.floor(slabs[0].amin(0) - margin), low[1][of_slab])
        last = torch.minimum(torch.floor(slabs[0].amax(0) + margin), high[1][of_slab])
        columns = (last - first + 1).clamp_(min=0).long()
        for slab_start, slab_stop in chunks(columns, limit // 2):
            of_column, step = expand(columns[slab_start:slab_stop])
            of_column += slab_start
            y = first[of_column] + step
            bottom, top = _column_range([p[:, of_column] for p in slabs], y, margin)
            row = of_slab[of_column]
            bottom = torch.maximum(torch.floor(bottom - margin), low[2][row])
            top = torch.minimum(torch.floor(top + margin), high[2][row])
            heights = (top - bottom + 1).clamp_(min=0).long()
            for column_start, column_stop in chunks(heights, limit):
                parent, step = expand(heights[column_start:column_stop])
                parent += column_start
                yield row[parent], [x[of_column[parent]], y[parent], bottom[parent] + step]


def _slab_polygons(ordered: Tensor, rows: Tensor, x: Tensor, margin: float) -> list[Tensor]:
    """Cut triangles to slabs of x; returns y and z of five corners each, in order, some of them equal.

    Args:
        ordered: corners in ascending order of x. Shape: (3 corners, 3 coordinates, M)
        rows: triangle of each slab. Shape: (S,)
        x: lower end of each slab. Shape: (S,)

    Returns:
        y and z. Shape: (5, S) each
    """
    a, b, c = (ordered[k][:, rows] for k in range(3))
    ends = []
    for side, bound in enumerate((x - margin, x + (1 + margin))):
        bound = torch.minimum(torch.maximum(bound, a[0]), c[0])
        # One end is on the long edge, the other on one of the two others; both exist within the range of x.
        before = bound < b[0]
        short = _at(torch.where(before, a, b), torch.where(before, b, c), bound, side)
        ends.append((_at(a, c, bound, side), short))
    (p0, q0), (p1, q1) = ends
    inside = (b[0] >= x - margin) & (b[0] <= x + (1 + margin))
    middle = torch.where(inside, b[1:], q0)
    polygon = torch.stack([p0, p1, q1, middle, q0])
    return [polygon[:, 0], polygon[:, 1]]


def _at(start: Tensor, end: Tensor, x: Tensor, side: int) -> Tensor:
    """(y, z) of the point with this x on a segment, of its start (side 0) or end (1) where x is the same all
    along it: a triangle across x keeps its three corners. Shape: (3, S), (3, S), (S,) -> (2, S)"""
    run = end[0] - start[0]
    share = (x - start[0]) / torch.where(run == 0, 1, run)
    share = torch.where(run == 0, float(side), share).clamp_(0, 1)
    return start[1:] + share * (end[1:] - start[1:])


def _column_range(polygons: list[Tensor], y: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Range of z of convex polygons within [y, y + 1]; empty (inf, -inf) where there is nothing of them."""
    py, pz = polygons
    below, above = y - margin, y + (1 + margin)
    bottom, top = torch.full_like(y, torch.inf), torch.full_like(y, -torch.inf)
    for k in range(5):
        y0, z0 = py[k], pz[k]
        rise = py[(k + 1) % 5] - y0
        rise = torch.where(rise == 0, _TINY, rise)
        one, two = (below - y0) / rise, (above - y0) / rise
        first = torch.minimum(one, two).clamp_(min=0)
        last = torch.maximum(one, two).clamp_(max=1)
        absent = first > last
        climb = pz[(k + 1) % 5] - z0
        ends = z0 + first.clamp_(max=1) * climb, z0 + last.clamp_(min=0) * climb
        lower, upper = torch.minimum(*ends), torch.maximum(*ends)
        bottom = torch.minimum(bottom, lower.masked_fill_(absent, torch.inf))
        top = torch.maximum(top, upper.masked_fill_(absent, -torch.inf))
    return bottom, top


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (2, 0, 3): parents (0, 0, 2, 2, 2) and steps (0, 1, 0, 1, 2)."""
    parent = torch.repeat_interleave(counts)
    starts = torch.cumsum(counts, 0) - counts
    return parent, torch.arange(len(parent), device=counts.device) - starts[parent]


def chunks(counts: Tensor, limit: int) -> Iterator[tuple[int, int]]:
    """Cut a list of counts into ranges that add up to at most ``limit``, or are a single one."""
    ends = torch.cumsum(counts, 0).cpu()
    start, before = 0, 0
    while start < len(ends):
        stop = int(torch.searchsorted(ends, before + limit, right=True))
        stop = min(max(stop, start + 1), len(ends))
        yield start, stop
        start, before = stop, int(ends[stop - 1])
