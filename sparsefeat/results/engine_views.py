"""Tables of the engine and of the tools: times, and what happens to tools that are killed."""

from __future__ import annotations

from collections.abc import Sequence

from sparsefeat.results.cells import markdown, single
from sparsefeat.results.store import Result


def timings(results: Sequence[Result]) -> str:
    """Engine: milliseconds of each case, and the time of the others as a multiple of ours."""
    result = single(results, "timings")
    rows = result["numbers"]["results"]
    others = sorted({name for row in rows for name in row["ratios"]})
    own = [next(n for n in row["timings"] if n not in row["ratios"]) for row in rows]
    table = []
    for row, name in zip(rows, own, strict=True):
        ratios = [f"{row['ratios'][n]:.2f}" if n in row["ratios"] else "" for n in others]
        case = f"{row['case']} {row['operation']}"
        time = f"{1e3 * row['timings'][name]['median_s']:.1f}"
        table.append([case, str(row["threads"]), row["dtype"], time, *ratios])
    head = ["case", "threads", "dtype", "ms", *(f"{name}, times ours" for name in others)]
    return markdown(head, table)


def voxels(results: Sequence[Result]) -> str:
    """Voxelisation: milliseconds, and the voxels that others leave out and add."""
    result = single(results, "voxels")
    rows = result["numbers"]["results"]
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    table = []
    for row in rows:
        cells = []
        for name in names:
            found = row["contenders"].get(name)
            cell = "" if found is None else f"{1e3 * found['times']['median_s']:.1f}"
            if found and "missing" in found:
                cell += f" (-{found['missing']}, +{found['extra']})"
            cells.append(cell)
        table.append(
            [f"{row['triangles']:,}", str(row["resolution"]), f"{row['voxels']:,}", *cells]
        )
    head = ["triangles", "voxels along the longest side", "voxels"]
    return markdown([*head, *(f"{name}, ms" for name in names)], table)


def kills(results: Sequence[Result]) -> str:
    """Robustness: how often each tool was killed, and what was found."""
    result = single(results, "kills")
    rows = []
    for name, tool in result["numbers"]["tools"].items():
        signals = ", ".join(f"{signal} {count}" for signal, count in tool["by_signal"].items())
        failures = str(len(tool["failures"]))
        rows.append([name, str(tool["kills"]), signals, str(tool["swept"]), failures])
    head = ["tool", "kills", "of which", "temporary files swept by the next run", "failures"]
    return markdown(head, rows)
