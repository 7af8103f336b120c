"""How likely a vertex is mapped to the right place: a logistic regression on a few statistics of the map.

A place counts as right within 0.05 of the root of the area (7 cm on a person), along the surface. The constants were
fitted on synthetic people alone: 12 pairs, 0.76 of 3600 landmarks right, with

    python tools/make_data.py creatures --output DIR --families humanoid figure --count 20 --poses 2 --seed 901 \\
        --vertices 3000 --landmarks 2500 --triangulations 10
    python -m sparsefeat.match.calibrate_maps DIR --pairs 12

No coefficient may be positive: each statistic speaks against a vertex.
"""

from __future__ import annotations

import numpy as np

NAMES = ("cycle", "levels", "turned", "turned_mean")
"""``cycle``: distance from a vertex to where the map there and back leads. ``levels``: distance between its images by all
eigenpairs and by half of them. Both are in roots of the area. ``turned``: 1 minus the cosine of
:func:`sparsefeat.heads.commuting_map.orientation_agreement`; ``turned_mean``: its mean over the shape."""

RIGHT = 0.05
INTERCEPT = 6.5558
COEFFICIENTS = (-9.6442, -21.1188, -0.5950, -6.1434)
_LONGEST = 0.3  # a longer distance says no more


def map_confidence(predictors: np.ndarray) -> np.ndarray:
    """Probability that each vertex is right. Shape: (N, 4) -> (N,)."""
    values: np.ndarray = 1 / (
        1 + np.exp(-(INTERCEPT + bounded(predictors) @ np.array(COEFFICIENTS)))
    )
    return values


def bounded(predictors: np.ndarray) -> np.ndarray:
    """The predictors as the regression takes them: distances of at most 0.3. Shape: (N, 4) -> (N, 4)."""
    return np.asarray(np.minimum(predictors, (_LONGEST, _LONGEST, 2.0, 2.0)))
