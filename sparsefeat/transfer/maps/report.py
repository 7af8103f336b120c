"""The result of a training of maps as a table, as JSON, as a curve and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sparsefeat.errors import opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import to_dict
from sparsefeat.transfer.maps.run import MapsResult
from sparsefeat.visualize import View, plot_curves, render_meshes


def format_maps(result: MapsResult) -> str:
    """One line per snapshot and pose, one column per kind of map."""
    kinds = list(dict.fromkeys(r["map"] for r in result.records))
    lines = [["error x100", "step", "minutes", *kinds]]
    for step, rotated in dict.fromkeys((r["step"], r["rotated"]) for r in result.records):
        mine = [r for r in result.records if (r["step"], r["rotated"]) == (step, rotated)]
        errors = {r["map"]: f"{r['error']:.2f}" for r in mine}
        name = f"{result.config.inputs}{', turned' if rotated else ''}"
        minutes = f"{mine[0]['seconds'] / 60:.1f}"
        lines.append([name, str(step), minutes, *(errors[kind] for kind in kinds)])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rows = ["  ".join(text.ljust(widths[k]) for k, text in enumerate(line)) for line in lines]
    return "\n".join([*rows, f"{len(result.pairs)} pairs"])


def maps_json(result: MapsResult) -> dict[str, Any]:
    """All numbers; errors in hundredths of the root of the target's area."""
    return {
        "config": to_dict(result.config),
        "records": result.records,
        "pairs": [list(pair) for pair in result.pairs],
    }


def save_maps(result: MapsResult, output: Path, json_path: Path | None = None) -> list[Path]:
    """Write result.json, curve.png (error over training time), loss.png and maps.png; returns the files."""
    path = json_path or output / "result.json"
    with opening(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(maps_json(result), indent=1) + "\n", encoding="utf-8")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for record in result.records:
        if not record["rotated"]:
            minutes, errors = curves.setdefault(record["map"], ([], []))
            minutes.append(record["seconds"] / 60)
            errors.append(record["error"])
    written = [path, output / "curve.png", output / "loss.png", output / "maps.png"]
    plot_curves(
        curves,
        written[1],
        "training time, minutes",
        "geodesic error x100 / root of the area",
        title=f"maps between {len(result.pairs)} pairs of test shapes",
    )
    window = max(1, len(result.losses) // 50)
    total = np.array([loss["total"] for loss in result.losses])
    means = [float(part.mean()) for part in np.array_split(total, max(1, len(total) // window))]
    steps = np.linspace(0, len(total), len(means) + 1)[1:].tolist()
    plot_curves({"loss": (steps, means)}, written[2], "step", "loss, mean of neighbouring steps")
    first, second, points = result.picture
    low, high = first.vertices.min(0), first.vertices.max(0)
    colors = (first.vertices - low) / np.maximum(high - low, 1e-12)
    render_meshes(
        [(first.vertices, first.faces, colors), (second.vertices, second.faces, colors[points])],
        written[3],
        titles=[first.name, f"{second.name}: carried over"],
        views=View(azimuth_deg=30.0, elevation_deg=15.0, up=result.config.data.up),
    )
    return written
