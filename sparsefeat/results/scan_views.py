"""Tables of scans: matching and registration."""

from __future__ import annotations

from collections.abc import Sequence

from sparsefeat.results.cells import SCENES, choose, markdown, share, single, spread, titled
from sparsefeat.results.store import Result

_METRICS = {
    "FMR": "FMR",
    "IR": "IR",
    "FMR_mutual": "FMR mutual",
    "IR_mutual": "IR mutual",
    "RR": "RR",
}
_BASELINES = {"fpfh": "FPFH", "random": "same network, random weights"}
_SOLVERS = {"ransac": "RANSAC", "kiss": "KISS-Matcher"}


def scenes(results: Sequence[Result], columns: str = "FMR,IR", names: str = "") -> str:
    """Matching: a row for each scene, the metrics of each result side by side."""
    metrics = choose(columns, _METRICS)
    titles = titled(results, names)
    head = ["scene", "pairs"]
    for title in titles:
        head += [f"{title}: {_METRICS[m]}" if len(results) > 1 else _METRICS[m] for m in metrics]
    rows = []
    for scene, first in results[0]["numbers"]["scenes"].items():
        row = [SCENES.get(scene, scene), str(first["n_pairs"])]
        for result in results:
            row += [share(result["numbers"]["scenes"][scene][m]) for m in metrics]
        rows.append(row)
    row = ["mean ± sd", str(results[0]["numbers"]["n_pairs"])]
    for result in results:
        row += [spread(result["numbers"], metric) for metric in metrics]
    return markdown(head, [*rows, row])


def descriptors(
    results: Sequence[Result], columns: str = "FMR,IR,FMR_mutual,IR_mutual,RR", names: str = ""
) -> str:
    """Matching: a row for each result and for each baseline measured with it, means over scenes."""
    metrics = choose(columns, _METRICS)
    rows = []
    for title, result in zip(titled(results, names), results, strict=True):
        found = {title: result["numbers"]}
        found |= {
            f"{_BASELINES.get(name, name)}": numbers
            for name, numbers in result["numbers"].get("baselines", {}).items()
        }
        for name, numbers in found.items():
            cells = [spread(numbers, metric) for metric in metrics]
            rows.append([name, str(numbers["n_pairs"]), *cells])
    return markdown(["", "pairs", *(_METRICS[m] for m in metrics)], rows)


def conditions(results: Sequence[Result]) -> str:
    """Registration: a row for each condition, our solver and others on the same matches."""
    result = single(results, "conditions")
    found = result["numbers"]["conditions"]
    others = list(dict.fromkeys(name for row in found.values() for name in row["others"]))
    scenes = result["numbers"]["n_pairs"]
    head = ["", "RR", *(f"RR, {SCENES.get(scene, scene)}" for scene in scenes)]
    from_truth = any("truth_kept" in row for row in found.values())
    head += ["RR from the true pose"] if from_truth else []
    head += ["of confidence 0.9: right", "inlier ratio"]
    head += [f"RR, {_SOLVERS.get(name, name)}" for name in others]
    table = []
    for name, row in found.items():
        cells = [share(row["RR"]), *(share(row["scenes"][scene]) for scene in scenes)]
        cells += [share(row.get("truth_kept"))] if from_truth else []
        cells += [f"{row['sure_right']} of {row['sure']}", share(row["inlier_ratio"])]
        cells += [share(row["others"].get(other, {}).get("RR")) for other in others]
        table.append([name, *cells])
    return markdown(head, table)


def condition_times(results: Sequence[Result]) -> str:
    """Registration: medians of the CPU time of each step, milliseconds."""
    result = single(results, "condition_times")
    found = result["numbers"]["conditions"]
    others = list(dict.fromkeys(name for row in found.values() for name in row["others"]))
    head = ["", "describe a scan", "match a pair", "estimate its pose"]
    head += [f"the same by {_SOLVERS.get(name, name)}" for name in others]
    table = []
    for name, row in found.items():
        times = [row["cpu_ms"][step] for step in ("describe", "match", "pose")]
        times += [row["others"].get(other, {}).get("cpu_ms") for other in others]
        table.append([name, *("" if ms is None else f"{ms:.0f}" for ms in times)])
    return markdown(head, table)
