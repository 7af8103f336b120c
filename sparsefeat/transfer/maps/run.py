"""An experiment: a functional-map head is trained on pairs of shapes, and its maps between others are scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsefeat.data.shapes import Shape, load_dataset
from sparsefeat.errors import InputError
from sparsefeat.transfer.maps.config import MapsConfig
from sparsefeat.transfer.maps.inputs import Inputs
from sparsefeat.transfer.maps.scores import HeadScorer
from sparsefeat.transfer.maps.training import STATE, MapTraining
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, check_apart, drawn


@dataclass
class MapsResult:
    """What was found.

    Attributes:
        config: the experiment.
        records: ``step``, ``seconds`` of training, ``rotated``, ``map`` (nearest, functional, refined) and
            ``error``, in hundredths of the root of the target's area.
        losses: of each step: its terms and the seconds of training so far.
        pairs: names of the scored pairs.
        picture: the first pair and its refined map: for each vertex of the second shape, one of the first.
    """

    config: MapsConfig
    records: list[dict[str, Any]]
    losses: list[dict[str, float]]
    pairs: list[tuple[str, str]]
    picture: tuple[LoadedShape, LoadedShape, np.ndarray]


def run_maps(
    config: MapsConfig,
    output: Path,
    progress: Callable[[int, str], None] = lambda done, text: None,
    device: str | None = None,
) -> MapsResult:
    """Train, or go on where the output folder's training stopped, and score.

    Args:
        config: the experiment.
        output: folder of ``last.pt``; it exists.
        progress: called with steps done and what is worked on.
        device: where networks run and are trained; None: the CPU. Maps are scored on the CPU.

    Raises:
        InputError: data that does not fit, or a ``last.pt`` of another experiment.
    """
    dataset = load_dataset(config.data.name, config.data.root, **config.data.options)
    store = ShapeStore(dataset, config.data.normalize, config.cache)
    if config.held_out:
        train, test = dataset.hold_out(config.data.train, config.held_out, 0)
    else:
        train, test = dataset.subset(config.data.train), dataset.subset(config.data.test)
    if config.supervision == "landmarks":
        check_apart(train, test)
    if config.shapes is not None and config.shapes > len(train):
        raise InputError(f"shapes: {config.shapes}, but there are {len(train)} to train on")
    train = drawn(train, config.shapes, config.seed)
    pairs, scored = _pairs(train), drawn(_pairs(test), config.pairs, config.seed)
    _check_landmarks(store, [*train, *test] if config.supervision == "landmarks" else test)
    inputs = Inputs(config, store, device)
    training = MapTraining(config, inputs, train, pairs, output / STATE)
    training.run(progress)
    return _scored(config, inputs, training, scored, lambda text: progress(config.steps, text))


@torch.no_grad()
def _scored(
    config: MapsConfig,
    inputs: Inputs,
    training: MapTraining,
    pairs: Sequence[tuple[Shape, Shape]],
    say: Callable[[str], None],
) -> MapsResult:
    """Errors of every snapshot, and the map of the first pair by the last one."""
    scorer, head = HeadScorer(config, inputs, pairs, say), training.head
    records: list[dict[str, Any]] = []
    for step, weights in sorted(training.snapshots.items()):
        head.load_state_dict(weights)
        head.eval()
        for rotated in (False, True) if config.rotate and step == config.steps else (False,):
            title = f"step {step}{', turned' if rotated else ''}"
            for kind, error in scorer.errors(head, rotated, title).items():
                records.append(
                    {
                        "step": step,
                        "seconds": training.losses[step - 1]["seconds"],
                        "rotated": rotated,
                        "map": kind,
                        "error": error,
                    }
                )
    a, b = pairs[0]
    rows = torch.arange(len(scorer.meshes[b.name].vertices))
    found = scorer.maps(head, scorer.features(head, False), a, b, rows)
    picture = (scorer.meshes[a.name], scorer.meshes[b.name], list(found.values())[-1].numpy())
    names = [(x.name, y.name) for x, y in pairs]
    return MapsResult(config, records, training.losses, names, picture)


def _check_landmarks(store: ShapeStore, shapes: Sequence[Shape]) -> None:
    """Refuse a shape without landmarks, or with another number of them than the others of its template."""
    counts: dict[str, tuple[str, int]] = {}
    for shape in shapes:
        landmarks = store(shape).data.correspondence
        if landmarks is None:
            raise InputError(f"{shape.name}: it has no landmarks")
        first, count = counts.setdefault(shape.template, (shape.name, len(landmarks)))
        if len(landmarks) != count:
            raise InputError(
                f"{shape.name}: it has {len(landmarks)} landmarks, {first} of the same template has {count}"
            )


def _pairs(shapes: Sequence[Shape]) -> list[tuple[Shape, Shape]]:
    """All unordered pairs whose landmarks correspond."""
    found = [(a, b) for a, b in itertools.combinations(shapes, 2) if a.template == b.template]
    if not found:
        raise InputError("no two shapes correspond; expected two or more of one template")
    return found
