"""Runs an experiment: every method, number of shots and seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sparsefeat.data.shapes import Shape, ShapeDataset, load_dataset
from sparsefeat.errors import InputError
from sparsefeat.receptive_field import TunedReceptiveField
from sparsefeat.transfer.adapter import AdapterComparison, check_adapter, compare_adapter
from sparsefeat.transfer.config import TransferConfig
from sparsefeat.transfer.correspondence import MapScore, MapScorer, choose_pairs, landmark_metric
from sparsefeat.transfer.features import Backbone, FeatureSource, make_sources, source_names
from sparsefeat.transfer.labelling import Score, score_labels
from sparsefeat.transfer.shapes import (
    LoadedShape,
    ShapeStore,
    check_apart,
    check_landmarks,
    damaged,
    drawn,
)

Progress = Callable[[str], None]

ADAPTER_DRAWS = "adapter_draws.json"
"""What a comparison of adapter and grid has so far, in the output folder."""


@dataclass
class CurvePoint:
    """Score at one voxel size, features frozen: accuracy (higher is better) or geodesic error (lower is)."""

    voxel_size: float
    score: float


@dataclass
class TransferResult:
    """What an experiment found.

    Attributes:
        config: the experiment.
        dataset: its shapes.
        scores: of segmentation and classification.
        maps: of correspondence.
        tunings: method -> where each tuning ended, in the order of the runs.
        curve: score of the pretrained features over the voxel size, with the most shots and the first seed.
        shapes: test shapes, loaded, for pictures.
        pairs: of correspondence.
        adapter: how tuning compares with a grid search.
    """

    config: TransferConfig
    dataset: ShapeDataset
    scores: list[Score] = field(default_factory=list)
    maps: list[MapScore] = field(default_factory=list)
    tunings: dict[str, list[TunedReceptiveField]] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    shapes: list[LoadedShape] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    adapter: AdapterComparison | None = None


def run_transfer(
    config: TransferConfig,
    progress: Progress = lambda text: None,
    device: str | None = None,
    output: str | os.PathLike | None = None,
) -> TransferResult:
    """Run an experiment.

    Args:
        config: see :class:`TransferConfig`.
        progress: called with a line before each part of the work.
        device: where networks run and are trained; None: the CPU.
        output: folder that keeps each draw of the comparison of adapter and grid, so that a stopped one continues; None:
            they are not kept.

    Raises:
        InputError: data that does not fit the layout, the task or the number of shots.
    """
    dataset = load_dataset(config.data.name, config.data.root, **config.data.options)
    store = ShapeStore(dataset, config.data.normalize, config.cache)
    train = dataset.subset(config.data.train)
    extent = store.median_extent(train)
    sources = make_sources(config.methods, config.features, extent, device)
    result = TransferResult(config, dataset)
    if config.task == "correspondence":
        _correspondence(config, dataset, store, train, sources, result, progress)
    else:
        _labelling(config, dataset, store, sources, result, progress, device, output)
    result.tunings = {
        m: s.tunings for m, s in sources.items() if isinstance(s, Backbone) and s.tunings
    }
    return result


def _labelling(
    config: TransferConfig,
    dataset: ShapeDataset,
    store: ShapeStore,
    sources: dict[str, FeatureSource],
    result: TransferResult,
    progress: Progress,
    device: str | None,
    output: str | os.PathLike | None,
) -> None:
    divisions = {
        seed: _divided_by(config, seed) if config.data.resplit else dataset for seed in config.seeds
    }
    path = None if output is None else Path(output) / ADAPTER_DRAWS
    # What can be wrong is found out before anything is tuned or learned.
    for seed, divided in divisions.items():
        check_apart(divided.subset(config.data.train), divided.subset(config.data.test))
        for count in config.shots:
            divided.few_shot(config.data.train, count, seed)
    if config.adapter is not None:
        check_adapter(config, divisions[config.seeds[0]], path)
    classes = _count_labels(config, divisions.values(), store)
    for seed, divided in divisions.items():
        test = [store(shape) for shape in _test_shapes(config, divided)]
        result.shapes = result.shapes or test
        for count in config.shots:
            shots = [store(shape) for shape in divided.few_shot(config.data.train, count, seed)]
            copies = [damaged(shape, kind, seed) for kind in config.damage for shape in shots]
            broken = _damaged_copies(test, config, seed)
            prepared: set[str] = set()
            for method in config.methods:
                progress(f"{method}: {count} {'shot' if count == 1 else 'shots'}, seed {seed}")
                names = source_names(method, config.features)
                for name in names:
                    if name not in prepared:
                        sources[name].prepare(shots, config.task, seed)
                        prepared.add(name)
                source = sources[names[-1]]
                result.scores.append(
                    score_labels(
                        method,
                        source,
                        shots + copies,
                        test,
                        config,
                        classes,
                        count,
                        seed,
                        broken,
                        device,
                    )
                )
    dataset, test = divisions[config.seeds[0]], result.shapes
    if config.adapter is not None:
        result.adapter = compare_adapter(
            config, dataset, store, sources["tuned"], classes, progress, device, path
        )
    if config.rungs:
        seed, count = config.seeds[0], max(config.shots)
        shots = [store(shape) for shape in dataset.few_shot(config.data.train, count, seed)]
        shots += [damaged(shape, kind, seed) for kind in config.damage for shape in shots]
        last = next(s for s in result.scores if s.method == "tuned" and s.shots == count)
        still = replace(config, rotate=False)
        for voxel_size in _rungs(last.voxel_size, config.rungs):
            progress(f"curve: voxel size {voxel_size:.4g}")
            source = sources["tuned"].at(voxel_size)
            args = (shots, test, still, classes, count, seed)
            result.curve.append(
                CurvePoint(voxel_size, score_labels("curve", source, *args, device=device).accuracy)
            )


def _damaged_copies(
    test: Sequence[LoadedShape], config: TransferConfig, seed: int
) -> dict[str, list[LoadedShape]]:
    """Of each damage, copies of the test shapes."""
    return {kind: [damaged(shape, kind, seed) for shape in test] for kind in config.test_damage}


def _correspondence(
    config: TransferConfig,
    dataset: ShapeDataset,
    store: ShapeStore,
    train: Sequence[Shape],
    sources: dict[str, FeatureSource],
    result: TransferResult,
    progress: Progress,
) -> None:
    seed = config.seeds[0]
    result.pairs = choose_pairs(dataset, config.data.test, config.correspondence.pairs, seed)
    score = MapScorer(dataset, store, result.pairs, config.correspondence)
    shots = [
        store(train[i])
        for i in np.random.default_rng(seed).permutation(len(train))[: config.features.shapes]
    ]
    learned = [
        store(train[i])
        for i in np.random.default_rng(seed).permutation(len(train))[: config.correspondence.metric]
    ]
    if learned or config.features.objective == "correspondence":
        check_apart(train, dataset.subset(config.data.test))
    check_landmarks(learned, "correspondence.metric")
    for name in sources:
        progress(f"{name}: features and maps of {len(result.pairs)} pairs")
        sources[name].prepare(shots, config.task, seed)
        if name in config.methods:
            metric = landmark_metric(sources[name], learned) if learned else None
            given = score(sources[name], False, metric=metric)
            result.maps += given
            if config.rotate:
                turned = (
                    score(sources[name], True, metric=metric)
                    if not sources[name].intrinsic
                    else given
                )
                result.maps += [replace(m, rotated=True) for m in turned]
    if config.rungs:
        for voxel_size in _rungs(sources["tuned"].voxel_size, config.rungs):
            progress(f"curve: voxel size {voxel_size:.4g}")
            source = sources["tuned"].at(voxel_size)
            metric = landmark_metric(source, learned) if learned else None
            nearest = score(source, False, ["nearest"], metric)[0]
            result.curve.append(CurvePoint(voxel_size, nearest.error))
    rows = dict.fromkeys(row for pair in result.pairs[:1] for row in pair)
    result.shapes = [store(dataset.shapes[row]) for row in rows]


def _divided_by(config: TransferConfig, seed: int) -> ShapeDataset:
    return load_dataset(config.data.name, config.data.root, **{**config.data.options, "seed": seed})


def _rungs(middle: float, count: int) -> list[float]:
    return [middle * 2 ** ((k - (count - 1) / 2) / 2) for k in range(count)]


def _test_shapes(config: TransferConfig, dataset: ShapeDataset) -> list[Shape]:
    return drawn(dataset.subset(config.data.test), config.data.max_test, config.seeds[0])


def _count_labels(
    config: TransferConfig, divisions: Iterable[ShapeDataset], store: ShapeStore
) -> int:
    """How many labels the shapes to learn from and to score on have.

    Raises:
        InputError: a shape has none that are of the task, or no test shape has a labelled vertex or face.
    """

    def labels(dataset: ShapeDataset, shape: Shape) -> np.ndarray:
        if config.task == "segmentation":
            return store(shape).labels
        if shape.label is None:
            raise InputError(
                f"data set {dataset.name}: {shape.name} has no class, which classification needs"
            )
        return np.array([shape.label])

    count = 0
    for dataset in divisions:
        test = _test_shapes(config, dataset)
        labelled = [shape for shape in test if (labels(dataset, shape) >= 0).any()]
        if not labelled:
            names = ", ".join(shape.name for shape in test[:3])
            raise InputError(f"data set {dataset.name}: no test shape has a label, such as {names}")
        if config.task == "segmentation" and dataset.part_count is not None:
            count = dataset.part_count
            continue
        for shape in (*dataset.subset(config.data.train), *dataset.subset(config.data.test)):
            count = max(count, 1 + int(labels(dataset, shape).max()))
    return count
