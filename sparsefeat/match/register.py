"""Two scans in, a pose out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sparsefeat.checks import checked_share
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.match.confidence import confidence
from sparsefeat.match.estimate import PoseEstimate, PoseEstimator, inlier_mask
from sparsefeat.match.nearest import is_mutual, nearest_both_ways
from sparsefeat.match.scans import (
    Points,
    Scan,
    check_choice,
    choose_extractor,
    describe_scan,
    open_view,
)

# One voxel size finds nearly as many poses as several, in a quarter of the time.
SCALES = (1.0,)


@dataclass(frozen=True, eq=False)
class Registration:
    """Where one scan fits onto another.

    Attributes:
        transform: (4, 4) float64, maps the source into the target's frame; None where no pose is
            credible, as
            for scans that do not overlap.
        matches: (K, 2) int64, rows of the source's and the target's points: key points that are
            each other's
            nearest neighbours in feature space.
        inliers: (K,) bool, the matches that the pose brings together; none without a pose.
        confidence: probability that the best hypothesis is right, see
            :mod:`sparsefeat.match.confidence`.
        hypotheses: the best distinct poses with their scores, best first, credible or not.
    """

    transform: np.ndarray | None
    matches: np.ndarray
    inliers: np.ndarray
    confidence: float
    hypotheses: PoseEstimate

    @property
    def found(self) -> bool:
        """Whether there is a credible pose."""
        return self.transform is not None


def register(
    source: Points,
    target: Points,
    extractor: FeatureExtractor | str | os.PathLike | None = None,
    *,
    source_viewpoint: Sequence[float] | None = None,
    target_viewpoint: Sequence[float] | None = None,
    source_normals: np.ndarray | Tensor | None = None,
    target_normals: np.ndarray | Tensor | None = None,
    scales: Sequence[float] = SCALES,
    points: int = 5000,
    refine: bool = True,
    min_confidence: float = 0.5,
    device: str | None = None,
    seed: int = 0,
    unit: str | None = None,
) -> Registration:
    """Find the pose that maps one scan onto another.

    Args:
        source: (N, 3) array or tensor, a file that
            :func:`sparsefeat.data.fragments.load_fragment` reads, or a cloud or mesh of this package,
            trimesh or Open3D. Normals that a cloud has are taken; they have to be oriented.
        target: the same, (M, 3).
        extractor: of the features, or a checkpoint's name. None:
            ``"sparsefeat/rooms-5cm-oriented-v2"``.
        source_viewpoint, target_viewpoint: (3,), or (K, 3), where a scan was seen from, in its own
            frame. None: what a file says, or estimated, see :func:`sparsefeat.estimate_normals`.
        source_normals, target_normals: (N, 3), (M, 3) vectors to the outer side, in place of a
            viewpoint.
        scales: factors on the voxel size; features at all of them are joined, as in
            (0.7, 1, 1.6, 2.4). Each costs a pass of the network.
        points: key points of a scan at most.
        refine: make the pose more exact by the surfaces (point-to-plane ICP) and the matches.
        min_confidence: a less credible pose is not returned; 0 always returns the best one, if any.
        device: where a network that is loaded here runs; None: the CPU.
        seed: of the choice of key points.
        unit: of points and viewpoints, one of m, cm, mm, in, ft; the pose is in it too. None: that
            of the extractor, metres for a released one.

    Raises:
        InputError: points, files, options or an extractor that cannot be used.
    """
    check_choice(points, seed)
    checked_share(min_confidence, "min_confidence")
    views = [
        open_view(source, source_normals, source_viewpoint, "source"),
        open_view(target, target_normals, target_viewpoint, "target"),
    ]
    extractor = choose_extractor(extractor, device, unit)
    scans = [describe_scan(view, extractor, scales, points, seed) for view in views]
    return register_scans(*scans, refine=refine, min_confidence=min_confidence)


def register_scans(
    source: Scan, target: Scan, *, refine: bool = True, min_confidence: float = 0.5
) -> Registration:
    """:func:`register` for scans that are described already, as :func:`describe_scan` does.

    Raises:
        InputError: features of different networks, or ``min_confidence`` beyond 0 to 1.
    """
    checked_share(min_confidence, "min_confidence")
    if source.voxel_size != target.voxel_size:
        raise InputError(
            f"voxel sizes {source.voxel_size} and {target.voxel_size}, expected equal ones"
        )
    matches = mutual_matches(source, target)
    estimator = PoseEstimator(2 * source.voxel_size, refine=refine)
    keypoints = source.keypoints, target.keypoints
    estimate = estimator(keypoints[0], source.features, keypoints[1], target.features, matches)
    belief = confidence(estimate)
    found = len(estimate) > 0 and belief >= min_confidence
    inliers = np.zeros(len(matches), dtype=bool)
    if found:
        inliers = inlier_mask(estimate.transforms[0], *keypoints, matches, estimator.distance)
    rows = np.stack([source.rows[matches[:, 0]], target.rows[matches[:, 1]]], 1)
    return Registration(estimate.transforms[0] if found else None, rows, inliers, belief, estimate)


def mutual_matches(source: Scan, target: Scan) -> np.ndarray:
    """Key points that are each other's nearest neighbours in feature space. Shape: (K, 2) int64 rows of them."""
    forward, backward = nearest_both_ways(source.features, target.features)
    matches: np.ndarray = np.stack([np.arange(len(forward)), forward], 1)
    mutual: np.ndarray = matches[is_mutual(forward, backward)]
    return mutual
