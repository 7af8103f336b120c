"""One axis of pretraining at a time: networks that differ in one setting, at equal cost, scored on scans and on shapes.

Every training and every score is a record of its own, written as it is finished: ``setting``, ``seed``, ``measure``
(``"training"``, or the name of scans or of shapes) and ``values``, its numbers by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparsefeat.checkpoint import weights_digest
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError, warn
from sparsefeat.evaluate.matching import evaluate_matching
from sparsefeat.extract import FeatureExtractor
from sparsefeat.io.config import load_config, to_dict
from sparsefeat.io.packaged import find_config
from sparsefeat.pretrain import PretrainConfig, run
from sparsefeat.pretrain.data import held_out_pairs, load_pairs, prepare_rooms
from sparsefeat.pretrain.log import read_log
from sparsefeat.process.progress import Progress
from sparsefeat.transfer.axis_config import AxisConfig, ScanScoreConfig, SettingConfig, file_name
from sparsefeat.transfer.config import FeatureConfig
from sparsefeat.transfer.creatures import make_missing_creatures
from sparsefeat.transfer.features import Backbone
from sparsefeat.transfer.records import Record, read_records, write_records
from sparsefeat.transfer.study import run_study
from sparsefeat.transfer.study_config import CLEAN, StudyConfig
from sparsefeat.transfer.study_samples import StudyShapes

TRAINING = "training"
"""The measure of a training itself: its pairs, its loss at the end and its seconds."""

Values = dict[str, float]


class AxisResult(NamedTuple):
    """The configuration and all records."""

    config: AxisConfig
    records: list[Record]


def run_axis(
    config: AxisConfig,
    output: Path,
    path: Path,
    progress: Callable[[str], None] = lambda text: None,
    device: str | None = None,
) -> AxisResult:
    """Train and score what the file lacks.

    Args:
        config: the settings.
        output: folder of the trainings; one that was stopped is resumed.
        path: the JSON; one that is there already is continued if it is of the same study.
        progress: called with a line before each training and each score.
        device: where networks are trained and run; None: the CPU.

    Raises:
        InputError: data or a configuration that does not fit, or a file of another study.
    """
    base = load_config(PretrainConfig, find_config(config.base), config.changes)
    plans = {name: _stages(config, setting) for name, setting in config.settings.items()}
    identity = _identity(config, base, plans)
    records = read_records(path, identity)
    shapes = _shapes_at_hand(config)
    _make_data(config, base, plans, shapes)
    if shapes is not None:
        study = config.shapes[shapes]
        labelled = StudyShapes(study)
        for seed in config.seeds:  # refused before hours of training
            labelled.shots(study.shots[0], seed)
    scans = _scans_at_hand(config, base)
    done = {(r["setting"], r["seed"], r["measure"]) for r in records}
    # Seeds outside, so that a study that is stopped early has something of every setting.
    for seed, (name, stages) in itertools.product(config.seeds, plans.items()):
        trained_by = next(other for other in plans if plans[other] == stages)
        train_seed = config.seeds[0] if config.train_once else seed
        folder = output / "trainings" / f"{file_name(trained_by)}-{train_seed}"
        checkpoint = folder / "last.safetensors"
        work: dict[str, Callable[[], Values]] = {
            TRAINING: partial(_train, stages, train_seed, folder, device)
        }
        for measure, (scan, pairs) in scans.items():
            if not _trained_on(stages, pairs):
                work[measure] = partial(_score_scans, scan, pairs, checkpoint, device)
        if shapes is not None:
            part = output / "scores" / f"{file_name(name)}-{seed}_{file_name(shapes)}.json"
            study = config.shapes[shapes]
            voxel_size = config.settings[name].voxel_size
            work[shapes] = partial(_score_shapes, study, voxel_size, checkpoint, seed, part, device)
        left = [measure for measure in work if (name, seed, measure) not in done]
        if left and TRAINING not in left and not _trained(stages, folder):
            left.insert(0, TRAINING)  # a lost network that is still to be scored
        for measure in left:
            progress(f"{name}, seed {seed}: {measure}")
            values = work[measure]()
            if measure == TRAINING and shapes is not None:
                # Scores of a network that was there before are not of this one.
                part.unlink(missing_ok=True)
            if (name, seed, measure) not in done:
                record = {"setting": name, "seed": seed, "measure": measure, "values": values}
                records.append(record)
                write_records(path, identity, records)
    return AxisResult(config, records)


def parts_left(config: AxisConfig, path: Path) -> int:
    """How many trainings and scores :func:`run_axis` has to do, at most: absent scans are left out.

    Raises:
        InputError: a file of another study.
    """
    base = load_config(PretrainConfig, find_config(config.base), config.changes)
    plans = {name: _stages(config, setting) for name, setting in config.settings.items()}
    known = [
        record
        for record in read_records(path, _identity(config, base, plans))
        if record["setting"] in config.settings and record["seed"] in config.seeds
    ]
    measures = 1 + len(config.scans) + bool(config.shapes)
    return max(0, len(config.settings) * len(config.seeds) * measures - len(known))


def _stages(config: AxisConfig, setting: SettingConfig) -> list[PretrainConfig]:
    """The trainings of a setting, one after the other, of as many steps in all as one has alone."""
    base, changes = find_config(config.base), [*config.changes, *setting.changes]
    stages = [load_config(PretrainConfig, base, changes)]
    if setting.then is not None:
        stages.append(load_config(PretrainConfig, base, [*changes, *setting.then]))
    for stage in stages:
        if stage.steps is None:
            raise InputError(f"{base}: has epochs, expected steps: settings have one cost")
        stage.steps = max(1, stage.steps // len(stages))
        stage.compare, stage.pictures = [], False
        # Rooms are made once, for all settings; scores are measured afterwards.
        stage.data = replace(stage.data, rooms=None, validation_pairs=0)
    return stages


def _train(stages: Sequence[PretrainConfig], seed: int, folder: Path, device: str | None) -> Values:
    """Train, or resume; each stage starts from the weights of the one before."""
    steps: list[dict] = []
    init = None
    for number, stage in enumerate(stages, 1):
        here = folder if number == len(stages) else folder / f"stage{number}"
        model = stage.model if init is None else replace(stage.model, init=str(init))
        resume = (here / "last.pt").is_file()
        config = replace(stage, model=model, seed=seed)
        # What was begun without a state to resume from is begun anew.
        if resume:
            _check_same(here, config)
        run(config, here, device=device or "cpu", resume=resume, overwrite=not resume)
        init = here / "last.safetensors"
        steps += read_log(here)[0]
    last = steps[-max(1, len(steps) // 10) :]
    return {
        "pairs": sum(step["pairs"] for step in steps),
        "loss": float(np.mean([step["loss"] for step in last])),
        "seconds": round(sum(v for step in steps for k, v in step.items() if k.endswith("_s")), 1),
    }


def _trained(stages: Sequence[PretrainConfig], folder: Path) -> bool:
    """Whether the network of the last stage is there, after its last step."""
    try:
        state = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
        return bool(state["step"] >= stages[-1].steps)
    except Exception:  # a damaged file is refused by who resumes it
        return False


def _check_same(folder: Path, config: PretrainConfig) -> None:
    """Refuse a training of other settings; :func:`run` itself resumes one with other data and steps.

    Raises:
        InputError: see above.
    """
    begun, wanted = (
        to_dict(c) for c in (load_config(PretrainConfig, folder / "config.yaml"), config)
    )
    differing = [name for name in wanted if wanted[name] != begun[name]]
    if differing:
        raise InputError(
            f"{folder}: a training with other settings in {', '.join(differing)}; remove it or choose another --output"
        )


def _scans_at_hand(
    config: AxisConfig, base: PretrainConfig
) -> dict[str, tuple[ScanScoreConfig, dict[str, list[FragmentPair]]]]:
    """Pairs to score on, without those whose folder is absent."""
    found = {}
    for name, scan in config.scans.items():
        root = scan.root or base.data.root
        if not Path(root).is_dir():
            warn(f"scans.{name}: {root} is not there, so that it is left out")
            continue
        # The same pairs for all settings and seeds.
        found[name] = scan, held_out_pairs(root, scan.scenes, scan.min_overlap, scan.pairs, 0)
    return found


def _trained_on(stages: Sequence[PretrainConfig], pairs: dict[str, list[FragmentPair]]) -> bool:
    """Whether any of the scenes of these pairs is trained on."""
    seen: set[tuple] = set()
    for stage in stages:
        if stage.data.shapes is None or stage.data.shapes.rooms > 0:
            seen |= {_place(pair) for pair in load_pairs(stage.data, 0)[0]}
    return any(_place(pair) in seen for of_scene in pairs.values() for pair in of_scene)


def _place(pair: FragmentPair) -> tuple[Path, str]:
    """The folder and the scene of a pair."""
    return Path(pair.source).resolve().parent, pair.scene


def _score_scans(
    scan: ScanScoreConfig,
    pairs: dict[str, list[FragmentPair]],
    checkpoint: Path,
    device: str | None,
) -> Values:
    """Feature-match recall and inlier ratio, on the same key points for networks of any voxel size."""
    extractor = FeatureExtractor.from_pretrained(checkpoint, device=device)
    result = evaluate_matching(
        pairs, extractor, scan.voxel_size, points=scan.points, dense=True, device=device
    )
    return {"FMR": result.FMR, "IR": result.IR}


def _shapes_at_hand(config: AxisConfig) -> str | None:
    """The first shapes that are there or that can be made."""
    for name, study in config.shapes.items():
        root = study.data.root
        if root.is_dir() or str(root) in config.creatures:
            return name
    if config.shapes:
        roots = ", ".join(str(study.data.root) for study in config.shapes.values())
        raise InputError(f"shapes: none of {roots} is there, and creatures makes none of them")
    return None


def _score_shapes(
    study: StudyConfig,
    voxel_size: float | str | None,
    checkpoint: Path,
    seed: int,
    path: Path,
    device: str | None,
) -> Values:
    """Accuracy of a linear probe on clean shapes and on each damage, learned on clean ones."""
    # The voxel size, where it is chosen, is a number that is looked at too.
    values: Values = {}
    if voxel_size is not None:
        size = _choose(voxel_size, study, checkpoint, seed, device)
        study, values = replace(study, voxel_size=size), {"voxel size": size}
    networks = {"ours": str(checkpoint)}
    study = replace(
        study, networks=networks, hand_made=[], joined={}, correspondence=None, seeds=[seed]
    )
    records = [r for r in run_study(study, path, device=device).records if r["learned"] == CLEAN]
    return {r["damage"]: r["accuracy"] for r in records} | values


def _choose(
    how: float | str, study: StudyConfig, checkpoint: Path, seed: int, device: str | None
) -> float:
    """The voxel size for shapes: given, by the rule of thumb, or tuned on the labelled shapes."""
    if not isinstance(how, str):
        return how
    shapes = StudyShapes(study)
    shots = [shapes.loaded(shape.name, CLEAN)[0] for shape in shapes.shots(study.shots[0], seed)]
    extent = shapes.store.median_extent(shapes.dataset.subset("train"))
    objective = "round_trip" if how == "tuned without labels" else "auto"
    features = FeatureConfig(objective=objective, views=study.views, scales=study.scales)
    method = "fixed" if how == "rule of thumb" else "tuned"
    extractor = FeatureExtractor.from_pretrained(checkpoint, device=device)
    backbone = Backbone(method, extractor, features, extent)
    backbone.prepare(shots, "segmentation", seed)
    return float(backbone.voxel_size)


def _make_data(
    config: AxisConfig,
    base: PretrainConfig,
    plans: dict[str, list[PretrainConfig]],
    shapes: str | None,
) -> None:
    """Make rooms and creatures that are needed and absent."""
    with Progress("rooms", unit="fragment") as progress:
        prepare_rooms(base.data, progress)
    used = {str(config.shapes[shapes].data.root)} if shapes is not None else set()
    for stage in itertools.chain.from_iterable(plans.values()):
        used |= set(stage.data.shapes.roots) if stage.data.shapes is not None else set()
    for root in config.creatures:
        if root in used:
            with Progress(f"creatures in {root}", unit="shape") as progress:
                make_missing_creatures(config.creatures[root], Path(root), progress)


def _identity(
    config: AxisConfig, base: PretrainConfig, plans: dict[str, list[PretrainConfig]]
) -> dict[str, Any]:
    """What a number depends on besides its setting and its seed."""
    kept = to_dict(config) | {"base": to_dict(base)}
    for name in ("seeds", "output", "changes"):
        del kept[name]
    for study in kept["shapes"].values():
        for name in ("seeds", "workers", "cache", "output"):
            del study[name]
    if config.train_once:
        kept["training seed"] = config.seeds[0]
    # A path is no network.
    inits = {stage.model.init for stages in plans.values() for stage in stages} - {None}
    if inits:
        kept["weights"] = {init: weights_digest(init) for init in sorted(inits)}
    return kept
