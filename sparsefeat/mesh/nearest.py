"""Which voxel a point takes its value from."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError
from sparsefeat.mesh.keys import Box


def nearest_voxels(
    points_in_voxels: Tensor | np.ndarray, coordinates: Tensor | np.ndarray
) -> Tensor:
    """Return the row of the voxel that contains each point, else of the one with the nearest centre.

    Args:
        points_in_voxels: points / voxel size, float. Shape: (N, 3)
        coordinates: distinct whole numbers. Shape: (V, 3)

    Returns:
        (N,) int64.

    Raises:
        InputError: shapes, types or numbers that do not fit, repeated voxels, or points but no voxel.
    """
    position = _tensor(points_in_voxels, "points").detach()
    coordinates = _tensor(coordinates, "coordinates")
    table = _Table(coordinates, position)
    if not len(position):
        return torch.empty(0, dtype=torch.int64, device=coordinates.device)
    row, exists = table.rows(torch.floor(position))
    if not exists.all():
        row[~exists] = table.nearest(position[~exists])
    return row


def _tensor(values: Tensor | np.ndarray, what: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    array = as_array(values, what)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}: {array.dtype}, expected numbers")
    return torch.as_tensor(array)


class _Table:
    """Looks up the rows of cells."""

    def __init__(self, coordinates: Tensor, points: Tensor):
        for tensor, what in ((points, "points"), (coordinates, "coordinates")):
            if tensor.ndim != 2 or tensor.shape[1] != 3:
                raise InputError(f"{what}: shape {tuple(tensor.shape)}, expected rows of three")
        if (
            not points.is_floating_point()
            or coordinates.is_floating_point()
            or coordinates.is_complex()
        ):
            raise InputError(
                f"points of {points.dtype} and coordinates of {coordinates.dtype}, expected floats and "
                "whole numbers"
            )
        if not torch.isfinite(points).all():
            raise InputError("points: NaN or infinite coordinates")
        if len(points) and not len(coordinates):
            raise InputError(f"{len(points)} points and no voxel, expected at least one voxel")
        self.cells = coordinates.long()
        if not len(coordinates):
            return
        low, high = self.cells.amin(0), self.cells.amax(0)
        self.box = Box(low.tolist(), (high - low + 1).tolist())
        self.keys, self.order = torch.sort(self.box.keys(self.cells.unbind(1)))
        repeated = self.keys[1:] == self.keys[:-1]
        if repeated.any():
            cell = self.cells[self.order[int(repeated.int().argmax())]].tolist()
            raise InputError(f"coordinates: voxel {cell} is there more than once")

    def rows(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of cells, given as whole floats, and whether they are there; (N,) int64, (N,) bool."""
        # Asked as floats: a point may be farther away than whole numbers reach.
        inside = self.box.contains(cells.unbind(1))
        low = torch.tensor(self.box.low, device=cells.device)
        moved = torch.where(inside[:, None], cells, low.to(cells)).long()
        key = self.box.keys(moved.unbind(1))
        found = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return self.order[found], inside & (self.keys[found] == key)

    def nearest(self, points: Tensor) -> Tensor:
        """Rows of the voxels with the nearest centres. Shape: (N, 3) -> (N,)"""
        tree = cKDTree(self.cells.double().cpu().numpy() + 0.5)
        return torch.from_numpy(tree.query(points.double().cpu().numpy())[1]).to(points.device)
