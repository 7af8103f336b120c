"""Surface voxelisation by definition, triangle by triangle and cell by cell, in rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def clip(polygon, axis: int, low: int, high: int):
    """Part of a convex polygon with low <= coordinate <= high; all in fractions."""
    return half(half(polygon, axis, low, 1), axis, high, -1)


def half(polygon, axis: int, bound: int, sign: int):
    result = []
    for k, end in enumerate(polygon):
        start = polygon[k - 1]
        f, g = sign * (start[axis] - bound), sign * (end[axis] - bound)
        if (f < 0 < g) or (g < 0 < f):
            share = f / (f - g)
            result.append(tuple(s + share * (e - s) for s, e in zip(start, end, strict=True)))
        if g >= 0:
            result.append(end)
    return result


def oracle(corners: np.ndarray) -> set[tuple[int, int, int]]:
    """Cells of triangles (F, 3, 3), float64: clipped to the closed cell, is some point below its upper end
    along each axis? Then the mean of three such points is below along all.
    """
    cells = set()
    for triangle in corners:
        exact = [tuple(Fraction(float(x)) for x in corner) for corner in triangle]
        ranges = [
            range(math.floor(min(c)), math.floor(max(c)) + 1) for c in zip(*exact, strict=True)
        ]
        for i in ranges[0]:
            slab = clip(exact, 0, i, i + 1)
            for j in ranges[1]:
                column = clip(slab, 1, j, j + 1)
                for k in ranges[2]:
                    part = clip(column, 2, k, k + 1)
                    cell = (i, j, k)
                    if part and all(min(p[a] for p in part) < cell[a] + 1 for a in range(3)):
                        cells.add(cell)
    return cells


def random_triangles(seed: int, count: int, extent: float) -> np.ndarray:
    """Triangles (F, 3, 3) with corners in a cube around the origin."""
    return (np.random.default_rng(seed).random((count, 3, 3)) - 0.5) * extent
