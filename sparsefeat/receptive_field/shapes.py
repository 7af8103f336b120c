"""What is tuned on: surfaces or clouds, the points of them where features count, and their independent views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.errors import InputError
from sparsefeat.extract.surfaces import SurfacePoints, surface_points
from sparsefeat.io.objects import object_arrays

_KEPT_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class SurfaceShape:
    """A mesh or a cloud, and which of its vertices take part.

    Attributes:
        vertices: (N, 3) float64.
        faces: (F, 3) int64, or None for a cloud.
        keypoints: (n,) int64, rows of ``vertices``.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    keypoints: np.ndarray

    @classmethod
    def of(cls, shape: Any, keypoints: int | np.ndarray, seed: int) -> SurfaceShape:
        """From an (N, 3) array, a (vertices, faces) pair, or an object of this package, trimesh or Open3D.

        Args:
            shape: see above.
            keypoints: rows of the vertices, or how many to draw.
            seed: of the draw.

        Raises:
            InputError: it is none of these.
        """
        arrays = object_arrays(shape)
        if arrays is not None:
            vertices, faces = arrays.points, arrays.faces
        elif isinstance(shape, tuple) and len(shape) == 2:
            vertices, faces = shape
        else:
            vertices, faces = shape, None
        vertices = np.asarray(vertices, dtype=np.float64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
            raise InputError(
                f"shape: expected points (N, 3) or a mesh, got an array of {vertices.shape}"
            )
        if not np.isfinite(vertices).all():
            raise InputError("shape: a vertex has a NaN or infinite coordinate")
        if isinstance(keypoints, int):
            keypoints = np.sort(np.random.default_rng(seed).permutation(len(vertices))[:keypoints])
        return cls(
            vertices, None if faces is None else np.asarray(faces, dtype=np.int64), keypoints
        )

    @property
    def extent(self) -> float:
        """Diagonal of the bounding box, in the unit of the vertices."""
        return float(np.linalg.norm(np.ptp(self.vertices, axis=0)))

    def view(self, index: int, voxel_size: float, seed: int) -> tuple[SurfacePoints, np.ndarray]:
        """Points of the surface with normals, dense enough for voxels of this size, and the rows of the key points.

        View 0 is the shape as given. Every other has its own rotation, its own place in the grid and its own
        points: other samples of the surface, or of a cloud nine tenths of its points beside the key points.

        Returns:
            Points (P, 3), and rows of the key points (n,) int64.
        """
        rng = np.random.default_rng([seed, index])
        points, normals = surface_points(self.vertices, self.faces, voxel_size, rng)
        rows = self.keypoints
        if not index:
            return SurfacePoints(points, normals), rows
        if self.faces is None:
            kept = rng.random(len(points)) < _KEPT_SHARE
            kept[rows] = True
            rows = (np.cumsum(kept) - 1)[rows]
            points = points[kept]
        turn = Rotation.random(random_state=rng).as_matrix()
        normals = None if normals is None else normals @ turn.T
        return SurfacePoints(points @ turn.T + rng.random(3) * voxel_size, normals), rows
