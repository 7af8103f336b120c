"""Colours for classes that stand beside each other."""

from __future__ import annotations

import numpy as np

# Spread so that the first few are told apart with any colour vision (after Okabe and Ito), on light and dark.
_FIRST = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)


def class_colors(count: int) -> np.ndarray:
    """Colours that differ: seven chosen ones, then hues a golden angle apart in two lightnesses.

    Returns:
        (count, 3) float64 in [0, 1].
    """
    hue = np.arange(count) * 0.618034 % 1
    light = np.where(np.arange(count) % 2, 0.95, 0.75)
    ramp = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    colors = light[:, None] * (0.25 + 0.75 * np.clip(ramp, 0, 1))
    chosen = min(count, len(_FIRST))
    colors[:chosen] = np.array(_FIRST[:chosen]).reshape(-1, 3) / 255
    return colors
