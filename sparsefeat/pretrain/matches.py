"""Which points of two clouds are the same place."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from scipy.spatial import cKDTree

Rows = TypeVar("Rows", np.ndarray, torch.Tensor)


def find_matches(
    points0: np.ndarray, points1: np.ndarray, transform: np.ndarray, radius: float
) -> np.ndarray:
    """Find all pairs of points that a motion brings within a radius of each other.

    Args:
        points0: (V0, 3), metres.
        points1: (V1, 3), metres.
        transform: (4, 4), maps the frame of points0 to that of points1.
        radius: metres, inclusive.

    Returns:
        (M, 2) int64 rows of points0 and points1, by row of points0 and then nearest first.
    """
    points1 = points1.astype(np.float64)
    moved = points0.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]
    inside0 = _near_box(moved, points1, radius)
    inside1 = _near_box(points1, moved, radius)
    if not len(inside0) or not len(inside1):
        return np.empty((0, 2), dtype=np.int64)
    # Unbalanced trees are built faster and searched as fast: these points are spread evenly.
    trees = [
        cKDTree(cloud, leafsize=32, balanced_tree=False, compact_nodes=False)
        for cloud in (moved[inside0], points1[inside1])
    ]
    found = trees[0].sparse_distance_matrix(trees[1], radius, output_type="ndarray")
    # One integer per match, row of 0 | distance | row of 1, so that one fast sort orders them.
    bits0, bits1 = len(points0).bit_length(), len(points1).bit_length()
    levels = 2 ** (62 - bits0 - bits1) - 1
    keys = inside0[found["i"]].astype(np.int64) << (62 - bits0)
    keys |= (found["v"] * (levels / radius)).astype(np.int64).clip(0, levels) << bits1
    keys |= inside1[found["j"]].astype(np.int64)
    keys.sort()
    return np.stack([keys >> (62 - bits0), keys & (2**bits1 - 1)], axis=1)


def nearest_matches(matches: Rows) -> Rows:
    """Keep of each row of cloud 0 only the match that is nearest.

    Args:
        matches: (M, 2) array or tensor, as in a sample or a batch: by row of 0, nearest first.

    Returns:
        (M', 2), each row of 0 at most once.
    """
    rows = matches[:, 0]
    first = rows == rows  # all true, as an array or a tensor where the rows are
    first[1:] = rows[1:] != rows[:-1]
    return matches[first]


def _near_box(points: np.ndarray, others: np.ndarray, radius: float) -> np.ndarray:
    """Rows of the points inside the bounding box of the others, widened by the radius."""
    axes = others.T.copy()
    low, high = axes.min(axis=1) - radius, axes.max(axis=1) + radius
    x, y, z = points.T
    inside = (
        (x >= low[0])
        & (x <= high[0])
        & (y >= low[1])
        & (y <= high[1])
        & (z >= low[2])
        & (z <= high[2])
    )
    return np.flatnonzero(inside)
