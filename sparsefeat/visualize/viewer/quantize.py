"""Features small enough for a page: principal components in eight bits, with the error that this makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DIMENSIONS = 32
"""Components that a page gets at most."""
NO_FEATURE = -128
"""Stands in the first component of a row whose feature is not finite."""

_FIT_ROWS = 200_000
_PAIRS = 4000
# A few odd rows must not make the steps of all others coarse.
_CLIPPED_PERCENT = 0.1


@dataclass(frozen=True)
class QuantizedFeatures:
    """Codes whose scaled differences give the distances of the features.

    Attributes:
        codes: (N_k, D) int8 each; the distance of rows a and b is ``norm((a - b) * steps)``.
        steps: (D,) float64.
        channels: of the features that were given.
        variance: share of the variance that the components keep.
        error: mean absolute error of a distance as a share of the mean distance, over random pairs of rows.
    """

    codes: list[np.ndarray]
    steps: np.ndarray
    channels: int
    variance: float
    error: float


def quantize_features(
    features: Sequence[np.ndarray], dimensions: int = DIMENSIONS, seed: int = 0
) -> QuantizedFeatures:
    """Quantise the features of several shapes on one basis.

    Args:
        features: (N_k, C) each, of one width; at least one finite row.
        dimensions: components to keep, if there are as many.
        seed: of the pairs that the error is measured on.
    """
    step = max(1, sum(map(len, features)) // _FIT_ROWS)
    rows = np.concatenate([np.asarray(f[::step], dtype=np.float64) for f in features])
    rows = rows[np.isfinite(rows).all(1)]
    mean = rows.mean(0)
    centred = rows - mean
    energy, vectors = np.linalg.eigh(centred.T @ centred)
    energy, basis = np.maximum(energy[::-1], 0), vectors[:, ::-1][:, :dimensions]
    limit = np.percentile(np.abs(centred @ basis), 100 - _CLIPPED_PERCENT, axis=0)
    steps = np.maximum(limit, 1e-30) / 127
    codes = [_encode(np.asarray(f), mean, basis, steps) for f in features]
    total = energy.sum()
    variance = float(energy[: basis.shape[1]].sum() / total) if total > 0 else 1.0
    return QuantizedFeatures(
        codes, steps, rows.shape[1], variance, _error(rows, mean, basis, steps, seed)
    )


def _encode(
    features: np.ndarray, mean: np.ndarray, basis: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    codes = np.empty((len(features), basis.shape[1]), dtype=np.int8)
    for start in range(0, len(features), _FIT_ROWS):
        part = features[start : start + _FIT_ROWS].astype(np.float64)
        finite = np.isfinite(part).all(1)
        scaled = np.rint((np.where(finite[:, None], part, mean) - mean) @ basis / steps)
        codes[start : start + _FIT_ROWS] = np.clip(scaled, -127, 127)
        codes[start : start + _FIT_ROWS][~finite, 0] = NO_FEATURE
    return codes


def _error(
    rows: np.ndarray, mean: np.ndarray, basis: np.ndarray, steps: np.ndarray, seed: int
) -> float:
    a, b = np.random.default_rng(seed).integers(len(rows), size=(2, _PAIRS))
    exact = np.linalg.norm(rows[a] - rows[b], axis=1)
    coded = [_encode(rows[k], mean, basis, steps).astype(np.float64) for k in (a, b)]
    found = np.linalg.norm((coded[0] - coded[1]) * steps, axis=1)
    return float(np.abs(found - exact).mean() / exact.mean()) if exact.mean() > 0 else 0.0
