"""Scores of predicted labels: of parts, of classes, of whole shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsefeat.errors import InputError


@dataclass(frozen=True)
class LabelScores:
    """What a confusion matrix says; shares as fractions.

    Attributes:
        confusion: how often true class i was predicted as class j. Shape (L, L), int64.
        accuracy: share of labelled elements predicted as labelled, pooled over all shapes.
        class_accuracy: the same within each true class; NaN where there is none. Shape (L,).
        class_iou: intersection over union of each class; NaN where neither side has it. Shape (L,).
    """

    confusion: np.ndarray
    accuracy: float
    class_accuracy: np.ndarray
    class_iou: np.ndarray

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes that occur."""
        return float(np.nanmean(self.class_accuracy))

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union over the classes that occur or are predicted."""
        return float(np.nanmean(self.class_iou))


def confusion_matrix(predicted: np.ndarray, true: np.ndarray, classes: int) -> np.ndarray:
    """Count predictions by true class; elements with a true label of -1 do not count.

    Matrices of several shapes add up to that of all of them.

    Args:
        predicted, true: 0 to ``classes`` - 1; -1 in ``true`` is unlabelled. Shape: (N,).
        classes: L.

    Returns:
        (L, L) int64; the row is the true class.

    Raises:
        InputError: shapes that do not fit, labels out of range.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise InputError(
            f"labels: expected two of shape (N,), got {predicted.shape} and {true.shape}"
        )
    for name, labels, lowest in (("predicted", predicted, 0), ("true", true, -1)):
        if len(labels) and not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels: expected {name} integers, got {labels.dtype}")
        if len(labels) and (labels.min() < lowest or labels.max() >= classes):
            raise InputError(
                f"labels: {name} ones are {labels.min()} to {labels.max()}, expected {lowest} to "
                f"{classes - 1}"
            )
    labelled = true >= 0
    pairs = true[labelled].astype(np.int64) * classes + predicted[labelled].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def label_scores(confusion: np.ndarray) -> LabelScores:
    """Accuracy and intersection over union of a confusion matrix. Shape: (L, L).

    Raises:
        InputError: not square, or empty of elements.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or not confusion.sum() > 0:
        raise InputError(f"label_scores: expected a filled (L, L) matrix, got {confusion.shape}")
    hit = np.diag(confusion).astype(np.float64)
    truth, claimed = confusion.sum(1), confusion.sum(0)
    return LabelScores(
        confusion,
        float(hit.sum() / confusion.sum()),
        _ratio(hit, truth),
        _ratio(hit, truth + claimed - hit),
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
