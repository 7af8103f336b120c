"""What a match of scans leaves on disk: poses, matches, pictures and merged clouds."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.gtlog import write_log
from sparsefeat.io.pointcloud import compact, write_ply
from sparsefeat.match.folder import FolderMatches
from sparsefeat.match.register import Registration
from sparsefeat.match.scans import Scan
from sparsefeat.visualize import draw_matches


def pair_name(source: Scan, target: Scan) -> str:
    """The two files, for people."""
    return f"{Path(source.name).name} onto {Path(target.name).name}"


def write_pair(result: Registration, source: Scan, target: Scan, output: Path) -> None:
    """matches.npz, matches.png, match.json; of a credible pose transform.txt and aligned.ply.

    match.json comes first: the next run knows by it that the other files may be replaced.
    """
    write_json(
        output / "match.json",
        {
            "source": source.name,
            "target": target.name,
            "found": result.found,
            "confidence": result.confidence,
            "transform": None if result.transform is None else result.transform.tolist(),
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
    with atomic_write(output / "matches.npz") as temporary:
        np.savez(temporary, matches=result.matches, inliers=result.inliers)
    if result.transform is None:
        # What an earlier run found is not this run's answer.
        for name in ("transform.txt", "aligned.ply"):
            (output / name).unlink(missing_ok=True)
    else:
        with atomic_write(output / "transform.txt") as temporary:
            np.savetxt(temporary, result.transform, fmt="% .16e")
        write_merged(output / "aligned.ply", [source, target], [result.transform, np.eye(4)])
    draw_matches(
        source.points,
        target.points,
        result.matches,
        result.inliers,
        output / "matches.png",
        title=f"{pair_name(source, target)}, confidence {result.confidence:.2f}",
        verdict="agree with the pose",
    )


def write_folder(result: FolderMatches, output: Path) -> np.ndarray:
    """est.log (pairs that agree, if any), poses.log (one pose per scan), merged.ply and match.json.

    poses.log and merged.ply hold the largest component only: poses of different components do not compare.
    Returns its scans' indices.
    """
    count, graph = len(result.files), result.graph
    pairs = [(edge.i, edge.j) for edge, kept in zip(result.edges, graph.kept, strict=True) if kept]
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
    if pairs:
        write_log(output / "est.log", [(i, j, count, graph.between(i, j)) for i, j in pairs])
    else:  # a log without a block cannot be read
        (output / "est.log").unlink(missing_ok=True)
    members = np.flatnonzero(graph.component == np.bincount(graph.component).argmax())
    write_log(output / "poses.log", [(k, k, count, graph.poses[k]) for k in members.tolist()])
    write_merged(
        output / "merged.ply", [result.scans[k] for k in members], list(graph.poses[members])
    )
    return members


def write_merged(path: Path, scans: Sequence[Scan], poses: Sequence[np.ndarray]) -> None:
    """All points in one frame, coloured by scan."""
    points = [
        scan.points @ pose[:3, :3].T + pose[:3, 3] for scan, pose in zip(scans, poses, strict=True)
    ]
    # Steps of the golden ratio keep the hues of any number of scans apart.
    tints = [colorsys.hsv_to_rgb((0.58 + 0.618 * k) % 1, 0.55, 0.85) for k in range(len(scans))]
    colors = [np.tile(tint, (len(cloud), 1)) for tint, cloud in zip(tints, points, strict=True)]
    write_ply(path, compact(np.concatenate(points)), np.concatenate(colors))


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report; an earlier one stays until it is complete."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
