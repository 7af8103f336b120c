"""Points as a network takes them: in voxels, and the way from features of voxels back to points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sparsefeat.checks import checked_positive
from sparsefeat.errors import InputError
from sparsefeat.sparse.coordinates import constant

INTERPOLATIONS = ("nearest", "trilinear")

_POINTS_AT_A_TIME = 1 << 18
# Leaves room for the engine's margins around the bounding box in its 62-bit keys.
_MAX_CELLS_PER_AXIS = 1 << 30
_MAX_BOX_CELLS = 1 << 60


@dataclass(frozen=True, eq=False)
class VoxelCloud:
    """The occupied voxels of a cloud, of :func:`voxelize` in increasing order of (x, y, z).

    Attributes:
        cells: voxels ``floor(point / voxel_size) - origin``, not negative. Shape: (V, 3) int64.
        points: the mean of each voxel's points, in their unit; float64 unless replaced. Shape: (V, 3).
        normal: mean unit normal of each voxel's points, to the outer side of the surface; None: not known.
            Shape: (V, 3).
        inverse: voxel of each given point. Shape: (N,) int64.
        origin: what was subtracted from the voxels. Three ints.
        voxel_size: edge of a voxel, in the unit of the points.
        occupancy: how much each voxel counts beside others, in (0, 1]; None: all as 1. Shape: (V,).
        batch: which of several clouds each voxel is of; None: there is one. Shape: (V,) int64.
        clouds: how many there are, empty ones counted.
    """

    cells: Tensor
    points: Tensor
    normal: Tensor | None
    inverse: Tensor
    origin: tuple[int, int, int]
    voxel_size: float
    occupancy: Tensor | None = None
    batch: Tensor | None = None
    clouds: int = 1

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def coordinates(self) -> Tensor:
        """Batch index and cell, as a SparseTensor takes them. Shape: (V, 4) int32."""
        if self.batch is None:
            return torch.nn.functional.pad(self.cells.int(), (1, 0))
        return torch.cat([self.batch[:, None], self.cells], 1).int()

    @property
    def offset(self) -> Tensor:
        """Where the points lie on average, from the voxels' centres, in voxels. Shape: (V, 3)."""
        corner = self.cells + constant(self.origin, self.cells.device)
        return self.points / self.voxel_size - corner.to(self.points) - 0.5

    def rows(self, rows: Tensor) -> VoxelCloud:
        """Some of the voxels, in the order of ``rows`` (T,); which points are in them is no longer known."""
        normal, occupancy, batch = (
            None if part is None else part[rows]
            for part in (self.normal, self.occupancy, self.batch)
        )
        return replace(
            self, cells=self.cells[rows], points=self.points[rows], normal=normal, occupancy=occupancy,
            batch=batch, inverse=self.inverse[:0],
        )  # fmt: skip

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VoxelCloud:
        """The cloud with its tensors on a device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> VoxelCloud:
        """The cloud in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change) -> VoxelCloud:
        return replace(
            self,
            **{name: change(part) for name, part in vars(self).items() if isinstance(part, Tensor)},
        )

    def average(self, values: Tensor) -> Tensor:
        """Means over each voxel's points. Shape: (N, C) -> (V, C)."""
        return _means(values, self.inverse.to(values.device), len(self), values.dtype)

    def read_off(
        self,
        features: Tensor,
        points: Tensor | None = None,
        mode: Literal["nearest", "trilinear"] = "nearest",
    ) -> Tensor:
        """Features at points, from those of the voxels.

        Args:
            features: of the voxels. Shape: (V, C).
            points: where, in the unit of the cloud, near its points; None: the points that were voxelised, for
                ``"nearest"``. They need a cloud that is no batch. Shape: (M, 3).
            mode: ``"nearest"``: of the voxel that contains the point; ``"trilinear"``: the mean of the eight
                voxels whose centres surround it, over those that exist, weighted linearly on each axis and by
                occupancy. Means of unit vectors are shorter than 1; nothing is normalised again.

        Returns:
            Shape (M, C), on the device of the features.

        Raises:
            InputError: a point has no voxel around it, points and a batch of clouds, an unknown mode, or another number
                of features than of voxels.
        """
        if mode not in INTERPOLATIONS:
            raise InputError(f"mode {mode!r}, expected one of {', '.join(INTERPOLATIONS)}")
        if features.ndim != 2 or len(features) != len(self):
            raise InputError(
                f"features: {tuple(features.shape)}, expected ({len(self)}, C): a row for each voxel"
            )
        if points is None:
            return features.index_select(0, self.inverse.to(features.device))
        if self.batch is not None:
            raise InputError(
                "features at points need one cloud, got a batch: it is not known which cloud a point is of"
            )
        if len(points) and not len(self):
            raise InputError(f"{len(points)} points have no voxel around them; the cloud is empty")
        shifts = list(itertools.product((0, 1), repeat=3)) if mode == "trilinear" else [(0, 0, 0)]
        device = self.cells.device
        find = _Finder(self)
        origin = constant(self.origin, device, torch.float64)
        result = features.new_empty(len(points), features.shape[1])
        for start in range(0, len(points), _POINTS_AT_A_TIME):
            part = points[start : start + _POINTS_AT_A_TIME].to(device).double()
            # In a frame where voxel centres (or corners) are at whole numbers.
            position = part / self.voxel_size - origin - (0.5 if mode == "trilinear" else 0.0)
            base = torch.floor(position.detach())
            fraction = position - base
            sums: Tensor | float = 0.0
            weights: Tensor | float = 0.0
            for shift in constant(shifts, device):
                rows = find(base.long() + shift)
                weight = torch.where(shift == 1, fraction, 1 - fraction).prod(1)
                weight = torch.ones_like(weight) if mode == "nearest" else weight
                row = rows.clamp(min=0)
                if self.occupancy is not None:
                    weight = weight * self.occupancy[row]
                weight = torch.where(rows >= 0, weight, 0)[:, None].to(features)
                sums = sums + weight * features[row.to(features.device)]
                weights = weights + weight
            alone = int((weights.detach() <= 1e-9).sum())
            if alone:
                raise InputError(
                    f"{alone} of {len(part)} points have no voxel around them; they must lie on the cloud"
                )
            result[start : start + len(part)] = sums / weights
        return result


def voxelize(
    points: Tensor,
    voxel_size: float,
    *,
    normals: Tensor | None = None,
    stride: int = 1024,
    device: torch.device | str | None = None,
    where: str = "points",
) -> VoxelCloud:
    """Cut a cloud into voxels ``floor(p / voxel_size)``.

    Args:
        points: finite. Shape: (N, 3), float32 or float64.
        voxel_size: in their unit.
        normals: unit vectors to the outer side of the surface, zero where it is not known. Shape: (N, 3).
        stride: cells count from a multiple of it. Moving a cloud by a multiple of a network's largest tensor
            stride changes no output; 1024 is one for all networks that halve their resolution.
        device: where the voxels are kept; None: that of the points.
        where: begins the message of an error.

    Raises:
        InputError: the voxel size is no positive number, or the cloud spans too many voxels to number them.
    """
    voxel_size = checked_positive(voxel_size, "voxel size")
    device = points.device if device is None else torch.device(device)
    # A float32 quotient can round up across a voxel's border; MPS has no float64.
    device = torch.device("cpu") if device.type == "mps" else device
    # One axis at a time keeps the temporaries of a large cloud small.
    columns, origin, extent = [], [], []
    for axis in range(3):
        column = torch.floor(points[:, axis].to(device).double() / voxel_size)
        low, high = (float(column.min()), float(column.max())) if len(column) else (0.0, 0.0)
        start = math.floor(low / stride) * stride
        if high - low + 1 > _MAX_CELLS_PER_AXIS:
            raise InputError(
                f"{where}: {high - low + 1:.3g} voxels of {voxel_size:g} along {'xyz'[axis]}, expected at most "
                f"{_MAX_CELLS_PER_AXIS:.3g}; are the coordinates in the unit of the voxel size?"
            )
        columns.append((column - start).long())
        origin.append(start)
        extent.append(int(high) - start + 1)
    if math.prod(extent) > _MAX_BOX_CELLS:
        raise InputError(
            f"{where}: a box of {' x '.join(map(str, extent))} voxels of {voxel_size:g} is beyond the key range; "
            "are there stray points far away?"
        )
    keys = columns[0].mul_(extent[1]).add_(columns[1]).mul_(extent[2]).add_(columns[2])
    del columns
    keys, inverse = torch.unique(keys, return_inverse=True)
    return VoxelCloud(
        cells=_unpack(keys, extent),
        points=_means(points, inverse, len(keys), torch.float64),
        normal=None if normals is None else _means(normals, inverse, len(keys), torch.float64),
        inverse=inverse,
        origin=(origin[0], origin[1], origin[2]),
        voxel_size=float(voxel_size),
    )


def join(clouds: Sequence[VoxelCloud]) -> VoxelCloud:
    """Several clouds as one, numbered in ``batch``; each may be such a batch itself.

    Raises:
        InputError: there are none, or they differ in voxel size or in whether their normals are known.
    """
    if not clouds:
        raise InputError("a batch needs at least one cloud")
    first = clouds[0]
    if any(cloud.voxel_size != first.voxel_size for cloud in clouds):
        raise InputError(
            f"clouds of voxel sizes {sorted({cloud.voxel_size for cloud in clouds})}, expected one"
        )
    known = {(cloud.normal is None, cloud.occupancy is None) for cloud in clouds}
    if len(known) > 1:
        raise InputError("normals or occupancies of some clouds are known and of others not")
    origin = tuple(min(cloud.origin[axis] for cloud in clouds) for axis in range(3))
    batches, inverses, cells = [], [], []
    number = voxels = 0
    for cloud in clouds:
        own = cloud.cells.new_zeros(len(cloud)) if cloud.batch is None else cloud.batch
        shift = [mine - low for mine, low in zip(cloud.origin, origin, strict=True)]
        cells.append(cloud.cells + constant(shift, cloud.cells.device))
        batches.append(own + number)
        inverses.append(cloud.inverse + voxels)
        number += cloud.clouds
        voxels += len(cloud)

    def joined(name: str) -> Tensor | None:
        parts = [getattr(cloud, name) for cloud in clouds]
        return None if parts[0] is None else torch.cat(parts)

    return VoxelCloud(
        cells=torch.cat(cells),
        points=torch.cat([cloud.points for cloud in clouds]),
        normal=joined("normal"),
        inverse=torch.cat(inverses),
        origin=(origin[0], origin[1], origin[2]),
        voxel_size=first.voxel_size,
        occupancy=joined("occupancy"),
        batch=torch.cat(batches),
        clouds=number,
    )


class _Finder:
    """Rows of a cloud's cells, by binary search among their keys."""

    def __init__(self, cloud: VoxelCloud):
        self.extent = [int(value) + 1 for value in cloud.cells.amax(0)] if len(cloud) else [1, 1, 1]
        self.limits = constant(self.extent, cloud.cells.device)
        self.keys, self.order = torch.sort(self._pack(cloud.cells))

    def __call__(self, cells: Tensor) -> Tensor:
        """Shape: (M, 3) -> (M,), -1 where there is no such cell."""
        keys = self._pack(cells)
        places = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        # Beyond the box a key would be that of a cell on its other side.
        inside = ((cells >= 0) & (cells < self.limits)).all(1)
        return torch.where(inside & (self.keys[places] == keys), self.order[places], -1)

    def _pack(self, cells: Tensor) -> Tensor:
        return (cells[:, 0] * self.extent[1] + cells[:, 1]) * self.extent[2] + cells[:, 2]


def _means(values: Tensor, inverse: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Means of rows by voxel, in portions, so that no copy of a large cloud is made. Shape: (N, C) -> (V, C)."""
    sums = torch.zeros(count, values.shape[1], dtype=dtype, device=inverse.device)
    for start in range(0, len(values), _POINTS_AT_A_TIME):
        part = values[start : start + _POINTS_AT_A_TIME].to(inverse.device, dtype)
        sums.index_add_(0, inverse[start : start + len(part)], part)
    return sums.div_(torch.bincount(inverse, minlength=count)[:, None])


def _unpack(keys: Tensor, extent: Sequence[int]) -> Tensor:
    """Cells of keys ``(x * extent[1] + y) * extent[2] + z``. Shape: (V,) -> (V, 3)."""
    rest = torch.div(keys, extent[2], rounding_mode="floor")
    x = torch.div(rest, extent[1], rounding_mode="floor")
    return torch.stack([x, rest - x * extent[1], keys - rest * extent[2]], 1)
