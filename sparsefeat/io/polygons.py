"""What readers of meshes hand over: points and polygons in the order of the file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """Points of a file, and its polygons if they were asked for.

    Attributes:
        points: (N, 3) float64.
        colors: (N, 3), in the file's type, or None.
        corners: the vertices of all polygons one after the other, int64.
        counts: the number of corners of each polygon, int64; all 3 or more.
        repairs: what differs from the file.
        normals: (N, 3) float64 of the points, as the file has them, or None.
    """

    points: np.ndarray
    colors: np.ndarray | None = None
    corners: np.ndarray = np.empty(0, dtype=np.int64)
    counts: np.ndarray = np.empty(0, dtype=np.int64)
    repairs: tuple[str, ...] = ()
    normals: np.ndarray | None = None


def triangles(corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cut polygons into triangles around their first corners. Shape: (sum of counts,), (P,) -> (F, 3)"""
    if (counts == 3).all():
        return corners.reshape(-1, 3)
    first = np.repeat(np.cumsum(counts) - counts, counts - 2)
    before = np.repeat(np.cumsum(counts - 2) - (counts - 2), counts - 2)
    step = np.arange(len(first)) - before
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], 1)


def strip_triangles(strip: np.ndarray) -> np.ndarray:
    """The triangles of triangle strips, one after the other with -1 between them. Shape: (K,) -> (F, 3)

    Every second triangle of a strip is turned, so that all have the same side out. A corner given twice in a
    row only joins parts of a strip: such triangles have no area and are left out.
    """
    faces = (
        np.stack([strip[:-2], strip[1:-1], strip[2:]], 1)
        if len(strip) > 2
        else np.empty((0, 3), np.int64)
    )
    starts = np.concatenate([[-1], np.flatnonzero(strip == -1)])
    place = np.arange(len(faces))
    odd = (place - starts[np.searchsorted(starts, place, side="right") - 1] - 1) % 2 == 1
    faces[odd] = faces[odd][:, [1, 0, 2]]
    a, b, c = faces.T
    triangles: np.ndarray = faces[(faces != -1).all(1) & (a != b) & (b != c) & (c != a)]
    return triangles
