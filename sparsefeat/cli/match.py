"""Find where scans fit: `A B` gives the pose of A onto B, `DIR` the poses of all its scans."""

from __future__ import annotations

import argparse
import colorsys
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsefeat.cli.frame import StageBar, ToolParser, run_tool
from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.gtlog import write_log
from sparsefeat.io.pointcloud import write_ply
from sparsefeat.match.folder import FolderMatches, match_folder
from sparsefeat.match.register import Registration, register_scans
from sparsefeat.match.scans import Scan, choose_extractor, describe_scan, open_view
from sparsefeat.visualize import draw_matches


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/match.py``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, "interrupted; nothing was written")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
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
        help="path, sparsefeat/NAME, or hub id; default: by whether viewpoints are known",
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
        help="where the sensor stood, in the frame of every file; default: what a file says",
    )
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
    views = [open_view(path, viewpoint=args.viewpoint) for path in args.inputs]
    extractor = choose_extractor(args.checkpoint, views, args.device)
    source, target = (
        describe_scan(view, extractor, args.scales, args.points, args.seed) for view in views
    )
    result = register_scans(source, target, min_confidence=args.min_confidence)
    write_pair(result, source, target, Path(args.output))
    names = pair_name(source, target)
    if not result.found:
        print(
            f"{names}: no credible pose, confidence {result.confidence:.2f}; do the scans overlap?"
        )
    else:
        agree = f"{result.inliers.sum()} of {len(result.matches)} matches agree"
        print(f"{names}: confidence {result.confidence:.2f}, {agree}")
        print("\n".join(" ".join(f"{value:10.6f}" for value in row) for row in result.transform))
    print(f"written to {args.output}")
    return 0


def pair_name(source: Scan, target: Scan) -> str:
    return f"{Path(source.name).name} onto {Path(target.name).name}"


def write_pair(result: Registration, source: Scan, target: Scan, output: Path) -> None:
    """matches.npz, matches.png, match.json; of a credible pose transform.txt and aligned.ply."""
    with atomic_write(output / "matches.npz") as temporary:
        np.savez(temporary, matches=result.matches, inliers=result.inliers)
    draw_matches(
        source.points,
        target.points,
        result.matches,
        result.inliers,
        output / "matches.png",
        title=f"{pair_name(source, target)}, confidence {result.confidence:.2f}",
        verdict="agree with the pose",
    )
    write_json(
        output / "match.json",
        {
            "source": source.name,
            "target": target.name,
            "found": result.found,
            "confidence": result.confidence,
            "transform": result.transform.tolist() if result.found else None,
            "matches": len(result.matches),
            "inliers": int(result.inliers.sum()),
            "hypotheses": [
                {"score": float(score), "transform": transform.tolist()}
                for score, transform in zip(
                    result.hypotheses.scores, result.hypotheses.transforms, strict=True
                )
            ],
        },
    )
    if not result.found:
        # What an earlier run found is not this run's answer.
        for name in ("transform.txt", "aligned.ply"):
            (output / name).unlink(missing_ok=True)
        return
    with atomic_write(output / "transform.txt") as temporary:
        np.savetxt(temporary, result.transform, fmt="% .16e")
    write_merged(output / "aligned.ply", [source, target], [result.transform, np.eye(4)])


def run_folder(args: argparse.Namespace) -> int:
    with StageBar() as bar:
        result = match_folder(
            args.inputs[0],
            args.checkpoint,
            viewpoint=args.viewpoint,
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


def write_folder(result: FolderMatches, output: Path) -> np.ndarray:
    """est.log (pairs that agree), poses.log (every scan), merged.ply and match.json.

    merged.ply holds the largest component only: poses of different components do not compare.
    Returns its scans' indices.
    """
    count, graph = len(result.files), result.graph
    pairs = [(edge.i, edge.j) for edge, kept in zip(result.edges, graph.kept, strict=True) if kept]
    write_log(output / "est.log", [(i, j, count, graph.between(i, j)) for i, j in pairs])
    write_log(output / "poses.log", [(k, k, count, pose) for k, pose in enumerate(graph.poses)])
    members = np.flatnonzero(graph.component == np.bincount(graph.component).argmax())
    write_merged(output / "merged.ply", [result.scans[k] for k in members], graph.poses[members])
    write_json(
        output / "match.json",
        {
            "scans": [str(path) for path in result.files],
            "component": graph.component.tolist(),
            "pairs": [
                {
                    "i": i,
                    "j": j,
                    "confidence": pair.confidence,
                    "found": pair.found,
                    "agrees": (i, j) in set(pairs),
                }
                for (i, j), pair in result.pairs.items()
            ],
        },
    )
    return members


def write_merged(path: Path, scans: list[Scan], poses) -> None:
    """All points in one frame, coloured by scan."""
    points = [
        scan.points @ pose[:3, :3].T + pose[:3, 3] for scan, pose in zip(scans, poses, strict=True)
    ]
    # Steps of the golden ratio keep the hues of any number of scans apart.
    tints = [colorsys.hsv_to_rgb((0.58 + 0.618 * k) % 1, 0.55, 0.85) for k in range(len(scans))]
    colors = [np.tile(tint, (len(cloud), 1)) for tint, cloud in zip(tints, points, strict=True)]
    write_ply(path, np.concatenate(points).astype(np.float32), np.concatenate(colors))


def write_json(path: Path, report: dict) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
