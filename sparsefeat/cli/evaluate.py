"""Measure features: `matching` gives feature-match recall and inlier ratio on pairs of fragments."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsefeat.cli.evaluate_report import (
    as_json,
    is_complete,
    open_journal,
    pair_settings,
    split,
    table,
)
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
from sparsefeat.process.tool import ToolParser, run_tool

if TYPE_CHECKING:
    from sparsefeat.data.orientation import Viewpoints
    from sparsefeat.data.threedmatch import FragmentPair
    from sparsefeat.evaluate.keypoints import Describe, Fragment
    from sparsefeat.evaluate.matching import MatchingResult
    from sparsefeat.evaluate.registration import Register

REGISTRATIONS = ("compatibility", "ransac")


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
    settings = pair_settings(args, extractor.voxel_size)
    if args.resume and is_complete(args, settings):
        print(f"{args.json} is complete")
        return 0
    learned = {"interpolation": args.interpolation, "views": args.views, "scales": args.scales}
    descriptors: dict[str, Describe] = {"checkpoint": partial(extractor, **learned)}
    for name in split(args.baselines):
        baseline = baseline_descriptor(name, extractor, extractor.voxel_size, args.seed)
        # Random weights are compared under the same views and scales; FPFH has neither.
        descriptors[name] = partial(baseline, **learned) if name == "random" else baseline

    results: dict[str, MatchingResult] = {}
    with contextlib.ExitStack() as stack:
        journal = (
            stack.enter_context(open_journal(args, settings)) if args.json is not None else None
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
        report = as_json(args, settings, results)
        if journal:
            with opening(args.json), atomic_write(args.json) as temporary:
                temporary.write_text(
                    json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8"
                )
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
        if journal:  # not before: what was cut off here goes on without measuring again
            journal.finish()
    return 0


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
