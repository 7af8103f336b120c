"""Find where scans fit, or which vertex is which: `A B` gives the pose of A onto B, `DIR` the poses of all its scans,
`A B --shapes` a map between two shapes that deform."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparsefeat.cli.frame import StageBar, add_viewpoints_option, open_viewpoints
from sparsefeat.cli.view import add_html_option, check_page
from sparsefeat.errors import InputError
from sparsefeat.process.tool import DONE, ToolParser, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/match.py``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, "interrupted; what is complete stays")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat match", description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="two scans (ply pcd npz npy xyz txt off obj; of a mesh its vertices), one folder of scans, or with --shapes "
        "two meshes or clouds (ply off obj stl glb npz, and the kinds of scans)",
    )
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the results, made if it is absent",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--rigid", action="store_true", help="scans of one rigid scene (default)")
    kind.add_argument(
        "--shapes",
        action="store_true",
        help="whole shapes that deform: meshes, or clouds of all sides",
    )
    add(
        "--partial",
        action="store_true",
        help="--shapes: the smaller one is a part of the other, in the same unit",
    )
    add(
        "--transfer",
        metavar="FILE",
        help="--shapes: labels of the vertices of B, one per line, npy or npz, carried over to A",
    )
    add(
        "--up",
        choices=("x", "y", "z", "-x", "-y", "-z"),
        help="--shapes: axis that is up in the picture (default: z)",
    )
    add_html_option(parser)
    add(
        "--checkpoint",
        metavar="NAME",
        help="path, sparsefeat/NAME, or hub id; default: sparsefeat/rooms-5cm-oriented-v2; shapes: "
        "sparsefeat/creatures-oriented-v5",
    )
    add(
        "--scales",
        type=float,
        nargs="+",
        metavar="S",
        help="multiples of the voxel size, joined (default: 1; shapes: 0.57 1 1.71; parts: 0.57 1)",
    )
    add(
        "--points",
        type=int,
        metavar="N",
        help="scans only: key points of each (default: 5000)",
    )
    add(
        "--viewpoint",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="scans only: where the sensor stood, in the frame of every file; default: what a file says, or estimated",
    )
    add_viewpoints_option(parser)
    add(
        "--min-confidence",
        type=float,
        metavar="P",
        help="scans only: a less credible pose is not reported (default: 0.5)",
    )
    add(
        "--unit",
        metavar="U",
        help="scans only: unit of the points, m, cm, mm, in or ft; default: the checkpoint's",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="scans only: of the choice of key points (default: 0)",
    )
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps; default: cpu")
    return parser.parse_args(argv)


# What each kind of match leaves in the output folder.
_RESULTS = {
    "pair": ("matches.npz", "matches.png", "match.json", "transform.txt", "aligned.ply"),
    "folder": ("est.log", "poses.log", "merged.ply", "match.json"),
    "shapes": ("map.npz", "map.png", "match.json", "carried.ply", "carried_labels.txt"),
}
_ALL_RESULTS = {name for names in _RESULTS.values() for name in names}


def run(args: argparse.Namespace) -> int:
    """Match two scans, all scans of a folder, or two shapes."""
    check_page(args.html)
    _keep_inputs(args)
    kind = _checked_kind(args)
    # Imported here and below, so that --help answers at once.
    from sparsefeat.io.lock import output_folder

    with output_folder(args.output):
        output = Path(args.output)
        theirs = sorted(name for name in _ALL_RESULTS if (output / name).exists())
        if theirs and "match.json" not in theirs:  # every match leaves one
            raise InputError(
                f"{output / theirs[0]}: is no result and would be overwritten, choose another --output"
            )
        {"pair": run_pair, "folder": run_folder, "shapes": run_shapes}[kind](args)
        # What a run of another kind found is not this run's answer.
        for name in _ALL_RESULTS.difference(_RESULTS[kind]):
            (output / name).unlink(missing_ok=True)
    return DONE


def _keep_inputs(args: argparse.Namespace) -> None:
    """Refuse an output whose files would replace what is read, or be read by the next run."""
    output = Path(args.output).resolve()
    for given in [*args.inputs, *([args.transfer] if args.transfer else [])]:
        path = Path(given).resolve()
        if path == output or (path.parent == output and path.name in _ALL_RESULTS):
            raise InputError(f"--output {args.output}: its files would replace or join {given}")


def _checked_kind(args: argparse.Namespace) -> str:
    """The key of ``_RESULTS``; refuses options of another kind, and fills in the defaults of this one."""
    count = len(args.inputs)
    if args.shapes:
        if count != 2:
            raise InputError(f"match --shapes: {count} inputs, expected two shapes")
        for name in ("viewpoint", "viewpoints", "unit", "points", "seed", "min_confidence"):
            if getattr(args, name) is not None:
                hint = "; maps need no unit" if name == "unit" and not args.partial else ""
                raise InputError(
                    f"--{name.replace('_', '-')}: for scans alone, not with --shapes{hint}"
                )
        args.up = args.up or "z"
        return "shapes"
    for name in ("transfer", "partial", "up"):
        if getattr(args, name):
            raise InputError(f"--{name}: for --shapes alone")
    for name, default in (("points", 5000), ("seed", 0), ("min_confidence", 0.5)):
        if getattr(args, name) is None:
            setattr(args, name, default)
    if not 0 <= args.min_confidence <= 1:
        raise InputError(f"--min-confidence {args.min_confidence:g}, expected 0 to 1")
    args.scales = args.scales or [1.0]
    if count == 1 and Path(args.inputs[0]).is_dir():
        return "folder"
    if count != 2:
        raise InputError(f"match: {count} inputs, expected two scans or one folder of scans")
    return "pair"


def _is_mesh(path: str) -> bool:
    """Whether a file that was read as points has faces, malformed ones too."""
    from sparsefeat.io.meshes import has_faces

    try:
        return has_faces(path)
    except InputError:
        return True


def run_pair(args: argparse.Namespace) -> None:
    """The pose of the first scan on the second."""
    from sparsefeat.match.files import pair_name, write_pair
    from sparsefeat.match.register import register_scans
    from sparsefeat.match.scans import choose_extractor, describe_scan, open_view

    viewpoints = open_viewpoints(args)
    if viewpoints is not None:
        viewpoints.warn_of_unused(args.inputs)
    views = [
        open_view(path, viewpoint=args.viewpoint, viewpoints=viewpoints) for path in args.inputs
    ]
    extractor = choose_extractor(args.checkpoint, args.device, args.unit)
    source, target = (
        describe_scan(view, extractor, args.scales, args.points, args.seed) for view in views
    )
    result = register_scans(source, target, min_confidence=args.min_confidence)
    write_pair(result, source, target, Path(args.output))
    if args.html:
        import numpy as np

        from sparsefeat.visualize.viewer import view

        view(
            [source.points, target.points],
            html=args.html,
            names=[Path(scan.name).name for scan in (source, target)],
            matches=result.matches,
            correct=None if result.transform is None else result.inliers,
            transforms=None if result.transform is None else [result.transform, np.eye(4)],
            unit=args.unit or "",
        )
    names = pair_name(source, target)
    if result.transform is None:
        both = all(_is_mesh(path) for path in args.inputs)
        meshes = " Both have faces: --shapes maps shapes that deform." if both else ""
        print(
            f"{names}: no credible pose, confidence {result.confidence:.2f}; do the scans overlap?{meshes}"
        )
    else:
        agree = f"{result.inliers.sum()} of {len(result.matches)} matches agree"
        print(f"{names}: confidence {result.confidence:.2f}, {agree}")
        print("\n".join(" ".join(f"{value:10.6f}" for value in row) for row in result.transform))
    print(f"written to {args.output}")


def run_shapes(args: argparse.Namespace) -> None:
    """A map from the first shape to the second, and what it carries over."""
    from sparsefeat.cli.view import read_labels
    from sparsefeat.extract import check_options
    from sparsefeat.extract.descriptors import as_shape
    from sparsefeat.match.correspond import correspond_shapes, describe_pair
    from sparsefeat.match.shape_files import place_colors, write_map
    from sparsefeat.match.shapes import shape_extractor
    from sparsefeat.visualize.viewer import view

    if args.scales is not None:
        check_options("nearest", 1, None, scales=args.scales)
    labels = None if args.transfer is None else read_labels(args.transfer)
    if labels is not None:
        count = len(as_shape(args.inputs[1])[0])
        if len(labels) != count:
            raise InputError(
                f"{args.transfer}: {len(labels)} labels for {count} vertices of {args.inputs[1]}"
            )
    extractor = shape_extractor(args.checkpoint, args.device)
    a, b = describe_pair(
        args.inputs[0],
        args.inputs[1],
        extractor,
        partial=args.partial,
        scales=args.scales,
    )
    result = correspond_shapes(a, b, partial=args.partial)
    write_map(result, a, b, Path(args.output), labels, args.up)
    if args.html:
        shown = [s.vertices if s.faces is None else (s.vertices, s.faces) for s in (a, b)]
        view(
            shown,
            [None, place_colors(b.vertices)],
            html=args.html,
            names=[Path(path).name for path in args.inputs],
            labels=None if labels is None else [result.carry(labels), labels],
            values={"confidence": [result.confidence, result.back_confidence]},
            maps=result.vertices,
            up=args.up,
        )
    best, sure = result.hypotheses[0], result.confidence
    print(
        f"{Path(a.name).name} to {Path(b.name).name}: mean confidence {sure.mean():.2f}, "
        f"{(sure > 0.5).mean():.0%} of the vertices above 0.5"
    )
    print(f"orientation kept at {best.orientation:.2f} (1: everywhere); written to {args.output}")


def run_folder(args: argparse.Namespace) -> None:
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
            unit=args.unit,
            progress=bar,
        )
    members = write_folder(result, Path(args.output))
    if args.html:
        from sparsefeat.visualize.viewer import view

        view(
            [result.scans[k].points for k in members],
            html=args.html,
            names=[Path(result.files[k]).name for k in members],
            transforms=[result.graph.poses[k] for k in members],
            unit=args.unit or "",
        )
    kept = int(result.graph.kept.sum())
    print(
        f"{len(result.edges)} of {len(result.pairs)} pairs have a credible pose, "
        f"{kept} of these agree with the others"
    )
    print(f"{len(members)} of {len(result.files)} scans are in one frame; written to {args.output}")
