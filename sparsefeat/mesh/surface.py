"""A mesh in voxel units, as voxelisation works on it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.mesh.touching import Triangles

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
        faces = [
            f[rows] if isinstance(rows, slice) else f.index_select(0, rows) for f in self._faces
        ]
        result = self.points.new_empty(3, 3, len(faces[0]))
        for corner, index in zip(result, faces, strict=True):
            for row, column in zip(corner, self.points, strict=True):
                torch.index_select(column, 0, index, out=row)
        return result

    def triangles(self, rows: slice | Tensor) -> Triangles:
        """Some triangles, as they are tested."""
        if isinstance(rows, slice):
            index = torch.arange(*rows.indices(len(self)), device=self.points.device)
        else:
            index = rows
        return Triangles(self.corners(rows), index)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest cell that a triangle has a corner in. Shape: (3,) float64 each"""
        used = torch.zeros(self.points.shape[1], dtype=torch.bool, device=self.points.device)
        used.index_fill_(0, self._faces.flatten(), True)
        points = self.points if used.all() else self.points[:, used]
        return torch.floor(points.amin(1)), torch.floor(points.amax(1))
