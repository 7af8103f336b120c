#!/usr/bin/env python3
"""Write the features of point clouds: numbers (npz), colours (ply) and one picture (png)."""

from __future__ import annotations

import argparse
import sys

from sparsefeat.cli.frame import StageBar, run_tool
from sparsefeat.extract import DEFAULT_MAX_VOXELS, INTERPOLATIONS, FeatureExtractor
from sparsefeat.extract.files import extract_files


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return run_tool(lambda: run(args), args.output, "interrupted; what is complete stays")


def run(args: argparse.Namespace) -> int:
    # A tile is a fraction of its file.
    with StageBar(bar_format="{l_bar}{bar}| {n:.4g}/{total} [{elapsed}<{remaining}] {postfix}") as bar:
        result = extract_files(
            FeatureExtractor.from_pretrained(args.checkpoint, args.voxel_size, args.device),
            args.inputs,
            args.output,
            checkpoint=args.checkpoint,
            interpolation=args.interpolation,
            views=args.views,
            scales=args.scales,
            viewpoint=args.viewpoint,
            max_voxels=args.max_voxels,
            halo=args.halo,
            drop_invalid=args.drop_invalid,
            image=args.image,
            report=bar.report,
            progress=bar,
        )
    total = len(result.written) + len(set(result.failed) - set(result.written))
    print(f"{len(result.written)} of {total} inputs written to {args.output}")
    return 2 if result.failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="ply pcd npz npy xyz txt off obj, or folders of them"
    )
    parser.add_argument("--checkpoint", required=True, help="path, sparsefeat/NAME, or hub id")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--voxel-size", type=float, metavar="S", help="in the unit of the points; default: the checkpoint's"
    )
    parser.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        default="nearest",
        help="how points take features from voxels (default: nearest)",
    )
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="poses to average over (default: %(default)s)"
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="multiples of the voxel size, features side by side (default: 1)",
    )
    parser.add_argument(
        "--viewpoint",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="where the sensor stood, for networks that know sides; default: what a file says, or nowhere",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: cpu")
    parser.add_argument(
        "--max-voxels",
        type=int,
        default=DEFAULT_MAX_VOXELS,
        metavar="V",
        help="larger clouds run in overlapping tiles of this many voxels (default: %(default)s)",
    )
    parser.add_argument(
        "--halo",
        type=int,
        metavar="H",
        help="overlap of the tiles in voxels; default: as far as the network looks, which is exact",
    )
    parser.add_argument("--drop-invalid", action="store_true", help="leave out points with NaN coordinates")
    parser.add_argument(
        "--image", action=argparse.BooleanOptionalAction, default=True, help="draw features.png (default)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
