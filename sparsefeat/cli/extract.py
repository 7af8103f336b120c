"""Write the features of point clouds: numbers (npz), colours (ply) and one picture (png)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparsefeat.cli.frame import (
    StageBar,
    add_feature_options,
    add_viewpoints_option,
    open_viewpoints,
)
from sparsefeat.cli.view import add_html_option, check_page
from sparsefeat.process.tool import DONE, WRONG_INPUT, ToolParser, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat extract``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, "interrupted; what is complete stays")


def run(args: argparse.Namespace) -> int:
    """Extract; 2 if an input failed."""
    check_page(args.html)
    # Imported here, so that --help answers at once.
    from sparsefeat.extract import FeatureExtractor
    from sparsefeat.extract.files import extract_files, failed_line, find_inputs

    viewpoints = open_viewpoints(args)
    if viewpoints is not None:
        viewpoints.warn_of_unused(find_inputs(args.inputs, Path(args.output), lambda *_: None))

    # A tile is a fraction of its file.
    with StageBar(
        unit="file", bar_format="{l_bar}{bar}| {n:.4g}/{total} [{elapsed}<{remaining}] {postfix}"
    ) as bar:
        result = extract_files(
            FeatureExtractor.from_pretrained(
                args.checkpoint, args.voxel_size, args.device, args.unit
            ),
            args.inputs,
            args.output,
            checkpoint=args.checkpoint,
            interpolation=args.interpolation,
            views=args.views,
            scales=args.scales,
            viewpoint=args.viewpoint,
            viewpoints=viewpoints,
            closed=args.closed,
            max_voxels=args.max_voxels,
            halo=args.halo,
            drop_invalid=args.drop_invalid,
            image=args.image,
            report=bar.report,
            progress=bar,
        )
    total = len(result.written) + len(set(result.failed) - set(result.written))
    print(f"{len(result.written)} of {total} inputs written to {args.output}")
    if args.html and result.written:
        from sparsefeat.visualize.viewer import view

        view(list(result.written.values()), html=args.html, unit=args.unit or "")
    if not result.failed:
        return DONE
    print(failed_line(result.failed, total))
    return WRONG_INPUT


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat extract", description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="ply pcd npz npy xyz txt off obj, or folders of them; of a mesh its vertices",
    )
    add_feature_options(parser, "in the unit of the points")
    add("--unit", metavar="U", help="of the points: m, cm, mm, in or ft; default: the checkpoint's")
    add("--output", required=True, metavar="DIR", help="folder for the results")
    add(
        "--viewpoint",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="where the sensor stood, for oriented networks; default: what a file says, or estimated from the cloud",
    )
    add_viewpoints_option(parser)
    add(
        "--closed",
        action="store_true",
        help="the clouds cover shapes from all sides and are no scans: an estimated outer side is around them",
    )
    add(
        "--max-voxels",
        type=int,
        default=300_000,
        metavar="V",
        help="most voxels that run at once, which bounds the memory; larger clouds run in overlapping tiles "
        "(default: %(default)s)",
    )
    add(
        "--halo",
        type=int,
        metavar="H",
        help="overlap of the tiles in voxels; default: as far as the network looks, which is exact",
    )
    add("--drop-invalid", action="store_true", help="leave out points with NaN coordinates")
    add(
        "--image",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw features.png (default)",
    )
    add_html_option(parser)
    return parser.parse_args(argv)  # fmt: skip
