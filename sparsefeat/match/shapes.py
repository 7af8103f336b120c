"""A shape as correspondence needs it: its Laplace basis with a known outer side, and its descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import (
    SHAPE_SCALES,
    SHAPE_VOXEL,
    SIGNATURE_CHANNELS,
    as_shape,
    balance,
    cloud_area,
    signature,
)
from sparsefeat.extract.surfaces import vertex_features
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.mesh.gradient import gradient_operators
from sparsefeat.mesh.laplacian import LaplaceBasis, laplace_basis, sparse_tensor
from sparsefeat.mesh.normals import oriented_normals, outer_normals

SHAPE_CHECKPOINT = "sparsefeat/creatures-oriented-v1"
EIGENPAIRS = 128
LEAST_VERTICES = 60


@dataclass(frozen=True, eq=False)
class DescribedShape:
    """A shape with what maps are made of.

    Attributes:
        vertices: (N, 3) float64, as given.
        faces: (F, 3) int64, or None of a cloud.
        area: of its surface, in the squared unit of the vertices.
        basis: at unit area, float64; its gradients turn counter-clockwise seen from outside.
        features: (N, C) float64, blocks balanced, variance 1 a channel on average.
        name: for messages.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    area: float
    basis: LaplaceBasis
    features: Tensor
    name: str

    @property
    def unit(self) -> np.ndarray:
        """The vertices at unit area. Shape: (N, 3)."""
        unit: np.ndarray = self.vertices / np.sqrt(self.area)
        return unit


def shape_extractor(
    extractor: FeatureExtractor | str | os.PathLike | None, device: str | None = None
) -> FeatureExtractor:
    """The extractor itself, that of a checkpoint's name, or for None that of ``creatures-oriented-v1``."""
    if isinstance(extractor, FeatureExtractor):
        return extractor
    if extractor is None:
        return _released(device)
    return FeatureExtractor.from_pretrained(extractor, device=device)


@lru_cache(maxsize=1)
def _released(device: str | None) -> FeatureExtractor:
    return FeatureExtractor.from_pretrained(SHAPE_CHECKPOINT, device=device)


def describe_shape(
    shape: Any,
    extractor: FeatureExtractor,
    *,
    normals: np.ndarray | None = None,
    scales: Sequence[float] = SHAPE_SCALES,
    cache: str | os.PathLike | None = None,
    name: str = "shape",
) -> DescribedShape:
    """Learned features at several scales beside heat and wave kernel signatures, and the Laplace basis.

    Args:
        shape: as :func:`sparsefeat.describe` takes it.
        extractor: of the learned features.
        normals: of a cloud, to the outer side. Shape (N, 3). None: fitted and turned outwards by a guess.
        scales: factors on the voxel size, 0.035 of the root of the area.
        cache: folder of Laplace bases; None: none.
        name: of arrays, for messages; a file's is its path.

    Raises:
        InputError: no shape, too few vertices, normals that do not fit.
    """
    if isinstance(shape, (str, os.PathLike)):
        name = os.fspath(shape)
    vertices, faces = as_shape(shape)
    if len(vertices) < LEAST_VERTICES:
        raise InputError(
            f"{name}: {len(vertices)} vertices, expected at least {LEAST_VERTICES} to make maps of"
        )
    if normals is not None:
        normals = np.asarray(normals, dtype=np.float64)
        if faces is not None or normals.shape != vertices.shape:
            raise InputError(
                f"{name}: normals {normals.shape}, expected {vertices.shape} for a cloud and none for a mesh"
            )
    area = cloud_area(vertices) if faces is None else surface_area(vertices, faces)
    if not area > 0:
        raise InputError(f"{name}: its area is {area:g}, expected a positive one")
    if faces is None and normals is None:
        normals = oriented_normals(vertices)
    unit = vertices / np.sqrt(area)
    basis = laplace_basis(unit, faces, EIGENPAIRS, cache)
    learned = vertex_features(
        extractor, unit, faces, normals=normals, voxel_size=SHAPE_VOXEL, scales=scales
    )
    signatures = [signature(kind, basis, SIGNATURE_CHANNELS) for kind in ("hks", "wks")]
    joined = torch.from_numpy(balance([learned, *signatures])).double()
    return DescribedShape(
        vertices,
        faces,
        area,
        _oriented(basis, unit, faces, normals),
        joined * np.sqrt(joined.shape[1]),
        name,
    )


def _oriented(
    basis: LaplaceBasis, unit: np.ndarray, faces: np.ndarray | None, normals: np.ndarray | None
) -> LaplaceBasis:
    """The basis with gradients that turn counter-clockwise seen from outside."""
    if faces is not None:
        if outer_normals(unit, faces)[0] > 0:
            return basis
        return replace(basis, gradient_x=basis.gradient_y, gradient_y=basis.gradient_x)
    assert normals is not None
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    x, y = gradient_operators(unit, None, normals=normals / np.maximum(length, 1e-30))
    return replace(basis, gradient_x=sparse_tensor(x), gradient_y=sparse_tensor(y))
