"""A linear metric from landmarks: what the same point of different bodies varies in counts little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsefeat.checks import checked_count, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.heads.samples import Rows, as_list, stack_features

_ROUNDING = 1e-9
"""Spread of a channel, against its mean, up to which it is constant."""


class LandmarkMetric:
    """Maps features to where Euclidean distances tell points of the body apart.

    Features are standardised, then whitened by their covariance within landmarks, shrunk towards its
    diagonal; of what remains, the directions in which the landmarks' means vary most are kept. This is linear
    discriminant analysis with landmarks as classes (Fukunaga, "Introduction to Statistical Pattern Recognition",
    section 10.2; shrinkage as in Friedman, "Regularized Discriminant Analysis", JASA 1989). Channels that are constant at
    the landmarks are left out.

    Args:
        shrinkage: share of its diagonal in the covariance within landmarks, above 0 to 1.
        channels: kept at most; None: all.
    """

    def __init__(self, shrinkage: float = 0.05, channels: int | None = None):
        self.shrinkage = checked_positive(shrinkage, "LandmarkMetric: shrinkage")
        if self.shrinkage > 1:
            raise InputError(f"LandmarkMetric: shrinkage {shrinkage}, expected at most 1")
        self.channels = (
            None if channels is None else checked_count(channels, "LandmarkMetric: channels")
        )
        self._matrix: np.ndarray | None = None

    def fit(self, landmarks: Sequence[Rows]) -> LandmarkMetric:
        """Learn from shapes whose landmarks correspond: row l of each is the same point of the body.

        Args:
            landmarks: features at the landmarks of two shapes or more. Shape (L, C) each; rows that are not finite
                are landmarks that a shape lacks.

        Raises:
            InputError: fewer than two shapes, shapes that do not fit, fewer than two landmarks that two shapes have, or
                no channel that varies. What was fitted before remains.
        """
        parts = as_list(landmarks, "LandmarkMetric")
        if len(parts) < 2 or any(p.ndim != 2 or p.shape != parts[0].shape for p in parts):
            raise InputError(
                f"LandmarkMetric: expected (L, C) of two shapes or more, got {[p.shape for p in parts]}"
            )
        x = np.stack(parts).astype(np.float64)  # (S, L, C)
        there = np.isfinite(x).all(2)
        there &= there.sum(0) > 1
        common = int(there.any(0).sum())
        if common < 2:
            raise InputError(
                f"LandmarkMetric: landmarks that two shapes have: {common}, expected at least 2 of them"
            )
        mean, spread = x[there].mean(0), x[there].std(0)
        # What is constant but for rounding says nothing of landmarks; divided by next to nothing it would drown the rest.
        varies = spread > _ROUNDING * np.abs(mean)
        if not varies.any():
            raise InputError("LandmarkMetric: no channel varies over the landmarks")
        scale = np.where(varies, spread, np.inf)
        z = np.where(there[..., None], (x - mean) / scale, 0.0)
        count = there.sum(0)
        used = count > 0
        means = z[:, used].sum(0) / count[used, None]
        rest = (z[:, used] - means)[there[:, used]]
        within = rest.T @ rest / max(1, len(rest) - used.sum())
        variance = np.maximum(np.diag(within), 1e-12)
        within = (1 - self.shrinkage) * within + self.shrinkage * np.diag(variance)
        values, vectors = np.linalg.eigh(within)
        whiten = vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))
        between = np.cov((means @ whiten).T, aweights=count[used]).reshape(len(within), -1)
        # Eigenvalues ascend: the last directions tell landmarks apart best.
        matrix = whiten @ np.linalg.eigh(between)[1][:, ::-1][:, : self.channels]
        # Together and last, so that a fit that fails leaves no mixture of two.
        self._mean, self._scale, self._matrix = mean, scale, matrix
        return self

    def __call__(self, features: Rows) -> np.ndarray:
        """Features in which Euclidean distance is the metric. Shape: (N, C) -> (N, K) float32.

        Raises:
            InputError: :meth:`fit` was not called, or other channels than it was given.
        """
        if self._matrix is None:
            raise InputError("LandmarkMetric: call fit first")
        x = stack_features(features, "LandmarkMetric")
        if x.shape[1] != len(self._mean):
            raise InputError(
                f"LandmarkMetric: fitted to {len(self._mean)} channels, got {x.shape[1]}"
            )
        return (((x - self._mean) / self._scale) @ self._matrix).astype(np.float32)
