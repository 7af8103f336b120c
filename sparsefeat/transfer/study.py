"""Who wins where: descriptors on clean and on damaged shapes, alone and joined, with few labelled shapes.

Rows are regimes: a kind of labels, a damage of the test shapes, and whether heads learned on clean shapes or on shapes of
the same damage. Columns are methods. Every number is a record of its own, written as it is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.data.shape_files import read_integers
from sparsefeat.data.shapes import Shape, ShapeDataset, load_dataset
from sparsefeat.errors import InputError, opening
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import (
    DEFAULT_CHECKPOINT,
    SHAPE_VOXEL,
    SIGNATURE_CHANNELS,
    balance,
)
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.heads import LinearProbe
from sparsefeat.io.atomic import atomic_write
from sparsefeat.mesh.fpfh import FPFH_RADII
from sparsefeat.synthetic.damage import DAMAGES, Ends, part_ends
from sparsefeat.synthetic.parallel import run_tasks
from sparsefeat.transfer.config import CorrespondenceConfig, DataConfig, FeatureConfig
from sparsefeat.transfer.correspondence import MapScorer, choose_pairs, landmark_metric
from sparsefeat.transfer.features import (
    Backbone,
    FeatureSource,
    PointHistogram,
    Signature,
    untrained,
)
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, damaged

CLEAN = "clean"
SAME = "same"
COPIES = "copies"
LEARNED = (CLEAN, COPIES, SAME)
"""What heads learn on: clean shapes; these and damaged copies of them; shapes of the damage that is scored."""
_CONTEXT = "fpfh_context"
_HAND_MADE = ("fpfh", _CONTEXT, "hks", "wks")
_OWN_LABELS = "labels"


@dataclass
class StudyConfig:
    """A study of descriptors."""

    task: Literal["study"] = "study"
    data: DataConfig = field(default_factory=lambda: DataConfig(normalize="area"))
    held_out: float = (
        0.0  # score on this share of the training individuals, for development; 0: on data.test
    )
    labels: dict[str, str | None] = field(default_factory=lambda: {_OWN_LABELS: None})
    # name -> folder with <shape>.txt, one label from 0 a vertex, and parts.json; null: the labels of the data set
    networks: dict[str, str] = field(
        default_factory=lambda: {"ours": DEFAULT_CHECKPOINT, "random": "random"}
    )
    # name -> checkpoint; random: the architecture of the first one with random weights
    hand_made: list[Literal["fpfh", "fpfh_context", "hks", "wks"]] = field(
        default_factory=lambda: list(_HAND_MADE)
    )
    joined: dict[str, list[str]] = field(
        default_factory=lambda: {
            "hks + wks": ["hks", "wks"],
            "ours joined": ["ours", "fpfh_context", "hks", "wks"],
            "random joined": ["random", "fpfh_context", "hks", "wks"],
            "fpfh joined": ["fpfh_context", "hks", "wks"],
        }
    )
    voxel_size: float = SHAPE_VOXEL  # in the unit of the shapes, after data.normalize
    scales: list[float] = field(default_factory=lambda: list(SHAPE_SCALES))
    views: int = 2  # poses that learned features are averaged over
    absolute: bool = (
        False  # times of hks and energies of wks for area 1, not of each shape's eigenvalues
    )
    damages: list[Literal["clean", "cut", "one_view", "cloud", "bridges", "fusion", "remeshed"]] = (
        field(default_factory=lambda: [CLEAN, *DAMAGES])
    )
    clean_only: list[str] = field(default_factory=list)  # labels that are not scored on damages
    shots: list[int] = field(default_factory=lambda: [1, 2, 5, 20])
    damaged_shots: list[int] | None = None  # of heads that learn on the same damage; null: as shots
    copies: list[Literal["cut", "one_view", "cloud", "bridges", "fusion", "remeshed"]] = field(
        default_factory=list
    )  # damages of the copies that further heads learn on beside the clean shapes, as many as damaged_shots; empty: none
    copy_rows: int = 400  # random vertices of a copy that heads learn from
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    rows: int = 1500  # random vertices of a labelled shape that heads learn from
    test_rows: int = 2500  # random vertices of a test shape that are scored
    max_iterations: int = 100  # of the regressions
    correspondence: CorrespondenceConfig | None = (
        None  # null: no maps; metric: landmarks of so many training shapes
    )
    workers: int = 2  # processes
    cache: Path | None = Path("runs/cache/laplace")  # of Laplace bases; null: none
    output: Path = Path("runs/study/shapes")

    def __post_init__(self) -> None:
        members = [*self.networks, *self.hand_made]
        for name, parts in self.joined.items():
            lacking = [part for part in parts if part not in members]
            if lacking or len(parts) < 2:
                raise InputError(
                    f"joined {name!r}: {parts}, expected two or more of {', '.join(members)}"
                )
            if name in members:
                raise InputError(f"joined {name!r} has the name of a member")
        if next(iter(self.networks.values()), "") == "random":
            raise InputError(
                "networks: the first is random, expected a checkpoint, whose architecture it takes"
            )
        if (
            not self.shots
            or not self.seeds
            or not members
            or self.workers < 1
            or min(self.rows, self.test_rows, self.copy_rows) < 1
        ):
            raise InputError(
                "shots, seeds and methods must not be empty, workers and rows at least 1"
            )
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out: expected a share from 0 to below 1, got {self.held_out}")

    @property
    def members(self) -> list[str]:
        """Methods that are computed; the others mix them."""
        return [*self.networks, *self.hand_made]

    @property
    def methods(self) -> list[str]:
        """All methods, in the order of the table."""
        return [*self.members, *self.joined]


class Sample(NamedTuple):
    """What heads see of a shape.

    Attributes:
        blocks: features of random vertices by method. Shape (R, C) each.
        labels: of these vertices by kind of labels. Shape (R,).
    """

    blocks: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class Asked(NamedTuple):
    """A shape as it is described: its name, its damage, and the seed of that (1 for copies that heads learn on)."""

    name: str
    damage: str
    seed: int


class Unit(NamedTuple):
    """A head: which labels it learned, on what (one of :data:`LEARNED`), on how many shapes, and the seed."""

    labels: str
    learned: str
    shots: int
    seed: int


Record = dict[str, Any]
"""``labels``, ``damage``, ``learned`` (one of :data:`LEARNED`), ``shots``, ``seed``, ``method``, ``accuracy`` and, where parts have
mirror images, ``mirrored``: the accuracy up to those; or, of maps, ``map``, ``method`` and ``error``."""


class StudyResult(NamedTuple):
    """The configuration and all records."""

    config: StudyConfig
    records: list[Record]


def run_study(
    config: StudyConfig, path: Path, progress: Callable[[str], None] = lambda text: None
) -> StudyResult:
    """Measure what the file lacks.

    Args:
        config: the study.
        path: the JSON; one that is there already is continued if it is of the same study.
        progress: called with a line before each part of the work.

    Raises:
        InputError: data that does not fit, or a file of another study.
    """
    records = _read(path, config)
    setting = _Setting(config)
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
        parts = [missing[k :: config.workers] for k in range(min(config.workers, len(missing)))]
        described = run_tasks(_describe, [(config, part) for part in parts], config.workers)
        for k, found in described:
            samples.update(zip(parts[k], found, strict=True))
        progress(f"{damage}: {len(lacking)} heads")
        keys = list(lacking)
        tasks = [
            (config, [(pair.name, samples[pair]) for pair in lacking[key]], key[1], key[-1])
            for key in keys
        ]
        for k, probe in run_tasks(_fit, tasks, config.workers):
            heads[keys[k]] = probe
        for unit in wanted:
            probe, mirror = (
                heads[_head(unit, damage)],
                setting.mirrors.get(unit.labels),
            )
            scores = _score(config, probe, [samples[pair] for pair in test], unit.labels, mirror)
            for method, values in scores.items():
                records.append({**unit._asdict(), "damage": damage, "method": method, **values})
            _write(path, config, records)
        # Damaged shapes are not seen again.
        samples = {pair: sample for pair, sample in samples.items() if pair.damage == CLEAN}
    if config.correspondence is not None:
        _maps(config, setting, records, path, progress)
    return StudyResult(config, records)


class _Setting:
    """The data set of a study, and who is labelled and who is scored."""

    def __init__(self, config: StudyConfig):
        data = config.data
        self.config = config
        self.dataset = load_dataset(data.name, data.root, **data.options)
        self.store = ShapeStore(self.dataset, data.normalize, config.cache)
        train, self.test = self.dataset.subset(data.train), self.dataset.subset(data.test)
        if config.held_out:
            train, self.test = self.dataset.hold_out(data.train, config.held_out, 0)
        if data.max_test is not None and data.max_test < len(self.test):
            chosen = np.random.default_rng(config.seeds[0]).permutation(len(self.test))[
                : data.max_test
            ]
            self.test = [self.test[k] for k in sorted(chosen)]
        rows = {shape.name: row for row, shape in enumerate(self.dataset.shapes)}
        splits = {"train": [rows[s.name] for s in train], "test": [rows[s.name] for s in self.test]}
        self.dataset = replace(
            self.dataset, splits={name: tuple(split) for name, split in splits.items()}
        )
        self.mirrors = {
            name: np.array(
                json.loads((Path(root) / "parts.json").read_text(encoding="utf-8"))["mirror"]
            )
            for name, root in config.labels.items()
            if root is not None and (Path(root) / "parts.json").is_file()
        }

    def shots(self, count: int, seed: int) -> list[Shape]:
        return self.dataset.few_shot("train", count, seed)

    def loaded(self, name: str, damage: str, seed: int = 0) -> tuple[LoadedShape, np.ndarray]:
        """A shape as the study sees it, and the vertex of the clean one that each of its vertices is."""
        clean = self.store(self.dataset.shapes[self.dataset.row(name)])
        if damage == CLEAN:
            return clean, np.arange(len(clean.vertices))
        # Any labels are carried along if the rows are.
        numbered = replace(
            clean.data, vertex_labels=np.arange(len(clean.vertices)), correspondence=None
        )
        shape = damaged(
            replace(clean, data=numbered), damage, seed, _bridge_ends(self.dataset, clean)
        )
        return shape, shape.data.vertex_labels

    def labels(self, name: str, kind: str) -> np.ndarray:
        """Labels of the vertices of the clean shape."""
        root = self.config.labels[kind]
        if root is None:
            return self.store(self.dataset.shapes[self.dataset.row(name)]).labels
        return read_integers(Path(root) / f"{name.rpartition('/')[2]}.txt")


def _bridge_ends(dataset: ShapeDataset, shape: LoadedShape) -> Ends | None:
    """On people with part labels: from each hand to trunk, head or leg, and between the legs."""
    names = dataset.part_names or ()
    if shape.data.vertex_labels is None or not {"hand", "torso", "head", "thigh", "calf"} <= set(
        names
    ):
        return None
    hand, torso, head, thigh, calf = (
        names.index(part) for part in ("hand", "torso", "head", "thigh", "calf")
    )
    of_vertices = shape.data.vertex_labels
    legs = part_ends(shape.faces, of_vertices, [thigh, calf], [thigh, calf])
    return [*part_ends(shape.faces, of_vertices, [hand], [torso, head, thigh, calf]), *legs]


def make_members(config: StudyConfig) -> dict[str, FeatureSource]:
    """The sources of the study's members."""
    features = FeatureConfig(voxel_size=config.voxel_size, scales=config.scales, views=config.views)
    sources: dict[str, FeatureSource] = {}
    first = None
    for name, checkpoint in config.networks.items():
        if checkpoint == "random":
            extractor = untrained(first)
        else:
            extractor = FeatureExtractor(from_pretrained(checkpoint), 1.0)
            first = first or extractor
        sources[name] = Backbone(name, extractor, features, 1.0)
    for name in config.hand_made:
        if name in ("fpfh", _CONTEXT):
            sources[name] = PointHistogram(name)
        else:
            sources[name] = Signature(name, SIGNATURE_CHANNELS, config.absolute)
    return sources


def _describe(config: StudyConfig, asked: Sequence[Asked]) -> list[Sample]:
    """Features and labels of random vertices of some shapes."""
    torch.set_num_threads(1)
    setting, sources = _Setting(config), make_members(config)
    test = {shape.name for shape in setting.test}
    samples = []
    for name, damage, seed in asked:
        shape, row = setting.loaded(name, damage, seed)
        count = config.test_rows if name in test else config.copy_rows if seed else config.rows
        chosen = np.sort(np.random.default_rng(0).permutation(len(row))[:count])
        blocks = {}
        for method, source in sources.items():
            if method == "fpfh" and _CONTEXT in sources:
                continue
            blocks[method] = source.describe(shape)[chosen].astype(np.float32)
        if "fpfh" in sources and _CONTEXT in sources:
            blocks["fpfh"] = blocks[_CONTEXT][:, : 33 * len(FPFH_RADII)]
        labels = {kind: setting.labels(name, kind)[row[chosen]] for kind in config.labels}
        samples.append(Sample(blocks, labels))
    return samples


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


def _maps(
    config: StudyConfig,
    setting: _Setting,
    records: list[Record],
    path: Path,
    progress: Callable[[str], None],
) -> None:
    """Errors of maps between clean test shapes, by all methods."""
    maps = config.correspondence
    assert maps is not None
    pairs = choose_pairs(setting.dataset, "test", maps.pairs, config.seeds[0])
    score = MapScorer(setting.dataset, setting.store, pairs, maps)
    learned = (
        [setting.store(shape) for shape in setting.shots(maps.metric, config.seeds[0])]
        if maps.metric
        else []
    )
    sources = make_members(config)
    for method in config.methods:
        if any(record.get("map") and record["method"] == method for record in records):
            continue
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
            {"map": kind, "method": method, "error": error, "pairs": len(pairs)}
            for kind, error in found.items()
        ]
        _write(path, config, records)


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


def _write(path: Path, config: StudyConfig, records: Sequence[Record]) -> None:
    with opening(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            text = json.dumps({"config": _identity(config), "records": list(records)}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")


def _read(path: Path, config: StudyConfig) -> list[Record]:
    if not path.is_file():
        return []
    with opening(path):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            records = found["records"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the result of a study; remove it or choose another --output"
            ) from error
    if found["config"] != json.loads(json.dumps(_identity(config))):
        raise InputError(
            f"{path}: the result of another study; remove it or choose another --output"
        )
    return records


def _identity(config: StudyConfig) -> dict[str, Any]:
    """What the numbers depend on."""
    kept = asdict(config)
    for name in ("workers", "cache", "output"):
        del kept[name]
    kept["data"]["root"] = str(config.data.root)
    return kept
