"""Several descriptors of a shape side by side: learned features, spectral signatures, point feature histograms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.checks import as_array, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.extract.extractor import FeatureExtractor
from sparsefeat.extract.inputs import as_tensor
from sparsefeat.extract.surfaces import SHAPE_SCALES, vertex_features
from sparsefeat.io.meshes import check_mesh, has_faces, read_mesh
from sparsefeat.io.objects import object_arrays
from sparsefeat.io.pointcloud import read_points
from sparsefeat.mesh.fpfh import CONTEXT_RADII, multi_scale_fpfh
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.mesh.laplacian import LaplaceBasis, import_robust, laplace_basis
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.orientation import estimate_normals
from sparsefeat.mesh.signatures import (
    ABSOLUTE_ENERGIES,
    ABSOLUTE_TIMES,
    heat_kernel_signature,
    wave_kernel_signature,
)

MEMBERS = ("ours", "hks", "wks", "fpfh")
DEFAULT_CHECKPOINT = "sparsefeat/creatures-oriented-v5"
"""Of shapes: it is ahead of the rooms checkpoints on bodies, and no worse on molecules."""
SHAPE_VOXEL = 0.035
"""Voxel size for shapes, in roots of the area: about 5 cm on a person."""
EIGENPAIRS = 128
SIGNATURE_CHANNELS = 32

_AREA_NEIGHBOURS = 8


def describe(
    shape: Any,
    join: Sequence[str] = ("ours", "hks", "wks"),
    extractor: FeatureExtractor | str | os.PathLike | None = None,
    scales: Sequence[float] = SHAPE_SCALES,
    voxel_size: float | None = None,
    normals: np.ndarray | Tensor | None = None,
    *,
    views: int = 1,
    context: bool = False,
    whole_area: float | None = None,
    balanced: bool = True,
    cache: str | os.PathLike | None = None,
) -> np.ndarray:
    """Descriptors of the vertices of a shape, side by side.

    Which member is best depends on the shapes: spectral signatures on clean meshes, local ones where parts are missing
    or stuck together. Joined they are worth most, as long as no block outweighs the others.

    Args:
        shape: a file; (vertices, faces); points (N, 3) of a cloud that covers the shape from all sides; or an object,
            such as :class:`sparsefeat.mesh.Mesh`, a mesh or cloud of trimesh or of Open3D.
        join: members in order: ``"ours"`` (learned features), ``"hks"``, ``"wks"`` (heat and wave kernel signatures),
            ``"fpfh"`` (point feature histograms at three radii).
        extractor: of ``"ours"``, or a checkpoint's name; None: ``"sparsefeat/creatures-oriented-v5"``.
        scales: of ``"ours"``: factors on the voxel size, whose features stand side by side; 0.57, 1 and 1.71 by default.
        voxel_size: of ``"ours"``, in the unit of the shape; None: 0.035 of the root of its area.
        normals: of a cloud, to the outer side. Shape (N, 3). None: estimated, see
            :func:`sparsefeat.estimate_normals`; those of an object are not taken, since nothing says that they are
            oriented. A mesh has its own, and normals beside it are refused.
        views: poses that ``"ours"`` are averaged over.
        context: add means over balls to ``"fpfh"``.
        whole_area: area of the whole shape that this is a part of, in its squared unit. Times, energies, radii and the
            default voxel size are then the whole's; else they are of the shape as it is.
        balanced: standardise each channel over the vertices and divide each block by the root of its channels and of
            the number of blocks: every block adds as much to a distance. False: values as they are.
        cache: folder of Laplace bases; None: none.

    Returns:
        (N, C) float32. With the defaults ``"ours"`` has 96 channels (32 at each scale), ``"hks"`` and ``"wks"`` 32 each,
        ``"fpfh"`` 99, with ``context`` 396.

    Raises:
        InputError: an unknown member, a shape that is none, or options that do not fit.
    """
    try:
        join = list(join)
    except TypeError as error:
        raise InputError(f"join {join!r}, expected some of {', '.join(MEMBERS)}") from error
    unknown = [name for name in join if name not in MEMBERS]
    if unknown or not join:
        raise InputError(
            f"join: got {unknown[0] if unknown else 'nothing'!r}, expected some of {', '.join(MEMBERS)}"
        )
    if cache is None and {"hks", "wks"} & set(join):  # a cache may have the basis
        import_robust("describe: hks and wks", "join=('ours', 'fpfh') does without it")
    vertices, faces = as_shape(shape)
    if normals is not None:
        normals = _cloud_normals(normals, vertices, faces)
    if whole_area is not None:
        area = whole_area = checked_positive(whole_area, "whole_area")
    else:
        area = cloud_area(vertices) if faces is None else surface_area(vertices, faces)
    if not area > 0:
        raise InputError(f"the shape has an area of {area:g}, expected a positive one")
    size = float(np.sqrt(area))
    basis = None
    blocks = []
    for name in join:
        if name == "ours":
            if not isinstance(extractor, FeatureExtractor):
                extractor = FeatureExtractor.from_pretrained(
                    DEFAULT_CHECKPOINT if extractor is None else extractor
                )
            block = vertex_features(
                extractor,
                vertices,
                faces,
                normals=normals,
                voxel_size=SHAPE_VOXEL * size if voxel_size is None else voxel_size,
                views=views,
                scales=scales,
            )
        elif name == "fpfh":
            outer = normals
            if faces is not None:
                outer = outer_normals(vertices, faces)[1]
            elif outer is None:
                outer = estimate_normals(vertices, closed=True)
            block = multi_scale_fpfh(
                vertices, outer, size, context=CONTEXT_RADII if context else ()
            )
        else:
            if basis is None:
                basis = laplace_basis(vertices, faces, EIGENPAIRS, cache)
            block = signature(name, basis, SIGNATURE_CHANNELS, whole_area)
        blocks.append(np.asarray(block, dtype=np.float32))
    return balance(blocks) if balanced else np.concatenate(blocks, 1)


def _cloud_normals(
    normals: np.ndarray | Tensor, points: np.ndarray, faces: np.ndarray | None
) -> np.ndarray:
    """Normals given for a cloud, checked. Shape: (N, 3) float64."""
    if faces is not None:
        raise InputError("normals of a mesh are those of its faces; give normals for a cloud alone")
    given: np.ndarray = as_tensor(normals, "normals").cpu().double().numpy()
    if given.shape != points.shape or not np.isfinite(given).all():
        raise InputError(f"normals of shape {given.shape}, expected finite {points.shape}")
    return given


def balance(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks side by side, every channel standardised, every block of the same weight in a distance.

    Shape: B times (N, C_b) -> (N, sum C_b) float32, of which rows have a squared length of 1 on average.
    """
    scaled = []
    for block in blocks:
        block = np.asarray(block, dtype=np.float64)
        spread = block.std(0)
        block = (block - block.mean(0)) / np.where(spread > 1e-12, spread, 1)
        scaled.append((block / np.sqrt(block.shape[1] * len(blocks))).astype(np.float32))
    return np.concatenate(scaled, 1)


def signature(
    name: str, basis: LaplaceBasis, count: int, whole_area: float | None = None
) -> np.ndarray:
    """The signature ``"hks"`` or ``"wks"``. Shape: (N, count) float64.

    Args:
        name: which.
        basis: of the shape.
        count: channels.
        whole_area: of the shape that this is a part of: times and energies are then the whole's. None: those of the
            shape's own eigenvalues.
    """
    if name == "hks":
        if whole_area is None:
            return heat_kernel_signature(basis, count).numpy()
        low, high = np.log(ABSOLUTE_TIMES)
        times = basis.eigenvalues.new_tensor(np.exp(np.linspace(low, high, count)) * whole_area)
        return whole_area * heat_kernel_signature(basis, count, times).numpy()
    energies = None
    if whole_area is not None:
        energies = (ABSOLUTE_ENERGIES[0] / whole_area, ABSOLUTE_ENERGIES[1] / whole_area)
    return wave_kernel_signature(basis, count, energies).numpy()


def cloud_area(points: np.ndarray) -> float:
    """About the area of the surface that points lie on: of discs that reach to the eighth neighbour.

    Raises:
        InputError: too few points, or every point so often that the eighth neighbour is at the same place.
    """
    if len(points) <= _AREA_NEIGHBOURS:
        raise InputError(f"points: {len(points)} of them, expected more than {_AREA_NEIGHBOURS}")
    distance = cKDTree(points).query(points, _AREA_NEIGHBOURS + 1)[0][:, -1]
    if not distance.any():
        places = len(np.unique(points, axis=0))
        raise InputError(
            f"points: {len(points)} points at {places} places, each of them taken more than {_AREA_NEIGHBOURS} times; "
            "expected every point once"
        )
    return float(np.pi * (distance**2).sum() / _AREA_NEIGHBOURS)


def as_shape(shape: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices (N, 3) float64 and faces (F, 3) int64, or points (N, 3) float64 and None.

    Raises:
        InputError: a file that cannot be read, or what is neither a mesh nor finite points.
    """
    where = "shape"
    if isinstance(shape, (str, os.PathLike)):
        where = str(shape)
        shape = read_mesh(where) if has_faces(where) else read_points(where).points
    arrays = object_arrays(shape)
    if arrays is not None:
        shape = (arrays.points, arrays.faces)
    if isinstance(shape, (tuple, list)) and len(shape) == 2:
        vertices, faces = shape
        faces = None if faces is None else as_array(faces, f"{where}: faces")
        if faces is not None and faces.size:
            return check_mesh(vertices, faces, where)
        shape = vertices
    given = as_array(shape, where)
    if given.dtype.kind not in "fiu":
        raise InputError(
            f"{where}: {type(shape).__name__} of {given.dtype}, expected a mesh or points (N, 3)"
        )
    points = given.astype(np.float64, copy=False)
    finite = np.isfinite(points).all()
    if points.ndim != 2 or points.shape[1] != 3 or not finite:
        found = f"{points.shape}{'' if finite else ' with NaN or infinite values'}"
        raise InputError(
            f"{where}: shape {found}, expected finite points (N, 3), or (vertices, faces)"
        )
    return points, None
