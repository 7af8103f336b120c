"""A mesh in voxel units, as voxelisation works on it."""

from __future__ import annotations

import torch
from torch import Tensor

# Smaller quotients count as this, of the same sign, so that no product of three underflows.
_LEAST = 2.0**-200


class Surface:
    """Triangles on vertices divided by the voxel size.

    Args:
        vertices: Shape (N, 3).
        faces: int64 in [0, N). Shape: (F, 3)
        voxel_size: what the vertices are divided by, in float64.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, voxel_size: float):
        # By coordinate and by corner: what is next to each other in memory is worked on together.
        self.points = (vertices.double() / voxel_size).T.contiguous()
        self._faces = faces.T.contiguous()
        near_zero = (self.points.abs() < _LEAST) & (self.points != 0)
        if near_zero.any():
            raised = torch.copysign(self.points.new_tensor(_LEAST), self.points)
            self.points = torch.where(near_zero, raised, self.points)

    def __len__(self) -> int:
        return self._faces.shape[1]

    def corners(self, rows: slice | Tensor) -> Tensor:
        """Corners of some triangles. Shape: (3 corners, 3 coordinates, P) float64"""
        result = self.points.new_empty(3, 3, self._faces[0, rows].shape[0])
        for corner, index in zip(result, self._faces[:, rows], strict=True):
            for row, column in zip(corner, self.points, strict=True):
                torch.index_select(column, 0, index, out=row)
        return result

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest cell that a triangle has a corner in. Shape: (3,) float64 each"""
        used = torch.zeros(self.points.shape[1], dtype=torch.bool, device=self.points.device)
        used[self._faces] = True
        points = self.points if used.all() else self.points[:, used]
        return torch.floor(points.amin(1)), torch.floor(points.amax(1))
