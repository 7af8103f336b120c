"""What was measured, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from sparsefeat.benchmark.engines import Ours
from sparsefeat.benchmark.layers import GATHERS, PRODUCTS, Measurement
from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.results import processor

FORMAT = 2
"""Of the JSON file; raised when a field changes its meaning."""


def environment() -> dict[str, object]:
    """Machine and versions."""
    facts: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processor": processor(),
        "threads_available": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["cuda_device"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts


def as_dict(measured: Measurement, bandwidth: float) -> dict[str, object]:
    """One measurement with its ratios: how many times as long as ours each contender took."""
    own = measured.timings[Ours.name].as_dict()["median_s"]
    row = asdict(measured)
    row["timings"] = {name: timing.as_dict() for name, timing in measured.timings.items()}
    row["ratios"] = {
        name: timing.as_dict()["median_s"] / own
        for name, timing in measured.timings.items()
        if name != Ours.name
    }
    row["bandwidth_floor_s"] = measured.moved_bytes / bandwidth
    return row


def table(rows: list[dict]) -> str:
    """Milliseconds: median and quartiles of ours, and the others' medians with their ratio to ours."""
    width = max(len(f"{row['case']} {row['operation']}") for row in rows)
    lines = []
    for row in rows:
        own = row["timings"][Ours.name]
        text = f"{row['case']} {row['operation']}".ljust(width)
        text += f"  {row['threads']} thr {row['dtype']:<8} {own['median_s'] * 1e3:9.2f} ms"
        text += f" [{own['quartile1_s'] * 1e3:.2f}, {own['quartile3_s'] * 1e3:.2f}]"
        for name, ratio in row["ratios"].items():
            text += f"   {name} {row['timings'][name]['median_s'] * 1e3:.2f} ({ratio:.2f} x)"
        if row["bandwidth_floor_s"]:
            text += f"   memory floor {row['bandwidth_floor_s'] * 1e3:.2f}"
        if row["memory_bytes"]:
            text += f"   peak {row['memory_bytes'] / 1e6:.0f} MB"
        lines.append(text)
    return "\n".join(lines)


def write_json(path: str | Path, rows: list[dict], facts: dict[str, object]) -> None:
    """Write everything that was measured."""
    report = {"format": FORMAT, **facts, "results": rows}
    with opening(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """What :func:`write_json` wrote.

    Raises:
        InputError: something else.
    """
    try:
        with opening(path):
            text = Path(path).read_text(encoding="utf-8")
        report = json.loads(text)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a report of this benchmark, got what is not JSON"
        ) from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InputError(
            f"{path}: expected a report of this benchmark in format {FORMAT}, got another file"
        )
    return report


def write_plot(path: str | Path, rows: list[dict]) -> None:
    """Bars of each contender's time over that of the bare matrix products, one group per measurement."""
    rows = [row for row in rows if PRODUCTS in row["timings"]]
    if not rows:
        raise InputError(f"{path}: nothing to draw; only kernel maps were measured")
    names = sorted(
        {name for row in rows for name in row["timings"]} - {PRODUCTS, GATHERS, Ours.name}
    )
    names = [Ours.name, *names]
    tall = min(
        1.2 + 0.28 * len(rows) * len(names), 400
    )  # inches: a picture has 2^16 pixels at most
    figure = Figure(figsize=(9, tall), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(names)
    for k, name in enumerate(names):
        places, values = [], []
        for number, row in enumerate(rows):
            if name in row["timings"]:
                places.append(number + (k - (len(names) - 1) / 2) * height)
                values.append(
                    row["timings"][name]["median_s"] / row["timings"][PRODUCTS]["median_s"]
                )
        axes.barh(places, values, height, label=name)
    axes.axvline(1, color="black", linewidth=0.8)
    labels = [
        f"{row['case']} {row['operation']}, {row['threads']} thr, {row['dtype']}" for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("time / time of the bare matrix products of the same sizes")
    axes.legend(fontsize=7)
    with opening(path), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
