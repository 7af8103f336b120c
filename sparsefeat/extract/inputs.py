"""What a feature extractor is given, checked before it computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import as_array, checked_count, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.models.voxel_cloud import INTERPOLATIONS

__all__ = [
    "METRES", "as_tensor", "check_options", "check_points", "checked_voxel_size", "chosen_rows",
    "unit_factor",
]  # fmt: skip


def check_options(
    interpolation: str,
    max_voxels: int,
    halo: int | None,
    views: int = 1,
    scales: Sequence[float] = (1.0,),
) -> None:
    """Raise InputError if these cannot be given to a FeatureExtractor."""
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"interpolation {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}"
        )
    checked_count(max_voxels, "max_voxels")
    if halo is not None:
        checked_count(halo, "halo", 0)
    checked_count(views, "views")
    try:
        fit = len(scales) > 0 and all(0 < scale < math.inf for scale in scales)
    except TypeError:
        fit = False
    if not fit:
        raise InputError(f"scales {scales!r}, expected one or more positive factors")


def as_tensor(values: np.ndarray | Tensor, what: str) -> Tensor:
    """A matrix of floats as a tensor; memory is shared where possible."""
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise InputError(f"{what}: dtype {values.dtype}, expected numbers")
        return values.detach() if values.is_floating_point() else values.detach().double()
    array = as_array(values, what)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}: dtype {array.dtype}, expected numbers")
    kind = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
    array = np.ascontiguousarray(array, dtype=kind)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def check_points(cloud: Tensor, where: str) -> None:
    """Raise InputError unless these are finite points (N, 3)."""
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        raise InputError(f"{where}: shape {tuple(cloud.shape)}, expected (N, 3)")
    valid = torch.isfinite(cloud).all(1)
    if not valid.all():
        bad, first = int((~valid).sum()), int((~valid).int().argmax())
        raise InputError(
            f"{where}: {bad} of {len(cloud)} points have a NaN or infinite coordinate, first in row {first}"
        )


def chosen_rows(rows: np.ndarray | Tensor | slice | None, cloud: Tensor) -> Tensor | slice:
    """What picks these rows of a cloud, on its device.

    Raises:
        InputError: neither indices of its points, nor a mask of as many, nor a slice.
    """
    count = len(cloud)
    if rows is None:
        return slice(None)
    if isinstance(rows, slice):
        rows = np.arange(count)[rows]
    if not isinstance(rows, Tensor):
        rows = as_array(rows, "rows")
        if not rows.size and rows.dtype.kind == "f":
            rows = rows.astype(np.int64)  # an empty list
        if rows.dtype.kind not in "biu":
            raise InputError(f"rows: {rows.dtype}, expected indices (M,), a mask or a slice")
        # A copy, since torch takes neither wide unsigned numbers nor steps backwards.
        rows = torch.from_numpy(rows.astype(np.bool_ if rows.dtype.kind == "b" else np.int64))
    chosen = rows.to(cloud.device)
    if chosen.dtype == torch.bool:
        if chosen.shape != (count,):
            raise InputError(f"rows: a mask of shape {tuple(chosen.shape)}, expected ({count},)")
        return chosen
    if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex():
        raise InputError(
            f"rows: {chosen.dtype} of shape {tuple(chosen.shape)}, expected indices (M,), a mask or a slice"
        )
    chosen = chosen.long()
    if len(chosen) and not (0 <= int(chosen.min()) and int(chosen.max()) < count):
        raise InputError(
            f"rows: {int(chosen.min())} to {int(chosen.max())}, expected 0 to {count - 1}"
        )
    return chosen


METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
"""Units of length that convert into each other, in metres."""


def unit_factor(given: str, wanted: str) -> float:
    """By what a length in ``given`` is multiplied to be one in ``wanted``.

    Raises:
        InputError: they differ, and one of them is not in METRES.
    """
    if given == wanted:
        return 1.0
    for unit in (wanted, given):
        if unit not in METRES:
            raise InputError(
                f"unit {unit!r}, expected one of {', '.join(METRES)}; for others give the voxel size in the unit of "
                "the points"
            )
    return METRES[given] / METRES[wanted]


def checked_voxel_size(voxel_size: float) -> float:
    """The voxel size as a float, if it is a positive number."""
    try:
        value = float(voxel_size)
    except (TypeError, ValueError):
        value = math.nan
    return checked_positive(value if math.isfinite(value) else voxel_size, "voxel size")
