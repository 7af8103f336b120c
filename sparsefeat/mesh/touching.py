"""Which cells of the unit grid a triangle touches, decided exactly.

A cell (i, j, k) is half-open: [i, i + 1) x [j, j + 1) x [k, k + 1). A closed triangle touches it if they have
a point in common, so that the touched cells are {floor(p) : p on the triangle}.

The test is that of separating axes, which for a triangle and a box are the box's normals, the triangle's
normal and the products of their edges (Akenine-Möller, "Fast 3D triangle-box overlap testing", 2001). A
half-open box is the union of closed boxes that are a little smaller at the upper ends; hence an axis
separates it also where the triangle's projection only meets the end of the box's, provided that this end
is at an upper, open face. The products with the axis e_m are tests in the plane of the other two
coordinates: on which side of the edge's line is the corner of the cell that is furthest inside? The
normal's test asks the same of a plane. All are signs of polynomials in the float64 coordinates.

Here they are found for single cells, in two steps: polynomials with differences taken first, which are
exactly zero where an edge or a plane is on the grid; and whole numbers of any length for what is within
their error. :mod:`sparsefeat.mesh.columns` finds them for whole columns of cells, save for a few.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

# Bounds of errors, in units of what the magnitudes of the terms add up to. A rounding is 2^-53: of them 4
# meet in an edge's sign, 9 in a plane's; the rest is to be safe.
_EDGE_ERROR, _PLANE_ERROR = 2.0**-50, 2.0**-49

# Of a sum of three products of three differences of such numbers int64 holds all digits.
_SHORT_DIGITS = 17


# So few pairs are decided exactly at once: the calls cost more than the digits.
_FEW = 16


class Triangles:
    """Triangles in voxel units.

    Args:
        corners: float64, each zero or at least 2^-200 in size, so that no product underflows.
            Shape: (3 corners, 3 coordinates, M)
        index: their places in the mesh. Shape: (M,) int64
    """

    def __init__(self, corners: Tensor, index: Tensor):
        self.corners, self.index = corners, index

    def __len__(self) -> int:
        return self.corners.shape[2]

    @functools.cached_property
    def cells(self) -> Tensor:
        """Cells of the corners. Shape: (3 corners, 3 coordinates, M) float64"""
        return self.corners.floor()

    @functools.cached_property
    def low(self) -> Tensor:
        """Cell of the lower end of the bounding box. Shape: (3, M) float64"""
        return torch.minimum(torch.minimum(self.cells[0], self.cells[1]), self.cells[2])

    @functools.cached_property
    def high(self) -> Tensor:
        """Cell of its upper end."""
        return torch.maximum(torch.maximum(self.cells[0], self.cells[1]), self.cells[2])

    @property
    def in_row(self) -> Tensor:
        """Whether the bounding box is a single row of cells. Shape: (M,) bool"""
        return (self.high - self.low).clamp_(max=1).sum(0) < 2

    @functools.cached_property
    def edges(self) -> Tensor:
        """From each corner to the next. Shape: (3 edges, 3 coordinates, M)"""
        return self.corners.roll(-1, 0).sub_(self.corners)

    @functools.cached_property
    def normal(self) -> tuple[Tensor, Tensor, Tensor]:
        """The normal, twice the area long; what its terms add up to; and its signs, which are exact.

        Its coordinate k is twice the area seen along axis k, in the plane of the next two axes (cyclically).
        Shape: 3 x (3, M)
        """
        first, last = self.edges[0], self.edges[2]
        left, right = first.roll(1, 0) * last.roll(-1, 0), first.roll(-1, 0) * last.roll(1, 0)
        area, size = left - right, left.abs_() + right.abs_()
        sign = torch.sign(area)
        axis, row = torch.nonzero((area.abs() <= _EDGE_ERROR * size) & (size > 0)).unbind(1)
        if len(row):
            p, q = (axis + 1) % 3, (axis + 2) % 3
            v, w = _integers(torch.stack([self.corners[:, p, row], self.corners[:, q, row]]))[0]
            exact = (v[1] - v[0]) * (w[2] - w[0]) - (w[1] - w[0]) * (v[2] - v[0])
            signs = (exact > 0).astype(np.float64) - (exact < 0).astype(np.float64)
            sign[axis, row] = torch.from_numpy(signs).to(sign)
            area, size = torch.where(sign == 0, 0, area), torch.where(sign == 0, 0, size)
        return area, size, sign


def touches_closely(triangles: Triangles, rows: Tensor, cells: Tensor) -> Tensor:
    """Say for each pair whether the triangle touches the cell, which must be in its bounding box.

    Args:
        triangles: M of them.
        rows: triangle of each pair. Shape: (P,) int64
        cells: the cell's coordinates, whole numbers. Shape: (3, P) float64

    Returns:
        (P,) bool.
    """
    if len(rows) <= _FEW:
        return _touches_exactly(triangles, rows, cells)
    corners = triangles.corners[:, :, rows]
    edges = corners.roll(-1, 0).sub_(corners)
    area, area_size, sign = (x[:, rows] for x in triangles.normal)
    apart = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    unsure = torch.zeros_like(apart)

    def decide(value: Tensor, error: Tensor, upper: Tensor) -> None:
        """Note whether the corner that is furthest inside is outside (or at the edge, where that is open).

        Shape: (tests, P) each
        """
        # Without an error every term is zero, and so is the value.
        apart.logical_or_(((value < -error) | ((error == 0) & upper)).any(0))
        unsure.logical_or_(((value.abs() <= error) & (error > 0)).any(0))

    # By edge and by axis that it is seen along, in the plane of the next two, p and q. A point is inside of
    # an edge if a (p - p0) + b (q - q0) >= 0. Seen edge-on, any side will do: both are tested.
    inwards = torch.where(sign == 0, 1, sign)
    a, b = edges.roll(1, 1) * -inwards, edges.roll(-1, 1) * inwards
    for turn in (1, -1) if (sign == 0).any() else (1,):
        if turn < 0:
            a, b = torch.where(sign == 0, -a, a), torch.where(sign == 0, -b, b)
        left = a * (cells.roll(-1, 0) + (a > 0) - corners.roll(-1, 1))
        right = b * (cells.roll(1, 0) + (b > 0) - corners.roll(1, 1))
        error = _EDGE_ERROR * (left.abs() + right.abs())
        decide(*(x.flatten(0, 1) for x in (left + right, error, (a > 0) | (b > 0))))
    for turn in (1, -1):
        at_end = turn * sign > 0
        offset = cells + at_end - corners[0]
        total, size = (area * offset).sum(0), (area_size * offset.abs()).sum(0)
        decide(turn * total[None], _PLANE_ERROR * size[None], at_end.any(0)[None])
    unsure = torch.nonzero(unsure & ~apart)[:, 0]
    if len(unsure):
        apart[unsure] = ~_touches_exactly(triangles, rows[unsure], cells[:, unsure])
    return ~apart


def _touches_exactly(triangles: Triangles, rows: Tensor, cells: Tensor) -> Tensor:
    """The same in whole numbers of any length. Returns (P,) bool."""
    used, inverse = torch.unique(rows, return_inverse=True)
    corners, unit = _integers(triangles.corners[:, :, used])
    corners = corners[:, :, inverse.cpu().numpy()]
    low = cells.cpu().numpy().astype(np.int64).astype(corners.dtype) * unit
    edges = corners[[1, 2, 0]] - corners
    after, before = [1, 2, 0], [2, 0, 1]
    normal = edges[0, before] * edges[2, after] - edges[0, after] * edges[2, before]
    sign = (normal > 0).astype(int) - (normal < 0).astype(int)

    def outside(*terms: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Whether the corner that is furthest inside is outside (or at the edge, where that is open).

        Each term has factors, points and cells, all of which broadcast to (..., P).
        """
        value, upper = 0, False
        for factor, point, cell in terms:
            at_end = (factor > 0).astype(bool)
            value = value + factor * (cell + at_end.astype(corners.dtype) * unit - point)
            upper = upper | at_end
        return ((value < 0) | ((value == 0) & upper)).astype(bool)

    apart = np.zeros(len(rows), dtype=bool)
    for turn in (1, -1):
        apart |= outside(*zip(turn * normal, corners[0], low, strict=True))
        # By edge and by axis that it is seen along. Seen edge-on, both of its sides are tested.
        side = np.where(sign == 0, turn, sign).astype(corners.dtype)
        terms = (
            (-side * edges[:, before], corners[:, after], low[after]),
            (side * edges[:, after], corners[:, before], low[before]),
        )
        apart |= outside(*terms).any((0, 1))
    return torch.from_numpy(~apart).to(rows.device)


def _integers(values: Tensor) -> tuple[np.ndarray, int]:
    """The values times a power of two that makes all of them whole, and that power.

    As Python integers, or as int64 where three of them multiplied are far from its range: coordinates with
    few digits, such as those of drawn objects, are the ones that meet the grid exactly and often.
    """
    array = values.cpu().numpy()
    exponents = np.frexp(array[array != 0])[1]
    shift = max(0, 53 - int(exponents.min())) if len(exponents) else 0
    for digits in range(0, min(shift, _SHORT_DIGITS) + 1):
        scaled = np.ldexp(array, digits)
        if np.abs(scaled).max() > 1 << _SHORT_DIGITS:
            break
        if np.array_equal(scaled, np.rint(scaled)):
            return scaled.astype(np.int64), 1 << digits
    whole = np.empty(array.size, dtype=object)
    whole[:] = [int(x) for x in np.ldexp(array, shift).reshape(-1).tolist()]
    return whole.reshape(array.shape), 1 << shift
