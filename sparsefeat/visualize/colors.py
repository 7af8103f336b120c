"""Colours from features: three principal components, on a basis common to all clouds of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsefeat.errors import InputError

# Rows that a basis is fitted to; more change the colours by less than can be seen.
_FIT_ROWS = 200_000


@dataclass(frozen=True)
class PcaColors:
    """A map from features to colours.

    Attributes:
        mean: (C,) float64.
        components: (C, 3) float64; columns of zeros where the features have fewer dimensions.
        low: (3,) float64, projections that become 0.
        high: (3,) float64, projections that become 1.
    """

    mean: np.ndarray
    components: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def fit(features: Sequence[np.ndarray], percentile: float = 1.0) -> PcaColors:
        """The basis of the rows of all arrays together.

        Args:
            features: arrays (N_k, C); rows that are not finite are left out.
            percentile: share in percent that is clipped at either end of each component, so that a few
                odd points do not take the colours from the rest.

        Raises:
            InputError: no array, arrays of different width, or not a single finite row.
        """
        arrays = [_as_array(f, k) for k, f in enumerate(features)]
        if not arrays:
            raise InputError("pca_colors: expected at least one feature array, got none")
        widths = {a.shape[1] for a in arrays}
        if len(widths) > 1:
            raise InputError(
                f"pca_colors: all arrays need the same number of channels, got {sorted(widths)}"
            )
        step = max(1, sum(map(len, arrays)) // _FIT_ROWS)
        rows = np.concatenate([a[::step] for a in arrays]).astype(np.float64)
        rows = rows[np.isfinite(rows).all(1)]
        if len(rows) == 0:
            raise InputError("pca_colors: no finite row in the features")
        mean = rows.mean(0)
        rows -= mean
        _, vectors = np.linalg.eigh(rows.T @ rows)
        components = np.zeros((rows.shape[1], 3))
        largest = vectors[:, ::-1][:, :3]
        components[:, : largest.shape[1]] = largest
        # An eigenvector's sign is arbitrary; fixed here, so that equal features give equal colours.
        strongest = np.abs(components).argmax(0)
        components *= np.where(components[strongest, np.arange(3)] < 0, -1.0, 1.0)
        low, high = np.percentile(rows @ components, [percentile, 100 - percentile], axis=0)
        return PcaColors(mean, components, low, high)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Colours in [0, 1] of features. Shape: (N, C) -> (N, 3) float32; grey where not finite."""
        features = _as_array(features, 0)
        span = self.high - self.low
        # A component without spread (fewer than three dimensions, constant features) stays at the middle.
        flat = span <= 1e-12 * max(1.0, float(np.abs(self.high).max()))
        # Colours need no more digits than float32 has, and there may be millions of them.
        wide = np.float32 if features.dtype in (np.float16, np.float32) else np.float64
        projected = (features - self.mean.astype(wide)) @ self.components.astype(wide)
        scaled = (projected - self.low.astype(wide)) / np.where(flat, 1, span).astype(wide)
        colors = np.where(flat, 0.5, np.clip(scaled, 0, 1)).astype(np.float32)
        colors[~np.isfinite(features).all(1)] = 0.5
        return colors


def pca_colors(features: Sequence[np.ndarray], percentile: float = 1.0) -> list[np.ndarray]:
    """Colours of several clouds on one basis: equal features have equal colours in all of them.

    Args:
        features: arrays (N_k, C).
        percentile: clipped at either end of each component, percent.

    Returns:
        Arrays (N_k, 3) float32 in [0, 1].
    """
    colors = PcaColors.fit(features, percentile)
    return [colors(f) for f in features]


def _as_array(features, index: int) -> np.ndarray:
    if hasattr(features, "detach"):  # a tensor, wherever it is
        features = features.detach().float().cpu().numpy()
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise InputError(f"pca_colors: array {index}: expected shape (N, C), got {features.shape}")
    return features
