"""What is tuned on: surfaces or clouds, the points of them where features count, and their independent views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.checks import checked_seed
from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import as_shape
from sparsefeat.extract.surfaces import SurfacePoints, surface_points
from sparsefeat.io.objects import object_arrays
from sparsefeat.mesh.geodesic import surface_vertices

_KEPT_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class SurfaceShape:
    """A mesh or a cloud, and which of its vertices take part.

    Attributes:
        vertices: (N, 3) float64.
        faces: (F, 3) int64, or None for a cloud.
        keypoints: (n,) int64, rows of ``vertices``.
        normals: of a cloud's points, unit vectors to the outer side. Shape (N, 3). None: not known, or those of faces.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    keypoints: np.ndarray
    normals: np.ndarray | None = None

    @classmethod
    def of(cls, shape: Any, keypoints: int | np.ndarray, seed: int) -> SurfaceShape:
        """From an (N, 3) array, a (vertices, faces) pair, or an object of this package, trimesh or Open3D.

        Normals of a cloud object are taken to point to the outer side, as
        :func:`sparsefeat.extract.surfaces.vertex_features` takes them.

        Args:
            shape: see above.
            keypoints: rows of the vertices, or how many to draw of those that the surface has.
            seed: of the draw.

        Raises:
            InputError: it is none of these, or normals do not fit.
        """
        vertices, faces = as_shape(shape)
        if not len(vertices):
            raise InputError("shape: no points, expected some")
        arrays = object_arrays(shape)
        normals = None if arrays is None else arrays.normals
        if normals is not None:
            if np.shape(normals) != vertices.shape or not np.isfinite(normals).all():
                raise InputError(
                    f"shape: normals of shape {np.shape(normals)}, expected finite {vertices.shape}"
                )
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = normals / np.where(length > 0, length, 1)
        if isinstance(keypoints, int | np.integer):
            used = surface_vertices(vertices, faces)
            drawn = np.random.default_rng(checked_seed(seed)).permutation(len(used))[:keypoints]
            keypoints = used[np.sort(drawn)]
        return cls(vertices, faces, keypoints, normals)

    @property
    def extent(self) -> float:
        """Diagonal of the bounding box of the surface, in the unit of the vertices."""
        used = self.vertices[surface_vertices(self.vertices, self.faces)]
        return float(np.linalg.norm(np.ptp(used, axis=0)))

    def view(self, index: int, voxel_size: float, seed: int) -> tuple[SurfacePoints, np.ndarray]:
        """Points of the surface with normals, dense enough for voxels of this size, and the rows of the key points.

        View 0 is the shape as given. Every other has its own rotation, its own place in the grid and its own
        points: other samples of the surface, or of a cloud nine tenths of its points beside the key points.

        Returns:
            Points (P, 3), and rows of the key points (n,) int64.
        """
        rng = np.random.default_rng([seed, index])
        points, normals = surface_points(self.vertices, self.faces, voxel_size, rng, self.normals)
        rows = self.keypoints
        if not index:
            return SurfacePoints(points, normals), rows
        if self.faces is None:
            kept = rng.random(len(points)) < _KEPT_SHARE
            kept[rows] = True
            rows = (np.cumsum(kept) - 1)[rows]
            points = points[kept]
            normals = None if normals is None else normals[kept]
        turn = Rotation.random(random_state=rng).as_matrix()
        normals = None if normals is None else normals @ turn.T
        return SurfacePoints(points @ turn.T + rng.random(3) * voxel_size, normals), rows
