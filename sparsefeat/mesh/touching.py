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

They are found in three steps, each for what the one before leaves open: linear forms of the cell, scaled so
that their error is below 1; the same polynomials with differences taken first, which are exactly zero where
an edge or a plane is on the grid; and whole numbers of any length.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

# Bounds of errors, in units of what the magnitudes of the terms add up to. A rounding is 2^-53: of them 4
# meet in an edge's sign, 9 in a plane's, and up to 16 and 24 in the scaled forms; the rest is to be safe.
_EDGE_ERROR, _EDGE_FORM_ERROR = 2.0**-50, 2.0**-48
_PLANE_ERROR, _PLANE_FORM_ERROR = 2.0**-49, 2.0**-47

# Of a sum of three products of three differences of such numbers int64 holds all digits.
_SHORT_DIGITS = 17


class Triangles:
    """Triangles in voxel units.

    Args:
        corners: float64, each zero or at least 2^-200 in size, so that no product underflows.
            Shape: (3 corners, 3 coordinates, M)
        low: cell of the lower end of the bounding box. Shape: (3, M) float64
        high: cell of its upper end.
    """

    def __init__(self, corners: Tensor, low: Tensor | None = None, high: Tensor | None = None):
        self.corners = corners
        if low is None:
            low = torch.minimum(torch.minimum(corners[0], corners[1]), corners[2]).floor_()
            high = torch.maximum(torch.maximum(corners[0], corners[1]), corners[2]).floor_()
        self.low, self.high = low, high
        self._sides: dict[int, _Side] = {}

    def __len__(self) -> int:
        return self.corners.shape[2]

    def take(self, rows: Tensor) -> Triangles:
        return Triangles(self.corners[:, :, rows], self.low[:, rows], self.high[:, rows])

    def side(self, axis: int) -> _Side:
        """How the triangles look along an axis."""
        if axis not in self._sides:
            self._sides[axis] = _Side(self, axis)
        return self._sides[axis]

    @functools.cached_property
    def reach(self) -> Tensor:
        """Bound of all coordinates, of the triangle and of the cells, in the tests. Shape: (3, M)"""
        return torch.maximum(self.low.abs(), self.high.abs()) + 2


class _Side:
    """Triangles seen along one axis, in the plane of the next two (cyclically)."""

    def __init__(self, triangles: Triangles, axis: int):
        self.axes = p, q = (axis + 1) % 3, (axis + 2) % 3
        self.v, self.w = triangles.corners[:, p], triangles.corners[:, q]
        edge_v, edge_w = self.v.roll(-1, 0) - self.v, self.w.roll(-1, 0) - self.w
        # Twice the area seen, which is this coordinate of the normal.
        left, right = edge_w[0] * edge_v[2], edge_v[0] * edge_w[2]
        self.area, self.area_size = left - right, left.abs() + right.abs()
        self.sign = torch.sign(self.area)
        unsure = torch.nonzero((self.area.abs() <= _EDGE_ERROR * self.area_size) & (self.area_size > 0))[:, 0]
        if len(unsure):
            v, w = _integers(torch.stack([self.v[:, unsure], self.w[:, unsure]]))[0]
            exact = (v[1] - v[0]) * (w[2] - w[0]) - (w[1] - w[0]) * (v[2] - v[0])
            signs = (exact > 0).astype(np.float64) - (exact < 0).astype(np.float64)
            self.sign[unsure] = torch.from_numpy(signs).to(self.sign)
        self.area = torch.where(self.sign == 0, 0, self.area)
        self.area_size = torch.where(self.sign == 0, 0, self.area_size)
        # A point is inside of an edge if a (v - v0) + b (w - w0) >= 0. Seen edge-on, any side will do:
        # both are tested.
        turn = torch.where(self.sign == 0, 1.0, self.sign)
        self.a, self.b = -turn * edge_w, turn * edge_v


def linear_forms(
    triangles: Triangles, axes: tuple[int, ...] = (0, 1, 2), plane: bool = True
) -> list[tuple[dict[int, Tensor], Tensor]]:
    """Return forms sum(factor[axis] * cell[axis]) + constant, with a sum of errors below 1.

    Of a cell in the triangle's bounding box: if all are above 1 they touch, if one is below -1 they do not,
    else they are to be looked at more closely.

    Args:
        triangles: M of them.
        axes: the projections to test. A triangle within one layer of cells needs only that along the
            layer's normal.
        plane: whether to test the normal.
    """
    forms = []
    layer = triangles.low == triangles.high
    for axis in axes:
        side = triangles.side(axis)
        p, q = side.axes
        error = _EDGE_FORM_ERROR * (side.a.abs() * triangles.reach[p] + side.b.abs() * triangles.reach[q])
        # An edge along the axis decides nothing. Nor does a projection within a row of cells: each of the
        # row is touched, as triangles are connected.
        needed = (error > 0) & ~(layer[p] | layer[q])
        scale = torch.where(needed, 1 / error, 0)
        forms += _edge_forms(side, scale)
        edge_on = needed & (side.sign == 0)
        if edge_on.any():
            forms += _edge_forms(side, torch.where(edge_on, -scale, 0))
    if plane:
        sides = [triangles.side(axis) for axis in range(3)]
        size = sum(side.area_size * triangles.reach[k] for k, side in enumerate(sides))
        needed = (size > 0) & ~layer.any(0)
        scale = torch.where(needed, 1 / (_PLANE_FORM_ERROR * size), 0)
        normal = [side.area * scale for side in sides]
        start = sum(n * x for n, x in zip(normal, triangles.corners[0], strict=True))
        for turn in (1.0, -1.0):
            ends = sum(torch.clamp(turn * n, min=0) for n in normal)
            # Where the sign of a part of the normal is not clear its error covers what its end would add.
            constant = torch.where(needed, ends - turn * start, 2)
            forms.append(({k: turn * n for k, n in enumerate(normal)}, constant))
    return forms


def _edge_forms(side: _Side, scale: Tensor) -> list[tuple[dict[int, Tensor], Tensor]]:
    p, q = side.axes
    a, b = side.a * scale, side.b * scale
    constant = a * ((a > 0).double() - side.v) + b * ((b > 0).double() - side.w)
    constant = torch.where(scale == 0, 2, constant)
    return [({p: a[e], q: b[e]}, constant[e]) for e in range(3)]


Found = tuple[Tensor, list[Tensor]]
"""Pairs: triangles (P,) int64 and cells 3 x (P,) float64."""


def touching_in_boxes(triangles: Triangles, spans: tuple[int, int, int]) -> tuple[Found, Found]:
    """Test all cells of small bounding boxes.

    Args:
        triangles: whose boxes all have the same number of cells.
        spans: those numbers along x, y and z.

    Returns:
        The pairs that touch, and those to be looked at more closely; see :func:`touches_closely`.
    """
    offsets = list(itertools.product(*map(range, spans)))
    long = [k for k in range(3) if spans[k] > 1]
    if len(long) <= 1:
        # Within one row of cells each is touched, as triangles are connected.
        rows = torch.arange(len(triangles), device=triangles.low.device)
        none = _pairs_at(triangles, offsets[:1], [rows[:0]])
        return _pairs_at(triangles, offsets, [rows] * len(offsets)), none
    # Within one layer the projection along the layer's normal decides.
    axes = (0, 1, 2) if len(long) == 3 else (3 - sum(long),)
    # For each set of axes that a form depends on, the least form at each of those cells.
    least: dict[tuple[int, ...], dict[tuple[int, ...], Tensor]] = {}
    for factors, constant in linear_forms(triangles, axes, len(long) == 3):
        used = tuple(sorted(factors))
        at_low = constant + sum(factors[k] * triangles.low[k] for k in used)
        table = least.setdefault(used, {})
        for place in itertools.product(*(range(spans[k]) for k in used)):
            value = at_low
            for k, step in zip(used, place, strict=True):
                value = value + factors[k] * step if step > 1 else value + factors[k] if step else value
            table[place] = torch.minimum(table[place], value) if place in table else value
    certain, unsure = [], []
    for offset in offsets:
        values = [table[tuple(offset[k] for k in used)] for used, table in least.items()]
        value = values[0]
        for other in values[1:]:
            value = torch.minimum(value, other)
        certain.append(torch.nonzero(value > 1)[:, 0])
        unsure.append(torch.nonzero(value.abs() <= 1)[:, 0])
    return _pairs_at(triangles, offsets, certain), _pairs_at(triangles, offsets, unsure)


def _pairs_at(triangles: Triangles, offsets: list[tuple[int, int, int]], rows: list[Tensor]) -> Found:
    """Triangles and cells, from the triangles at each offset from the lower end of their boxes."""
    device = triangles.low.device
    counts = torch.tensor([len(r) for r in rows], device=device)
    steps = torch.tensor(offsets, dtype=torch.float64, device=device).T.repeat_interleave(counts, 1)
    joined = torch.cat(rows)
    return joined, [triangles.low[k][joined] + steps[k] for k in range(3)]


def touching(triangles: Triangles, rows: Tensor, cells: list[Tensor]) -> tuple[Found, Found]:
    """Test pairs of a triangle and a cell, which must be in its bounding box.

    Args:
        triangles: M of them.
        rows: triangle of each pair. Shape: (P,) int64
        cells: the cell's coordinates, whole numbers. Shape: 3 x (P,) float64

    Returns:
        As :func:`touching_in_boxes`.
    """
    value = torch.full(rows.shape, torch.inf, dtype=torch.float64, device=rows.device)
    for factors, constant in linear_forms(triangles):
        form = constant[rows]
        for k, factor in factors.items():
            form.addcmul_(factor[rows], cells[k])
        value = torch.minimum(value, form)
    certain, unsure = torch.nonzero(value > 1)[:, 0], torch.nonzero(value.abs() <= 1)[:, 0]
    return tuple((rows[keep], [c[keep] for c in cells]) for keep in (certain, unsure))


def touches_closely(triangles: Triangles, rows: Tensor, cells: list[Tensor]) -> Tensor:
    """Say for each pair whether the triangle touches the cell, which must be in its bounding box.

    Args:
        triangles, rows, cells: as :func:`touching`.

    Returns:
        (P,) bool.
    """
    apart = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    unsure = torch.zeros_like(apart)

    def decide(value: Tensor, error: Tensor, upper: Tensor, among: Tensor | None = None) -> None:
        """Note whether the corner that is furthest inside is outside (or at the edge, where that is open)."""
        # Without an error every term is zero, and so is the value.
        out = (value < -error) | ((error == 0) & upper)
        unknown = (value.abs() <= error) & (error > 0)
        apart.logical_or_(out if among is None else out & among)
        unsure.logical_or_(unknown if among is None else unknown & among)

    for axis in range(3):
        side = triangles.side(axis)
        v, w = (cells[k] for k in side.axes)
        edge_on = side.sign[rows] == 0
        turns = (1.0, -1.0) if edge_on.any() else (1.0,)
        for edge, turn in itertools.product(range(3), turns):
            a, b = turn * side.a[edge][rows], turn * side.b[edge][rows]
            left = a * (v + (a > 0) - side.v[edge][rows])
            right = b * (w + (b > 0) - side.w[edge][rows])
            error = _EDGE_ERROR * (left.abs() + right.abs())
            decide(left + right, error, (a > 0) | (b > 0), None if turn > 0 else edge_on)
    for turn in (1.0, -1.0):
        total, size, upper = 0.0, 0.0, torch.zeros_like(apart)
        for k in range(3):
            side = triangles.side(k)
            at_end = turn * side.sign[rows] > 0
            offset = cells[k] + at_end - triangles.corners[0, k][rows]
            total = total + side.area[rows] * offset
            size = size + side.area_size[rows] * offset.abs()
            upper |= at_end
        decide(turn * total, _PLANE_ERROR * size, upper)
    unsure = torch.nonzero(unsure & ~apart)[:, 0]
    if len(unsure):
        apart[unsure] = ~_touches_exactly(triangles, rows[unsure], [x[unsure] for x in cells])
    return ~apart


def _touches_exactly(triangles: Triangles, rows: Tensor, cells: list[Tensor]) -> Tensor:
    """The same in whole numbers of any length. Returns (P,) bool."""
    used, inverse = torch.unique(rows, return_inverse=True)
    corners, unit = _integers(triangles.corners[:, :, used])
    corners = corners[:, :, inverse.cpu().numpy()]
    low = [x.cpu().numpy().astype(np.int64).astype(corners.dtype) * unit for x in cells]
    edges = corners[[1, 2, 0]] - corners
    u, v = edges[0], -edges[2]
    normal = [u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3] for k in range(3)]
    apart = np.zeros(len(rows), dtype=bool)

    def decide(factors: list[np.ndarray], start: list[np.ndarray], axes, among) -> None:
        value, upper = 0, np.zeros(len(rows), dtype=bool)
        for factor, x, k in zip(factors, start, axes, strict=True):
            at_end = (factor > 0).astype(bool)
            value = value + factor * (low[k] + at_end.astype(corners.dtype) * unit - x)
            upper |= at_end
        apart[((value < 0) | ((value == 0) & upper)).astype(bool) & among] = True

    for turn in (1, -1):
        decide([turn * n for n in normal], list(corners[0]), range(3), True)
        for axis in range(3):
            p, q = (axis + 1) % 3, (axis + 2) % 3
            # Both sides where the triangle is seen edge-on, else only the one that faces away from it.
            among = ((normal[axis] == 0) | (normal[axis] * turn > 0)).astype(bool)
            for edge in range(3):
                factors = [-turn * edges[edge, q], turn * edges[edge, p]]
                decide(factors, [corners[edge, p], corners[edge, q]], (p, q), among)
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
