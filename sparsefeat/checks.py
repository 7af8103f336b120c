"""Checks of single arguments that many functions take: counts, seeds, arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparsefeat.errors import InputError


def checked_count(value: Any, what: str, least: int = 1) -> int:
    """The value as an int, if it is a whole number of at least ``least``.

    Args:
        value: an int of Python or numpy.
        what: begins the message, such as the argument's name.
        least: the smallest value that is allowed.

    Raises:
        InputError: another type, or a smaller number.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InputError(f"{what} {value!r}, expected a whole number of at least {least}")
    return int(value)


def checked_seed(seed: Any) -> int:
    """The seed, if it is a whole number of at least 0, as numpy's generators take it.

    Raises:
        InputError: another type, or a negative number.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed {seed!r}, expected a whole number of at least 0")
    return int(seed)


def checked_positive(value: Any, what: str) -> float:
    """The value as a float, if it is a finite number above 0.

    Raises:
        InputError: text, another type, zero, a negative number, NaN or infinity. ``what`` begins the message.
    """
    number = math.nan if isinstance(value, str | bytes) else _as_float(value)
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{what} {value!r}, expected a positive number")
    return number


def checked_share(value: Any, what: str) -> float:
    """The value as a float, if it is a number from 0 to 1.

    Raises:
        InputError: text, another type, or a number beyond 0 to 1. ``what`` begins the message.
    """
    number = math.nan if isinstance(value, str | bytes) else _as_float(value)
    if not 0 <= number <= 1:
        raise InputError(f"{what} {value!r}, expected a number from 0 to 1")
    return number


def as_array(values: Any, what: str) -> np.ndarray:
    """An array, a tensor or nested lists as an array; memory is shared where possible.

    A tensor may require gradients, lie on another device, or be of a type that numpy lacks (bfloat16 becomes float32).

    Args:
        values: what a caller gave.
        what: begins the message.

    Raises:
        InputError: rows of unequal length, masked values, or what is no array at all.
    """
    if isinstance(values, np.ma.MaskedArray) and (masked := int(np.sum(values.mask))):
        raise InputError(
            f"{what}: {masked} of {values.size} values are masked, expected none; leave out their rows"
        )
    detach = getattr(values, "detach", None)
    try:
        if callable(detach):  # a tensor; torch is not imported for arrays
            values = detach().cpu()
            try:
                array: np.ndarray = values.numpy()
            except TypeError:
                array = values.float().numpy()
            return array
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{what}: {type(values).__name__} that is no array (unequal lengths or types of its parts), "
            "expected an array of numbers"
        ) from error


def as_points(points: Any, what: str) -> np.ndarray:
    """The points as float64.

    Args:
        points: Shape (N, 3).
        what: begins the message.

    Raises:
        InputError: another shape or type, or a point that is not finite.
    """
    array = as_array(points, what)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise InputError(f"{what}: {array.shape} of {array.dtype}, expected numbers (N, 3)")
    finite = np.isfinite(array).all(1)
    if not finite.all():
        raise InputError(f"{what}: row {int(np.argmin(finite))} is not finite")
    return np.ascontiguousarray(array, dtype=np.float64)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan
