"""How likely a pose is right: a logistic regression on a few statistics of its hypotheses.

A pose counts as right as in registration recall: within 0.2 m. The constants below are provisional:
they were fitted on 128 overlapping pairs of 3DMatch's redkitchen and home_md, each at one and at four
scales, with the regression of :func:`sparsefeat.match.calibrate.fit`. ``python -m
sparsefeat.match.calibrate DIR`` fits them on synthetic rooms, pairs of different rooms included, and
prints them; DIR is a folder that ``tools/make_data.py rooms --layout test`` wrote.
"""

from __future__ import annotations

import numpy as np

from sparsefeat.match.estimate import PoseEstimate

NAMES = ("log_inliers", "inlier_share", "overlap", "close_overlap", "agreement", "gap")

INTERCEPT = -5.429
COEFFICIENTS = (1.2207, 0.6279, 1.1412, 2.0344, 5.558, 0.4907)


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
