"""Segmentation and classification: a head on the features of a few labelled shapes, scored on the test shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sparsefeat.errors import InputError
from sparsefeat.evaluate.labels import confusion_matrix, label_scores
from sparsefeat.heads import (
    DiffusionNet,
    KNNProbe,
    LinearProbe,
    MLPHead,
    pool_features,
    predict,
    train,
)
from sparsefeat.heads.mlp import Standardize
from sparsefeat.heads.training import Inputs
from sparsefeat.transfer.config import HeadConfig, TransferConfig
from sparsefeat.transfer.features import Augment, FeatureSource
from sparsefeat.transfer.finetune import Finetuned
from sparsefeat.transfer.shapes import SIGNATURE_EIGENPAIRS, LoadedShape


@dataclass
class Score:
    """One head, scored.

    Attributes:
        method, shots, seed: which.
        accuracy: share of labels that are right, pooled over the test shapes.
        accuracy_rotated: the same with every test shape turned at random; None where that was not asked for.
        voxel_size: of the features; None for methods without one.
        accuracy_damaged: damage -> the same on copies of the test shapes that are damaged like this.
        confusion: (L, L) counts over the test shapes as given; rows are true labels.
        predictions: name of a test shape -> its predicted labels.
    """

    method: str
    shots: int
    seed: int
    accuracy: float
    accuracy_rotated: float | None
    accuracy_damaged: dict[str, float]
    voxel_size: float | None
    confusion: np.ndarray = field(repr=False)
    predictions: dict[str, np.ndarray] = field(repr=False)


Predict = Callable[[LoadedShape, bool], np.ndarray]


def score_labels(
    method: str,
    source: FeatureSource,
    shots: Sequence[LoadedShape],
    test: Sequence[LoadedShape],
    config: TransferConfig,
    classes: int,
    count: int,
    seed: int,
    damaged: Mapping[str, Sequence[LoadedShape]] | None = None,
    device: str | None = None,
) -> Score:
    """Train a head on the shots and score it.

    Args:
        method: name in the table; ``"finetuned"`` trains the backbone of ``source`` too.
        source: of the features, prepared for these shots.
        shots: labelled shapes.
        test: shapes to score on.
        config: task, head and fine-tuning.
        classes: number of labels L.
        count: shots (per class in classification).
        seed: of the head.
        damaged: damage -> copies of the test shapes that are damaged like this, to score on too.
        device: where heads that are networks are trained; None: the CPU.
    """
    if method == "finetuned":
        network = Finetuned(source, classes, config.task, seed)
        network.train(shots, config.finetune)

        def predict_shape(shape: LoadedShape, turned: bool) -> np.ndarray:
            return network.predict(shape.turned if turned else shape)

    else:
        predict_shape = _fit_head(
            source, shots, config.task, config.head, classes, seed, device or "cpu"
        )
    confusion, accuracy, predictions = _score(predict_shape, test, config.task, classes, False)
    rotated = _score(predict_shape, test, config.task, classes, True)[1] if config.rotate else None
    broken = {
        kind: _score(predict_shape, copies, config.task, classes, False)[1]
        for kind, copies in (damaged or {}).items()
    }
    voxel_size = getattr(source, "voxel_size", None)
    return Score(method, count, seed, accuracy, rotated, broken, voxel_size, confusion, predictions)


def truth(shape: LoadedShape, task: str) -> np.ndarray:
    """The labels that predictions are compared with: of vertices or faces, or of the whole shape (1,)."""
    if task == "classification":
        if shape.shape.label is None:
            raise InputError(f"{shape.name}: it has no class, which classification needs")
        return np.array([shape.shape.label])
    return shape.labels


def _score(
    predict_shape: Predict, test: Sequence[LoadedShape], task: str, classes: int, turned: bool
) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    confusion = np.zeros((classes, classes), dtype=np.int64)
    predictions = {}
    for shape in test:
        predictions[shape.name] = predict_shape(shape, turned)
        confusion += confusion_matrix(predictions[shape.name], truth(shape, task), classes)
    return confusion, label_scores(confusion).accuracy, predictions


def _fit_head(
    source: FeatureSource,
    shots: Sequence[LoadedShape],
    task: str,
    config: HeadConfig,
    classes: int,
    seed: int,
    device: str,
) -> Predict:
    labels = [truth(shape, task) for shape in shots]

    def inputs(shape: LoadedShape, turned: bool) -> np.ndarray:
        return _rows(source(shape, turned), shape, task)

    def blocks(shape: LoadedShape, turned: bool) -> list[np.ndarray]:
        return [_rows(part, shape, task) for part in source.parts(shape, turned)]

    if config.name == "linear":
        linear = LinearProbe(blocks=[part.shape[1] for part in blocks(shots[0], False)])
        features = [np.concatenate(blocks(shape, False), 1) for shape in shots]
        linear.fit(features, labels, seed, [shape.original or shape.name for shape in shots])
        return lambda shape, turned: linear.predict(np.concatenate(blocks(shape, turned), 1))
    if config.name == "knn":
        probe = KNNProbe().fit([inputs(shape, False) for shape in shots], labels, seed)
        return lambda shape, turned: probe.predict(inputs(shape, turned))
    if config.name == "mlp":
        rows = [torch.from_numpy(inputs(shape, False)).float() for shape in shots]
        head = MLPHead(rows[0].shape[1], classes, hidden=config.hidden, seed=seed)
        if task == "classification" and _augment(source, config) is not None:
            # Vertices are turned, and pooled afterwards: rows are no coordinates any more.
            head.standardize.fit(rows)
            vertices = [torch.from_numpy(source(shape)).float() for shape in shots]
            _train(_Pooled(head), vertices, labels, source, config, seed, device)
        else:
            _train(head, rows, labels, source, config, seed, device)
        return lambda shape, turned: predict(
            head, [torch.from_numpy(inputs(shape, turned)).float()], device
        )[0]
    return _fit_diffusion(source, shots, labels, task, config, classes, seed, device)


def _fit_diffusion(
    source: FeatureSource,
    shots: Sequence[LoadedShape],
    labels: list[np.ndarray],
    task: str,
    config: HeadConfig,
    classes: int,
    seed: int,
    device: str,
) -> Predict:
    at = (
        "global_mean"
        if task == "classification"
        else "faces"
        if shots[0].labels_faces
        else "vertices"
    )

    def inputs(shape: LoadedShape, turned: bool) -> tuple:
        # Diffusion times are areas, and learned from zero: the same number of steps has to be as far on any shape.
        basis = shape.basis(SIGNATURE_EIGENPAIRS).at_unit_area().to(dtype=torch.float32)
        values = torch.from_numpy(np.ascontiguousarray(source(shape, turned))).float()
        return (values, basis, torch.from_numpy(shape.faces)) if at == "faces" else (values, basis)

    examples = [inputs(shape, False) for shape in shots]
    channels = examples[0][0].shape[1]
    head = _Standardized(
        channels,
        DiffusionNet(
            channels,
            classes,
            config.width,
            config.blocks,
            dropout=config.dropout,
            outputs_at=at,
            seed=seed,
        ),
    )
    _train(head, examples, labels, source, config, seed, device)
    return lambda shape, turned: predict(head, [inputs(shape, turned)], device)[0]


def _augment(source: FeatureSource, config: HeadConfig) -> Augment | None:
    """What changes the features of vertices before each step; None: nothing."""
    return source.augment if config.turn_xyz else None


def _train(
    head: torch.nn.Module,
    examples: Sequence[Inputs],
    labels: list[np.ndarray],
    source: FeatureSource,
    config: HeadConfig,
    seed: int,
    device: str,
) -> None:
    augment = _augment(source, config)
    train(head, examples, labels, config.training, seed, device, augment=augment)


class _Pooled(torch.nn.Module):
    """A head of whole shapes on the features of their vertices."""

    def __init__(self, head: torch.nn.Module):
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Shape: (N, C) -> (1, L)."""
        return self.head(pool_features(features)[None])


class _Standardized(torch.nn.Module):
    """A head on standardised features: signatures and coordinates come in any unit."""

    def __init__(self, channels: int, head: torch.nn.Module):
        super().__init__()
        self.standardize, self.head = Standardize(channels), head

    def forward(self, features: torch.Tensor, *others: object) -> torch.Tensor:
        return self.head(self.standardize(features), *others)


def _rows(features: np.ndarray, shape: LoadedShape, task: str) -> np.ndarray:
    """One row per label: vertices, faces (means of their corners), or the whole shape."""
    if task == "classification":
        return pool_features(torch.from_numpy(np.ascontiguousarray(features))).numpy()[None]
    return features[shape.faces].mean(1) if shape.labels_faces else features
