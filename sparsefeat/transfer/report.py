"""The result of an experiment as a table, as JSON and as pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sparsefeat.errors import opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import to_dict
from sparsefeat.mesh.geodesic import error_curve
from sparsefeat.transfer.config import Method
from sparsefeat.transfer.correspondence import MAPS, MapScore
from sparsefeat.transfer.labelling import Score, truth
from sparsefeat.transfer.run import TransferResult
from sparsefeat.visualize import View, class_colors, plot_curves, plot_matrix, render_meshes
from sparsefeat.visualize.meshes import PORTRAIT_VIEW

_PICTURED = 4
_UNLABELLED = (0.6, 0.6, 0.6)


def format_table(result: TransferResult) -> str:
    """Mean ± standard deviation over seeds, one line per method."""
    if result.maps:
        return _table(_map_rows(result))
    table = _table(_score_rows(result))
    return table if result.adapter is None else f"{table}\n\n{result.adapter.table()}"


def save_report(result: TransferResult, output: Path, json_path: Path | None = None) -> list[Path]:
    """Write result.json and the pictures.

    Args:
        result: of an experiment.
        output: folder, made if absent.
        json_path: where the JSON goes instead of ``output/result.json``.

    Returns:
        The files written.
    """
    with opening(output):
        output.mkdir(parents=True, exist_ok=True)
    written = [json_path or output / "result.json"]
    with opening(written[0]), atomic_write(written[0]) as temporary:
        temporary.write_text(json.dumps(to_json(result), indent=1) + "\n", encoding="utf-8")
    written += _plot_tuning(result, output)
    written += _draw_maps(result, output) if result.maps else _draw_labels(result, output)
    return written


def to_json(result: TransferResult) -> dict[str, Any]:
    """All numbers: accuracies as fractions, geodesic errors in hundredths of the root of the area."""
    return {
        "config": to_dict(result.config),
        "scores": [
            {
                k: getattr(s, k)
                for k in (
                    "method",
                    "shots",
                    "seed",
                    "accuracy",
                    "accuracy_rotated",
                    "accuracy_damaged",
                    "voxel_size",
                )
            }
            for s in result.scores
        ],
        "maps": [
            {k: getattr(m, k) for k in ("method", "map", "rotated", "error")} for m in result.maps
        ],
        "pairs": len(result.pairs),
        "curve": [{"voxel_size": p.voxel_size, "score": p.score} for p in result.curve],
        "adapter": None if result.adapter is None else result.adapter.to_json(),
        "tunings": {
            method: [t.to_json() for t in tunings] for method, tunings in result.tunings.items()
        },
    }


def _score_rows(result: TransferResult) -> list[list[str]]:
    config = result.config
    unit = "per class" if config.task == "classification" else "shapes"
    # As they are, turned, and with each damage.
    tests = ["", *(["rotated"] if config.rotate else []), *config.test_damage]
    columns = [(k, test) for k in config.shots for test in tests]
    rows = [
        [
            "accuracy",
            *(f"{k} {unit}{', ' if test else ''}{test}" for k, test in columns),
            "voxel size",
        ]
    ]
    for method in config.methods:
        cells = [method]
        mine = [s for s in result.scores if s.method == method]
        for k, test in columns:
            values = [_accuracy(s, test) for s in mine if s.shots == k]
            cells.append(_mean(values))
        sizes = [s.voxel_size for s in mine if s.voxel_size is not None]
        cells.append(f"{min(sizes):.3g} - {max(sizes):.3g}" if sizes else "")
        rows.append(cells)
    return rows


def _accuracy(score: Score, test: str) -> float:
    """On the test shapes as they are (""), "rotated", or with a damage."""
    if test == "rotated":
        assert score.accuracy_rotated is not None  # the configuration asks for it
        return score.accuracy_rotated
    return score.accuracy_damaged[test] if test else score.accuracy


def _map_rows(result: TransferResult) -> list[list[str]]:
    config = result.config
    columns = [
        (kind, rotated)
        for kind in MAPS
        for rotated in ((False, True) if config.rotate else (False,))
    ]
    rows = [
        ["error x100", *(f"{kind}{', rotated' if rotated else ''}" for kind, rotated in columns)]
    ]
    for method in config.methods:
        found = {(m.map, m.rotated): m.error for m in result.maps if m.method == method}
        rows.append([method, *(f"{found[column]:.2f}" for column in columns)])
    return rows


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def _plot_tuning(result: TransferResult, output: Path) -> list[Path]:
    """The objective that the voxel size was tuned by, and the score on test shapes, over the voxel size."""
    tunings = result.tunings.get("tuned", [])
    xlabel = "voxel size, in the unit of the shapes"
    written = []
    if tunings:
        path = output / "tuning.png"
        tuned = tunings[-1]
        # All descents see one objective: together their steps are its curve.
        steps = sorted((step.voxel_size[0], step.objective) for step in tuned.history)
        marks = {f"tuned: {tuned.voxel_sizes[0]:.3g}": tuned.voxel_sizes[0]}
        ylabel = "objective on the labelled shapes (lower is better)"
        curve = {"objective": tuple(zip(*steps, strict=True))}
        title = "How the voxel size was tuned"
        plot_curves(curve, path, xlabel, ylabel, title=title, marks=marks, logx=True)
        written.append(path)
    if result.curve:
        path = output / "receptive_field.png"
        label = "accuracy on held-out shapes"
        if result.maps:
            label = "geodesic error x100, nearest feature (lower is better)"
        curve = ([p.voxel_size for p in result.curve], [p.score for p in result.curve])
        shots = result.config.shots
        # Of the run that the curve is for: the most shots, the first seed.
        own = tunings[0 if result.maps else shots.index(max(shots))] if tunings else None
        marks = {} if own is None else {f"tuned: {own.voxel_size:.3g}": own.voxel_size}
        # From zero, so that noise does not look like a slope; accuracies are drawn from zero to one anyway.
        ylim = (0, 1.2 * max(curve[1])) if result.maps else None
        title = "Held-out shapes at other voxel sizes"
        plot_curves(
            {label: curve}, path, xlabel, label, title=title, marks=marks, ylim=ylim, logx=True
        )
        written.append(path)
    return written


def drawn_score(result: TransferResult) -> Score:
    """The run that is drawn: the first method, the first seed, the most labelled shapes."""
    method = next(m for m in get_args(Method) if m in result.config.methods)
    wanted = method, result.config.seeds[0], max(result.config.shots)
    return next(s for s in result.scores if (s.method, s.seed, s.shots) == wanted)


def _draw_labels(result: TransferResult, output: Path) -> list[Path]:
    score = drawn_score(result)
    best, shots = score.method, score.shots
    count = len(score.confusion)
    names = (
        result.dataset.class_names
        if result.config.task == "classification"
        else result.dataset.part_names
    )
    names = [str(k) for k in range(count)] if names is None else list(names)
    written = []
    if np.count_nonzero(score.confusion.any(0) | score.confusion.any(1)) <= 40:
        path = output / "confusion.png"
        unit = "per class" if result.config.task == "classification" else "shapes"
        title = f"Held-out shapes, method {best}, trained on {shots} labelled {unit}"
        plot_matrix(score.confusion, names, path, title)
        written.append(path)
    if result.config.task == "segmentation":
        path = output / "segmentation.png"
        colors = np.concatenate([class_colors(count), [_UNLABELLED]])
        meshes, titles, met = [], [], set()
        for shape in result.shapes[:_PICTURED]:
            labels = {"true": truth(shape, "segmentation"), best: score.predictions[shape.name]}
            for title, values in labels.items():
                meshes.append((shape.vertices, shape.faces, colors[values]))
                met |= set(np.unique(values).tolist())
                # A class folder's name would make titles run into each other.
                titles.append(f"{shape.name.rpartition('/')[2]}: {title}")
        legend = [("no label" if k == -1 else names[k], colors[k]) for k in sorted(met)]
        render_meshes(meshes, path, titles, _view(result), columns=4, legend=legend)
        written.append(path)
    return written


def _draw_maps(result: TransferResult, output: Path) -> list[Path]:
    thresholds = np.linspace(0, 30, 121)
    paths = [output / f"errors_{kind}.png" for kind in MAPS]
    for kind, path in zip(MAPS, paths, strict=True):
        mine = [m for m in result.maps if m.map == kind and not m.rotated]
        curves = {m.method: (thresholds, error_curve(m.errors, thresholds)) for m in mine}
        plot_curves(
            curves, path, "geodesic error x100", f"share of points below, {kind}", ylim=(0, 1)
        )
    paths.append(output / "correspondence.png")
    source, target = result.shapes[0], result.shapes[-1]
    place = target.vertices - target.vertices.min(0)
    colors = place / place.max(0)
    meshes = [(target.vertices, target.faces, colors)]
    titles = [f"{target.name}: coloured by place"]
    for score in first_maps(result):
        meshes.append((source.vertices, source.faces, colors[score.first]))
        titles.append(f"{source.name}: {score.method}, {score.map}")
    render_meshes(meshes, paths[-1], titles, _view(result), columns=min(len(meshes), 4))
    return paths


def _view(result: TransferResult) -> View:
    return replace(PORTRAIT_VIEW, up=result.config.data.up)


def first_maps(result: TransferResult) -> list[MapScore]:
    """Maps of the first pair as given, those that are drawn."""
    return [m for m in result.maps if not m.rotated][:7]
