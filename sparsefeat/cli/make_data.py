"""Make data: `rooms` and `creatures` from a seed, `fuse` from a recorded RGB-D sequence."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from sparsefeat.errors import InputError
from sparsefeat.process.tool import ToolParser, run_tool

FAMILIES = ("humanoid", "quadruped", "hand")
KINDS = (*FAMILIES, "figure", "beast", "monster", "molecule")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat make-data``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, f"interrupted; {args.left}")


def run(args: argparse.Namespace) -> int:
    """Make what was asked for."""
    # Imported here and below, so that --help answers at once.
    from sparsefeat.process.progress import Progress

    with Progress(args.task, unit=args.unit) as progress:
        args.make(args, progress)
    print(f"written to {args.output}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat make-data", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    every = ToolParser(add_help=False)
    add = every.add_argument
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the data, made if it is not there",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of everything that is random; fuse draws nothing (default: %(default)s)",
    )
    add("--workers", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    common = ToolParser(add_help=False, parents=[every])
    common.set_defaults(unit="fragment", left="the scenes that are complete stay")
    add = common.add_argument
    add(
        "--layout",
        choices=("train", "test", "both"),
        default="both",
        help="3DMatch's training layout, its test layout, or both",
    )
    add(
        "--frames",
        type=int,
        default=50,
        metavar="N",
        help="depth frames in a fragment (default: %(default)s)",
    )
    add(
        "--voxel-size",
        type=float,
        default=0.01,
        metavar="S",
        help="edge of the fusion's voxels, metres (default: %(default)s)",
    )
    add(
        "--spacing",
        type=float,
        default=0.025,
        metavar="S",
        help="keep one point per cell of this edge, metres; 0 keeps all (default: %(default)s)",
    )

    rooms = tasks.add_parser(
        "rooms", parents=[common], help="furnished rooms, scanned by a simulated depth camera"
    )
    rooms.set_defaults(make=write_rooms)
    rooms.add_argument(
        "--rooms", type=int, default=4, metavar="N", help="number of rooms (default: %(default)s)"
    )
    rooms.add_argument(
        "--fragments",
        type=int,
        default=8,
        metavar="N",
        help="fragments per room (default: %(default)s)",
    )

    creatures = tasks.add_parser(
        "creatures",
        parents=[every],
        help="people, animals and hands with parts and correspondence, for load_dataset('folder', DIR)",
    )
    creatures.set_defaults(make=write_creatures, unit="shape", left="nothing was written")
    add = creatures.add_argument
    add(
        "--count",
        type=int,
        default=12,
        metavar="N",
        help="shapes of each class (default: %(default)s)",
    )
    add(
        "--poses",
        type=int,
        default=4,
        metavar="N",
        help="poses of each individual (default: %(default)s)",
    )
    add(
        "--families",
        nargs="+",
        choices=KINDS,
        default=FAMILIES,
        metavar="NAME",
        help=f"some of {', '.join(KINDS)} (default: {', '.join(FAMILIES)})",
    )
    add(
        "--vertices",
        type=int,
        default=5000,
        metavar="N",
        help="vertices of a shape, about (default: %(default)s)",
    )
    add(
        "--landmarks",
        type=int,
        default=3000,
        metavar="N",
        help="points per family with known correspondence, about (default: %(default)s)",
    )
    add(
        "--triangulations",
        type=int,
        metavar="N",
        help="shapes of a family share N triangulations, which is about three times faster; default: each shape "
        "has its own",
    )

    fuse = tasks.add_parser("fuse", parents=[common], help="a folder of depth pictures with poses")
    fuse.set_defaults(make=write_fragments)
    add = fuse.add_argument
    add(
        "folder",
        metavar="FOLDER",
        help="frame-<k>.depth.png and .pose.txt, or depth/<k>.png and trajectory.log",
    )
    add("--scene", metavar="NAME", help="name of the scene (default: the folder's)")
    add(
        "--intrinsics",
        metavar="FILE|FX,FY,CX,CY",
        help="default: FOLDER/camera-intrinsics.txt, or one level above",
    )
    add(
        "--depth-scale",
        type=float,
        default=1000.0,
        metavar="N",
        help="units per metre (default: %(default)s)",
    )
    add(
        "--whole",
        action="store_true",
        help="bare surface of all that was measured, not 3DMatch's 3 m volume",
    )
    return parser.parse_args(argv)


def write_rooms(args: argparse.Namespace, progress: Callable[[int, int], None]) -> None:
    from sparsefeat.synthetic.rooms import make_rooms

    make_rooms(
        args.output,
        args.seed,
        rooms=args.rooms,
        fragments_per_room=args.fragments,
        layout=args.layout,
        workers=args.workers,
        progress=progress,
        frames=args.frames,
        voxel_size=args.voxel_size,
        spacing=args.spacing,
    )


def write_creatures(args: argparse.Namespace, progress: Callable[[int, int], None]) -> None:
    from sparsefeat.synthetic.creatures import make_creatures

    make_creatures(
        args.output,
        args.seed,
        count=args.count,
        poses=args.poses,
        families=args.families,
        vertices=args.vertices,
        landmark_count=args.landmarks,
        triangulations=args.triangulations,
        workers=args.workers,
        progress=progress,
    )


def write_fragments(args: argparse.Namespace, progress: Callable[[int, int], None]) -> None:
    from sparsefeat.data.rgbd import fuse_rgbd

    fuse_rgbd(
        args.folder,
        args.output,
        frames=args.frames,
        layout=args.layout,
        scene=args.scene,
        intrinsics=_intrinsics(args.intrinsics),
        depth_scale=args.depth_scale,
        voxel_size=args.voxel_size,
        spacing=args.spacing,
        like_3dmatch=not args.whole,
        workers=args.workers,
        progress=progress,
    )


def _intrinsics(text: str | None) -> str | list[float] | None:
    """Four numbers as numbers, anything else as a path."""
    if text is None or text.count(",") != 3:
        return text
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--intrinsics: got {text!r}, expected four numbers FX,FY,CX,CY or a file"
        ) from error
