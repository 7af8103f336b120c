"""Features at the vertices of a mesh: its surface sampled as densely as the voxels ask for."""

from __future__ import annotations

import copy

import numpy as np

from sparsefeat.extract import FeatureExtractor
from sparsefeat.mesh.sampling import sample_surface

SAMPLES_PER_VOXEL_EDGE = 2
"""Surface samples per voxel edge: four to a voxel's face, so that 2 % of the voxels of a flat surface are missed."""


def surface_points(
    vertices: np.ndarray, faces: np.ndarray | None, voxel_size: float, seed: int | np.random.Generator = 0
) -> np.ndarray:
    """The vertices, then random points of the surface, dense enough for voxels of this size.

    A network that learned on scans has seen surfaces with a point in nearly every voxel; the vertices alone
    would leave gaps in fine voxels, and many points in the voxels where the mesh is fine.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3), or None for a cloud, whose points are all that there is.
        voxel_size: in the unit of the vertices.
        seed: number, or a generator to draw from.

    Returns:
        (N + S, 3) float64.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if faces is None:
        return vertices
    samples = sample_surface(vertices, faces, spacing=voxel_size / SAMPLES_PER_VOXEL_EDGE, seed=seed)
    return np.concatenate([vertices, samples.points])


def vertex_features(
    extractor: FeatureExtractor,
    vertices: np.ndarray,
    faces: np.ndarray | None,
    *,
    voxel_size: float | None = None,
    interpolation: str = "trilinear",
    views: int = 1,
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Features of a mesh's vertices, however coarse or fine its triangles are against the voxels.

    Args:
        extractor: the network and its voxel size.
        vertices: Shape (N, 3).
        faces: Shape (F, 3), or None for a cloud.
        voxel_size: in the unit of the vertices; None: that of the extractor.
        interpolation, views: see :class:`FeatureExtractor`; several views make features depend less on the pose.
        seed: of the surface samples.

    Returns:
        (N, C) float32.

    Raises:
        ValueError: not a mesh, or what the extractor refuses.
    """
    if voxel_size is not None:
        extractor = at_voxel_size(extractor, voxel_size)
    points = surface_points(vertices, faces, extractor.voxel_size, seed)
    return extractor(points, interpolation, views=views)[: len(vertices)]


def at_voxel_size(extractor: FeatureExtractor, voxel_size: float) -> FeatureExtractor:
    """The same network at another voxel size; weights are shared."""
    other = copy.copy(extractor)
    other.voxel_size = FeatureExtractor(extractor.model, voxel_size, extractor.device).voxel_size
    return other
