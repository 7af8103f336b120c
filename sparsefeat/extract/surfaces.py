"""Features at the vertices of a mesh: its surface sampled as densely as the voxels ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError, warn
from sparsefeat.extract.extractor import DEFAULT_MAX_VOXELS, FeatureExtractor, check_options
from sparsefeat.io.objects import object_arrays
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.sampling import sample_surface

SHAPE_SCALES = (0.57, 1.0, 1.71)
"""Sizes at which features of shapes are computed, factors on the voxel size; they stand side by side."""
SAMPLES_PER_VOXEL_EDGE = 2
"""Surface samples per voxel edge: four to a voxel's face, so that 2 % of the voxels of a flat surface are missed."""


MANY_VOXELS = 1e7
"""Voxels of one surface above which its features may take hours on a CPU."""


class SurfacePoints(NamedTuple):
    """Points of a shape, its vertices first.

    Attributes:
        points: (N + S, 3) float64.
        normals: (N + S, 3) float64, unit vectors to the outer side; None for a cloud, which does not say.
    """

    points: np.ndarray
    normals: np.ndarray | None


def surface_points(
    vertices: np.ndarray,
    faces: np.ndarray | None,
    voxel_size: float,
    seed: int | np.random.Generator = 0,
    normals: np.ndarray | None = None,
) -> SurfacePoints:
    """The vertices, then random points of the surface, dense enough for voxels of this size.

    A network that learned on scans has seen surfaces with a point in nearly every voxel; the vertices alone
    would leave gaps in fine voxels, and many points in the voxels where the mesh is fine.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3), or None for a cloud, whose points are all that there is.
        voxel_size: in the unit of the vertices.
        seed: number, or a generator to draw from.
        normals: of a cloud's points, to the outer side. Shape (N, 3). A mesh has its own.

    Returns:
        Points and normals; see :func:`outer_normals` for which side is outside.
    """
    vertices = as_array(vertices, "vertices").astype(np.float64, copy=False)
    if faces is None:
        return SurfacePoints(vertices, normals)
    if normals is not None:
        raise InputError(
            "normals of a mesh are those of its faces; give normals for a cloud alone (faces=None)"
        )
    samples = sample_surface(
        vertices, faces, spacing=voxel_size / SAMPLES_PER_VOXEL_EDGE, seed=seed
    )
    _warn_of_many_voxels(vertices, faces, voxel_size)
    outwards, of_vertices = outer_normals(vertices, faces)
    return SurfacePoints(
        np.concatenate([vertices, samples.points]),
        np.concatenate([of_vertices, outwards * samples.normals]),
    )


def expected_voxels(vertices: np.ndarray, faces: np.ndarray, voxel_size: float) -> float:
    """About how many voxels a surface touches: a plane in a random direction meets 1.5 cells per cell face of area."""
    return 1.5 * surface_area(vertices, faces) / voxel_size**2


def _warn_of_many_voxels(vertices: np.ndarray, faces: np.ndarray, voxel_size: float) -> None:
    count = expected_voxels(vertices, faces, voxel_size)
    if count > MANY_VOXELS:
        warn(
            f"the surface has about {count:.2g} voxels of {voxel_size:g}, which may take hours; is the voxel size in the "
            "unit of the vertices?"
        )


def vertex_features(
    extractor: FeatureExtractor,
    vertices: Any,
    faces: np.ndarray | None = None,
    *,
    normals: np.ndarray | None = None,
    voxel_size: float | None = None,
    interpolation: str = "trilinear",
    views: int = 1,
    scales: Sequence[float] = SHAPE_SCALES,
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Features of a mesh's vertices, however coarse or fine its triangles are against the voxels.

    Args:
        extractor: the network and its voxel size.
        vertices: Shape (N, 3); or a mesh or cloud of this package, trimesh or Open3D, which has its own faces and
            normals.
        faces: Shape (F, 3), or None for a cloud.
        normals: of a cloud's points, to the outer side, for oriented networks. Shape (N, 3). None: those of the object,
            else estimated; the cloud is taken to cover a shape from all sides.
        voxel_size: in the unit of the vertices; None: that of the extractor.
        interpolation, views, scales: see :class:`FeatureExtractor`; several views make features depend less on the
            pose. The surface is sampled for the smallest of the scales. ``(1.0,)`` takes about a fifth of the time of
            the default.
        seed: of the surface samples.

    Returns:
        (N, C) float32, C the network's channels times the number of scales.

    Raises:
        InputError: not a mesh, normals beside faces, or what the extractor refuses.
    """
    arrays = object_arrays(vertices)
    if arrays is not None:
        if faces is not None:
            raise InputError("faces beside a mesh object, which has its own; expected one of them")
        vertices, faces = np.asarray(arrays.points), arrays.faces
        normals = arrays.normals if normals is None else normals
    if voxel_size is not None:
        extractor = extractor.at(voxel_size)
    check_options(interpolation, DEFAULT_MAX_VOXELS, None, views, scales)
    finest = extractor.voxel_size * min(scales)
    points, normals = surface_points(vertices, faces, finest, seed, normals)
    features = extractor(
        points,
        interpolation,
        normals=normals,
        closed=True,
        rows=slice(len(vertices)),
        views=views,
        scales=scales,
    )
    return cast(np.ndarray, features)
