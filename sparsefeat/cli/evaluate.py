"""Measure features: `matching` gives feature-match recall and inlier ratio on pairs of fragments."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsefeat.cli.frame import (
    add_feature_options,
    add_result_option,
    add_viewpoints_option,
    check_file,
    check_folder,
    open_viewpoints,
    prepare_result,
    publish,
)
from sparsefeat.errors import InputError, opening
from sparsefeat.io.damage import parsing
from sparsefeat.process.tool import ToolParser, run_tool

if TYPE_CHECKING:
    from sparsefeat.data.orientation import Viewpoints
    from sparsefeat.data.threedmatch import FragmentPair
    from sparsefeat.evaluate.journal import PairJournal
    from sparsefeat.evaluate.keypoints import Describe, Fragment
    from sparsefeat.evaluate.matching import MatchingResult
    from sparsefeat.evaluate.registration import Register

REGISTRATIONS = ("compatibility", "ransac")
COLUMNS = ("FMR", "IR", "FMR_mutual", "IR_mutual", "RR")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat evaluate``; returns the exit code."""
    args = parse(argv)
    goes_on = "; --resume goes on" if getattr(args, "json", None) else ""
    return run_tool(lambda: args.run(args), args, f"interrupted{goes_on}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat evaluate", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    add_matching(tasks, argv)
    return parser.parse_args(argv)


def add_matching(tasks: argparse._SubParsersAction[ToolParser], argv: Sequence[str] | None) -> None:
    """Add the task ``matching``."""
    parser = tasks.add_parser("matching", help="FMR, IR and RR on 3DMatch's test layout")
    parser.set_defaults(run=run_matching)
    add_feature_options(parser, "metres")
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="DIR",
        help="folder of <scene> and <scene>-evaluation folders",
    )
    lists = ("3DMatch", "3DLoMatch")
    add("--pairs", choices=lists, default=lists[0], help="overlap above 30 %%, or 10 to 30 %%")
    add(
        "--scenes",
        metavar="A,B",
        help="names, or parts of names that fit one scene each; default: all",
    )
    add(
        "--points",
        type=int,
        default=5000,
        metavar="N",
        help="key points a fragment (default: %(default)s)",
    )
    add(
        "--salient",
        action="store_true",
        help="prefer key points on curved surfaces; the protocol draws them evenly",
    )
    add(
        "--tau1",
        type=float,
        default=0.10,
        metavar="M",
        help="inlier distance, metres (default: %(default)s)",
    )
    add(
        "--tau2",
        type=float,
        default=0.05,
        metavar="R",
        help="least inlier ratio (default: %(default)s)",
    )
    add(
        "--rotate", action="store_true", help="turn every fragment by its own random rotation first"
    )
    add(
        "--dense",
        action="store_true",
        help="descriptors see all points of a fragment, not one per voxel",
    )
    add(
        "--registration",
        choices=REGISTRATIONS,
        nargs="?",
        const=REGISTRATIONS[0],
        help="registration recall too; ransac, to compare with, needs Open3D (default, if given: %(const)s)",
    )
    add_viewpoints_option(parser)
    add(
        "--orientation",
        choices=("given", "unknown", "wrong"),
        default="given",
        help="given: viewpoints of the fragments are used; unknown: the side is estimated; wrong: each viewpoint is "
        "moved by 3 m (default: %(default)s)",
    )
    add("--baselines", default="", metavar="A,B", help="on the same points: fpfh, random")
    add(
        "--max-pairs-per-scene",
        type=int,
        metavar="N",
        help="a random choice of this many; default: all",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of key points, rotations, choices (default: 0)",
    )
    add(
        "--json",
        metavar="FILE",
        help="write all numbers there; until then each pair is in FILE.part",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the pairs in FILE.part of an interrupted run",
    )
    add("--plots", metavar="DIR", help="write curves and pictures of matches there")
    add_result_option(parser, "matching", argv)


def run_matching(args: argparse.Namespace) -> int:
    """Measure the checkpoint and the baselines on the same key points."""
    # Imported here, so that --help answers at once.
    import torch

    from sparsefeat.data.threedmatch import test_pairs
    from sparsefeat.evaluate.descriptors import baseline_descriptor, checkpoint_descriptor
    from sparsefeat.evaluate.matching import evaluate_matching
    from sparsefeat.evaluate.pictures import plot_thresholds
    from sparsefeat.evaluate.registration import RansacRegister
    from sparsefeat.extract import check_options
    from sparsefeat.io.atomic import atomic_write
    from sparsefeat.models.blocks import checked_device
    from sparsefeat.process.progress import Progress

    # What can be wrong is found out before the hours of work, not after them.
    plots = prepare_outputs(args)
    check_options(args.interpolation, 1, None, args.views, args.scales)
    check_numbers(args)
    if is_complete(args):
        return 0
    viewpoints = open_viewpoints(args)
    checked_device(args.device or "cpu", torch.nn.Identity())
    pairs = test_pairs(args.data, split(args.scenes) or None, args.pairs)
    if viewpoints is not None:
        every = chain(*pairs.values())
        viewpoints.warn_of_unused({path for pair in every for path in (pair.source, pair.target)})
    pairs = choose_pairs(pairs, args.max_pairs_per_scene, args.seed)
    # A missing Open3D is said before the network is loaded.
    register: Register | None = RansacRegister() if args.registration == "ransac" else None
    extractor = checkpoint_descriptor(args.checkpoint, args.voxel_size, args.device)
    if args.registration == "compatibility":
        register = compatibility_register(extractor.voxel_size)
    learned = {"interpolation": args.interpolation, "views": args.views, "scales": args.scales}
    descriptors: dict[str, Describe] = {"checkpoint": partial(extractor, **learned)}
    for name in split(args.baselines):
        baseline = baseline_descriptor(name, extractor, extractor.voxel_size, args.seed)
        # Random weights are compared under the same views and scales; FPFH has neither.
        descriptors[name] = partial(baseline, **learned) if name == "random" else baseline

    results: dict[str, MatchingResult] = {}
    with contextlib.ExitStack() as stack:
        journal = (
            stack.enter_context(_journal(args, extractor.voxel_size))
            if args.json is not None
            else None
        )
        for name, described in descriptors.items():
            known = journal.known.get(name, {}) if journal else {}
            listed = [(pair.scene, pair.i, pair.j) for pair in chain(*pairs.values())]
            before = sum(pair in known for pair in listed)
            with Progress(name, len(listed), "pair", before) as progress:
                results[name] = evaluate_matching(
                    pairs,
                    described,
                    extractor.voxel_size,
                    args.points,
                    args.tau1,
                    args.tau2,
                    args.seed,
                    args.rotate,
                    progress=progress,
                    register=register,
                    device=args.device,
                    dense=args.dense,
                    known=known,
                    keep=partial(journal.keep, name) if journal else None,
                    viewpoints=viewpoints,
                    salient=args.salient,
                    orientation=args.orientation,
                )
            print(table(name, results[name]), flush=True)
        report = as_json(args, results)
        if journal:
            with opening(args.json), atomic_write(args.json) as temporary:
                temporary.write_text(
                    json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8"
                )
            journal.finish()
    for written in publish(args, report, [args.seed], args.resume):
        print(written)
    if plots:
        with opening(plots):
            plots.mkdir(parents=True, exist_ok=True)
        plot_thresholds(results, plots)
        draw_median_pairs(
            pairs,
            results["checkpoint"],
            descriptors["checkpoint"],
            extractor.voxel_size,
            args,
            plots,
            viewpoints,
        )
        print(f"pictures in {plots}")
    return 0


@contextlib.contextmanager
def _journal(args: argparse.Namespace, voxel_size: float) -> Iterator[PairJournal]:
    """The pairs of ``--json FILE`` so far; nobody else writes FILE meanwhile."""
    from sparsefeat.checkpoint import weights_digest
    from sparsefeat.evaluate.journal import DIGEST, PairJournal
    from sparsefeat.io.atomic import sweep
    from sparsefeat.io.lock import LOCK_NAME, locked

    path = Path(args.json)
    # What a pair's numbers depend on. Which pairs and baselines are wanted may change.
    names = (
        "data",
        "pairs",
        "points",
        "tau1",
        "tau2",
        "seed",
        "rotate",
        "views",
        "scales",
        "interpolation",
        "dense",
        "viewpoints",
        "salient",
    )
    settings = {name: getattr(args, name) for name in (*names, "registration")}
    # Earlier versions knew no other orientation and did not write it.
    settings["orientation"] = None if args.orientation == "given" else args.orientation
    if args.viewpoints is not None:
        with opening(args.viewpoints):
            listed = Path(args.viewpoints).read_bytes()
        settings[f"viewpoints{DIGEST}"] = hashlib.sha256(listed).hexdigest()
    settings |= {
        "checkpoint": args.checkpoint,
        "weights": weights_digest(args.checkpoint),
        "voxel_size": voxel_size,
    }
    part = path.with_name(f"{path.name}.part")
    with locked(path.with_name(f".{path.name}{LOCK_NAME}"), path):
        sweep(path.parent, deep=False, name=path.name)
        with PairJournal(part, settings, args.resume) as journal:
            yield journal


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers out of range, before anything is read."""
    for name, value, fits, expected in (
        ("points", args.points, args.points >= 1, "at least 1"),
        ("tau1", args.tau1, 0 < args.tau1 < math.inf, "a distance above 0, metres"),
        ("tau2", args.tau2, 0 <= args.tau2 < 1, "a share from 0 to below 1"),
        ("seed", args.seed, args.seed >= 0, "0 or more"),
    ):
        if not fits:
            raise InputError(f"--{name}: expected {expected}, got {value}")
    if args.orientation != "given" and args.viewpoints is not None:
        raise InputError(
            f"--orientation {args.orientation} beside --viewpoints, expected one of them"
        )
    if args.resume and args.json is None:
        raise InputError("--resume needs --json FILE: what was measured is in FILE.part")


def compatibility_register(voxel_size: float) -> Register:
    """Our own estimator, on mutual matches."""
    from sparsefeat.match.estimate import PoseEstimator

    estimator = PoseEstimator(2 * voxel_size)

    def register(
        source: Fragment,
        target: Fragment,
        matches: np.ndarray,
        mutual: np.ndarray | None,
        seed: Sequence[int],
    ) -> np.ndarray | None:
        return estimator(
            source.points, source.features, target.points, target.features, matches[mutual]
        ).best

    return register


def prepare_outputs(args: argparse.Namespace) -> Path | None:
    """Refuse outputs that could not be written; returns the folder of pictures."""
    prepare_result(args)
    check_file("--json", args.json, (args.viewpoints, args.checkpoint))
    if args.plots is None:
        return None
    check_folder("--plots", args.plots)
    return Path(args.plots)


def split(names: str | None) -> list[str]:
    """The names in a list with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip()))


def choose_pairs(
    pairs: dict[str, list[FragmentPair]], most: int | None, seed: int
) -> dict[str, list[FragmentPair]]:
    """A random choice of ``most`` pairs of each scene, in their order; None: all."""
    if most is None:
        return pairs
    if most < 1:
        raise InputError(f"--max-pairs-per-scene: expected at least 1, got {most}")
    chosen = {}
    for scene, listed in pairs.items():
        rows = np.random.default_rng(seed).permutation(len(listed))[:most]
        chosen[scene] = [listed[k] for k in sorted(rows)]
    return chosen


def table(name: str, result: MatchingResult) -> str:
    """Per scene and mean +- sd over scenes, in fixed columns."""
    columns = [c for c in COLUMNS if c != "RR" or result.RR is not None]
    width = max(len(scene) for scene in (*result.scenes, "mean over scenes"))
    lines = [f"\n{name:<{width}}  pairs" + "".join(f"{column:>17}" for column in columns)]
    for scene, row in result.per_scene().items():
        values = "".join(f"{'-' if row[c] is None else format(row[c], '.4f'):>17}" for c in columns)
        lines.append(f"{scene:<{width}}  {row['n_pairs']:5d}{values}")
    cells = [result.summary(column) for column in columns]
    values = "".join(f"{f'{cell.mean:.4f} ± {cell.sd:.4f}':>17}" for cell in cells if cell)
    lines.append(f"{'mean over scenes':<{width}}  {len(result.pairs):5d}{values}")
    return "\n".join(lines)


def as_json(args: argparse.Namespace, results: dict[str, MatchingResult]) -> dict[str, Any]:
    """All numbers and settings: the contract's form of matching results."""
    report: dict[str, Any] = {"pairs": args.pairs, **results["checkpoint"].to_json()}
    report["baselines"] = {k: v.to_json() for k, v in results.items() if k != "checkpoint"}
    report["settings"] |= _settings(args) | {"device": args.device or "cpu"}
    return report


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "checkpoint": str(args.checkpoint),
        "data": str(args.data),
        "scenes": split(args.scenes) or None,
        "max_pairs_per_scene": args.max_pairs_per_scene,
        "registration": args.registration,
        "views": args.views,
        "scales": args.scales,
        "interpolation": args.interpolation,
        "viewpoints": args.viewpoints,
    }


def is_complete(args: argparse.Namespace) -> bool:
    """Whether ``--resume`` finds its report finished, so that nothing is left to do.

    Raises:
        InputError: it is finished, with other settings.
    """
    if not args.resume or args.json is None:
        return False
    path = Path(args.json)
    if not path.exists() or path.with_name(f"{path.name}.part").exists():
        return False
    with opening(path), parsing(path, "a report of evaluate matching"):
        report = json.loads(path.read_text(encoding="utf-8"))
        found = report["settings"] | {"baselines": sorted(report["baselines"])}
    names = ("points", "tau1", "tau2", "seed", "rotate", "dense", "salient", "orientation")
    asked = _settings(args) | {name: getattr(args, name) for name in names}
    asked["baselines"] = sorted(split(args.baselines))
    for name, value in asked.items():
        # Reports of earlier versions do not have all of them.
        if name in found and found[name] != value:
            raise InputError(
                f"--resume: {path} is complete, with {name} {found[name]!r} in place of {value!r}; name another "
                "--json, or delete it"
            )
    print(f"{path} is complete")
    return True


def draw_median_pairs(
    pairs: dict[str, list[FragmentPair]],
    result: MatchingResult,
    describe: Describe,
    voxel_size: float,
    args: argparse.Namespace,
    folder: Path,
    viewpoints: Viewpoints | None = None,
) -> None:
    """The matches of each scene's pair of median inlier ratio: neither the best nor the worst."""
    from sparsefeat.evaluate.pictures import draw_pair

    for scene, listed in pairs.items():
        order = np.argsort([pair.nearest.ratio for pair in result.of_scene(scene)], kind="stable")
        pair = listed[int(order[len(order) // 2])]
        path = folder / f"matches_{scene}.png"
        draw_pair(
            pair,
            describe,
            voxel_size,
            path,
            args.points,
            args.tau1,
            args.seed,
            dense=args.dense,
            viewpoints=viewpoints,
            salient=args.salient,
            orientation=args.orientation,
            rotate=args.rotate,
        )
