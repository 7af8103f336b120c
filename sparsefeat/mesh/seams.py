"""Surfaces without their seams: exporters write a vertex once for each of its normals or texture coordinates."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def sew(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join a surface where vertices lie at exactly the same place.

    Two sheets back to back, whose faces name the same three places in opposite order, remain two. Sheets that touch at
    single vertices or edges become one.

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
    places = first[faces]
    like = first_at_place(np.sort(places, axis=1))
    # Of three different places, whether they are named in ascending order, or the other way round.
    turned = (places < np.roll(places, -1, axis=1)).sum(1) == 1
    sides = [np.bincount(like[side], minlength=len(like)) > 0 for side in (turned, ~turned)]
    back_to_back = (sides[0] & sides[1])[like] & (np.diff(np.sort(places, axis=1)) > 0).all(1)
    if back_to_back.any():
        doubled = np.zeros(len(first), dtype=bool)
        doubled[places[back_to_back]] = True
        sheet = np.zeros(len(first), dtype=np.int64)
        sheet[faces] = _sheets(faces, places, like, len(first))[:, None]
        sheet = np.where(doubled[first], sheet, -1)
        first = first_at_place(np.stack([first, sheet, np.zeros_like(sheet)], 1))
    return first[faces], first


def _sheets(faces: np.ndarray, places: np.ndarray, like: np.ndarray, count: int) -> np.ndarray:
    """The number of the sheet that each face is of. Shape: (F,).

    Faces that share a vertex are of one sheet, and so are those that run along an edge in opposite directions, unless
    they lie back to back.
    """
    number = np.arange(len(faces))
    start, end = places.ravel(), np.roll(places, -1, axis=1).ravel()
    # Each directed edge meets those of the opposite direction, which lie next to each other in this order.
    forth, back = start * count + end, end * count + start
    order = np.argsort(back, kind="stable")
    low, high = (np.searchsorted(back[order], forth, side) for side in ("left", "right"))
    met = high - low
    one = np.repeat(np.arange(len(forth)), met)
    other = order[np.arange(met.sum()) - np.repeat(met.cumsum() - met, met) + np.repeat(low, met)]
    one, other = one // 3, other // 3
    apart = like[one] != like[other]
    rows = np.concatenate([one[apart], np.repeat(number, 3)])
    columns = np.concatenate([other[apart], len(faces) + faces.ravel()])
    size = len(faces) + count
    graph = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(faces)]


def first_at_place(vertices: np.ndarray) -> np.ndarray:
    """For each row the first one with exactly its values. Shape: (N, 3) -> (N,) int64."""
    order = np.lexsort(vertices.T)  # stable: the first of a place comes first
    ordered = vertices[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
