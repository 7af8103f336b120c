"""What is allowed and yet gives poor features: warnings, with what helps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.errors import warn
from sparsefeat.models.voxel_cloud import VoxelCloud

_FEW_POINTS = 100
"""Clouds below this are not judged."""
_ALONE = 0.2
"""Share of voxels with a neighbour below which a network sees single voxels. Random points of a surface reach it at a
spacing of six voxels; scans of rooms in voxels of 5 cm have 0.99."""
_FEW_VOXELS = 30
_SAMPLE = 1000
_FINER_UNITS = {"m": {"mm": 1000, "cm": 100}}


def warn_of_spacing(cloud: VoxelCloud, points: Tensor, unit: str, where: str) -> None:
    """Warn if the points are rounded more coarsely than the voxels, are spread too far, or share a few voxels.

    Args:
        cloud: the voxels of these points.
        points: Shape (N, 3).
        unit: of the voxel size, as the checkpoint says.
        where: begins the message.
    """
    if len(points) < _FEW_POINTS:
        return
    size = cloud.voxel_size
    largest, step = float(points.abs().max()), rounding_step(points)
    if step > size / 4:
        warn(
            f"{where}: coordinates up to {largest:.7g} are rounded to steps of {step:.2g}, more than a quarter of the "
            f"voxel size {size:g}, so that features are of other places; give float64, or subtract an offset before the "
            "coordinates are stored as float32"
        )
    if len(cloud) < _FEW_VOXELS and len(points) >= 10 * len(cloud):
        extent = float((points.amax(0) - points.amin(0)).max())
        if extent == 0:
            warn(f"{where}: {len(points)} points are all at one place: their features are equal")
            return
        warn(
            f"{where}: {len(points)} points fall into {len(cloud)} voxels of {size:g}, too few to tell places apart: the "
            f"cloud is {extent:.3g} wide, {extent / size:.3g} voxels; a voxel size of about {extent / 50:.2g} would fit, "
            "or another unit of the coordinates"
        )
    elif (share := neighbour_share(cloud.cells)) < _ALONE:
        spacing = typical_spacing(points)
        warn(
            f"{where}: {share:.0%} of {len(cloud)} voxels of {size:g} have a neighbour, so that features are nearly the "
            f"same everywhere: points are about {spacing:.3g} apart, {spacing / size:.3g} voxels; "
            + _unit_hint(unit, spacing / size, 2 * spacing)
        )


def rounding_step(points: Tensor) -> float:
    """Distance of neighbouring numbers at the largest coordinate, in the precision that the coordinates have.

    Coordinates of float64 that are all numbers of float32 have been rounded to it before. Shape: (N, 3), N > 0.
    """
    kind = points.dtype
    if kind == torch.float64 and bool((points == points.float()).all()):
        kind = torch.float32
    largest = float(points.abs().max())
    return math.ldexp(torch.finfo(kind).eps, math.frexp(largest)[1] - 1)


def neighbour_share(cells: Tensor) -> float:
    """Share of voxels that touch another one, by face, edge or corner; of a sample where there are many.

    Args:
        cells: distinct, from 0, in ascending order. Shape: (V, 3) int64.
    """
    if not len(cells):
        return 0.0
    extent = cells.amax(0) + 3
    keys = _keys(cells, extent)
    step = max(1, len(cells) // _SAMPLE)
    chosen = cells[::step]
    shifts = [shift for shift in itertools.product((-1, 0, 1), repeat=3) if any(shift)]
    near = _keys(
        (chosen[:, None] + torch.tensor(shifts, device=cells.device)).reshape(-1, 3), extent
    )
    rows = torch.searchsorted(keys, near).clamp_(max=len(keys) - 1)
    return float((keys[rows] == near).reshape(len(chosen), -1).any(1).double().mean())


def typical_spacing(points: Tensor) -> float:
    """Median distance from a point to the nearest one at another place; of a sample where there are many."""
    distinct = np.unique(points.detach().cpu().double().numpy(), axis=0)
    if len(distinct) < 2:
        return 0.0
    chosen = distinct[:: max(1, len(distinct) // _SAMPLE)]
    return float(np.median(cKDTree(distinct).query(chosen, k=2)[0][:, 1]))


def _keys(cells: Tensor, extent: Tensor) -> Tensor:
    # One more on each side, so that a neighbour beyond the box is not a cell of its other side.
    cells = cells + 1
    return (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]


def _unit_hint(unit: str, voxels: float, fitting: float) -> str:
    for name, factor in _FINER_UNITS.get(unit, {}).items():
        if voxels / factor <= 2:
            return (
                f"the voxel size is in {unit}: for coordinates in {name} give unit {name!r}, else a voxel size of about "
                f"{fitting:.2g}"
            )
    return f"a voxel size of about {fitting:.2g} would fit"
