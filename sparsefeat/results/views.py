"""Results as Markdown: one function for each kind of table.

A view takes results and options, both as written in a block of :mod:`sparsefeat.results.documents`.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from sparsefeat.errors import InputError
from sparsefeat.results.store import Result, command_words

_METRICS = {
    "FMR": "FMR",
    "IR": "IR",
    "FMR_mutual": "FMR mutual",
    "IR_mutual": "IR mutual",
    "RR": "RR",
}
_BASELINES = {"fpfh": "FPFH", "random": "same network, random weights"}
_METHODS = {
    "random": "same network, random weights",
    "fpfh": "FPFH",
    "fpfh_context": "FPFH + context",
    "hks": "HKS",
    "wks": "WKS",
    "hks + wks": "HKS + WKS",
    "xyz": "coordinates",
    "tuned": "tuned voxel size",
    "fixed": "1/50 of the extent",
}
_OF_MAPS = ("error", "right", "confidence")
_SOLVERS = {"ransac": "RANSAC", "kiss": "KISS-Matcher"}
_SCENES = {
    "7-scenes-redkitchen": "redkitchen",
    "sun3d-home_md-home_md_scan9_2012_sep_30": "home_md",
    "sun3d-hotel_umd-maryland_hotel1": "hotel1",
    "sun3d-mit_lab_hj-lab_hj_tea_nov_2_2012_scan1_erika": "mit_lab",
}
_DAMAGES = {
    "clean": "clean",
    "bridges": "hands and legs stuck together",
    "cut": "cut by a plane",
    "cloud": "raw cloud, 0.5 % noise",
    "one_view": "one view of a depth camera",
    "fusion": "coarse depth fusion",
    "remeshed": "other triangulation",
}


def origin(results: Sequence[Result]) -> str:
    """Where each result is, how it was measured, and with what."""
    parts = []
    for result in results:
        machine, versions = result["machine"], result["versions"]
        seconds, seeds = result.get("cpu_seconds"), result["seeds"]
        commit = result["commit"]
        facts = [
            str(result["date"])[:10],
            f"commit `{commit[:9]}`" if commit else "no commit recorded",
            *(["files differed from the commit"] if result.get("modified") else []),
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            machine["gpu"] or machine["processor"],
            f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}",
            *([f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"] if seeds else []),
            f"{seconds / 60:.1f} minutes of CPU" if seconds else "duration not recorded",
        ]
        parts.append(f"`results/{result['task']}/{result['name']}.json`: {'; '.join(facts)}.")
        parts.append(f"```text\n{_wrapped(command_words(result))}\n```")
    return "\n\n".join(parts)


def scenes(results: Sequence[Result], columns: str = "FMR,IR", names: str = "") -> str:
    """Matching: a row for each scene, the metrics of each result side by side."""
    metrics = _chosen(columns, _METRICS)
    titles = _names(results, names)
    head = ["scene", "pairs"]
    for title in titles:
        head += [f"{title}: {_METRICS[m]}" if len(results) > 1 else _METRICS[m] for m in metrics]
    rows = []
    for scene, first in results[0]["numbers"]["scenes"].items():
        row = [_SCENES.get(scene, scene), str(first["n_pairs"])]
        for result in results:
            row += [_share(result["numbers"]["scenes"][scene][m]) for m in metrics]
        rows.append(row)
    row = ["mean ± sd", str(results[0]["numbers"]["n_pairs"])]
    for result in results:
        row += [_spread(result["numbers"], metric) for metric in metrics]
    return _table(head, [*rows, row])


def descriptors(
    results: Sequence[Result], columns: str = "FMR,IR,FMR_mutual,IR_mutual,RR", names: str = ""
) -> str:
    """Matching: a row for each result and for each baseline measured with it, means over scenes."""
    metrics = _chosen(columns, _METRICS)
    rows = []
    for title, result in zip(_names(results, names), results, strict=True):
        found = {title: result["numbers"]}
        found |= {
            f"{_BASELINES.get(name, name)}": numbers
            for name, numbers in result["numbers"].get("baselines", {}).items()
        }
        for name, numbers in found.items():
            cells = [_spread(numbers, metric) for metric in metrics]
            rows.append([name, str(numbers["n_pairs"]), *cells])
    return _table(["", "pairs", *(_METRICS[m] for m in metrics)], rows)


def regimes(
    results: Sequence[Result],
    methods: str = "",
    rows: str = "",
    labels: str = "",
    learned: str = "clean",
    shots: str = "5",
    value: str = "accuracy",
    released: str = "",
) -> str:
    """Study: a row for each damage of the test shapes, a column for each method; the best of a row is bold.

    ``released=METHOD:NAME`` titles a network that was measured as a file by the name that it was released under.
    """
    (result,) = _single(results, "regimes")
    config, records = result["numbers"]["config"], result["numbers"]["records"]
    methods_of = [*config["networks"], *config["hand_made"], *config["joined"]]
    chosen = _chosen(methods, methods_of)
    kind = labels or next(iter(config["labels"]))
    table = []
    for damage in _chosen(rows, config["damages"]):
        means = [
            _mean(
                r[value]
                for r in records
                if (r.get("labels"), r.get("learned"), r.get("damage"), r["method"])
                == (kind, learned, damage, method)
                and r["shots"] == int(shots)
                and value in r
            )
            for method in chosen
        ]
        best = max((f"{m:.3f}" for m in means if m is not None), default=None)
        cells = [_share(mean) for mean in means]
        cells = [f"**{cell}**" if cell == best else cell for cell in cells]
        table.append([_DAMAGES.get(damage, damage), *cells])
    networks = dict(config["networks"])
    if released:
        method, _, name = released.partition(":")
        networks[_chosen(method, networks)[0]] = name
    titles = [_method(method, networks) for method in chosen]
    return _table(["test shapes", *titles], table)


def transfer(results: Sequence[Result], methods: str = "") -> str:
    """Shapes: a row for each method. Accuracy by labelled shapes, or error of maps, each as given and turned."""
    (result,) = _single(results, "transfer")
    numbers = result["numbers"]
    config = numbers["config"]
    chosen = _chosen(methods, config["methods"])
    checkpoint = config["features"]["checkpoint"].removeprefix("sparsefeat/")
    titles = [
        f"`{checkpoint}`, {_METHODS[m]}" if m in ("tuned", "fixed") else _method(m) for m in chosen
    ]
    turns = (False, True) if config["rotate"] else (False,)
    if numbers["maps"]:
        found = {(m["method"], m["map"], m["rotated"]): m["error"] for m in numbers["maps"]}
        columns = [
            (kind, turn) for kind in dict.fromkeys(m["map"] for m in numbers["maps"])
            for turn in turns
        ]  # fmt: skip
        head = [f"{kind}{', turned' * turn}" for kind, turn in columns]
        cells = [[f"{found[(method, *column)]:.1f}" for column in columns] for method in chosen]
    else:
        unit = "per class" if config["task"] == "classification" else "labelled"
        counts = [(count, turn) for count in config["shots"] for turn in turns]
        head = [f"{count} {unit}{', turned' * turn}" for count, turn in counts]
        cells = [
            [
                _mean_and_sd(
                    [
                        score["accuracy_rotated" if turn else "accuracy"]
                        for score in numbers["scores"]
                        if (score["method"], score["shots"]) == (method, count)
                    ]
                )
                for count, turn in counts
            ]
            for method in chosen
        ]
    sizes = [_sizes(numbers, method) for method in chosen]
    table = [[t, *row, size] for t, row, size in zip(titles, cells, sizes, strict=True)]
    return _table(["features", *head, "voxel size"], table)


def adapter(results: Sequence[Result]) -> str:
    """Receptive field: where tuning ended from each start, against the voxel size that a grid search chose."""
    rows = []
    for result in results:
        for draw in result["numbers"]["adapter"]["draws"]:
            chosen = max(draw["grid"], key=lambda point: point["accuracy"])["voxel_size"]
            for tuned in draw["tuned"]:
                over_grid, over_scan = (
                    100 * (tuned["accuracy"] - other)
                    for other in (draw["accuracy"], tuned["scanned_accuracy"])
                )
                rows.append(
                    [
                        str(draw["seed"]),
                        f"{chosen:.4f}, {draw['accuracy']:.3f}",
                        f"{tuned['start']:.4f}",
                        f"{tuned['voxel_size']:.4f}",
                        f"{2 * math.log2(tuned['voxel_size'] / chosen):+.2f}",
                        f"{over_grid:+.1f}",
                        f"{over_scan:+.1f}",
                        f"{tuned['cost_share']:.0%}".replace("%", " %"),
                    ]
                )
    head = ["draw", "the grid's choice: voxel size, accuracy", "start", "ends at"]
    head += ["rungs off the grid's choice", "points above the grid's choice"]
    return _table([*head, "points above its own scan", "cost, share of the grid's"], rows)


def timings(results: Sequence[Result]) -> str:
    """Engine: milliseconds of each case, and the time of the others as a multiple of ours."""
    (result,) = _single(results, "timings")
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
    return _table(head, table)


def voxels(results: Sequence[Result]) -> str:
    """Voxelisation: milliseconds, and the voxels that others leave out and add."""
    (result,) = _single(results, "voxels")
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
    return _table([*head, *(f"{name}, ms" for name in names)], table)


def kills(results: Sequence[Result]) -> str:
    """Robustness: how often each tool was killed, and what was found."""
    (result,) = _single(results, "kills")
    rows = []
    for name, tool in result["numbers"]["tools"].items():
        signals = ", ".join(f"{signal} {count}" for signal, count in tool["by_signal"].items())
        failures = str(len(tool["failures"]))
        rows.append([name, str(tool["kills"]), signals, str(tool["swept"]), failures])
    head = ["tool", "kills", "of which", "temporary files swept by the next run", "failures"]
    return _table(head, rows)


def zero_shot(results: Sequence[Result]) -> str:
    """Maps: the error of each pair of shapes, then mean and median."""
    (result,) = _single(results, "zero_shot")
    pairs = result["numbers"]["pairs"]
    rows = []
    for p in pairs:
        pieces = f" ({p['pieces']} pieces)" if p.get("pieces", 1) > 1 else ""
        name = f"{p['source']}{pieces} to {p['target']}"
        rows.append([name, *(f"{p[key]:.2f}" for key in _OF_MAPS)])
    for name, middle in (("mean", statistics.fmean), ("median", statistics.median)):
        rows.append([name, *(f"{middle(p[key] for p in pairs):.2f}" for key in _OF_MAPS)])
    return _table(["pair", "error", "share within 5", "mean confidence"], rows)


def trained_maps(results: Sequence[Result]) -> str:
    """Maps of a trained head: a row for each snapshot and orientation, a column for each kind of map."""
    (result,) = _single(results, "trained_maps")
    records = result["numbers"]["records"]
    kinds = list(dict.fromkeys(record["map"] for record in records))
    rows: dict[tuple[int, bool], dict[str, str]] = {}
    for record in records:
        row = rows.setdefault((record["step"], record["rotated"]), {})
        row |= {"minutes": f"{record['seconds'] / 60:.1f}", record["map"]: f"{record['error']:.2f}"}
    table = [
        [str(step), row["minutes"], "turned" if turned else "as given", *(row[k] for k in kinds)]
        for (step, turned), row in rows.items()
    ]
    return _table(["steps", "minutes", "shapes", *kinds], table)


def conditions(results: Sequence[Result]) -> str:
    """Registration: a row for each condition, our solver and others on the same matches."""
    (result,) = _single(results, "conditions")
    found = result["numbers"]["conditions"]
    others = list(dict.fromkeys(name for row in found.values() for name in row["others"]))
    scenes = result["numbers"]["n_pairs"]
    head = ["", "RR", *(f"RR, {_SCENES.get(scene, scene)}" for scene in scenes)]
    head += ["of confidence 0.9: right", "inlier ratio"]
    head += [f"RR, {_SOLVERS.get(name, name)}" for name in others]
    table = []
    for name, row in found.items():
        cells = [_share(row["RR"]), *(_share(row["scenes"][scene]) for scene in scenes)]
        cells += [f"{row['sure_right']} of {row['sure']}", _share(row["inlier_ratio"])]
        cells += [_share(row["others"].get(other, {}).get("RR")) for other in others]
        table.append([name, *cells])
    return _table(head, table)


def condition_times(results: Sequence[Result]) -> str:
    """Registration: medians of the CPU time of each step, milliseconds."""
    (result,) = _single(results, "condition_times")
    found = result["numbers"]["conditions"]
    others = list(dict.fromkeys(name for row in found.values() for name in row["others"]))
    head = ["", "describe a scan", "match a pair", "estimate its pose"]
    head += [f"the same by {_SOLVERS.get(name, name)}" for name in others]
    table = []
    for name, row in found.items():
        times = [row["cpu_ms"][step] for step in ("describe", "match", "pose")]
        times += [row["others"].get(other, {}).get("cpu_ms") for other in others]
        table.append([name, *("" if ms is None else f"{ms:.0f}" for ms in times)])
    return _table(head, table)


def records(
    results: Sequence[Result], columns: str, under: str = "", titles: str = "", first: str = ""
) -> str:
    """A row for each entry of a mapping, such as one reader, one data set or one environment.

    Args:
        results: one.
        columns: keys of an entry, with commas; ``a.b`` is b within a. What an entry lacks stays empty.
        under: key of the mapping within the numbers; empty: the numbers themselves.
        titles: of the columns, with commas; empty: the keys.
        first: title of the first column.
    """
    (result,) = _single(results, "records")
    entries = _within(result["numbers"], under) if under else result["numbers"]
    keys = [key.strip() for key in columns.split(",")]
    named = [title.strip() for title in titles.split(",")] if titles else keys
    if len(named) != len(keys):
        raise InputError(f"records: {len(named)} titles for {len(keys)} columns")
    rows = [
        [_SCENES.get(name, _DAMAGES.get(name, name)), *(_cell(_within(entry, key)) for key in keys)]
        for name, entry in entries.items()
        if isinstance(entry, dict)
    ]
    return _table([first, *named], rows)


def _within(entry: Any, key: str) -> Any:
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, dict) else None
    return entry


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return str(len(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


VIEWS: dict[str, Callable[..., str]] = {
    view.__name__: view
    for view in (
        origin, scenes, descriptors, regimes, transfer, adapter, timings, voxels, kills, zero_shot,
        trained_maps, conditions, condition_times, records,
    )
}  # fmt: skip
"""By the name that a block gives."""


def _single(results: Sequence[Result], view: str) -> Sequence[Result]:
    if len(results) != 1:
        raise InputError(f"{view}: expected one result, got {len(results)}")
    return results


def _chosen(listed: str, known: Any) -> list[str]:
    """Names in a list with commas; nothing: all."""
    names = [name.strip() for name in listed.split(",") if name.strip()] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"expected some of {', '.join(known)}; got {', '.join(unknown)}")
    return names


def _names(results: Sequence[Result], listed: str) -> list[str]:
    names = [name.strip() for name in listed.split(";") if name.strip()]
    if names and len(names) != len(results):
        raise InputError(f"names: expected {len(results)}, separated by ;, got {len(names)}")
    return names or [f"`{result['name']}`" for result in results]


def _method(method: str, networks: dict[str, str] | None = None) -> str:
    checkpoint = (networks or {}).get(method, "random")
    if checkpoint != "random":
        return f"`{checkpoint.removeprefix('sparsefeat/')}`"
    return _METHODS.get(method, method)


def _sizes(numbers: dict[str, Any], method: str) -> str:
    sizes = [
        s["voxel_size"] for s in numbers["scores"] if s["method"] == method and s["voxel_size"]
    ]
    sizes += [t["voxel_size"] for t in numbers["tunings"].get(method, []) if not sizes]
    ends = [f"{size:.3g}" for size in (min(sizes), max(sizes))] if sizes else []
    return " to ".join(dict.fromkeys(ends))


def _mean(values: Any) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def _mean_and_sd(values: Sequence[float]) -> str:
    if not values:
        return ""
    sd = f" ± {statistics.pstdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{sd}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _spread(numbers: dict[str, Any], metric: str) -> str:
    mean, sd = numbers.get(metric), numbers.get(f"{metric}_sd")
    return "" if mean is None else f"{mean:.3f} ± {sd:.3f}"


def _wrapped(words: Sequence[str], width: int = 96) -> str:
    """A command line on several lines, as a shell takes it; an option stays with its value."""
    groups: list[str] = []
    for k, word in enumerate(words):
        if k and words[k - 1].startswith("--") and not word.startswith("--"):
            groups[-1] += f" {shlex.quote(word)}"
        else:
            groups.append(shlex.quote(word))
    lines, line = [], ""
    for group in groups:
        if line and len(line) + 1 + len(group) > width:
            lines.append(line)
            line = "   "
        line = f"{line} {group}" if line else group
    return " \\\n".join([*lines, line])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
