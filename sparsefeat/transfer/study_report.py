"""The result of a study as a table and as a picture: rows are regimes, columns are methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsefeat.transfer.records import Record
from sparsefeat.transfer.study import StudyResult
from sparsefeat.transfer.study_config import CLEAN, COPIES, LEARNED, SAME
from sparsefeat.visualize import plot_scores

Rows = list[tuple[str, list[float]]]


def study_rows(result: StudyResult, shots: int, value: str = "accuracy") -> Rows:
    """Mean over seeds of every regime and method; NaN where it was not measured.

    Args:
        result: of a study.
        shots: number of labelled shapes.
        value: ``"accuracy"``, or ``"mirrored"``: the accuracy up to mirror images.
    """
    config = result.config
    rows: Rows = []
    for kind in config.labels:
        for learned in LEARNED:
            for damage in config.damages:
                here = [
                    r for r in result.records
                    if (r.get("labels"), r.get("damage"), r.get("learned"), r.get("shots")) == (kind, damage, learned, shots)
                    and value in r
                ]  # fmt: skip
                if here:
                    name = f"{kind}, {damage}" + _how_learned(damage, learned)
                    rows.append((name, [_mean(here, method, value) for method in config.methods]))
    return rows


def _how_learned(damage: str, learned: str) -> str:
    if learned == COPIES:
        return ", learned on damaged copies too"
    return "" if damage == CLEAN else f", learned on {'the same' if learned == SAME else learned}"


def map_rows(result: StudyResult) -> Rows:
    """Geodesic errors of maps, in hundredths of the root of the area, by kind of map."""
    found = [r for r in result.records if "map" in r]
    kinds = dict.fromkeys(r["map"] for r in found)
    errors = {(r["map"], r["method"]): r["error"] for r in found}
    return [
        (kind, [errors.get((kind, method), np.nan) for method in result.config.methods])
        for kind in kinds
    ]


def format_study(result: StudyResult) -> str:
    """All tables; the best of a row has a star."""
    methods = result.config.methods
    parts = []
    for shots in sorted(set(result.config.shots) | set(result.config.damaged_shots or ())):
        for value, title in (
            ("accuracy", "accuracy"),
            ("mirrored", "accuracy up to mirror images"),
        ):
            rows = study_rows(result, shots, value)
            if rows:
                labelled = f"{shots} labelled shape{'s' * (shots > 1)}"
                parts.append(_table(f"{title}, {labelled}", methods, rows, best=max, digits=3))
    rows = map_rows(result)
    if rows:
        parts.append(_table("error of maps x100", methods, rows, best=min, digits=1))
    return "\n\n".join(parts)


def save_study(result: StudyResult, output: Path) -> list[Path]:
    """Write the picture of the largest number of labelled shapes that damaged regimes have; returns the files."""
    counts = result.config.damaged_shots or result.config.shots
    rows = study_rows(result, max(counts))
    if not rows:
        return []
    path = output / "study.png"
    title = f"accuracy, {max(counts)} labelled shapes; the best of each row is framed"
    plot_scores(
        np.array([values for _, values in rows]),
        [name for name, _ in rows],
        result.config.methods,
        path,
        title,
    )
    return [path]


def _mean(records: Sequence[Record], method: str, value: str) -> float:
    values = [r[value] for r in records if r["method"] == method]
    return float(np.mean(values)) if values else float("nan")


def _table(title: str, methods: Sequence[str], rows: Rows, best, digits: int) -> str:
    lines = [[title, *methods]]
    for name, values in rows:
        finite = [value for value in values if np.isfinite(value)]
        top = round(best(finite), digits) if finite else None
        cells = [
            "" if not np.isfinite(v) else f"{v:.{digits}f}{'*' if round(v, digits) == top else ' '}"
            for v in values
        ]
        lines.append([name, *cells])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )
