"""The result of an axis as a table and as a picture: rows are settings, columns are measures, spreads are over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsefeat.transfer.axis import TRAINING, AxisResult
from sparsefeat.visualize import plot_spreads


def axis_values(result: AxisResult) -> dict[str, dict[str, list[float]]]:
    """Of every score, such as ``"rooms FMR"``, the numbers of each setting, one of each seed.

    Scores are in the order of the records, settings in that of the configuration; a setting without a score has none.
    """
    names = [(r["measure"], value) for r in result.records for value in r["values"] if r["measure"] != TRAINING]  # fmt: skip
    return {
        f"{measure} {value}": {
            setting: [
                r["values"][value]
                for r in result.records
                if (r["setting"], r["measure"]) == (setting, measure) and value in r["values"]
            ]
            for setting in result.config.settings
        }
        for measure, value in dict.fromkeys(names)
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are too few numbers for one."""
    mean = float(np.mean(values)) if values else float("nan")
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def format_axis(result: AxisResult) -> str:
    """The table: mean ± sample standard deviation over seeds."""
    scores = axis_values(result)
    count = len({r["seed"] for r in result.records})
    title = f"mean ± standard deviation, {count} seed{'s' * (count != 1)}"
    lines = [[title, *scores]]
    for setting in result.config.settings:
        lines.append([setting, *(_cell(values[setting]) for values in scores.values())])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )


def save_axis(result: AxisResult, output: Path) -> list[Path]:
    """Write the picture; returns the files."""
    scores = axis_values(result)
    if not scores:
        return []
    path = output / "axis.png"
    title = f"{output.name}: mean and standard deviation over seeds, a dot for each seed"
    if any(r["measure"] in result.config.shapes for r in result.records):
        title += f"; {', '.join(result.config.shapes)}: accuracy of a linear probe"
    plot_spreads(scores, path, title)
    return [path]


def _cell(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    if np.isnan(mean):
        return ""
    return f"{mean:.3f}" + ("" if np.isnan(deviation) else f" ± {deviation:.3f}")
