"""Write the voxels that meshes touch (npz) and one picture of them (png)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparsefeat.cli.frame import StageBar
from sparsefeat.cli.view import add_html_option, check_page
from sparsefeat.errors import opening
from sparsefeat.process.tool import DONE, WRONG_INPUT, ToolParser, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat voxelize``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, "interrupted; what is complete stays")


def run(args: argparse.Namespace) -> int:
    """Voxelise; 2 if an input failed."""
    check_page(args.html)
    # Imported here, so that --help answers at once.
    from sparsefeat.extract.files import failed_line
    from sparsefeat.extract.voxelize_files import voxelize_files

    with StageBar(unit="file") as bar:
        result = voxelize_files(
            args.inputs,
            args.output,
            args.voxel_size,
            args.resolution,
            attributes=[name for name in args.attributes.split(",") if name],
            device=args.device,
            image=args.image,
            up=args.up,
            report=bar.report,
            progress=bar,
        )
    total = len(result.written) + len(result.failed)
    voxels = sum(result.voxels.values())
    if args.html and result.written:
        show(list(result.written.values()), args.html, args.up)
    print(f"{len(result.written)} of {total} inputs, {voxels} voxels, written to {args.output}")
    if not result.failed:
        return DONE
    print(failed_line(result.failed, total))
    return WRONG_INPUT


def show(files: Sequence[Path], html: str, up: str) -> None:
    """Write a page with the middles of the voxels of files that this tool wrote."""
    import numpy as np

    from sparsefeat.io.arrays import Npz
    from sparsefeat.visualize.viewer import view

    middles = []
    for path in files:
        with opening(path), Npz(path) as archive:
            middles.append((archive["coordinates"] + 0.5) * np.asarray(archive["voxel_size"]))
    view(middles, html=html, names=[path.stem for path in files], up=up)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat voxelize", description=__doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="ply off obj stl glb npz, or folders of them")
    add("--output", required=True, metavar="DIR", help="folder for the results")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--voxel-size", type=float, metavar="S", help="edge of a voxel in the unit of the meshes"
    )
    size.add_argument(
        "--resolution", type=int, metavar="R", help="voxels along the longest side of each mesh"
    )
    add("--device", metavar="D", help="cpu, cuda, cuda:1; default: cpu")
    add(
        "--attributes",
        default="",
        metavar="A,A",
        help="what to write beside the coordinates: some of area,normal,triangle",
    )
    add(
        "--up",
        choices=("x", "y", "z", "-x", "-y", "-z"),
        default="y",
        help="axis that is up in the picture (default: y)",
    )
    add(
        "--image",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw voxels.png (default)",
    )
    add_html_option(parser)
    return parser.parse_args(argv)  # fmt: skip
