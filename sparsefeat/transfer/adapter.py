"""Holds the receptive-field adapter against a grid search: which voxel size each chooses, what it is worth, what it costs.

A grid that is chosen and scored on the same shapes is too good: its best is the largest of several noisy accuracies.
So there are three groups of individuals. Heads learn on the first, and the adapter sees these alone; the second chooses
the grid's voxel size; both are scored on the third.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsefeat.checkpoint import weights_digest
from sparsefeat.data.shapes import Shape, ShapeDataset
from sparsefeat.extract.surfaces import SAMPLES_PER_VOXEL_EDGE
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.receptive_field import TunedReceptiveField, tune_receptive_field
from sparsefeat.transfer.config import TransferConfig
from sparsefeat.transfer.features import Backbone, tuning_objective
from sparsefeat.transfer.labelling import score_labels
from sparsefeat.transfer.records import Record, read_records, write_records
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, damaged


@dataclass
class GridPoint:
    """A voxel size, its accuracy on the validation shapes, and the surface points that were computed for it."""

    voxel_size: float
    accuracy: float
    points: int


@dataclass
class TunedPoint:
    """Where tuning ended from a start.

    Attributes:
        start, voxel_size: where it began and ended.
        accuracy: of that voxel size on the scored shapes.
        scanned: the best rung of the look that comes before the descent.
        scanned_accuracy: of that rung on the scored shapes: what the descent has to be better than.
        cost_share: surface points of the tuning and of the final features, against those of the grid; a point counts
            once per pose and scale.
    """

    start: float
    voxel_size: float
    accuracy: float
    scanned: float
    scanned_accuracy: float
    cost_share: float


@dataclass
class AdapterDraw:
    """One division of the individuals.

    Attributes:
        seed: that decided it.
        grid: by voxel size, ascending.
        accuracy: of the grid's best voxel size, on the scored shapes.
        tuned: by start.
        shots, validation, scored: how many shapes there were of each.
    """

    seed: int
    grid: list[GridPoint]
    accuracy: float
    tuned: list[TunedPoint]
    shots: int
    validation: int
    scored: int

    @property
    def best(self) -> GridPoint:
        """The one that the validation shapes choose."""
        return max(self.grid, key=lambda point: point.accuracy)

    def rungs_off(self, tuned: TunedPoint) -> float:
        """From the grid's best, in factors of sqrt(2)."""
        return 2 * math.log2(tuned.voxel_size / self.best.voxel_size)

    @property
    def spread(self) -> float:
        """Between the largest and the smallest voxel size that the starts led to, in rungs."""
        ends = [point.voxel_size for point in self.tuned]
        return 2 * math.log2(max(ends) / min(ends))


@dataclass
class AdapterComparison:
    """All draws."""

    draws: list[AdapterDraw] = field(default_factory=list)

    @property
    def differences(self) -> np.ndarray:
        """Accuracy of the adapter less that of the grid. Shape: (draws, starts)."""
        return np.array([[p.accuracy - draw.accuracy for p in draw.tuned] for draw in self.draws])

    def summary(self) -> dict[str, float]:
        """What the comparison says, over all draws and starts.

        Returns:
            ``difference``: mean difference to the grid, with ``difference_error``, its standard error over draws (starts
            of one draw are not independent); ``worst``: the smallest; ``over_scan``: mean difference of the descent to the
            best rung of its own look; ``agreeing``: share of draws whose starts end within half a rung of each other;
            ``cost_share`` and ``cost_share_most``: mean and largest share of the grid's cost.
        """
        differences, draws = self.differences, len(self.draws)
        tuned = [point for draw in self.draws for point in draw.tuned]
        error = differences.mean(1).std(ddof=1) / math.sqrt(draws) if draws > 1 else math.nan
        shares = [point.cost_share for point in tuned]
        return {
            "difference": float(differences.mean()),
            "difference_error": float(error),
            "worst": float(differences.min()),
            "over_scan": float(np.mean([p.accuracy - p.scanned_accuracy for p in tuned])),
            "agreeing": float(np.mean([draw.spread <= 0.5 for draw in self.draws])),
            "cost_share": float(np.mean(shares)),
            "cost_share_most": max(shares),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; a number that is not known is None."""
        known = {k: None if math.isnan(v) else v for k, v in self.summary().items()}
        return {"draws": [asdict(draw) for draw in self.draws], "summary": known}

    def table(self) -> str:
        """A paragraph for each draw, and the summary."""
        lines = []
        for draw in self.draws:
            lines.append(
                f"draw {draw.seed}: {draw.shots} shapes to learn from, {draw.validation} to choose the grid by, "
                f"{draw.scored} to score on; the grid chose {draw.best.voxel_size:.4g}, accuracy {draw.accuracy:.3f}"
            )
            for point in draw.tuned:
                lines.append(
                    f"  start {point.start:.4g}: voxel size {point.voxel_size:.4g} ({draw.rungs_off(point):+.2f} rungs), "
                    f"accuracy {point.accuracy:.3f} ({100 * (point.accuracy - draw.accuracy):+.1f} points), "
                    f"{point.cost_share:.0%} of the grid's cost"
                )
        found = self.summary()
        lines.append(
            f"adapter less grid: {100 * found['difference']:+.2f} points "
            f"(standard error {100 * found['difference_error']:.2f}), worst {100 * found['worst']:+.1f}; descent less "
            f"its scan {100 * found['over_scan']:+.2f}; starts within half a rung in {found['agreeing']:.0%} of draws; "
            f"cost {found['cost_share']:.0%}, at most {found['cost_share_most']:.0%}"
        )
        return "\n".join(lines)


def check_adapter(config: TransferConfig, dataset: ShapeDataset, path: Path | None) -> None:
    """Find out what :func:`compare_adapter` would refuse.

    Raises:
        InputError: see there.
    """
    if path is not None:
        read_records(path, _identity(config))
    for seed in config.adapter.draws:
        _divide(dataset, config, seed)


def compare_adapter(
    config: TransferConfig,
    dataset: ShapeDataset,
    store: ShapeStore,
    source: Backbone,
    classes: int,
    progress: Callable[[str], None],
    device: str | None = None,
    path: Path | None = None,
) -> AdapterComparison:
    """One comparison for each of the configured draws. All shapes are of the training split; the test split is not looked at.

    Args:
        config: with an ``adapter`` section.
        dataset, store: the shapes.
        source: the frozen backbone.
        classes: number of labels.
        progress: called with a line before each part.
        device: of heads that are networks; None: the CPU.
        path: a JSON that is written after each draw; draws that it has are not made again.

    Raises:
        InputError: too few individuals for three groups, or a file of another comparison.
    """
    identity = _identity(config)
    records = [] if path is None else read_records(path, identity)
    draws = {record["seed"]: _from_record(record) for record in records}
    for seed in config.adapter.draws:
        if seed in draws:
            continue
        draws[seed] = _draw(config, dataset, store, source, classes, progress, seed, device)
        if path is not None:
            write_records(path, identity, [asdict(draw) for draw in draws.values()])
    return AdapterComparison([draws[seed] for seed in config.adapter.draws])


def _identity(config: TransferConfig) -> dict[str, Any]:
    """What a draw depends on."""
    kept = asdict(config)
    for name in ("cache", "output", "note"):
        del kept[name]
    kept["data"]["root"] = str(config.data.root)
    kept["weights"] = weights_digest(config.features.checkpoint)
    del kept["adapter"]["draws"]
    return kept


def _from_record(record: Record) -> AdapterDraw:
    grid = [GridPoint(**point) for point in record["grid"]]
    tuned = [TunedPoint(**point) for point in record["tuned"]]
    return AdapterDraw(**{**record, "grid": grid, "tuned": tuned})


def _draw(
    config: TransferConfig,
    dataset: ShapeDataset,
    store: ShapeStore,
    source: Backbone,
    classes: int,
    progress: Callable[[str], None],
    seed: int,
    device: str | None,
) -> AdapterDraw:
    check, views = config.adapter, config.features.views
    shots, validation, scored = (
        [store(shape) for shape in part] for part in _divide(dataset, config, seed)
    )
    learned = shots + [damaged(shape, kind, seed) for kind in config.damage for shape in shots]
    still = replace(config, rotate=False)

    def points(voxel_size: float, of: Sequence[LoadedShape]) -> int:
        return views * sum(_points(shape, voxel_size, config.features.scales) for shape in of)

    def accuracy(voxel_size: float, on: Sequence[LoadedShape]) -> float:
        return score_labels(
            "adapter",
            source.at(voxel_size),
            learned,
            on,
            still,
            classes,
            len(shots),
            seed,
            device=device,
        ).accuracy

    grid = []
    for k in range(check.rungs):
        size = source.start * 2 ** ((k - (check.rungs - 1) / 2) / 2)
        progress(f"draw {seed}, grid: voxel size {size:.4g}")
        cost = points(size, [*learned, *validation])
        grid.append(GridPoint(size, accuracy(size, validation), cost))
    draw = AdapterDraw(seed, grid, math.nan, [], len(shots), len(validation), len(scored))
    draw.accuracy = accuracy(draw.best.voxel_size, scored)
    total = sum(point.points for point in grid)
    chosen = shots[: config.features.shapes]
    for factor in check.starts:
        start, span = source.start * factor, config.features.span
        progress(f"draw {seed}, tuning from {start:.4g}")
        tuned = tune_receptive_field(
            source.extractor,
            chosen,
            tuning_objective(config.features.objective, config.task, chosen),
            start=start,
            bounds=(start / span, start * span),
            keypoints=config.features.keypoints,
            views=views,
            seed=seed,
        )
        final = points(tuned.voxel_size, learned)
        scanned = _scanned(tuned)
        draw.tuned.append(
            TunedPoint(
                start,
                tuned.voxel_size,
                accuracy(tuned.voxel_size, scored),
                scanned,
                accuracy(scanned, scored),
                (tuned.cost.points + final) / total,
            )
        )
    return draw


def _scanned(tuned: TunedReceptiveField) -> float:
    """The voxel size with the smallest objective among those of the first look."""
    looked = [step for step in tuned.history if step.descent == 0]
    return min(looked, key=lambda step: step.objective).voxel_size[0]


def _divide(
    dataset: ShapeDataset, config: TransferConfig, seed: int
) -> tuple[list[Shape], list[Shape], list[Shape]]:
    """Shapes to learn from, to choose the grid by and to score on; nobody is in two of them."""
    check, split = config.adapter, config.data.train
    rest, scored = dataset.hold_out(split, check.held_share, seed)
    rows = tuple(dataset.row(shape.name) for shape in rest)
    remaining = replace(dataset, splits={**dataset.splits, split: rows})
    shots, validation = remaining.hold_out(split, check.held_share / (1 - check.held_share), seed)
    counts = (check.shots, check.validation, check.scored)
    parts = (shots, validation, scored)
    shots, validation, scored = (
        _some(part, count, seed) for part, count in zip(parts, counts, strict=True)
    )
    return shots, validation, scored


def _some(shapes: Sequence[Shape], count: int, seed: int) -> list[Shape]:
    """So many shapes, of every class in turn."""
    order = [shapes[i] for i in np.random.default_rng(seed).permutation(len(shapes))]
    queues: dict[int | None, list[Shape]] = {}
    for shape in order:
        queues.setdefault(shape.label, []).append(shape)
    chosen: list[Shape] = []
    while len(chosen) < min(count, len(shapes)):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return chosen


def _points(shape: LoadedShape, voxel_size: float, scales: Sequence[float]) -> int:
    """Points that go through the network for features at these scales: at each, the samples for the smallest."""
    if shape.surface is None:
        return len(scales) * len(shape.vertices)
    area = surface_area(shape.vertices, shape.faces)
    samples = math.ceil(area * (SAMPLES_PER_VOXEL_EDGE / (voxel_size * min(scales))) ** 2)
    return len(scales) * (len(shape.vertices) + samples)
