"""How much the viewpoints of overlapping fragments differ, in scans and in the rooms that a network is trained on.

``python -m sparsefeat.benchmark.viewpoints --pairs NAME=ROOT[:SCENE] [NAME=ROOT[:SCENE] ...] --result viewpoints`` writes
results/fragments/viewpoints.json: for each group and each range of overlap, how far two lines of sight to one point turn,
and how many matches in the overlap are right.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.data.threedmatch import FragmentPair, test_pairs
from sparsefeat.errors import InputError
from sparsefeat.evaluate.registration import counts_for_recall
from sparsefeat.io.results import write_result
from sparsefeat.match.nearest import nearest_both_ways
from sparsefeat.match.scans import CHECKPOINT, Scan, choose_extractor, describe_scan, open_view
from sparsefeat.process.tool import run_tool

PROGRAM = "python -m sparsefeat.benchmark.viewpoints"
RANGES = {
    "all": (0.3, 1.01),
    "0.3 to 0.4": (0.3, 0.4),
    "0.4 to 0.6": (0.4, 0.6),
    "0.6 to 1": (0.6, 1.01),
}
"""Ranges of overlap: a row of the result is the mean over the pairs of one range."""
COMMON, RIGHT = 0.05, 0.1
"""Metres: a key point with a neighbour this close lies in the overlap; a match this close is right."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for, print it and, with ``--result``, write it."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add(
        "--pairs", nargs="+", required=True, metavar="NAME=ROOT[:SCENE]",
        help="groups of pairs in 3DMatch's test layout",
    )  # fmt: skip
    add("--every", type=int, default=1, metavar="N", help="every N-th pair (default: 1)")
    add("--checkpoint", default=CHECKPOINT, help=f"of the features (default: {CHECKPOINT})")
    add("--result", metavar="NAME", help="also write results/fragments/NAME.json")
    args = parser.parse_args(argv)
    if args.every < 1:
        raise InputError(f"--every: expected at least 1, got {args.every}")
    groups: dict[str, list[FragmentPair]] = {}
    for group in args.pairs:
        name, equals, place = group.partition("=")
        root, _, scene = place.partition(":")
        if not (name and equals and root):
            raise InputError(f"--pairs: expected NAME=ROOT[:SCENE], got {group}")
        listed = test_pairs(root, [scene] if scene else None).values()
        pairs = [pair for of_scene in listed for pair in of_scene if counts_for_recall(pair)]
        groups[name] = pairs[:: args.every]
    extractor = choose_extractor(args.checkpoint)
    numbers: dict[str, dict[str, float | str]] = {}
    for name, pairs in groups.items():
        scans: dict[Path, Scan] = {}
        rows = []
        for pair in pairs:
            for path in (pair.source, pair.target):
                if path not in scans:
                    seed = zlib.crc32(path.name.encode())
                    scans[path] = describe_scan(open_view(path), extractor, (1.0,), seed=seed)
            row = statistics(pair, scans[pair.source], scans[pair.target])
            if row is not None:
                rows.append(row)
        for label, (low, high) in RANGES.items():
            chosen = [row for row in rows if low <= row["overlap"] < high]
            if chosen:
                numbers[f"{name}, {label}"] = {"pairs": len(chosen)} | {
                    key: float(np.mean([row[key] for row in chosen])) for key in chosen[0]
                }
                print(f"{name}, {label}:", numbers[f"{name}, {label}"], flush=True)
    if args.result is not None:
        command = [*PROGRAM.split(), *(sys.argv[1:] if argv is None else argv)]
        print(write_result("fragments", args.result, numbers, command, [0]))
    return 0


def statistics(pair: FragmentPair, source: Scan, target: Scan) -> dict[str, float] | None:
    """Overlap, viewpoints and right matches of one pair; None without common key points.

    Both fragments were seen from the origin of their frame.

    Returns:
        ``overlap``: share of the source's key points with one of the target within 5 cm. ``angle_deg``: between the lines of
        sight from the two viewpoints to such a point, median. ``baseline_m``: distance of the viewpoints.
        ``distance_ratio``: of the larger to the smaller distance of such a point to them, median. ``right``: share of such
        points whose nearest neighbour in feature space lies within 10 cm of their place.
    """
    points = source.keypoints @ pair.transform[:3, :3].T + pair.transform[:3, 3]
    common = cKDTree(target.keypoints).query(points)[0] < COMMON
    if not common.any():
        return None
    here = pair.transform[:3, 3]
    lines = here - points[common], -points[common]
    lengths = [np.linalg.norm(line, axis=1) for line in lines]
    cosine = (lines[0] * lines[1]).sum(1) / (lengths[0] * lengths[1])
    nearest, _ = nearest_both_ways(source.features, target.features)
    right = np.linalg.norm(points - target.keypoints[nearest], axis=1) < RIGHT
    return {
        "overlap": float(common.mean()),
        "angle_deg": float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1))))),
        "baseline_m": float(np.linalg.norm(here)),
        "distance_ratio": float(np.median(np.maximum(*lengths) / np.minimum(*lengths))),
        "right": float(right[common].mean()),
    }


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
