"""Holds the receptive-field adapter against a grid search: where it ends from wrong starts, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sparsefeat.data.shapes import Shape, ShapeDataset
from sparsefeat.extract.surfaces import SAMPLES_PER_VOXEL_EDGE
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.receptive_field import tune_receptive_field
from sparsefeat.transfer.config import TransferConfig
from sparsefeat.transfer.features import Backbone, tuning_objective
from sparsefeat.transfer.labelling import score_labels
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore


@dataclass
class GridPoint:
    """A voxel size, its accuracy on the validation shapes, and the surface points that were computed for it."""

    voxel_size: float
    accuracy: float
    points: int


@dataclass
class TunedPoint:
    """Where tuning ended from a start: its accuracy, its distance to the grid's best, and its share of the cost."""

    start: float
    voxel_size: float
    accuracy: float
    rungs_off: float  # of sqrt(2), from the best voxel size of the grid
    accuracy_off: float  # below the grid's best, as a fraction; negative: above
    cost_share: (
        float  # surface points of the tuning and of the final features, against those of the grid
    )


@dataclass
class AdapterComparison:
    """The grid, and the tunings from its best voxel size times each of the configured factors."""

    grid: list[GridPoint]
    tuned: list[TunedPoint]
    shots: int
    validation: int

    @property
    def best(self) -> GridPoint:
        return max(self.grid, key=lambda point: point.accuracy)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        """One line per start."""
        lines = [
            f"grid's best: voxel size {self.best.voxel_size:.4g}, accuracy {self.best.accuracy:.3f} "
            f"({self.shots} shapes to learn from, {self.validation} to validate on)"
        ]
        for point in self.tuned:
            lines.append(
                f"start {point.start:.4g}: voxel size {point.voxel_size:.4g} ({point.rungs_off:+.2f} rungs), accuracy "
                f"{point.accuracy:.3f} ({-point.accuracy_off:+.3f}), {point.cost_share:.0%} of the grid's cost"
            )
        return "\n".join(lines)


def compare_adapter(
    config: TransferConfig,
    dataset: ShapeDataset,
    store: ShapeStore,
    source: Backbone,
    classes: int,
    progress: Callable[[str], None],
) -> AdapterComparison:
    """Grid search by the accuracy on validation shapes, and tuning on the training shapes alone.

    Both are of the training split; nobody is in both parts. The test split is not looked at.

    Args:
        config: with an ``adapter`` section.
        dataset, store: the shapes.
        source: the frozen backbone.
        classes: number of labels.
        progress: called with a line before each part.
    """
    check, seed, views = config.adapter, config.seeds[0], config.features.views
    shots, validation = _divide(dataset, config, seed)
    shots, validation = [store(s) for s in shots], [store(s) for s in validation]
    still = replace(config, rotate=False)

    def accuracy(voxel_size: float) -> float:
        return score_labels(
            "adapter", source.at(voxel_size), shots, validation, still, classes, len(shots), seed
        ).accuracy

    grid = []
    for k in range(check.rungs):
        size = source.start * 2 ** ((k - (check.rungs - 1) / 2) / 2)
        progress(f"grid: voxel size {size:.4g}")
        points = views * sum(_points(shape, size) for shape in (*shots, *validation))
        grid.append(GridPoint(size, accuracy(size), points))
    result = AdapterComparison(grid, [], len(shots), len(validation))
    total = sum(point.points for point in grid)
    for factor in check.starts:
        start = result.best.voxel_size * factor
        progress(f"tuning from {start:.4g}")
        chosen = shots[: config.features.shapes]
        tuned = tune_receptive_field(
            source.extractor,
            chosen,
            tuning_objective(config.features.objective, config.task, chosen),
            start=start,
            keypoints=config.features.keypoints,
            views=views,
            seed=seed,
        )
        score = accuracy(tuned.voxel_size)
        final = views * sum(_points(shape, tuned.voxel_size) for shape in (*shots, *validation))
        points = tuned.cost.points + final
        off = 2 * math.log2(tuned.voxel_size / result.best.voxel_size)
        result.tuned.append(
            TunedPoint(
                start, tuned.voxel_size, score, off, result.best.accuracy - score, points / total
            )
        )
    return result


def _divide(
    dataset: ShapeDataset, config: TransferConfig, seed: int
) -> tuple[list[Shape], list[Shape]]:
    kept, held = dataset.hold_out(config.data.train, config.adapter.validation_share, seed)
    return _some(kept, config.adapter.shots, seed), _some(held, config.adapter.validation, seed)


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


def _points(shape: LoadedShape, voxel_size: float) -> int:
    area = surface_area(shape.vertices, shape.faces)
    return len(shape.vertices) + math.ceil(area * (SAMPLES_PER_VOXEL_EDGE / voxel_size) ** 2)
