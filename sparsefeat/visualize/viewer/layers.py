"""What is drawn on shapes and between them, as a user gives it and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.visualize.viewer.shapes import Shape, as_array


@dataclass(frozen=True)
class Matches:
    """Matched points of two shapes.

    Attributes:
        rows: (K, 2) rows of the source and of the target.
        confidence: (K,) numbers, the larger the surer; or None.
        correct: (K,) bool where the truth is known; or None.
        source: index of the shape that column 0 counts.
        target: index of the shape that column 1 counts.
    """

    rows: Any
    confidence: Any = None
    correct: Any = None
    source: int = 0
    target: int = 1


@dataclass(frozen=True)
class ReceptiveField:
    """What a feature looks at, drawn around a picked point.

    Attributes:
        size: edge of the cube (diameter of the sphere), in the unit of the shapes.
        tuned: the size that tuning found, marked on the slider; or None.
        cells: voxels along the edge, so that the page can say the voxel size; or None.
        form: "cube" or "sphere".
        about: what the size means, a sentence for the page.
    """

    size: float
    tuned: float | None = None
    cells: float | None = None
    form: str = "cube"
    about: str = ""


def per_shape(
    given: Any, shapes: Sequence[Shape], what: str, width: bool = False
) -> list[np.ndarray | None]:
    """Arrays with one row per point, one array per shape.

    Args:
        given: None; one array, for the only shape; or a list with one array or None per shape.
        shapes: whose points are counted.
        what: begins the messages.
        width: whether rows are vectors (N, C) rather than values (N,).

    Raises:
        InputError: another number of arrays than of shapes, or of rows than of points.
    """
    if given is None:
        return [None] * len(shapes)
    if not (
        isinstance(given, (list, tuple)) and len(given) == len(shapes) and not _is_row(given[0])
    ):
        if len(shapes) > 1:
            count = len(given) if isinstance(given, (list, tuple)) else 1
            raise InputError(
                f"view: {what}: expected a list of {len(shapes)}, one per shape, got {count}"
            )
        given = [given]
    arrays: list[np.ndarray | None] = []
    for shape, values in zip(shapes, given, strict=True):
        if values is None:
            arrays.append(None)
            continue
        array = as_array(values)
        if not width and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        expected = f"({len(shape.vertices)}, C)" if width else f"({len(shape.vertices)},)"
        if (
            array.ndim != (2 if width else 1)
            or len(array) != len(shape.vertices)
            or (width and not array.shape[1])
        ):
            raise InputError(
                f"view: {what} of {shape.name}: shape {array.shape}, expected {expected}"
            )
        arrays.append(array)
    return arrays


def check_features(arrays: Sequence[np.ndarray | None]) -> None:
    """Raise InputError unless features are numbers of one width with a finite row."""
    given = [a for a in arrays if a is not None]
    for array in given:
        if array.dtype.kind not in "fiu":
            raise InputError(f"view: features of {array.dtype}, expected numbers")
    widths = sorted({a.shape[1] for a in given})
    if len(widths) > 1:
        raise InputError(
            f"view: features with {widths} channels, expected one number of channels for all shapes"
        )
    if given and not any(np.isfinite(a).all(1).any() for a in given):
        raise InputError("view: no finite row in the features")


def named_layers(
    given: Any, shapes: Sequence[Shape], what: str
) -> dict[str, list[np.ndarray | None]]:
    """Layers by name; what comes without a name gets the name ``what``."""
    if given is None:
        return {}
    named = given if isinstance(given, Mapping) else {what: given}
    return {str(name): per_shape(values, shapes, str(name)) for name, values in named.items()}


def as_classes(
    layers: Sequence[list[np.ndarray | None]], names: Any
) -> tuple[list[list[np.ndarray | None]], dict[int, str]]:
    """Labels as whole numbers, and what each number that occurs is called.

    Args:
        layers: arrays of whole numbers or of texts.
        names: sequence or mapping from numbers to names, or None.

    Raises:
        InputError: labels that are neither whole numbers nor texts.
    """
    arrays = [a for layer in layers for a in layer if a is not None]
    if any(a.dtype.kind in "USO" for a in arrays):
        known = sorted({str(x) for a in arrays for x in np.unique(a.astype(str))})
        numbers = {name: k for k, name in enumerate(known)}
        layers = [
            [None if a is None else np.array([numbers[str(x)] for x in a]) for a in layer]
            for layer in layers
        ]
        return layers, dict(enumerate(known))
    for array in arrays:
        if array.dtype.kind not in "iub" and not (
            array.dtype.kind == "f" and (array == np.rint(array)).all()
        ):
            raise InputError(
                "view: labels have fractions, expected whole numbers or names (numbers go into values=)"
            )
    layers = [[None if a is None else a.astype(np.int64) for a in layer] for layer in layers]
    found = sorted(
        {int(x) for layer in layers for a in layer if a is not None for x in np.unique(a)}
    )
    if names is None:
        names = {}
    elif not isinstance(names, Mapping):
        names = dict(enumerate(names))
    return layers, {k: str(names.get(k, "no label" if k == -1 else k)) for k in found}


def checked_matches(
    given: Any, confidence: Any, correct: Any, shapes: Sequence[Shape]
) -> list[Matches]:
    """Matches as arrays that fit each other and the shapes.

    Raises:
        InputError: shapes of arrays that do not fit, or rows that a shape has not.
    """
    if given is None:
        return []
    if isinstance(given, Matches):
        given = [given]
    elif not (
        isinstance(given, (list, tuple)) and given and all(isinstance(m, Matches) for m in given)
    ):
        given = [Matches(given, confidence, correct)]
    checked = []
    for match in given:
        rows = as_array(match.rows)
        rows = rows.reshape(-1, 2) if rows.size == 0 else rows
        if rows.ndim != 2 or rows.shape[1] != 2 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError(
                f"view: matches {rows.shape} of {rows.dtype}, expected whole numbers (K, 2)"
            )
        for column, index in enumerate((match.source, match.target)):
            if not 0 <= index < len(shapes):
                raise InputError(
                    f"view: matches name shape {index}, expected 0 to {len(shapes) - 1}"
                )
            count = len(shapes[index].vertices)
            if len(rows) and not (0 <= rows[:, column].min() and rows[:, column].max() < count):
                raise InputError(f"view: a match beyond the {count} points of {shapes[index].name}")
        extra = []
        for name, values in (("confidence", match.confidence), ("correct", match.correct)):
            array = None if values is None else as_array(values)
            if array is not None and array.shape != (len(rows),):
                raise InputError(
                    f"view: {name} has shape {array.shape}, expected ({len(rows)},), one per match"
                )
            extra.append(array)
        sure, right = extra
        if sure is not None and not np.isfinite(sure.astype(np.float64)).all():
            raise InputError("view: a confidence is not finite")
        checked.append(
            Matches(
                rows.astype(np.int64),
                sure,
                None if right is None else right.astype(bool),
                match.source,
                match.target,
            )
        )
    return checked


def checked_transforms(given: Any, shapes: Sequence[Shape]) -> np.ndarray | None:
    """(n, 4, 4) float64, one per shape, or None. A single matrix is that of the first shape."""
    if given is None:
        return None
    single = hasattr(given, "shape") and tuple(given.shape) == (4, 4)
    matrices = [given] + [None] * (len(shapes) - 1) if single else list(given)
    if len(matrices) != len(shapes):
        raise InputError(f"view: {len(shapes)} shapes but {len(matrices)} transforms")
    found = np.stack([np.eye(4) if m is None else as_array(m).astype(np.float64) for m in matrices])
    if (
        found.shape[1:] != (4, 4)
        or not np.isfinite(found).all()
        or not (found[:, 3] == [0, 0, 0, 1]).all()
    ):
        raise InputError("view: expected transforms (4, 4) that end in the row 0 0 0 1")
    return found


def checked_maps(given: Any, shapes: Sequence[Shape]) -> tuple[int, list[np.ndarray | None]] | None:
    """The shape that colours are carried from, and the rows of it that the points of the others map to.

    Args:
        given: rows of shape 1 for the points of shape 0; or a list with None for the shape that is mapped to.

    Raises:
        InputError: not exactly one shape without a map, or rows that it has not.
    """
    if given is None:
        return None
    if not (
        isinstance(given, (list, tuple))
        and len(given) == len(shapes)
        and any(m is None for m in given)
    ):
        given = [given] + [None] * (len(shapes) - 1)
    if [m is None for m in given].count(True) != 1:
        raise InputError(
            "view: maps: expected rows for every shape but one, and None for the one they are rows of"
        )
    reference = next(k for k, m in enumerate(given) if m is None)
    rows = per_shape(list(given), shapes, "map")
    count = len(shapes[reference].vertices)
    for shape, row in zip(shapes, rows, strict=True):
        if row is None:
            continue
        if row.dtype.kind not in "iu" or (len(row) and not (-1 <= row.min() and row.max() < count)):
            raise InputError(
                f"view: map of {shape.name}: expected rows 0 to {count - 1} of {shapes[reference].name}, or -1 for none"
            )
    return reference, rows


def checked_field(given: Any) -> ReceptiveField | None:
    """A receptive field with positive sizes.

    Raises:
        InputError: a size that is not a positive number, or an unknown form.
    """
    if given is None:
        return None
    field = given if isinstance(given, ReceptiveField) else ReceptiveField(float(given))
    for size in (field.size, field.tuned):
        if size is not None and not 0 < size < math.inf:
            raise InputError(f"view: receptive field of {size!r}, expected a positive size")
    if field.form not in ("cube", "sphere"):
        raise InputError(f"view: receptive field {field.form!r}, expected cube or sphere")
    return field


def _is_row(value: Any) -> bool:
    return isinstance(value, (int, float, str, np.integer, np.floating))
