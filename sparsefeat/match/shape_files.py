"""What a map between shapes leaves on disk: the map, carried labels and colours, and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.pointcloud import write_ply
from sparsefeat.match.correspond import Correspondence
from sparsefeat.match.files import write_json
from sparsefeat.match.shapes import DescribedShape
from sparsefeat.visualize import View, render_meshes, render_points


def write_map(
    result: Correspondence,
    a: DescribedShape,
    b: DescribedShape,
    output: Path,
    labels: np.ndarray | None = None,
    up: str = "z",
) -> list[Path]:
    """map.npz (vertices, confidence, both ways), carried.ply, map.png, match.json; of labels of b, carried_labels.txt.

    Args:
        result: from a to b.
        a, b: the shapes.
        output: a folder.
        labels: of the vertices of b, which the vertices of a are given. Shape (Nb,).
        up: the axis that points up in the picture.

    Returns:
        The files.

    Raises:
        InputError: labels that are not those of b, or files that cannot be written.
    """
    if labels is not None and len(labels) != len(b.vertices):
        raise InputError(
            f"labels: {len(labels)}, expected one for each of {len(b.vertices)} vertices of {b.name}"
        )
    written = [output / name for name in ("map.npz", "carried.ply", "map.png", "match.json")]
    best = result.hypotheses[0]
    write_json(
        written[3],
        {
            "a": a.name,
            "b": b.name,
            "confidence": float(result.confidence.mean()),
            "back_confidence": float(result.back_confidence.mean()),
            "orientation": best.orientation,
            "hypotheses": [
                {
                    "name": h.name,
                    "orientation": h.orientation,
                    "distance": h.distance,
                    "cycle": h.cycle,
                }
                for h in result.hypotheses
            ],
        },
    )
    with atomic_write(written[0]) as temporary:
        np.savez(
            temporary,
            vertices=result.vertices,
            confidence=result.confidence,
            back_vertices=result.back_vertices,
            back_confidence=result.back_confidence,
        )
    colors = place_colors(b.vertices)
    carried = result.carry(colors)
    write_ply(written[1], a.vertices, carried)
    _draw(a, carried, b, colors, written[2], up)
    target = output / "carried_labels.txt"
    if labels is None:
        target.unlink(missing_ok=True)  # an earlier run's are not this one's
        return written
    with atomic_write(target) as temporary:
        lines = "\n".join(str(label) for label in result.carry(labels))
        temporary.write_text(lines + "\n", encoding="utf-8")
    return [*written, target]


def place_colors(vertices: np.ndarray) -> np.ndarray:
    """Colours that tell places apart: the coordinates as red, green and blue. Shape: (N, 3) -> (N, 3) in [0, 1]."""
    low, high = vertices.min(0), vertices.max(0)
    colors: np.ndarray = 0.1 + 0.85 * (vertices - low) / np.maximum(high - low, 1e-12)
    return colors


def _draw(
    a: DescribedShape,
    carried: np.ndarray,
    b: DescribedShape,
    colors: np.ndarray,
    path: Path,
    up: str,
) -> None:
    titles = [Path(b.name).name, f"{Path(a.name).name}: colours carried over"]
    view = View(azimuth_deg=30.0, elevation_deg=15.0, up=up)
    if a.faces is not None and b.faces is not None:
        meshes = [(b.vertices, b.faces, colors), (a.vertices, a.faces, carried)]
        render_meshes(meshes, path, titles=titles, views=view, panel=(480, 480))
    else:
        # Each in roots of its area, since they are drawn at one scale.
        render_points([b.unit, a.unit], [colors, carried], path, titles=titles, view=view)
