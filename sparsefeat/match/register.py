"""Two scans in, a pose out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.match.confidence import confidence
from sparsefeat.match.nearest import is_mutual, nearest_both_ways
from sparsefeat.match.refine import refine_pose
from sparsefeat.match.rigid import PoseEstimate, PoseEstimator
from sparsefeat.match.scans import Points, Scan, choose_extractor, describe_scan, open_view

SCALES = (0.7, 1.0, 1.6, 2.4)


@dataclass(frozen=True, eq=False)
class Registration:
    """Where one scan fits onto another.

    Attributes:
        transform: (4, 4) float64, maps the source into the target's frame; None if no pose is credible, as
            where the scans do not overlap.
        matches: (K, 2) int64, rows of the source and of the target: mutual nearest neighbours in feature space.
        inliers: (K,) bool, the matches that the pose brings together; all False without a pose.
        confidence: that the best hypothesis is right, 0 to 1; see :mod:`sparsefeat.match.confidence`.
        hypotheses: the best poses that differ, best first, the credible one or not.
    """

    transform: np.ndarray | None
    matches: np.ndarray
    inliers: np.ndarray
    confidence: float
    hypotheses: PoseEstimate

    @property
    def found(self) -> bool:
        """Whether there is a pose."""
        return self.transform is not None
