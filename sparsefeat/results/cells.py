"""What tables of results have in common: titles of rows and columns, numbers as text, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from sparsefeat.errors import InputError
from sparsefeat.results.store import Result

METHODS = {
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
SCENES = {
    "7-scenes-redkitchen": "redkitchen",
    "sun3d-home_md-home_md_scan9_2012_sep_30": "home_md",
    "sun3d-hotel_umd-maryland_hotel1": "hotel1",
    "sun3d-mit_lab_hj-lab_hj_tea_nov_2_2012_scan1_erika": "mit_lab",
}
DAMAGES = {
    "clean": "clean",
    "bridges": "hands and legs stuck together",
    "cut": "cut by a plane",
    "cloud": "raw cloud, 0.5 % noise",
    "one_view": "one view of a depth camera",
    "fusion": "coarse depth fusion",
    "remeshed": "other triangulation",
}


def single(results: Sequence[Result], view: str) -> Result:
    """The one result of a table that takes no more."""
    if len(results) != 1:
        raise InputError(f"{view}: expected one result, got {len(results)}")
    return results[0]


def choose(listed: str, known: Any) -> list[str]:
    """Names in a list with commas; nothing: all."""
    names = [name.strip() for name in listed.split(",") if name.strip()] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"expected some of {', '.join(known)}; got {', '.join(unknown)}")
    return names


def titled(results: Sequence[Result], listed: str) -> list[str]:
    """Titles of results, from a list with semicolons; nothing: their names."""
    names = [name.strip() for name in listed.split(";") if name.strip()]
    if names and len(names) != len(results):
        raise InputError(f"names: expected {len(results)}, separated by ;, got {len(names)}")
    return names or [f"`{result['name']}`" for result in results]


def method_title(method: str, networks: dict[str, str] | None = None) -> str:
    """What features are called: the checkpoint of a network, or the method in words."""
    checkpoint = (networks or {}).get(method, "random")
    if checkpoint != "random":
        return f"`{checkpoint.removeprefix('sparsefeat/')}`"
    return METHODS.get(method, method)


def mean(values: Iterable[float]) -> float | None:
    """None of no values."""
    found = list(values)
    return statistics.fmean(found) if found else None


def mean_and_sd(values: Sequence[float]) -> str:
    """Of shares; without a deviation of one alone."""
    if not values:
        return ""
    sd = f" ± {statistics.pstdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{sd}"


def share(value: float | None) -> str:
    """A fraction in thousandths; nothing of None."""
    return "" if value is None else f"{value:.3f}"


def spread(numbers: dict[str, Any], metric: str) -> str:
    """A metric of matching and its deviation over scenes."""
    mean, sd = numbers.get(metric), numbers.get(f"{metric}_sd")
    return "" if mean is None else f"{mean:.3f} ± {sd:.3f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
