"""What scans look like beside the synthetic rooms that a network is trained on.

``python -m sparsefeat.benchmark.fragments --fragments NAME=GLOB [NAME=GLOB ...] --every N --result scans-and-rooms`` writes
results/fragments/scans-and-rooms.json: medians over fragments of how rough, how wavy, how flat, how far away and how full
of holes they are.
"""

from __future__ import annotations

import argparse
import glob
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.data.fragments import load_fragment, load_viewpoint
from sparsefeat.errors import InputError
from sparsefeat.io.results import write_result
from sparsefeat.mesh.saliency import local_planes
from sparsefeat.process.tool import run_tool

PROGRAM = "python -m sparsefeat.benchmark.fragments"
PLACES = 1500
"""Random points of a fragment at which the surface is looked at."""
FINE, COARSE = 0.05, 0.2
"""Radii in metres: what a voxel sees, and what a feature sees of a wall."""
FLATTEST = 0.05
"""Share of places, the flattest, at which roughness and waves are measured."""
FLAT = 0.003
"""Surface variation below which a place is flat."""
RING = (0.015, 0.075)
"""Metres: neighbours in this range lie all around a place, or it is at a boundary."""
GAP = 135.0
"""Degrees between two neighbours, seen from a place, that make it one of a boundary."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for, print it and, with ``--result``, write it."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add("--fragments", nargs="+", required=True, metavar="NAME=GLOB", help="groups of files")
    add("--every", type=int, default=1, metavar="N", help="every N-th file (default: 1)")
    add("--result", metavar="NAME", help="also write results/fragments/NAME.json")
    args = parser.parse_args(argv)
    if args.every < 1:
        raise InputError(f"--every: expected at least 1, got {args.every}")
    groups: dict[str, list[Path]] = {}
    for group in args.fragments:
        name, _, pattern = group.partition("=")
        groups[name] = [Path(path) for path in sorted(glob.glob(pattern))][:: args.every]
        if not groups[name]:
            raise InputError(f"--fragments: expected NAME=GLOB that finds files, got {group}")
    numbers = {}
    for name, files in groups.items():
        row = numbers[name] = measure(files)
        print(name, ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    if args.result is not None:
        command = [*PROGRAM.split(), *(sys.argv[1:] if argv is None else argv)]
        print(write_result("fragments", args.result, numbers, command, [0]))
    return 0


def measure(files: Sequence[Path]) -> dict[str, float]:
    """The median of each statistic over fragments, and how many there are."""
    rows = []
    for path in files:
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        points = load_fragment(path).astype(np.float64)
        viewpoint = load_viewpoint(path)
        if viewpoint is None:
            raise InputError(
                f"{path}: no viewpoint; expected a fragment that says where it was seen from"
            )
        rows.append(statistics(points, viewpoint, rng))
    return {"files": len(rows)} | {
        key: float(np.median([row[key] for row in rows])) for key in rows[0]
    }


def statistics(
    points: np.ndarray, viewpoint: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """What one fragment looks like.

    Args:
        points: metres. Shape: (N, 3)
        viewpoint: where the sensor stood. Shape: (3,)
        rng: draws the places.

    Returns:
        ``roughness_mm`` and ``waves_mm``: standard deviation across the plane within 5 cm and within 20 cm, median over
        the flattest places. ``normal_deg``: angle between the normals of the two there, median. ``flat``: share of
        places that are flat within 20 cm. ``boundary``: share of places beside a hole or an edge of the cloud.
        ``range_m``: distance from the sensor, median; ``near_m`` and ``far_m``: its tenths. ``incidence_deg``: angle
        between normal and line of sight, median.
    """
    points = np.asarray(points, dtype=np.float64)
    places = points[rng.choice(len(points), min(PLACES, len(points)), replace=False)]
    fine, coarse = local_planes(points, FINE, places), local_planes(points, COARSE, places)
    flattest = coarse.variation <= np.quantile(coarse.variation, FLATTEST)
    turn = np.abs(np.einsum("ni,ni->n", fine.axes[:, :, 0], coarse.axes[:, :, 0])).clip(0, 1)
    line = np.asarray(viewpoint, dtype=np.float64) - places
    distance = np.linalg.norm(line, axis=1)
    facing = np.abs(np.einsum("ni,ni->n", line, fine.axes[:, :, 0])) / distance
    near, middle, far = np.quantile(distance, (0.1, 0.5, 0.9))
    return {
        "roughness_mm": float(1000 * np.median(np.sqrt(fine.values[flattest, 0]))),
        "waves_mm": float(1000 * np.median(np.sqrt(coarse.values[flattest, 0]))),
        "normal_deg": float(np.degrees(np.arccos(np.median(turn[flattest])))),
        "flat": float((coarse.variation < FLAT).mean()),
        "boundary": float(_at_boundary(points, places, fine.axes).mean()),
        "near_m": float(near),
        "range_m": float(middle),
        "far_m": float(far),
        "incidence_deg": float(np.degrees(np.arccos(np.median(facing.clip(0, 1))))),
    }


def _at_boundary(points: np.ndarray, places: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Whether the neighbours of a place leave a wide gap around it, seen along its normal. Shape: (N,)"""
    around = cKDTree(points).query_ball_point(places, RING[1])
    found = np.ones(len(places), dtype=bool)
    for k, rows in enumerate(around):
        offsets = points[rows] - places[k]
        offsets = offsets[np.linalg.norm(offsets, axis=1) > RING[0]]
        if len(offsets) < 3:
            continue
        angles = np.sort(np.arctan2(offsets @ axes[k, :, 1], offsets @ axes[k, :, 2]))
        gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
        found[k] = gaps.max() > np.radians(GAP)
    return found


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
