"""The pose of a pair of described clouds: hypotheses from matches, judged by matches, surfaces
and features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from sparsefeat.checks import as_array, as_points, checked_count, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.match.refine import refine_pose
from sparsefeat.match.rigid import SpatialCompatibility, move

# Source key points whose neighbours in the target are looked up; more change the shares by less
# than 2 %.
_PROBES = 1250


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """Hypotheses of one pair, best first, H of them (none where there is nothing to fit to).

    Attributes:
        transforms: (H, 4, 4) float64, map the source into the target's frame.
        scores: (H,) float64: half the support by matches as a share of them, plus ``agreement``.
        statistics: name -> (H,) float64. ``inliers``: matches closer than ``distance``;
            ``inlier_share``: as a share of all; ``overlap``: share of the source's key points that
            come to lie within ``distance`` of the target's; ``close_overlap``: within half of it;
            ``agreement``: mean over the source's key points of the cosine of their feature and the
            feature that they come to lie on, less the cosine of random pairs; 0 for key points that
            come to lie on none.
    """

    transforms: np.ndarray
    scores: np.ndarray
    statistics: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.transforms)

    @property
    def best(self) -> np.ndarray | None:
        """The best transform (4, 4), None where there is none."""
        return self.transforms[0] if len(self) else None


@dataclass(frozen=True)
class PoseEstimator:
    """Estimates poses from mutual matches; deterministic, without Open3D.

    Attributes:
        distance: closer than this counts as in place, in the unit of the points; twice the voxel
            size suits.
        hypotheses: distinct poses that are judged at most.
        refine: whether the best poses are made more exact by the surfaces (point-to-plane ICP) and
            the matches.
    """

    distance: float = 0.1
    hypotheses: int = 5
    refine: bool = True

    def __post_init__(self) -> None:
        checked_positive(self.distance, "distance")
        checked_count(self.hypotheses, "hypotheses")

    def __call__(
        self,
        points0: np.ndarray,
        features0: np.ndarray,
        points1: np.ndarray,
        features1: np.ndarray,
        matches: np.ndarray,
    ) -> PoseEstimate:
        """Estimate the transform of ``points0`` into the frame of ``points1``.

        Args:
            points0: Shape (N, 3), key points of the source; they should cover its surface evenly.
            features0: Shape (N, C), compared by their cosines.
            points1: Shape (M, 3), of the target.
            features1: Shape (M, C).
            matches: Shape (K, 2), rows of both; one that is given twice counts once.

        Raises:
            InputError: points or features that are not finite or do not fit, or matches that are
                not rows of the points.
        """
        points0, points1 = as_points(points0, "points0"), as_points(points1, "points1")
        features0 = _checked_features(features0, len(points0), "features0")
        features1 = _checked_features(features1, len(points1), "features1")
        if features0.shape[1] != features1.shape[1]:
            raise InputError(
                f"features: {features0.shape[1]} and {features1.shape[1]} channels, expected as many"
            )
        matches = _checked_matches(matches, len(points0), len(points1))
        source = torch.from_numpy(points0[matches[:, 0]])
        target = torch.from_numpy(points1[matches[:, 1]])
        transforms, _support = SpatialCompatibility(self.distance, keep=self.hypotheses)(
            source, target
        )
        if not len(transforms):
            return PoseEstimate(
                np.zeros((0, 4, 4)), np.zeros(0), {name: np.zeros(0) for name in STATISTICS}
            )
        features0, features1 = _unit(features0), _unit(features1)
        tree = cKDTree(points1)
        probes = _probes(points0)
        judged = _judge(
            transforms.numpy(),
            source,
            target,
            points0,
            features0,
            features1,
            tree,
            probes,
            self.distance,
        )
        order = np.argsort(-judged["score"], kind="stable")
        refined = transforms.numpy()[order]
        if self.refine:
            for k in range(min(2, len(refined))):
                refined[k] = self.refined(refined[k], points0, points1, matches)
            judged = _judge(
                refined, source, target, points0, features0, features1, tree, probes, self.distance
            )
            order = np.argsort(-judged["score"], kind="stable")
            refined = refined[order]
        return PoseEstimate(
            refined, judged["score"][order], {name: judged[name][order] for name in STATISTICS}
        )

    def refined(
        self, pose: np.ndarray, points0: np.ndarray, points1: np.ndarray, matches: np.ndarray
    ) -> np.ndarray:
        """A pose (4, 4) made more exact by surfaces and matches, see :func:`sparsefeat.match.refine.refine_pose`.

        Args: as for a call.
        """
        matched = points0[matches[:, 0]], points1[matches[:, 1]]
        source = points0[_probes(points0)]
        return refine_pose(pose, source, points1, 1.5 * self.distance, matched, self.distance)


STATISTICS = ("inliers", "inlier_share", "overlap", "close_overlap", "agreement")


def inlier_mask(
    transform: np.ndarray,
    points0: np.ndarray,
    points1: np.ndarray,
    matches: np.ndarray,
    distance: float,
) -> np.ndarray:
    """Whether the two points of every match come closer than ``distance``. Shape: (K,) bool."""
    moved = points0[matches[:, 0]] @ transform[:3, :3].T + transform[:3, 3]
    mask: np.ndarray = np.linalg.norm(moved - points1[matches[:, 1]], axis=1) < distance
    return mask


def _checked_features(features: np.ndarray, count: int, what: str) -> np.ndarray:
    array = as_array(features, what)
    if array.ndim != 2 or len(array) != count or array.dtype.kind not in "fiu":
        raise InputError(f"{what}: {array.shape} of {array.dtype}, expected numbers ({count}, C)")
    finite = np.isfinite(array).all(1)
    if not finite.all():
        raise InputError(f"{what}: row {int(np.argmin(finite))} is not finite")
    return array


def _checked_matches(matches: np.ndarray, count0: int, count1: int) -> np.ndarray:
    """The matches in order, each once. Shape: (K, 2) int64."""
    array = as_array(matches, "matches")
    if not array.size:
        return np.zeros((0, 2), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise InputError(f"matches: {array.shape} of {array.dtype}, expected whole numbers (K, 2)")
    for side, length in enumerate((count0, count1)):
        if not 0 <= array[:, side].min() <= array[:, side].max() < length:
            raise InputError(f"matches: a row beyond the {length} points of side {side}")
    return np.unique(array.astype(np.int64), axis=0)


def _probes(points: np.ndarray) -> np.ndarray:
    """Rows of the source's key points that are looked at."""
    return np.arange(0, len(points), max(1, len(points) // _PROBES))


def _unit(features: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    return scaled


def _judge(
    poses: np.ndarray,
    source: torch.Tensor,
    target: torch.Tensor,
    points0: np.ndarray,
    features0: np.ndarray,
    features1: np.ndarray,
    tree: cKDTree,
    probes: np.ndarray,
    distance: float,
) -> dict[str, np.ndarray]:
    """Score and statistics of every pose. Shape: (H,) each."""
    motions = torch.from_numpy(poses)
    apart = (move(motions, source) - target).norm(dim=-1)
    inliers = (apart < distance).sum(1).double().numpy()
    support = (1 - (apart / distance).square()).clamp_min(0).sum(1).numpy() / len(source)
    moved = move(motions, torch.from_numpy(np.asarray(points0[probes], dtype=np.float64))).numpy()
    near, row = tree.query(moved, distance_upper_bound=distance)
    hit = np.isfinite(near)
    # What features of unrelated points have in common, by the product of the means.
    chance = float(features0.mean(0) @ features1.mean(0))
    alike = np.einsum("pc,hpc->hp", features0[probes], features1[np.where(hit, row, 0)]) - chance
    agreement = np.where(hit, alike, 0).mean(1).astype(np.float64)
    return {
        "score": support / 2 + agreement,
        "inliers": inliers,
        "inlier_share": inliers / len(source),
        "overlap": hit.mean(1),
        "close_overlap": (near < distance / 2).mean(1),
        "agreement": agreement,
    }
