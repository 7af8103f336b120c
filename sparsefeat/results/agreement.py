"""Whether a number that was measured again agrees with the published one.

The same version on the same machine gives the same numbers. Another processor or another version of torch rounds
otherwise; the tolerances are for that, and by far smaller than any difference that a table is there to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparsefeat.errors import InputError
from sparsefeat.results.store import Result

_EXACT = 1e-12


@dataclass(frozen=True)
class Tolerance:
    """How far a number may lie from the published one: the larger of the two.

    Attributes:
        absolute: in the unit of the number.
        relative: share of the published number.
        why: for the reader of the report.
    """

    absolute: float = 0.0
    relative: float = 0.0
    why: str = ""

    def allowed(self, published: float) -> float:
        """The largest difference that agrees."""
        return max(self.absolute, self.relative * abs(published), _EXACT)


TOLERANCES = {
    "count": Tolerance(why="exact"),
    "mean recall": Tolerance(0.02, why="some pairs lie at the threshold"),
    "inlier ratio": Tolerance(0.005, why="features are rounded otherwise"),
    "accuracy": Tolerance(0.02, why="features and heads are rounded otherwise"),
    "geodesic error": Tolerance(0.5, why="hundredths; maps may flip at a few points"),
    "voxel size": Tolerance(relative=0.1, why="a descent ends nearby"),
    "time ratio": Tolerance(relative=0.5, why="times of one run, each against another's"),
    "memory": Tolerance(relative=0.2, why="allocators differ"),
}
"""By kind of number. Times themselves are not compared: they belong to the machine."""

Number = tuple[str, float | None, Tolerance]
"""Its name, its value (None: there is none), and how far another value may lie from it."""


@dataclass(frozen=True)
class Comparison:
    """A published number and the same one measured again (None: it is not there any more)."""

    name: str
    published: float
    now: float | None
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether both are the same within the tolerance."""
        return self.now is not None and abs(self.now - self.published) <= self.tolerance

    def line(self) -> str:
        """For the report."""
        verdict = "agrees" if self.agrees else "DIFFERS"
        now = "absent" if self.now is None else f"{self.now:.6g}"
        within = f"tolerance {self.tolerance:.2g}" if self.tolerance > _EXACT else "exact"
        return f"{self.name}: published {self.published:.6g}, now {now}, {within}: {verdict}"


def compare(published: Result, numbers: dict[str, Any]) -> list[Comparison]:
    """Hold what was measured again against a published result.

    Args:
        published: the result.
        numbers: of the same command, as its ``--json`` wrote them.

    Raises:
        InputError: a task whose numbers are not known, or numbers of another form.
    """
    task = published["task"]
    if task not in _NUMBERS:
        raise InputError(f"{task}: expected one of {', '.join(COMPARED)}")
    try:
        before = list(_NUMBERS[task](published["numbers"]))
        now = {name: value for name, value, _ in _NUMBERS[task](numbers)}
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{task}/{published['name']}: not numbers of {task} ({error!r})"
        ) from error
    return [
        Comparison(name, value, now.get(name), tolerance.allowed(value))
        for name, value, tolerance in before
        if value is not None
    ]


def _matching(numbers: dict[str, Any], prefix: str = "") -> Iterator[Number]:
    if "conditions" in numbers:
        yield from _conditions(numbers)
        return
    yield f"{prefix}n_pairs", numbers["n_pairs"], TOLERANCES["count"]
    for where, found in (("", numbers), *numbers["scenes"].items()):
        place = f"{prefix}{where}{' ' * bool(where)}"
        # In a scene alone a single pair at the threshold is a large share.
        one_pair = Tolerance(1 / found["n_pairs"])
        recall = TOLERANCES["mean recall"]
        for metric in ("FMR", "FMR_mutual", "RR"):
            tolerance = max(recall, one_pair, key=lambda t: t.absolute) if where else recall
            yield f"{place}{metric}", found.get(metric), tolerance
        for metric in ("IR", "IR_mutual"):
            yield f"{place}{metric}", found[metric], TOLERANCES["inlier ratio"]
    for name, baseline in numbers.get("baselines", {}).items():
        yield from _matching(baseline, f"{prefix}{name} ")


def _conditions(numbers: dict[str, Any]) -> Iterator[Number]:
    for scene, count in numbers["n_pairs"].items():
        yield f"{scene}: pairs", count, TOLERANCES["count"]
    # Two pairs of the smallest scene: a solver draws at random, and some pairs lie at the threshold.
    recall = Tolerance(2 / min(numbers["n_pairs"].values()))
    for name, found in numbers["conditions"].items():
        yield f"{name}: RR", found["RR"], recall
        yield f"{name}: RR from the true pose", found.get("truth_kept"), recall
        for scene, share in found["scenes"].items():
            yield f"{name}: RR of {scene}", share, Tolerance(2 / numbers["n_pairs"][scene])
        yield f"{name}: inlier ratio", found["inlier_ratio"], TOLERANCES["inlier ratio"]
        for other, solved in found["others"].items():
            yield f"{name}: RR by {other}", solved["RR"], recall


def _study(numbers: dict[str, Any]) -> Iterator[Number]:
    for record in numbers["records"]:
        keys = ("labels", "learned", "shots", "seed", "damage", "map", "method")
        name = ", ".join(str(record[key]) for key in keys if key in record)
        for value in ("accuracy", "mirrored"):
            if value in record:
                yield f"{name}: {value}", record[value], TOLERANCES["accuracy"]
        if "error" in record:
            yield f"{name}: error", record["error"], TOLERANCES["geodesic error"]


def _shapes(numbers: dict[str, Any]) -> Iterator[Number]:
    for score in numbers["scores"]:
        name = f"{score['method']}, {score['shots']} shots, seed {score['seed']}"
        for value in ("accuracy", "accuracy_rotated"):
            yield f"{name}: {value}", score[value], TOLERANCES["accuracy"]
        for damage, accuracy in score.get("accuracy_damaged", {}).items():
            yield f"{name}: accuracy, {damage}", accuracy, TOLERANCES["accuracy"]
        yield f"{name}: voxel size", score["voxel_size"], TOLERANCES["voxel size"]
    for found in numbers["maps"]:
        turned = ", turned" if found["rotated"] else ""
        name = f"{found['method']}, {found['map']}{turned}: error"
        yield name, found["error"], TOLERANCES["geodesic error"]
    kind = "geodesic error" if numbers["maps"] else "accuracy"
    # By number: the sizes lie about a tuned one, which ends nearby elsewhere.
    for number, point in enumerate(numbers["curve"], 1):
        yield (
            f"point {number} of the curve: voxel size",
            point["voxel_size"],
            TOLERANCES["voxel size"],
        )
        yield f"point {number} of the curve: score", point["score"], TOLERANCES[kind]


def _receptive_field(numbers: dict[str, Any]) -> Iterator[Number]:
    for draw in numbers["adapter"]["draws"]:
        yield f"draw {draw['seed']}: accuracy", draw["accuracy"], TOLERANCES["accuracy"]
        for number, point in enumerate(draw["grid"], 1):
            name = f"draw {draw['seed']}, point {number} of the grid: accuracy"
            yield name, point["accuracy"], TOLERANCES["accuracy"]
        for number, tuned in enumerate(draw["tuned"], 1):
            name = f"draw {draw['seed']}, start {number}"
            yield f"{name}: voxel size", tuned["voxel_size"], TOLERANCES["voxel size"]
            for value in ("accuracy", "scanned_accuracy"):
                yield f"{name}: {value}", tuned[value], TOLERANCES["accuracy"]


def _engine(numbers: dict[str, Any]) -> Iterator[Number]:
    for row in numbers["results"]:
        name = f"{row['case']} {row['operation']}, {row['threads']} thr, {row['dtype']}"
        for other, ratio in row["ratios"].items():
            yield f"{name}: time of {other} over ours", ratio, TOLERANCES["time ratio"]
        if row["memory_bytes"]:
            yield f"{name}: peak memory, bytes", row["memory_bytes"], TOLERANCES["memory"]


def _voxelization(numbers: dict[str, Any]) -> Iterator[Number]:
    for row in numbers["results"]:
        name = f"{row['triangles']} triangles, {row['resolution']}"
        yield f"{name}: voxels", row["voxels"], TOLERANCES["count"]
        own = row["contenders"]["sparsefeat"]["times"]["median_s"]
        for other, found in row["contenders"].items():
            if other == "sparsefeat":
                continue
            yield f"{name}: missing in {other}", found["missing"], TOLERANCES["count"]
            yield f"{name}: extra in {other}", found["extra"], TOLERANCES["count"]
            ratio = found["times"]["median_s"] / own
            yield f"{name}: time of {other} over ours", ratio, TOLERANCES["time ratio"]


def _maps(numbers: dict[str, Any]) -> Iterator[Number]:
    for pair in numbers["pairs"] if "error" in numbers else ():
        name = f"{pair['source']} to {pair['target']}: error"
        yield name, pair["error"], TOLERANCES["geodesic error"]
    for record in numbers.get("records", ()):
        turned = ", turned" if record["rotated"] else ""
        name = f"step {record['step']}, {record['map']}{turned}: error"
        yield name, record["error"], TOLERANCES["geodesic error"]


def _robustness(numbers: dict[str, Any]) -> Iterator[Number]:
    # How many kills come too late depends on the machine; that nothing breaks does not.
    for name, tool in numbers.get("tools", {}).items():
        yield f"{name}: failures", len(tool["failures"]), TOLERANCES["count"]
    for name, reader in numbers.get("readers", {}).items():
        yield f"{name}: bad", len(reader["bad"]), TOLERANCES["count"]


_NUMBERS = {
    "matching": _matching,
    "study": _study,
    "shapes": _shapes,
    "receptive_field": _receptive_field,
    "engine": _engine,
    "voxelization": _voxelization,
    "robustness": _robustness,
    "maps": _maps,
}
COMPARED = tuple(_NUMBERS)
"""Tasks whose results can be measured again and compared."""
