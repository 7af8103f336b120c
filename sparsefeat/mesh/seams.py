"""Vertices that lie at the same place: exporters write a vertex once for each of its normals or texture coordinates."""

from __future__ import annotations

import numpy as np


def first_at_place(vertices: np.ndarray) -> np.ndarray:
    """For each vertex the first one with exactly its coordinates. Shape: (N, 3) -> (N,) int64.

    A surface is one along a seam where vertices are doubled: ``first[faces]`` are its faces without seams. The vertices
    that these leave out have the normals, values and neighbours of their first.
    """
    order = np.lexsort(vertices.T)  # stable: the first of a place comes first
    ordered = vertices[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
