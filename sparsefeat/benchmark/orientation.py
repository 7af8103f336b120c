"""How often estimated normals are on the right side, on scans whose sensor is known and on shapes.

``python -m sparsefeat.benchmark.orientation --scans data/threedmatch_test --scenes redkitchen,home_md --shapes DIR
--result normals`` writes results/orientation/normals.json.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from sparsefeat.data.fragments import load_fragment, load_viewpoint
from sparsefeat.errors import InputError
from sparsefeat.evaluate.keypoints import VIEWPOINT_ERROR
from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.results import write_result
from sparsefeat.mesh.normals import fit_normals, outer_normals
from sparsefeat.mesh.orientation import check_viewpoint, estimate_normals
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.process.tool import run_tool
from sparsefeat.synthetic.damage import damage_mesh

PROGRAM = "python -m sparsefeat.benchmark.orientation"
VOXEL = 0.05
GRAZING = 0.2
"""Cosine to the line of sight below which the true side of a fitted normal is not known."""
WRONG = 0.85
"""Share of points on the right side below which a viewpoint is a harmful one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for, print it and, with ``--result``, write it."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add("--scans", metavar="DIR", help="folder of folders of fragments, seen from their origin")
    add("--scenes", metavar="A,B", help="parts of names; default: all")
    add("--shapes", metavar="DIR", help="folder of closed meshes")
    add("--every", type=int, default=1, metavar="N", help="every N-th file (default: 1)")
    add("--result", metavar="NAME", help="also write results/orientation/NAME.json")
    args = parser.parse_args(argv)
    numbers: dict[str, dict[str, float]] = {}
    if args.scans:
        parts = (args.scenes or "").split(",")
        scenes = [path for path in sorted(Path(args.scans).iterdir()) if path.is_dir()]
        for scene in scenes:
            files = sorted(scene.glob("cloud_bin_*.ply"))[:: args.every]
            if files and any(part in scene.name for part in parts):
                numbers[scene.name] = measure_scans(files)
                print(scene.name, _line(numbers[scene.name]), flush=True)
    if args.shapes:
        files = sorted(
            path for path in Path(args.shapes).rglob("*") if path.suffix in (".off", ".ply")
        )
        numbers |= measure_shapes(files[:: args.every])
    if not numbers:
        raise InputError("nothing to measure: expected --scans or --shapes with files in them")
    if args.result is not None:
        command = [*PROGRAM.split(), *(sys.argv[1:] if argv is None else argv)]
        print(write_result("orientation", args.result, numbers, command, [0]))
    return 0


def measure_scans(files: Iterable[Path]) -> dict[str, float]:
    """Means over fragments: sides of estimated normals, and what becomes of right and wrong viewpoints."""
    rows = []
    for path in files:
        viewpoint = load_viewpoint(path)
        assert viewpoint is not None  # cloud_bin_*
        cloud = voxelize(torch.from_numpy(load_fragment(path)), VOXEL)
        points = cloud.points.numpy()
        found = estimate_normals(points)
        length = np.linalg.norm(found, axis=1)
        line = viewpoint - points
        cosine = np.einsum("ni,ni->n", found, line) / np.linalg.norm(line, axis=1)
        known = np.abs(cosine) > GRAZING * length
        right = cosine[known] > 0
        rng = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{path.name}".encode()))
        away = rng.normal(size=3)
        wrong = viewpoint + VIEWPOINT_ERROR * away / np.linalg.norm(away)
        normals = fit_normals(points)
        alike = (
            np.einsum("ni,ni->n", normals, line) * np.einsum("ni,ni->n", normals, wrong - points)
            > 0
        )
        rows.append({
            "right": right.mean(), "right_weighted": length[known][right].sum() / max(length[known].sum(), 1e-12),
            "certainty": length.mean(), "turned_over": right.mean() < 0.5,
            "right_viewpoint_believed": check_viewpoint(points, viewpoint).credible,
            "wrong_viewpoint_believed": check_viewpoint(points, wrong).credible,
            "wrong_viewpoint_right": alike.mean(), "harmful": alike.mean() < WRONG,
        })  # fmt: skip
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    harmful = [row["wrong_viewpoint_believed"] for row in rows if row["harmful"]]
    return {
        "files": len(rows),
        **mean,
        "harmful_viewpoint_believed": float(np.mean(harmful or [0])),
    }


def measure_shapes(files: Iterable[Path]) -> dict[str, dict[str, float]]:
    """By damage: share of points on the right side, the mean and the worst; of cut meshes, how often the winding is."""
    shares: dict[str, list[float]] = {}
    for number, path in enumerate(files):
        mesh = read_mesh(path)
        vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces)
        for kind in ("cut", "one_view", "cloud", "fusion"):
            left = damage_mesh(kind, vertices, faces, number)
            if kind in ("cut", "one_view"):
                found = outer_normals(left.vertices, left.faces)[1]
            else:
                found = estimate_normals(left.vertices, closed=True)
            right = np.einsum("ni,ni->n", found, left.normals) > 0
            shares.setdefault(kind, []).append(float(right.mean()))
    out = {}
    for kind, values in shares.items():
        out[kind] = {"files": len(values), "right": float(np.mean(values)), "worst": min(values)}
        print(kind, _line(out[kind]), flush=True)
    return out


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in values.items())


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
