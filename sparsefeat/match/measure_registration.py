"""Measure :func:`sparsefeat.register` on scans as users have them: viewpoints unknown or wrong, few points, noise.

python -m sparsefeat.match.measure_registration data/threedmatch_test --result rooms-5cm-oriented-v2-conditions

The same matches go to Open3D's RANSAC and to KISS-Matcher's solver (``pip install kiss-matcher``), where they are
installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.checks import checked_count, checked_seed
from sparsefeat.data.threedmatch import FragmentPair, test_pairs
from sparsefeat.errors import InputError, InputWarning, MissingExtraError, opening
from sparsefeat.evaluate.keypoints import Fragment, fragment_seed
from sparsefeat.evaluate.matching import inlier_ratio
from sparsefeat.evaluate.registration import (
    MAX_ERROR_M,
    RansacRegister,
    counts_for_recall,
    transformation_error,
)
from sparsefeat.extract import FeatureExtractor
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.results import write_result
from sparsefeat.match.confidence import confidence
from sparsefeat.match.estimate import PoseEstimator
from sparsefeat.match.register import mutual_matches
from sparsefeat.match.scans import (
    CHECKPOINT,
    Scan,
    View,
    choose_extractor,
    describe_scan,
    open_view,
)
from sparsefeat.process.tool import run_tool

SURE = 0.9
"""Poses of at least this confidence are counted apart."""

Solver = Callable[[Scan, Scan, np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Condition:
    """What a scan is like, and what is known of it.

    Attributes:
        viewpoint: whether where the scan was seen from is known, rather than estimated.
        viewpoint_error: how far the known viewpoint is off, metres, in a random direction.
        turned: whether each scan is turned at random first.
        points: share of the points that are left, chosen at random.
        noise: standard deviation that each coordinate is moved by, metres.
        scales: factors on the voxel size, whose features are joined.
    """

    viewpoint: bool = True
    viewpoint_error: float = 0.0
    turned: bool = False
    points: float = 1.0
    noise: float = 0.0
    scales: tuple[float, ...] = (1.0,)

    def seen(self, view: View, seed: Sequence[int]) -> tuple[View, np.ndarray]:
        """The scan under this condition, and the rotation (4, 4) that it was turned by."""
        rng = np.random.default_rng(seed)
        points, viewpoint, turn = view.points, view.viewpoint, np.eye(4)
        if viewpoint is None:
            raise InputError(f"{view.name}: its viewpoint is not known")
        if self.viewpoint_error:
            direction = rng.normal(size=3)
            viewpoint = viewpoint + self.viewpoint_error * direction / np.linalg.norm(direction)
        if self.points < 1:
            count = round(self.points * len(points))
            points = points[np.sort(rng.permutation(len(points))[:count])]
        if self.noise:
            points = points + self.noise * rng.normal(size=points.shape)
        if self.turned:
            turn[:3, :3] = Rotation.random(random_state=rng).as_matrix()
            points, viewpoint = points @ turn[:3, :3].T, viewpoint @ turn[:3, :3].T
        return View(points, None, viewpoint if self.viewpoint else None, view.name), turn


CONDITIONS = {
    "as recorded": Condition(),
    "as recorded, four scales": Condition(scales=(0.7, 1.0, 1.6, 2.4)),
    "viewpoint unknown": Condition(viewpoint=False),
    "viewpoint wrong by 3 m": Condition(viewpoint_error=3.0),
    "each scan turned at random": Condition(turned=True),
    "half of the points": Condition(points=0.5),
    "a quarter of the points": Condition(points=0.25),
    "noise of 1 cm": Condition(noise=0.01),
    "noise of 2 cm": Condition(noise=0.02),
}


def spread_pairs(pairs: Sequence[FragmentPair], count: int) -> list[FragmentPair]:
    """Pairs that count for registration recall, evenly spaced in their list; all if there are no more.

    Raises:
        InputError: no pair counts, or a count below 1.
    """
    count = checked_count(count, "pairs")
    counting = [pair for pair in pairs if counts_for_recall(pair) and pair.information is not None]
    if not counting:
        raise InputError("no pair with an information matrix (gt.info) that counts for recall")
    rows = np.unique(np.linspace(0, len(counting) - 1, min(count, len(counting))).round())
    return [counting[int(row)] for row in rows]


def solvers() -> tuple[dict[str, Solver], list[str]]:
    """The others that are installed, by name, and the names of those that are not."""
    found: dict[str, Solver] = {}
    absent = []
    try:
        ransac = RansacRegister()

        def by_ransac(source: Scan, target: Scan, matches: np.ndarray) -> np.ndarray | None:
            return ransac(
                Fragment(source.keypoints, source.features, np.eye(4)),
                Fragment(target.keypoints, target.features, np.eye(4)),
                matches,
            )

        found["ransac"] = by_ransac
    except MissingExtraError:
        absent.append("ransac")
    try:
        kiss_matcher = importlib.import_module("kiss_matcher")

        def by_kiss(source: Scan, target: Scan, matches: np.ndarray) -> np.ndarray | None:
            # Its noise bounds are multiples of this; twice the voxel size is what ours calls in place.
            settings = kiss_matcher.KISSMatcherConfig(voxel_size=2 * source.voxel_size)
            matcher = kiss_matcher.KISSMatcher(settings)
            solution = matcher.solve(
                source.keypoints[matches[:, 0]].T, target.keypoints[matches[:, 1]].T
            )
            pose = np.eye(4)
            pose[:3, :3] = solution.rotation
            pose[:3, 3] = np.ravel(solution.translation)
            return pose

        found["kiss"] = by_kiss
    except ImportError:
        absent.append("kiss")
    return found, absent


class Stopwatch:
    """The CPU time that calls take, by name: other work on the machine changes it little."""

    def __init__(self) -> None:
        self._spent: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call ``work`` and return what it returns."""
        start = time.process_time()
        result = work(*args, **options)
        self._spent.setdefault(name, []).append(1e3 * (time.process_time() - start))
        return result

    def medians(self) -> dict[str, float]:
        """Milliseconds of CPU."""
        return {name: round(float(np.median(spent)), 1) for name, spent in self._spent.items()}


def measure(
    pairs: dict[str, list[FragmentPair]],
    condition: Condition,
    extractor: FeatureExtractor,
    others: dict[str, Solver],
    seed: int = 0,
) -> dict[str, Any]:
    """Register all pairs of the scenes under a condition.

    Returns:
        ``RR``, the mean over the scenes; ``scenes``, that of each; ``sure`` and ``sure_right``, the pairs whose
        confidence is at least :data:`SURE` and how many of these are right; ``found``, all right ones; ``matches``
        and ``inlier_ratio``, means; ``truth_kept``, the recall of refinements that start at the true pose, mean over the
        scenes; ``cpu_ms``, medians of the CPU time: to describe a scan, to match and to estimate
        the pose of a pair; ``others``, the recall and time of the other solvers on the same matches.
    """
    watch = Stopwatch()
    scans: dict[Path, tuple[Scan, np.ndarray]] = {}

    def scan(scene: str, path: Path) -> tuple[Scan, np.ndarray]:
        if path not in scans:
            view, turn = condition.seen(
                open_view(path), fragment_seed(seed, scene, path, "condition")
            )
            options = {"scales": condition.scales, "seed": seed}
            scans[path] = watch("describe", describe_scan, view, extractor, **options), turn
        return scans[path]

    rows = []
    for scene, listed in pairs.items():
        for pair in listed:
            (source, turned), (target, target_turned) = (
                scan(scene, path) for path in (pair.source, pair.target)
            )
            matches = watch("match", mutual_matches, source, target)
            points, targets = source.keypoints, target.keypoints
            estimator = PoseEstimator(2 * source.voxel_size)
            estimate = watch(
                "pose", estimator,
                points, source.features, targets, target.features, matches,
            )  # fmt: skip
            # Both scans may have been turned; poses are judged in the frames of the files.
            truth = target_turned @ pair.transform @ turned.T
            poses = {
                "own": estimate.best,
                "truth": estimator.refined(truth, points, targets, matches),
            }
            poses |= {name: watch(name, f, source, target, matches) for name, f in others.items()}
            row: dict[str, Any] = {
                "scene": scene,
                "confidence": confidence(estimate),
                "matches": len(matches),
                "inlier_ratio": inlier_ratio(points, targets, matches, truth),
            }
            assert pair.information is not None
            for name, pose in poses.items():
                error = np.inf
                if pose is not None:
                    there = target_turned.T @ pose @ turned
                    error = transformation_error(there, pair.transform, pair.information)
                row[name] = error <= MAX_ERROR_M**2
            rows.append(row)

    def recall(name: str) -> dict[str, float]:
        return {
            scene: float(np.mean([row[name] for row in rows if row["scene"] == scene]))
            for scene in pairs
        }

    sure = [row["own"] for row in rows if row["confidence"] >= SURE]
    times = watch.medians()
    return {
        "RR": float(np.mean(list(recall("own").values()))),
        "scenes": recall("own"),
        "found": sum(row["own"] for row in rows),
        "sure": len(sure),
        "sure_right": sum(sure),
        "matches": round(float(np.mean([row["matches"] for row in rows]))),
        "inlier_ratio": float(np.mean([row["inlier_ratio"] for row in rows])),
        "truth_kept": float(np.mean(list(recall("truth").values()))),
        "cpu_ms": {name: times[name] for name in ("describe", "match", "pose")},
        "others": {
            name: {"RR": float(np.mean(list(recall(name).values()))), "cpu_ms": times[name]}
            for name in others
        },
    }


def measured_before(path: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The conditions that a file of numbers has; none if it is not there yet.

    Raises:
        InputError: no file was named, one that cannot be read, or one of other settings.
    """
    if path is None:
        raise InputError("--resume needs --json FILE: what was measured is there")
    if not os.path.lexists(path):
        return {}
    with opening(path):
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            conditions: dict[str, Any] = dict(found.pop("conditions", {}))
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path}: damaged, or no numbers of this measurement") from error
    if found != settings:
        raise InputError(f"{path}: was measured with other settings: {found}, not {settings}")
    return conditions


def main(argv: Sequence[str] | None = None) -> int:
    """Registration recall under each condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("root", help="3DMatch's test layout")
    add("--scenes", default="redkitchen,home_md", help="default: those that may be tuned on")
    add("--pairs", type=int, default=40, help="of each scene, evenly spaced (default: 40)")
    add("--conditions", help="names with semicolons; default: all")
    add("--checkpoint", default=CHECKPOINT)
    add("--seed", type=int, default=0)
    add("--json", metavar="FILE", help="write the numbers there, after each condition")
    add("--resume", action="store_true", help="go on with the conditions that FILE has")
    add("--result", metavar="NAME", help="write results/matching/NAME.json")
    args = parser.parse_args(argv)
    checked_seed(args.seed)
    chosen = args.conditions.split(";") if args.conditions else list(CONDITIONS)
    unknown = [name for name in chosen if name not in CONDITIONS]
    if unknown:
        raise InputError(f"--conditions: expected some of {'; '.join(CONDITIONS)}; got {unknown}")
    listed = test_pairs(args.root, args.scenes.split(","))
    pairs = {scene: spread_pairs(of_scene, args.pairs) for scene, of_scene in listed.items()}
    extractor = choose_extractor(args.checkpoint)
    others, absent = solvers()
    settings = {
        "checkpoint": args.checkpoint,
        "n_pairs": {scene: len(of_scene) for scene, of_scene in pairs.items()},
        "seed": args.seed,
        "absent": absent,
    }
    conditions = measured_before(args.json, settings) if args.resume else {}
    resumed = bool(conditions)
    for name in chosen:
        if name not in conditions:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InputWarning)  # of viewpoints, which are wrong here
                found = measure(pairs, CONDITIONS[name], extractor, others, args.seed)
            conditions[name] = found
            print(f"{name}: {json.dumps(found)}", flush=True)
        # After each condition, so that an interrupted run leaves what it has.
        numbers = {**settings, "conditions": conditions}
        if args.json:
            with opening(args.json), atomic_write(args.json) as temporary:
                temporary.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        if args.result:
            words = [
                "python",
                "-m",
                "sparsefeat.match.measure_registration",
                *(argv or sys.argv[1:]),
            ]
            spent = None if resumed else time.process_time()
            write_result("matching", args.result, numbers, words, [args.seed], cpu_seconds=spent)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
