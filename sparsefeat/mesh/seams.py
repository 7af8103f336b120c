"""Surfaces without their seams: exporters write a vertex once for each of its normals or texture coordinates."""

from __future__ import annotations

import numpy as np


def sew(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join a surface where vertices lie at exactly the same place.

    Two sheets back to back, whose faces name the same three places, remain two. Sheets that touch at single vertices or
    edges become one.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3).

    Returns:
        Faces that use one vertex of each place. Shape (F, 3), int64.
        That vertex, for each vertex: the others have its normal, values and neighbours. Shape (N,), int64.
    """
    faces = np.asarray(faces).astype(np.int64)
    first = first_at_place(np.asarray(vertices))
    if len(faces) == 0 or (first == np.arange(len(first))).all():
        return faces, first
    like = first_at_place(np.sort(first[faces], axis=1))
    alike = np.bincount(like, minlength=len(like))[like] > 1
    back_to_back = np.unique(faces[alike])
    first[back_to_back] = back_to_back
    return first[faces], first


def first_at_place(vertices: np.ndarray) -> np.ndarray:
    """For each row the first one with exactly its values. Shape: (N, 3) -> (N,) int64."""
    order = np.lexsort(vertices.T)  # stable: the first of a place comes first
    ordered = vertices[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
