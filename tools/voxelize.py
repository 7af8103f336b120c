#!/usr/bin/env python3
"""Write the voxels that meshes touch (npz) and one picture of them (png)."""

from __future__ import annotations

import argparse
import sys

from sparsefeat.cli.frame import StageBar, run_tool
from sparsefeat.extract.voxelize_files import ATTRIBUTES, UP_AXES, voxelize_files
from sparsefeat.io.meshes import MESH_SUFFIXES


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return run_tool(lambda: run(args), args.output, "interrupted; what is complete stays")


def run(args: argparse.Namespace) -> int:
    with StageBar() as bar:
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
    print(f"{len(result.written)} of {total} inputs, {voxels} voxels, written to {args.output}")
    return 2 if result.failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = " ".join(suffix[1:] for suffix in MESH_SUFFIXES)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=f"{kinds}, or folders of them")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--voxel-size", type=float, metavar="S", help="in the unit of the meshes")
    size.add_argument(
        "--resolution", type=int, metavar="R", help="voxels along the longest side of each mesh"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: cpu")
    parser.add_argument(
        "--attributes",
        default="",
        metavar="A,A",
        help=f"what to write of each voxel besides its place: some of {','.join(ATTRIBUTES)}",
    )
    parser.add_argument(
        "--up", default="y", help=f"axis that is up in the picture: {' '.join(UP_AXES)} (default: y)"
    )
    parser.add_argument(
        "--image", action=argparse.BooleanOptionalAction, default=True, help="draw voxels.png (default)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
