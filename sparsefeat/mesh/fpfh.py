"""Fast point feature histograms at several radii: the hand-made local descriptor, by numpy and scipy alone.

Source: Rusu, Blodow, Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009. Two things
differ. The mean over neighbours, weighted by inverse distance, is divided by the sum of the weights, not by their
number: the descriptor then does not depend on the unit, which shapes need. And each of the three histograms sums to 1.
On scans its inlier ratios are higher than those of Open3D's FPFH. The baseline on scans stays Open3D's, by which
published numbers were measured, see :mod:`sparsefeat.evaluate.fpfh`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from sparsefeat.checks import as_points, checked_positive
from sparsefeat.errors import InputError

BINS = 11
"""Of each of the three angles."""
FPFH_RADII = (0.06, 0.12, 0.24)
"""In roots of the surface's area."""
CONTEXT_RADII = (0.08, 0.2, 0.45)
"""Of the balls that means are taken over, in roots of the surface's area."""

_CHUNK = 1 << 20  # pairs at a time


def fpfh(points: np.ndarray, normals: np.ndarray, radius: float) -> np.ndarray:
    """Fast point feature histograms.

    Args:
        points: Shape (N, 3).
        normals: unit vectors to the outer side; zeros where there is none. Shape (N, 3).
        radius: of the neighbourhood, in the unit of the points.

    Returns:
        (N, 33) float32, three histograms that sum to 1 each; zeros for a point without neighbours.

    Raises:
        InputError: shapes that do not fit, or a radius that is not positive.
    """
    points, normals = _checked(points, normals)
    radius = checked_positive(radius, "fpfh: radius")
    n, count = len(points), 3 * BINS
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    simple, weights = np.zeros(n * count), np.empty(len(pairs))
    for first in range(0, len(pairs), _CHUNK):
        chunk = pairs[first : first + _CHUNK]
        bins, distance = _pair_bins(points, normals, chunk)
        weights[first : first + _CHUNK] = 1 / np.maximum(distance, 1e-3 * radius)
        for end in chunk.T:
            for k in range(3):
                simple += np.bincount(end * count + k * BINS + bins[k], minlength=n * count)
    simple = simple.reshape(n, count)
    simple /= np.maximum(simple.sum(1, keepdims=True) / 3, 1)
    near = sp.csr_matrix((weights, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    near = near + near.T
    total = np.asarray(near.sum(1))
    around = (near @ simple) / np.where(total > 0, total, 1)
    return ((simple + around) / 2).astype(np.float32)


def multi_scale_fpfh(
    points: np.ndarray,
    normals: np.ndarray,
    size: float,
    radii: Sequence[float] = FPFH_RADII,
    context: Sequence[float] = (),
) -> np.ndarray:
    """FPFH at several radii side by side, and their means over balls.

    Args:
        points: Shape (N, 3).
        normals: unit vectors to the outer side. Shape (N, 3).
        size: the unit of all radii, such as the root of the surface's area, in the unit of the points.
        radii: of the neighbourhoods.
        context: radii of the balls that all histograms are averaged over, too; see :data:`CONTEXT_RADII`.

    Returns:
        (N, 33 * len(radii) * (1 + len(context))) float32.

    Raises:
        InputError: shapes that do not fit, or a radius that is not positive.
    """
    histograms = np.concatenate([fpfh(points, normals, radius * size) for radius in radii], 1)
    means = [ball_means(points, histograms, radius * size) for radius in context]
    return np.concatenate([histograms, *means], 1)


def ball_means(points: np.ndarray, features: np.ndarray, radius: float) -> np.ndarray:
    """The mean of the features of all points within a radius, the point itself included.

    Shape: (N, 3), (N, C) -> (N, C) float32.
    """
    n = len(points)
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    ones = np.ones(len(pairs), np.float32)
    near = sp.csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    # In double: a neighbourhood may have thousands of points. The transpose saves a second matrix.
    total = features.astype(np.float64)
    total = total + near @ total + near.T @ total
    count = 1 + np.bincount(pairs.ravel(), minlength=n)
    return (total / count[:, None]).astype(np.float32)


def _pair_bins(
    points: np.ndarray, normals: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bins of the three angles of pairs, and their distances. Shape: (P, 2) -> (3, P), (P,)."""
    line = points[pairs[:, 1]] - points[pairs[:, 0]]
    distance = np.sqrt(np.einsum("pi,pi->p", line, line))
    line /= np.maximum(distance, 1e-300)[:, None]
    first, second = normals[pairs[:, 0]], normals[pairs[:, 1]]
    along = np.einsum("pi,pi->p", first, line), np.einsum("pi,pi->p", second, line)
    # The frame stands on the end whose normal is closer to the line between them.
    swap = np.abs(along[0]) < np.abs(along[1])
    u, other = np.where(swap[:, None], second, first), np.where(swap[:, None], first, second)
    line[swap] *= -1
    phi = np.where(swap, -along[1], along[0])
    v = np.cross(line, u)
    length = np.sqrt(np.einsum("pi,pi->p", v, v))
    v /= np.where(length > 0, length, 1)[:, None]
    alpha = np.einsum("pi,pi->p", v, other)
    theta = np.arctan2(
        np.einsum("pi,pi->p", np.cross(u, v), other), np.einsum("pi,pi->p", u, other)
    )
    shares = np.stack([(alpha + 1) / 2, (phi + 1) / 2, (theta / np.pi + 1) / 2])
    return np.clip((shares * BINS).astype(np.int64), 0, BINS - 1), distance


def _checked(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, normals = as_points(points, "fpfh: points"), as_points(normals, "fpfh: normals")
    if len(points) != len(normals):
        raise InputError(f"fpfh: {len(points)} points and {len(normals)} normals, expected as many")
    # Vectors may be shorter where their side is uncertain; its formulas are of unit ones.
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return points, normals / length.clip(1e-12)
