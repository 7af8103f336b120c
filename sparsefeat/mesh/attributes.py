"""What of a surface is in each of the cells that it touches: area, mean normal, nearest triangle."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsefeat.mesh.columns import chunks, expand
from sparsefeat.mesh.keys import Box
from sparsefeat.mesh.surface import Surface

_PAIRS_AT_A_TIME = 1 << 15
# A triangle that does not touch a cell is at least this far from its centre.
_HALF_CELL = 0.5


@dataclass(frozen=True)
class Pairs:
    """Pairs of a cell and a triangle that touches it, those of a cell together, in the triangles' order.

    Attributes:
        keys: (V,) int64, ascending, one per cell.
        voxel: (P,) int64, the cell's place in ``keys``, ascending.
        triangle: (P,) int64.
    """

    keys: Tensor
    voxel: Tensor
    triangle: Tensor

    @staticmethod
    def sorted(keys: Tensor, triangle: Tensor) -> Pairs:
        """From the key and the triangle of each pair, in any order."""
        order = torch.argsort(triangle, stable=True)
        order = order[torch.argsort(keys[order], stable=True)]
        unique, voxel = torch.unique_consecutive(keys[order], return_inverse=True)
        return Pairs(unique, voxel, triangle[order])


def areas_in_cells(surface: Surface, cells: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Area of the surface in each cell, and its mean normal by area, scaled to length 1.

    Args:
        surface: the triangles.
        cells: Shape (V, 3) int64.
        pairs: which touch.

    Returns:
        areas (V,) float64 and normals (V, 3) float64.
    """
    total = surface.points.new_zeros(4, len(cells))
    places = cells.T.double().contiguous()
    # A triangle that touches one cell is in it with all its area.
    alone = torch.bincount(pairs.triangle, minlength=len(surface)) == 1
    for start in range(0, len(pairs.voxel), _PAIRS_AT_A_TIME):
        part = slice(start, start + _PAIRS_AT_A_TIME)
        voxel, triangle = pairs.voxel[part], pairs.triangle[part]
        shape = surface.corners(triangle)
        normal = _cross(shape[1] - shape[0], shape[2] - shape[0])
        length = _length(normal)
        area = length / 2
        cut = torch.nonzero(~alone[triangle])[:, 0]
        area[cut] = _clipped_area(shape[:, :, cut] - places[:, voxel[cut]])
        direction = normal / torch.where(length > 0, length, 1)
        for row, values in enumerate((area, *(area * direction))):
            total[row].index_add_(0, voxel, values)
    length = _length(total[1:])
    # What remains of opposite sides after rounding has no direction.
    clear = length > 1e-9 * total[0]
    return total[0], torch.where(clear, total[1:] / torch.where(clear, length, 1), 0).T.contiguous()


def _clipped_area(polygon: Tensor) -> Tensor:
    """Area of triangles within the closed unit cube. Shape: (3 corners, 3 coordinates, P) -> (P,)

    Source: Sutherland and Hodgman, "Reentrant polygon clipping", 1974.
    """
    for axis, side in itertools.product(range(3), (0, 1)):
        inwards = polygon[:, axis] if side == 0 else 1 - polygon[:, axis]
        crossed = torch.nonzero((inwards < 0).any(0))[:, 0]
        if len(crossed):
            clipped = _clip(polygon[:, :, crossed], inwards[:, crossed])
            # Polygons with fewer corners than the largest repeat their first one: that adds no area.
            polygon = torch.cat([polygon, polygon[:1]])
            polygon[:, :, crossed] = clipped
    fan = polygon[1:] - polygon[0]
    return _length(sum(_cross(fan[k], fan[k + 1]) for k in range(len(fan) - 1))) / 2


def _clip(polygon: Tensor, inwards: Tensor) -> Tensor:
    """Cut convex polygons where a function, linear on them, is negative.

    Args:
        polygon: Shape (K, 3, P).
        inwards: the function at the corners. Shape: (K, P)

    Returns:
        (K + 1, 3, P), as a convex polygon gains at most one corner.
    """
    corners, count = inwards.shape
    stays = inwards >= 0
    crosses = stays != stays.roll(-1, 0)
    share = inwards / torch.where(crosses, inwards - inwards.roll(-1, 0), 1)
    crossing = polygon + share[:, None] * (polygon.roll(-1, 0) - polygon)
    # One place more, which is cut off in the end, takes what is not kept.
    result = polygon.new_zeros(corners + 2, 3, count)
    place = torch.zeros(count, dtype=torch.int64, device=polygon.device)
    for edge in range(corners):
        # The start of the edge, if it stays, then where the edge crosses, if it does.
        for kept, point in ((stays[edge], polygon[edge]), (crosses[edge], crossing[edge])):
            index = torch.where(kept, place.clamp(max=corners), corners + 1)
            result.scatter_(0, index.expand(1, 3, -1), point[None])
            place += kept
    empty = torch.arange(corners + 1, device=polygon.device)[:, None] >= place
    return torch.where(empty[:, None], result[0], result[: corners + 1])


def nearest_triangles(surface: Surface, cells: Tensor, pairs: Pairs) -> Tensor:
    """The triangle nearest to each cell's centre, the first of equally near ones.

    Args:
        surface: the triangles.
        cells: ascending. Shape: (V, 3) int64
        pairs: which touch.

    Returns:
        (V,) int64.
    """
    best = surface.points.new_full((len(cells),), torch.inf)
    owner = torch.full((len(cells),), len(surface), device=cells.device)
    centres = cells.T.double().contiguous() + _HALF_CELL
    _improve(best, owner, surface, centres, pairs.voxel, pairs.triangle)
    # Where what touches the cell is farther from the centre than the cell's faces, a triangle that touches
    # only a neighbour may be nearer. None is beyond the neighbours: a cell's corner is at 0.87.
    open_cells = torch.nonzero(best > _HALF_CELL)[:, 0]
    counts = torch.bincount(pairs.voxel, minlength=len(cells))
    starts = torch.cumsum(counts, 0) - counts
    low = cells.amin(0) - 1
    box = Box(low.tolist(), (cells.amax(0) + 2 - low).tolist())
    keys = box.keys(cells.unbind(1))
    for offset in itertools.product((-1, 0, 1), repeat=3):
        if offset == (0, 0, 0):
            continue
        key = box.keys(
            [c[open_cells] + step for c, step in zip(cells.unbind(1), offset, strict=True)]
        )
        row = torch.searchsorted(keys, key).clamp_(max=len(keys) - 1)
        there = torch.nonzero(keys[row] == key)[:, 0]
        voxel, neighbour = open_cells[there], row[there]
        for start, stop in chunks(counts[neighbour], _PAIRS_AT_A_TIME):
            parent, step = expand(counts[neighbour[start:stop]])
            parent += start
            triangle = pairs.triangle[starts[neighbour[parent]] + step]
            _improve(best, owner, surface, centres, voxel[parent], triangle)
    return owner


def _improve(
    best: Tensor, owner: Tensor, surface: Surface, centres: Tensor, voxel: Tensor, triangle: Tensor
) -> None:
    """Take, in place, the nearest of these triangles where it is nearer than the best, or first of equals."""
    for start in range(0, len(voxel), _PAIRS_AT_A_TIME):
        rows, shape = (
            voxel[start : start + _PAIRS_AT_A_TIME],
            triangle[start : start + _PAIRS_AT_A_TIME],
        )
        distance = _distance_to_origin(surface.corners(shape) - centres[:, rows])
        before = best[rows]
        best.scatter_reduce_(0, rows, distance, "amin")
        after = best[rows]
        owner[rows[after < before]] = len(surface)
        equal = distance == after
        owner.scatter_reduce_(0, rows[equal], shape[equal], "amin")


def _distance_to_origin(triangle: Tensor) -> Tensor:
    """Distance of closed triangles, which may be flat, from the origin. Shape: (3, 3, P) -> (P,)"""
    edges = triangle.roll(-1, 0) - triangle
    normal = _cross(edges[0], edges[1])
    size = _length(normal)
    inside = size > 0
    nearest = None
    for corner, edge in zip(triangle, edges, strict=True):
        length = _dot(edge, edge)
        share = (-_dot(corner, edge) / torch.where(length > 0, length, 1)).clamp_(0, 1)
        distance = _length(corner + share * edge)
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        # The foot of the perpendicular is inside where it is left of all edges.
        inside &= _dot(_cross(corner, edge), normal) >= 0
    height = _dot(triangle[0], normal).abs() / torch.where(inside, size, 1)
    return torch.where(inside, torch.minimum(height, nearest), nearest)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _length(a: Tensor) -> Tensor:
    return torch.sqrt(_dot(a, a))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack(
        [a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3] for k in range(3)]
    )
