"""How likely a pose is right: a logistic regression on a few statistics of its hypotheses.

A pose counts as right as in registration recall: within 0.2 m. The constants were fitted on synthetic rooms alone:
659 pairs of 12 rooms, half of them of different rooms, 311 poses right, ``rooms-5cm-oriented-v2`` at one scale, with

    python tools/make_data.py rooms --output DIR --seed 7716 --rooms 12 --fragments 10 --layout test
    python -m sparsefeat.match.calibrate DIR

No coefficient may be negative: each statistic speaks for a pose. The shares of overlapping surface, which the score of
hypotheses uses, got none beside the others.
"""

from __future__ import annotations

import numpy as np

from sparsefeat.match.estimate import PoseEstimate

NAMES = ("log_inliers", "inlier_share", "agreement", "gap")

INTERCEPT = -8.9201
COEFFICIENTS = (1.5340, 8.5899, 8.8593, 0.0026)


def predictors(estimate: PoseEstimate) -> np.ndarray:
    """What the regression sees of the best hypothesis, in the order of ``NAMES``. Shape: (4,).

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
            at["agreement"],
            gap,
        ]
    )


def confidence(estimate: PoseEstimate) -> float:
    """Probability that the best hypothesis is right; 0 where there is none."""
    if not len(estimate):
        return 0.0
    return float(1 / (1 + np.exp(-(INTERCEPT + np.dot(COEFFICIENTS, predictors(estimate))))))
