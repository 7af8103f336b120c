"""Who wins where: descriptors on clean and on damaged shapes, alone and joined, with few labelled shapes.

Rows are regimes: a kind of labels, a damage of the test shapes, and whether heads learned on clean shapes or on shapes of
the same damage. Columns are methods. Every number is a record of its own, written as it is measured: ``labels``,
``damage``, ``learned`` (clean, copies or same), ``shots``, ``seed``, ``method``, ``accuracy`` and, where parts have mirror
images, ``mirrored``: the accuracy up to those; or, of maps, ``map``, ``method`` and ``error``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparsefeat.checkpoint import weights_digest
from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import balance
from sparsefeat.heads import LinearProbe
from sparsefeat.synthetic.parallel import run_tasks
from sparsefeat.transfer.correspondence import MapScorer, choose_pairs, landmark_metric
from sparsefeat.transfer.features import FeatureSource
from sparsefeat.transfer.records import Record, read_records, write_records
from sparsefeat.transfer.shapes import LoadedShape, check_landmarks
from sparsefeat.transfer.study_config import CLEAN, COPIES, LEARNED, SAME, StudyConfig
from sparsefeat.transfer.study_samples import (
    Asked,
    Sample,
    StudyShapes,
    describe_samples,
    make_members,
)


class Unit(NamedTuple):
    """A head: which labels it learned, on what (see LEARNED), on how many shapes, and the seed."""

    labels: str
    learned: str
    shots: int
    seed: int


class StudyResult(NamedTuple):
    """The configuration and all records."""

    config: StudyConfig
    records: list[Record]


def run_study(
    config: StudyConfig,
    path: Path,
    progress: Callable[[str], None] = lambda text: None,
    device: str | None = None,
) -> StudyResult:
    """Measure what the file lacks.

    Args:
        config: the study.
        path: the JSON; one that is there already is continued if it is of the same study.
        progress: called with a line before each part of the work, see :func:`parts_left`.
        device: where networks run, in this process alone unless it is the CPU; None: the CPU.

    Raises:
        InputError: data that does not fit, or a file of another study.
    """
    records = read_records(path, _identity(config))
    setting = StudyShapes(config)
    # What can be wrong is found out before anything is described.
    for count in {*config.shots, *(config.damaged_shots or [])}:
        for seed in config.seeds:
            setting.shots(count, seed)
    maps = None
    if config.correspondence is not None and _unmapped(config, records):
        maps = _open_maps(config, setting)
    samples: dict[Asked, Sample] = {}
    heads: dict[tuple, LinearProbe] = {}
    for damage in config.damages:
        wanted = [unit for unit in _units(config, damage) if not _measured(records, damage, unit)]
        if not wanted:
            continue
        # Of each head that is lacking: the labelled shapes.
        lacking = {
            _head(unit, damage): [
                Asked(shape.name, kind, int(unit.learned == COPIES and kind != CLEAN))
                for shape in setting.shots(unit.shots, unit.seed)
                for kind in _learned_on(config, unit, damage)
            ]
            for unit in wanted
            if _head(unit, damage) not in heads
        }
        test = [Asked(shape.name, damage, 0) for shape in setting.test]
        missing = [
            pair for pair in dict.fromkeys(sum(lacking.values(), test)) if pair not in samples
        ]
        progress(f"{damage}: descriptors of {len(missing)} shapes")
        # A forked process cannot use a GPU that this one has used.
        workers = config.workers if device in (None, "cpu") else 1
        parts = [missing[k::workers] for k in range(min(workers, len(missing)))]
        tasks = [(config, part, device) for part in parts]
        described = run_tasks(describe_samples, tasks, workers)
        for k, found in described:
            samples.update(zip(parts[k], found, strict=True))
        progress(f"{damage}: {len(lacking)} heads")
        keys = list(lacking)
        fits = [
            (config, [(pair.name, samples[pair]) for pair in lacking[key]], key[1], key[-1])
            for key in keys
        ]
        for k, probe in run_tasks(_fit, fits, config.workers):
            heads[keys[k]] = probe
        for unit in wanted:
            probe, mirror = (
                heads[_head(unit, damage)],
                setting.mirrors.get(unit.labels),
            )
            scores = _score(config, probe, [samples[pair] for pair in test], unit.labels, mirror)
            for method, values in scores.items():
                records.append({**unit._asdict(), "damage": damage, "method": method, **values})
            write_records(path, _identity(config), records)
        # Damaged shapes are not seen again.
        samples = {pair: sample for pair, sample in samples.items() if pair.damage == CLEAN}
    if maps is not None:
        _maps(config, maps, records, path, progress, device)
    return StudyResult(config, records)


def parts_left(config: StudyConfig, path: Path) -> int:
    """How many parts :func:`run_study` has to do and announces: two of a damage, one of a method's maps.

    Raises:
        InputError: a file of another study.
    """
    records = read_records(path, _identity(config))
    damages = [
        damage
        for damage in config.damages
        if any(not _measured(records, damage, unit) for unit in _units(config, damage))
    ]
    maps = [] if config.correspondence is None else _unmapped(config, records)
    return 2 * len(damages) + len(maps)


def _fit(
    config: StudyConfig, named: Sequence[tuple[str, Sample]], kind: str, seed: int
) -> LinearProbe:
    torch.set_num_threads(1)
    names, samples = zip(*named, strict=True)
    widths = [samples[0].blocks[method].shape[1] for method in config.members]
    probe = LinearProbe(blocks=widths, max_iterations=config.max_iterations)
    features = [_stacked(config, sample) for sample in samples]
    return probe.fit(features, [sample.labels[kind] for sample in samples], seed, names)


def _stacked(
    config: StudyConfig, sample: Sample, methods: Sequence[str] | None = None
) -> np.ndarray:
    return np.concatenate([sample.blocks[method] for method in methods or config.members], 1)


def _score(
    config: StudyConfig,
    probe: LinearProbe,
    test: Sequence[Sample],
    kind: str,
    mirror: np.ndarray | None,
) -> dict[str, dict[str, Any]]:
    """Accuracy of each method, pooled over the test shapes."""
    true = np.concatenate([sample.labels[kind] for sample in test])
    counted = true >= 0
    if not counted.any():
        raise InputError(f"labels {kind}: no vertex of the test shapes has a label")
    found = {}
    for method in config.methods:
        members = config.joined.get(method, [method])
        part = probe.only([config.members.index(member) for member in members])
        predicted = np.concatenate(
            [part.predict(_stacked(config, sample, members)) for sample in test]
        )
        right = predicted == true
        found[method] = {"accuracy": float(right[counted].mean())}
        if mirror is not None:
            found[method]["mirrored"] = float((right | (mirror[predicted] == true))[counted].mean())
        if len(members) > 1:
            found[method]["weights"] = [round(float(weight), 3) for weight in part.weights]
    return found


class _Mixed(FeatureSource):
    """A study's method as a source of features for maps."""

    def __init__(self, method: str, members: Sequence[FeatureSource]):
        super().__init__()
        self.method, self.members = method, members

    def describe(self, shape: LoadedShape) -> np.ndarray:
        blocks = [member(shape) for member in self.members]
        return balance(blocks) if len(blocks) > 1 else blocks[0]


class _Maps(NamedTuple):
    """What maps are scored by, and the shapes that a metric is learned from."""

    score: MapScorer
    learned: list[LoadedShape]


def _open_maps(config: StudyConfig, setting: StudyShapes) -> _Maps:
    maps = config.correspondence
    assert maps is not None
    pairs = choose_pairs(setting.dataset, "test", maps.pairs, config.seeds[0])
    score = MapScorer(setting.dataset, setting.store, pairs, maps)
    chosen = setting.shots(maps.metric, config.seeds[0]) if maps.metric else []
    learned = [setting.store(shape) for shape in chosen]
    check_landmarks(learned, "correspondence.metric")
    return _Maps(score, learned)


def _maps(
    config: StudyConfig,
    maps: _Maps,
    records: list[Record],
    path: Path,
    progress: Callable[[str], None],
    device: str | None,
) -> None:
    """Errors of maps between clean test shapes, by all methods."""
    score, learned = maps
    sources = make_members(config, device)
    for method in _unmapped(config, records):
        progress(f"maps: {method}")
        members = [sources[member] for member in config.joined.get(method, [method])]
        source = _Mixed(method, members)
        found = {kind.map: kind.error for kind in score(source, False)}
        if learned:
            metric = landmark_metric(source, learned)
            found |= {
                f"{kind.map}, metric": kind.error for kind in score(source, False, metric=metric)
            }
        records += [
            {"map": kind, "method": method, "error": error, "pairs": len(score.pairs)}
            for kind, error in found.items()
        ]
        write_records(path, _identity(config), records)


def _unmapped(config: StudyConfig, records: Sequence[Record]) -> list[str]:
    """The methods whose maps are not measured."""
    known = {record["method"] for record in records if record.get("map")}
    return [method for method in config.methods if method not in known]


def _learned_on(config: StudyConfig, unit: Unit, damage: str) -> tuple[str, ...]:
    """The damages of the labelled shapes."""
    return {CLEAN: (CLEAN,), SAME: (damage,), COPIES: (CLEAN, *config.copies)}[unit.learned]


def _head(unit: Unit, damage: str) -> tuple:
    """What a head is known by: one that did not learn on the damage that is scored serves all of them."""
    return (damage if unit.learned == SAME else "", *unit)


def _units(config: StudyConfig, damage: str) -> list[Unit]:
    """What is measured on one damage."""
    units = []
    for kind in config.labels:
        if damage != CLEAN and kind in config.clean_only:
            continue
        for learned in LEARNED:
            if (learned == SAME and damage == CLEAN) or (learned == COPIES and not config.copies):
                continue
            counts = config.shots
            if learned != CLEAN and config.damaged_shots is not None:
                counts = config.damaged_shots
            units += [Unit(kind, learned, count, seed) for count in counts for seed in config.seeds]
    return units


def _measured(records: Sequence[Record], damage: str, unit: Unit) -> bool:
    """Whether the file has it: all methods of a unit are written at once."""
    return any(
        r.get("damage") == damage and Unit(*(r[key] for key in Unit._fields)) == unit
        for r in records
    )


def _identity(config: StudyConfig) -> dict[str, Any]:
    """What the numbers depend on."""
    kept = asdict(config)
    for name in ("workers", "cache", "output"):
        del kept[name]
    kept["data"]["root"] = str(config.data.root)
    kept["weights"] = {
        name: weights_digest(checkpoint)
        for name, checkpoint in config.networks.items()
        if checkpoint != "random"
    }
    return kept
