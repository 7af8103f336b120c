"""What heads take: features and labels of one shape or of several, as arrays or tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError

Rows = np.ndarray | Tensor


def as_list(values: Rows | Sequence[Rows], name: str = "features") -> list[np.ndarray]:
    """One array per shape, whether one shape was given or several.

    Raises:
        InputError: neither an array nor several; ``name`` begins the message.
    """
    if isinstance(values, (np.ndarray, Tensor)):
        values = [values]
    try:
        parts = list(values)
    except TypeError as error:
        raise InputError(
            f"{name}: {type(values).__name__}, expected an array, or one for each shape"
        ) from error
    return [as_array(part, name) for part in parts]


def stack_features(features: Rows | Sequence[Rows], name: str) -> np.ndarray:
    """All rows one after the other, checked. Shape: (N, C), or several of them -> (sum N, C) float64.

    Raises:
        InputError: none, shapes that do not fit, values that are no finite real numbers.
    """
    parts = as_list(features, name)
    if not parts or any(p.ndim != 2 or p.shape[1] != parts[0].shape[-1] for p in parts):
        raise InputError(f"{name}: expected features (N, C), got {[p.shape for p in parts]}")
    odd = [str(p.dtype) for p in parts if p.dtype.kind not in "biuf"]
    if odd:
        raise InputError(f"{name}: features of dtype {odd[0]}, expected real numbers")
    stacked = np.concatenate(parts).astype(np.float64)
    finite = np.isfinite(stacked).all(1)
    if not finite.all():
        raise InputError(f"{name}: features are not finite (row {int(finite.argmin())})")
    return stacked


def stack_labelled(
    features: Rows | Sequence[Rows],
    labels: Rows | Sequence[Rows],
    name: str,
    most: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labelled rows of all shapes: features (M, C) float64, labels (M,) int64 of at least 0, number of the shape.

    Args:
        features: Shape (N, C), or one such per shape.
        labels: -1 where unlabelled. Shape (N,), or one such per shape.
        name: who asks, for the error.
        most: keep so many rows, drawn without replacement by ``seed``, in their order; None for all.
        seed: of that draw.

    Raises:
        InputError: shapes that do not fit, labels that are no integers or below -1, no row with a label.
    """
    x, parts = stack_features(features, name), as_list(labels, f"{name}: labels")
    lengths = [len(p) for p in as_list(features, name)]
    if [p.shape for p in parts] != [(n,) for n in lengths]:
        raise InputError(
            f"{name}: labels {[p.shape for p in parts]} for features of {lengths} rows"
        )
    y = np.concatenate(parts)
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{name}: expected integer labels of at least -1, got {y.dtype}")
    if y.min(initial=0) < -1:
        raise InputError(f"{name}: expected integer labels of at least -1, got {y.min()}")
    rows = np.flatnonzero(y >= 0)
    if len(rows) == 0:
        raise InputError(f"{name}: no row has a label")
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    of_shape = np.repeat(np.arange(len(lengths)), lengths)
    return x[rows], y[rows].astype(np.int64), of_shape[rows]
