"""How curved a surface is around a point: flat places look alike, so that their features are matched wrongly."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_AT_ONCE = 2048


def surface_variation(points: np.ndarray, radius: float) -> np.ndarray:
    """The share of the neighbours' variance that is across their plane: 0 where flat, at most 1/3.

    The least eigenvalue of the covariance of all points within a radius, over the sum of the three. Source: Pauly,
    Gross and Kobbelt, "Efficient simplification of point-sampled surfaces", IEEE Visualization 2002.

    Args:
        points: Shape (N, 3).
        radius: in the unit of the points.

    Returns:
        Shape (N,), float64; 0 for a point alone.
    """
    points = np.asarray(points, dtype=np.float64)
    tree = cKDTree(points)
    variation = np.zeros(len(points))
    for start in range(0, len(points), _AT_ONCE):
        here = points[start : start + _AT_ONCE]
        around = tree.query_ball_point(here, radius)
        counts = np.array([len(rows) for rows in around])
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        # Each sees itself, so that no sum is empty; from the centre, so that large coordinates do not cancel.
        offsets = points[np.concatenate(around).astype(np.int64)] - np.repeat(here, counts, axis=0)
        mean = np.add.reduceat(offsets, first) / counts[:, None]
        squares = np.add.reduceat(offsets[:, :, None] * offsets[:, None, :], first)
        covariance = squares / counts[:, None, None] - mean[:, :, None] * mean[:, None, :]
        values = np.linalg.eigvalsh(covariance).clip(min=0)
        total = values.sum(1)
        variation[start : start + _AT_ONCE] = np.divide(
            values[:, 0], total, out=np.zeros_like(total), where=total > 0
        )
    return variation
