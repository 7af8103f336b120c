"""Find where scans fit: `A B` gives the pose of A onto B, `DIR` the poses of all its scans."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparsefeat.cli.frame import (
    StageBar,
    ToolParser,
    add_viewpoints_option,
    open_viewpoints,
    run_tool,
)
from sparsefeat.errors import InputError, opening


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/match.py``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, "interrupted; nothing was written")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat match", description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="two scans (ply pcd npz npy xyz txt off obj pth), or one folder of scans",
    )
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the results, made if it is absent",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--rigid", action="store_true", help="scans of one rigid scene (default)")
    kind.add_argument("--shapes", action="store_true", help="shapes that deform: not available yet")
    add(
        "--checkpoint",
        metavar="NAME",
        help="path, sparsefeat/NAME, or hub id; default: sparsefeat/rooms-5cm-oriented-v1",
    )
    add(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="multiples of the voxel size, joined",
    )
    add(
        "--points",
        type=int,
        default=5000,
        metavar="N",
        help="key points a scan (default: %(default)s)",
    )
    add(
        "--viewpoint",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="where the sensor stood, in the frame of every file; default: what a file says, or estimated",
    )
    add_viewpoints_option(parser)
    add(
        "--min-confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="a less credible pose is not reported (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the choice of key points (default: 0)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps; default: cpu")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Match two scans, or all scans of a folder."""
    if args.shapes:
        raise InputError(
            "--shapes: matching of deformable shapes is not available yet; --rigid matches scans"
        )
    folder = len(args.inputs) == 1 and Path(args.inputs[0]).is_dir()
    if not folder and len(args.inputs) != 2:
        raise InputError(
            f"match: {len(args.inputs)} inputs, expected two scans or one folder of scans"
        )
    with opening(args.output):
        Path(args.output).mkdir(parents=True, exist_ok=True)
    return run_folder(args) if folder else run_pair(args)


def run_pair(args: argparse.Namespace) -> int:
    """The pose of the first scan on the second."""
    # Imported here and below, so that --help answers at once.
    from sparsefeat.match.files import pair_name, write_pair
    from sparsefeat.match.register import register_scans
    from sparsefeat.match.scans import choose_extractor, describe_scan, open_view

    viewpoints = open_viewpoints(args)
    views = [
        open_view(path, viewpoint=args.viewpoint, viewpoints=viewpoints) for path in args.inputs
    ]
    extractor = choose_extractor(args.checkpoint, args.device)
    source, target = (
        describe_scan(view, extractor, args.scales, args.points, args.seed) for view in views
    )
    result = register_scans(source, target, min_confidence=args.min_confidence)
    write_pair(result, source, target, Path(args.output))
    names = pair_name(source, target)
    if result.transform is None:
        print(
            f"{names}: no credible pose, confidence {result.confidence:.2f}; do the scans overlap?"
        )
    else:
        agree = f"{result.inliers.sum()} of {len(result.matches)} matches agree"
        print(f"{names}: confidence {result.confidence:.2f}, {agree}")
        print("\n".join(" ".join(f"{value:10.6f}" for value in row) for row in result.transform))
    print(f"written to {args.output}")
    return 0


def run_folder(args: argparse.Namespace) -> int:
    """The poses of all scans of a folder."""
    from sparsefeat.match.files import write_folder
    from sparsefeat.match.folder import match_folder

    with StageBar() as bar:
        result = match_folder(
            args.inputs[0],
            args.checkpoint,
            viewpoint=args.viewpoint,
            viewpoints=open_viewpoints(args),
            scales=args.scales,
            points=args.points,
            min_confidence=args.min_confidence,
            device=args.device,
            seed=args.seed,
            progress=bar,
        )
    members = write_folder(result, Path(args.output))
    kept = int(result.graph.kept.sum())
    print(
        f"{len(result.edges)} of {len(result.pairs)} pairs have a credible pose, "
        f"{kept} of these agree with the others"
    )
    print(f"{len(members)} of {len(result.files)} scans are in one frame; written to {args.output}")
    return 0
