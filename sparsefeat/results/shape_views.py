"""Tables of shapes: labels, maps and receptive fields."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from sparsefeat.results.cells import (
    DAMAGES,
    METHODS,
    choose,
    markdown,
    mean,
    mean_and_sd,
    method_title,
    share,
    single,
    titled,
)
from sparsefeat.results.store import Result

_OF_MAPS = ("error", "right", "confidence")


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
    result = single(results, "regimes")
    config, records = result["numbers"]["config"], result["numbers"]["records"]
    methods_of = [*config["networks"], *config["hand_made"], *config["joined"]]
    chosen = choose(methods, methods_of)
    kind = labels or next(iter(config["labels"]))
    table = []
    for damage in choose(rows, config["damages"]):
        means = [
            mean(
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
        cells = [share(mean) for mean in means]
        cells = [f"**{cell}**" if cell == best else cell for cell in cells]
        table.append([DAMAGES.get(damage, damage), *cells])
    networks = dict(config["networks"])
    if released:
        method, _, name = released.partition(":")
        networks[choose(method, networks)[0]] = name
    titles = [method_title(method, networks) for method in chosen]
    return markdown(["test shapes", *titles], table)


def transfer(results: Sequence[Result], methods: str = "") -> str:
    """Shapes: a row for each method. Accuracy by labelled shapes, or error of maps, each as given and turned."""
    result = single(results, "transfer")
    numbers = result["numbers"]
    config = numbers["config"]
    chosen = choose(methods, config["methods"])
    checkpoint = config["features"]["checkpoint"].removeprefix("sparsefeat/")
    given = config["features"].get("voxel_size") is not None
    names = METHODS | ({"tuned": "given voxel size"} if given else {})
    titles = [
        f"`{checkpoint}`, {names[m]}" if m in ("tuned", "fixed") else method_title(m)
        for m in chosen
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
                mean_and_sd(
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
    return markdown(["features", *head, "voxel size"], table)


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
    return markdown([*head, "points above its own scan", "cost, share of the grid's"], rows)


def zero_shot(results: Sequence[Result], worst: str = "") -> str:
    """Maps: the error of each pair of shapes, then mean and median.

    Args:
        results: one.
        worst: so many pairs alone, those of the largest errors; empty: all, in the order of the records.
    """
    result = single(results, "zero_shot")
    pairs = result["numbers"]["pairs"]
    rows = []
    some = sorted(pairs, key=lambda p: -p["error"])[: int(worst)] if worst else pairs
    for p in some:
        pieces = f" ({p['pieces']} pieces)" if p.get("pieces", 1) > 1 else ""
        name = f"{p['source']}{pieces} to {p['target']}"
        rows.append([name, *(f"{p[key]:.2f}" for key in _OF_MAPS)])
    for name, middle in (("mean", statistics.fmean), ("median", statistics.median)):
        label = f"{name} of all {len(pairs)}" if worst else name
        rows.append([label, *(f"{middle(p[key] for p in pairs):.2f}" for key in _OF_MAPS)])
    return markdown(["pair", "error", "share within 5", "mean confidence"], rows)


def trained_maps(results: Sequence[Result], names: str = "") -> str:
    """Maps of trained heads: a row for each snapshot and orientation, a column for each kind of map.

    Args:
        results: one or several.
        names: titles of several, separated by semicolons; empty: their names.
    """
    several = len(results) > 1
    table, columns = [], None
    for title, result in zip(titled(results, names), results, strict=True):
        records = result["numbers"]["records"]
        kinds = list(dict.fromkeys(record["map"] for record in records))
        columns = columns or kinds
        rows: dict[tuple[int, bool], dict[str, str]] = {}
        for record in records:
            row = rows.setdefault((record["step"], record["rotated"]), {})
            row["minutes"] = f"{record['seconds'] / 60:.1f}"
            row[record["map"]] = f"{record['error']:.2f}"
        for (step, turned), row in rows.items():
            cells = [str(step), row["minutes"], "turned" if turned else "as given"]
            table.append([title] * several + cells + [row.get(kind, "") for kind in columns])
    head = ["training"] * several + ["steps", "minutes", "shapes"]
    return markdown([*head, *(columns or [])], table)


def _sizes(numbers: dict[str, Any], method: str) -> str:
    sizes = [
        s["voxel_size"] for s in numbers["scores"] if s["method"] == method and s["voxel_size"]
    ]
    if not sizes:
        sizes = [size for t in numbers["tunings"].get(method, []) for size in t["voxel_sizes"]]
    ends = [f"{size:.3g}" for size in (min(sizes), max(sizes))] if sizes else []
    return " to ".join(dict.fromkeys(ends))


def axis(results: Sequence[Result], columns: str = "") -> str:
    """Axes: a row for each setting, a column for each score: mean and sample standard deviation over seeds.

    Args:
        results: one.
        columns: ``measure value``, such as ``people cut``, with commas; empty: all, in the order of the records.
    """
    result = single(results, "axis")
    settings, records = result["numbers"]["config"]["settings"], result["numbers"]["records"]
    scores = [r for r in records if r["measure"] != "training"]
    known = dict.fromkeys(f"{r['measure']} {value}" for r in scores for value in r["values"])
    chosen = choose(columns, known)
    table = []
    for setting in settings:
        cells = []
        for column in chosen:
            values = [
                r["values"][value]
                for r in scores
                for value in r["values"]
                if r["setting"] == setting and f"{r['measure']} {value}" == column
            ]
            deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(share(mean(values)) + deviation)
        table.append([setting, *cells])
    return markdown(["setting", *chosen], table)
