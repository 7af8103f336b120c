"""Feature-match recall and inlier ratio on pairs of fragments (3DMatch protocol)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsefeat.data.orientation import Viewpoints
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError
from sparsefeat.evaluate.keypoints import Describe, Fragment, FragmentDescriber
from sparsefeat.evaluate.registration import (
    MAX_ERROR_M,
    Register,
    counts_for_recall,
    transformation_error,
)
from sparsefeat.match.nearest import is_mutual, nearest_both_ways

# Where the curves over tau1 are sampled, metres, and over tau2, shares.
TAU1_CURVE = np.round(np.arange(1, 41) * 0.005, 6)
TAU2_CURVE = np.round(np.arange(0, 41) * 0.005, 6)


@dataclass(frozen=True)
class Matches:
    """The matches of one pair, reduced to what the metrics and their curves need.

    Attributes:
        count: matches.
        inliers: those closer than tau1 under the ground truth.
        closer: (len(TAU1_CURVE),) int64, those closer than each threshold of the curve.
    """

    count: int
    inliers: int
    closer: np.ndarray

    @property
    def ratio(self) -> float:
        """Share of inliers; 0 where there is no match."""
        return self.inliers / self.count if self.count else 0.0

    def ratios(self) -> np.ndarray:
        """Share of matches closer than each threshold of the curve."""
        return self.closer / max(self.count, 1)


@dataclass(frozen=True)
class PairResult:
    """One pair: fragment ``j`` matched into fragment ``i``.

    Attributes:
        nearest: every key point of the source and its nearest neighbour.
        mutual: those that are each other's nearest neighbour.
        registration_error: squared error in m^2 of the estimated pose, inf where none was found; None
            where the pair does not count or no registration was asked for.
    """

    scene: str
    i: int
    j: int
    nearest: Matches
    mutual: Matches
    registration_error: float | None = None

    @property
    def registered(self) -> bool | None:
        """Whether the pose is within the limit of registration recall; None where it does not count."""
        error = self.registration_error
        return None if error is None else bool(error <= MAX_ERROR_M**2)


@dataclass(frozen=True)
class Summary:
    """Mean and population standard deviation over scenes of the scenes' means."""

    mean: float
    sd: float


@dataclass
class MatchingResult:
    """Results of all pairs, and their averages: over the pairs of a scene first, then over scenes."""

    pairs: list[PairResult]
    settings: dict = field(default_factory=dict)

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, in order of first occurrence."""
        return list(dict.fromkeys(pair.scene for pair in self.pairs))

    def of_scene(self, scene: str) -> list[PairResult]:
        """The pairs of one scene."""
        return [pair for pair in self.pairs if pair.scene == scene]

    def per_scene(self) -> dict[str, dict[str, float | int | None]]:
        """``{scene: {"FMR", "IR", "FMR_mutual", "IR_mutual", "RR", "n_pairs", "n_pairs_RR"}}``."""
        tau2 = self.settings["tau2"]
        return {scene: _averages(self.of_scene(scene), tau2) for scene in self.scenes}

    def summary(self, metric: str) -> Summary | None:
        """Mean and sd over scenes of ``"FMR"``, ``"IR"``, ``"FMR_mutual"``, ``"IR_mutual"`` or ``"RR"``."""
        values = [scene[metric] for scene in self.per_scene().values()]
        values = [value for value in values if value is not None]
        return Summary(float(np.mean(values)), float(np.std(values))) if values else None

    @property
    def FMR(self) -> float:
        """Feature-match recall, all nearest neighbours."""
        return self.summary("FMR").mean

    @property
    def IR(self) -> float:
        """Inlier ratio, all nearest neighbours."""
        return self.summary("IR").mean

    @property
    def FMR_mutual(self) -> float:
        """Feature-match recall, mutual nearest neighbours."""
        return self.summary("FMR_mutual").mean

    @property
    def IR_mutual(self) -> float:
        """Inlier ratio, mutual nearest neighbours."""
        return self.summary("IR_mutual").mean

    @property
    def RR(self) -> float | None:
        """Registration recall; None where no pose was estimated."""
        summary = self.summary("RR")
        return None if summary is None else summary.mean

    def curve_over_tau1(self, mutual: bool = False) -> dict[str, np.ndarray]:
        """``{"tau1", "FMR", "IR"}``: the metrics at every inlier threshold, tau2 as in the settings."""
        ratios = {
            s: np.stack([_matches(p, mutual).ratios() for p in self.of_scene(s)])
            for s in self.scenes
        }
        recall = [(r > self.settings["tau2"]).mean(0) for r in ratios.values()]
        return {
            "tau1": TAU1_CURVE,
            "FMR": np.mean(recall, axis=0),
            "IR": np.mean([r.mean(0) for r in ratios.values()], axis=0),
        }

    def curve_over_tau2(self, mutual: bool = False) -> dict[str, np.ndarray]:
        """``{"tau2", "FMR"}``: the recall at every least share of inliers, tau1 as in the settings."""
        recall = []
        for scene in self.scenes:
            ratios = np.array([_matches(pair, mutual).ratio for pair in self.of_scene(scene)])
            recall.append((ratios[:, None] > TAU2_CURVE).mean(0))
        return {"tau2": TAU2_CURVE, "FMR": np.mean(recall, axis=0)}

    def to_json(self) -> dict:
        """Everything as plain numbers: averages, sd, scenes, curves, pairs and settings."""
        averages: dict = {}
        for metric in ("FMR", "IR", "FMR_mutual", "IR_mutual", "RR"):
            summary = self.summary(metric)
            averages[metric] = None if summary is None else summary.mean
            averages[f"{metric}_sd"] = None if summary is None else summary.sd
        curves = {}
        for name, mutual in (("nearest", False), ("mutual", True)):
            over1, over2 = self.curve_over_tau1(mutual), self.curve_over_tau2(mutual)
            curves[name] = {
                "over_tau1": {key: value.tolist() for key, value in over1.items()},
                "over_tau2": {key: value.tolist() for key, value in over2.items()},
            }
        return {
            **averages,
            "n_pairs": len(self.pairs),
            "scenes": self.per_scene(),
            "curves": curves,
            "per_pair": [_pair_json(pair) for pair in self.pairs],
            "settings": dict(self.settings),
        }


def inlier_ratio(
    points0: np.ndarray,
    points1: np.ndarray,
    matches: np.ndarray,
    transform: np.ndarray,
    tau1: float = 0.10,
) -> float:
    """Share of matches that lie closer than ``tau1`` under the ground truth; 0 without matches.

    Args:
        points0: Shape (N, 3), metres.
        points1: Shape (M, 3), metres.
        matches: Shape (K, 2), rows of ``points0`` and ``points1``.
        transform: Shape (4, 4), maps the frame of ``points0`` to that of ``points1``.
        tau1: metres.
    """
    matches = np.asarray(matches).reshape(-1, 2)
    return _reduce(match_distances(points0, points1, matches, transform), tau1).ratio


def match_distances(
    points0: np.ndarray, points1: np.ndarray, matches: np.ndarray, transform: np.ndarray
) -> np.ndarray:
    """Distance in metres between the two points of every match under the ground truth. Shape: (K,)."""
    moved = points0[matches[:, 0]] @ transform[:3, :3].T + transform[:3, 3]
    return np.linalg.norm(moved - points1[matches[:, 1]], axis=1)


def match_fragments(
    source: Fragment, target: Fragment, block: int = 2048, device=None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbour of every source key point among the target's, and which of these are mutual.

    Returns:
        (K, 2) int64 rows of source and target, and (K,) bool.
    """
    forward, backward = nearest_both_ways(source.features, target.features, block, device)
    return np.stack([np.arange(len(forward)), forward], 1), is_mutual(forward, backward)


def evaluate_matching(
    pairs: Mapping[str, Sequence[FragmentPair]],
    describe: Describe,
    voxel_size: float,
    points: int | None = 5000,
    tau1: float = 0.10,
    tau2: float = 0.05,
    seed: int = 0,
    rotate: bool = False,
    progress: Callable[[int, int], None] | None = None,
    register: Register | None = None,
    block: int = 2048,
    device=None,
    dense: bool = False,
    known: Mapping[tuple[str, int, int], PairResult] | None = None,
    keep: Callable[[PairResult], None] | None = None,
    viewpoints: Viewpoints | None = None,
    salient: bool = False,
    orientation: str = "given",
) -> MatchingResult:
    """Match all pairs and average, as 3DMatch does.

    For every key point of the source the nearest neighbour in feature space among the target's is its
    match; an inlier lies closer than ``tau1`` under the ground truth; a pair is recalled if more than
    ``tau2`` of its matches are inliers. FMR is the share of recalled pairs and IR the mean share of
    inliers, per scene, then averaged over scenes. The mutual columns keep only matches that are nearest
    neighbours both ways. Source: Deng et al., "PPFNet", CVPR 2018, section 5; Choy et al., "Fully
    Convolutional Geometric Features", ICCV 2019, section 6.

    Args:
        pairs: of each scene; the transform of a pair maps its source into the frame of its target.
        describe: called with (V, 3) float64 points in metres and ``viewpoint=``, where they were seen from if the files
            say that; returns (V, C), an array or tensor.
        voxel_size: metres; a fragment is thinned to one point per voxel before it is described.
        points: key points per fragment, None for all.
        tau1: metres.
        tau2: share of the matches, 0 to 1.
        seed: of key points and rotations.
        rotate: turn every fragment by its own uniform rotation first; the ground truth follows.
        progress: called with (pairs done, pairs in all) after every pair.
        register: estimates poses for the registration recall, see
            :class:`sparsefeat.evaluate.registration.Register`.
        block, device: of the nearest-neighbour search.
        dense: describe a fragment with all its points, before it is thinned to the same key points.
        known: pairs (scene, i, j) that were measured before with the same settings; they are not measured again.
        keep: called with each pair that was measured.
        viewpoints: of fragments, in place of what their files say.
        salient: draw key points where the surface is curved, see
            :func:`sparsefeat.evaluate.keypoints.keypoint_weight`; the protocol draws them evenly.
        orientation: what is told of the side that fragments were seen from: ``given``, ``unknown``, or ``wrong``, a
            viewpoint that is 3 m off.

    Raises:
        InputError: no pairs, thresholds out of range, unreadable fragments, wrong features, or
            ``register`` without information matrices.
    """
    total = sum(len(of_scene) for of_scene in pairs.values())
    if total == 0:
        raise InputError("evaluate_matching: no pairs to evaluate")
    if not tau1 > 0:
        raise InputError(f"tau1: expected a positive distance in metres, got {tau1}")
    if not 0 <= tau2 < 1:
        raise InputError(f"tau2: expected a share from 0 to below 1, got {tau2}")
    if register is not None:
        _require_information(pairs)
    describer = FragmentDescriber(
        describe,
        voxel_size,
        points,
        seed,
        rotate,
        dense,
        viewpoints=viewpoints,
        salient=salient,
        orientation=orientation,
    )
    results: list[PairResult] = []
    for scene, of_scene in pairs.items():
        for pair in of_scene:
            result = None if known is None else known.get((pair.scene, pair.i, pair.j))
            if result is None:
                source, target = describer(scene, pair.source), describer(scene, pair.target)
                result = _evaluate_pair(pair, source, target, tau1, register, seed, block, device)
                if keep is not None:
                    keep(result)
            results.append(result)
            if progress is not None:
                progress(len(results), total)
    settings = {
        "voxel_size": voxel_size,
        "points": points,
        "tau1": tau1,
        "tau2": tau2,
        "seed": seed,
        "rotate": rotate,
        "dense": dense,
        "salient": salient,
        "orientation": orientation,
        "direction": "source (fragment j) to target (fragment i)",
    }
    return MatchingResult(results, settings)


def _evaluate_pair(
    pair: FragmentPair,
    source: Fragment,
    target: Fragment,
    tau1: float,
    register: Register | None,
    seed: int,
    block: int,
    device,
) -> PairResult:
    try:
        matches, mutual = match_fragments(source, target, block, device)
    except ValueError as error:
        raise InputError(f"{Path(pair.source)} and {Path(pair.target).name}: {error}") from error
    # Both fragments were turned on loading; the true transform between the turned ones follows.
    transform = target.rotation @ pair.transform @ source.rotation.T
    distances = match_distances(source.points, target.points, matches, transform)
    error = None
    if register is not None and counts_for_recall(pair):
        estimate = register(source, target, matches, mutual, [seed, pair.i, pair.j])
        if estimate is None:
            error = float("inf")
        elif np.shape(estimate) != (4, 4):
            raise InputError(f"register: a transform of {np.shape(estimate)}, expected (4, 4)")
        else:
            estimate = target.rotation.T @ estimate @ source.rotation
            error = transformation_error(estimate, pair.transform, pair.information)
    return PairResult(
        pair.scene,
        pair.i,
        pair.j,
        _reduce(distances, tau1),
        _reduce(distances[mutual], tau1),
        error,
    )


def _reduce(distances: np.ndarray, tau1: float) -> Matches:
    closer = np.searchsorted(np.sort(distances), TAU1_CURVE, side="left")
    return Matches(len(distances), int((distances < tau1).sum()), closer)


def _matches(pair: PairResult, mutual: bool) -> Matches:
    return pair.mutual if mutual else pair.nearest


def _averages(pairs: list[PairResult], tau2: float) -> dict[str, float | int | None]:
    nearest = np.array([pair.nearest.ratio for pair in pairs])
    mutual = np.array([pair.mutual.ratio for pair in pairs])
    registered = [pair.registered for pair in pairs if pair.registered is not None]
    return {
        "FMR": float((nearest > tau2).mean()),
        "IR": float(nearest.mean()),
        "FMR_mutual": float((mutual > tau2).mean()),
        "IR_mutual": float(mutual.mean()),
        "RR": float(np.mean(registered)) if registered else None,
        "n_pairs": len(pairs),
        "n_pairs_RR": len(registered),
    }


def _pair_json(pair: PairResult) -> dict:
    error = pair.registration_error
    row = {
        "scene": pair.scene,
        "i": pair.i,
        "j": pair.j,
        "matches": pair.nearest.count,
        "inliers": pair.nearest.inliers,
        "mutual_matches": pair.mutual.count,
        "mutual_inliers": pair.mutual.inliers,
    }
    # JSON has no infinity: a pose that was not found has no error, and is not registered.
    if error is not None:
        row |= {
            "registered": pair.registered,
            "registration_error": error if np.isfinite(error) else None,
        }
    return row


def _require_information(pairs: Mapping[str, Sequence[FragmentPair]]) -> None:
    for scene, of_scene in pairs.items():
        missing = [pair for pair in of_scene if pair.j - pair.i > 1 and pair.information is None]
        if missing:
            raise InputError(
                f"{scene}: registration recall needs an information matrix (gt.info) for every pair with "
                f"j - i > 1; {len(missing)} have none, the first is {missing[0].i} {missing[0].j}"
            )
