"""How curved a surface is around a point: flat places look alike, so that their features are matched wrongly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

_AT_ONCE = 2048


class LocalPlanes(NamedTuple):
    """The planes that fit the neighbours of N places best.

    Attributes:
        values: variances of the neighbours along the axes of their covariance, rising. Shape (N, 3), square units.
        axes: those axes as columns; the first is the normal, of either sign. Shape (N, 3, 3).
        counts: neighbours of each place. Shape (N,).
    """

    values: np.ndarray
    axes: np.ndarray
    counts: np.ndarray

    @property
    def variation(self) -> np.ndarray:
        """The share of the variance that is across the plane, see `surface_variation`. Shape (N,)."""
        total = self.values.sum(1)
        return np.divide(self.values[:, 0], total, out=np.zeros_like(total), where=total > 0)


def local_planes(
    points: np.ndarray, radius: float, places: np.ndarray | None = None
) -> LocalPlanes:
    """Fit planes to all points within a radius.

    Args:
        points: Shape (M, 3).
        radius: in the unit of the points.
        places: around which planes are fitted; None: the points. Shape (N, 3).
    """
    points = np.asarray(points, dtype=np.float64)
    places = points if places is None else np.asarray(places, dtype=np.float64)
    tree = cKDTree(points)
    covariance = np.zeros((len(places), 3, 3))
    counts = np.zeros(len(places), dtype=np.int64)
    for start in range(0, len(places), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        around = tree.query_ball_point(places[piece], radius)
        counts[piece] = [len(rows) for rows in around]
        some = start + np.flatnonzero(counts[piece])  # sums over no rows are undefined
        if len(some) == 0:
            continue
        number = counts[some]
        first = np.concatenate([[0], np.cumsum(number)[:-1]])
        rows = np.concatenate(around).astype(np.int64)
        # From the place, so that large coordinates do not cancel.
        offsets = points[rows] - np.repeat(places[some], number, axis=0)
        mean = np.add.reduceat(offsets, first) / number[:, None]
        squares = np.add.reduceat(offsets[:, :, None] * offsets[:, None, :], first)
        covariance[some] = squares / number[:, None, None] - mean[:, :, None] * mean[:, None, :]
    values, axes = np.linalg.eigh(covariance)
    return LocalPlanes(values.clip(min=0), axes, counts)


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
    return local_planes(points, radius).variation
