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

from sparsefeat.errors import InputError, naming
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import (
    DEFAULT_CHECKPOINT,
    SHAPE_VOXEL,
    SIGNATURE_CHANNELS,
    as_shape,
    cloud_area,
    signature,
)
from sparsefeat.extract.inputs import as_tensor
from sparsefeat.extract.surfaces import SHAPE_SCALES, vertex_features
from sparsefeat.mesh.fpfh import multi_scale_fpfh
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.mesh.gradient import gradient_operators
from sparsefeat.mesh.laplacian import LaplaceBasis, laplace_basis, sparse_tensor
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.orientation import estimate_normals

EIGENPAIRS = 128
LEAST_VERTICES = 60


@dataclass(frozen=True, eq=False)
class DescribedShape:
    """A shape with what maps are made of.

    Attributes:
        vertices: (N, 3) float64, as given.
        faces: (F, 3) int64, or None of a cloud.
        area: of the whole surface, in the squared unit of the vertices; lengths below are over its root.
        basis: where the whole has area 1, float64; its gradients turn counter-clockwise seen from outside.
        blocks: descriptors by kind. Shape (N, C) each.
        name: for messages.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    area: float
    basis: LaplaceBasis
    blocks: tuple[np.ndarray, ...]
    name: str

    @property
    def unit(self) -> np.ndarray:
        """The vertices over the root of the area. Shape: (N, 3)."""
        unit: np.ndarray = self.vertices / np.sqrt(self.area)
        return unit

    def features(self, like: DescribedShape | None = None) -> Tensor:
        """Descriptors side by side, each block of the same weight, of variance 1 a channel on average.

        Args:
            like: whose mean and spread each channel is standardised by: the whole's for its part. None: its own.

        Returns:
            (N, C) float64.
        """
        others = self.blocks if like is None else like.blocks
        count = sum(block.shape[1] for block in self.blocks)
        parts = []
        for block, other in zip(self.blocks, others, strict=True):
            spread = other.std(0)
            standard = (block - other.mean(0)) / np.where(spread > 1e-12, spread, 1)
            parts.append(standard * np.sqrt(count / (block.shape[1] * len(self.blocks))))
        return torch.from_numpy(np.concatenate(parts, 1)).double()


def shape_extractor(
    extractor: FeatureExtractor | str | os.PathLike | None, device: str | None = None
) -> FeatureExtractor:
    """The extractor itself, that of a checkpoint's name, or for None the released one for shapes."""
    if isinstance(extractor, FeatureExtractor):
        return extractor
    if extractor is None:
        return _released(device)
    return FeatureExtractor.from_pretrained(extractor, device=device)


@lru_cache(maxsize=1)
def _released(device: str | None) -> FeatureExtractor:
    return FeatureExtractor.from_pretrained(DEFAULT_CHECKPOINT, device=device)


def describe_shape(
    shape: Any,
    extractor: FeatureExtractor,
    *,
    normals: np.ndarray | None = None,
    scales: Sequence[float] = SHAPE_SCALES,
    whole_area: float | None = None,
    cache: str | os.PathLike | None = None,
    name: str = "shape",
) -> DescribedShape:
    """Learned features at several scales beside heat and wave kernel signatures, and the Laplace basis.

    Signatures change where a shape is cut. Of parts, and of wholes that they are compared with, point feature
    histograms stand in their place.

    Args:
        shape: as :func:`sparsefeat.describe` takes it.
        extractor: of the learned features.
        normals: of a cloud, to the outer side. Shape (N, 3). None: fitted and turned outwards by a guess.
        scales: factors on the voxel size, 0.035 of the root of the area.
        whole_area: of the whole that this is to be compared with as a part, or is, in the squared unit of the
            vertices. None: whole shapes are compared, in any unit.
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
        normals = as_tensor(normals, f"{name}: normals").cpu().double().numpy()
        if faces is not None or normals.shape != vertices.shape:
            raise InputError(
                f"{name}: normals {normals.shape}, expected {vertices.shape} for a cloud and none for a mesh"
            )
    with naming(name):
        area = shape_area(vertices, faces) if whole_area is None else whole_area
    if not area > 0:
        raise InputError(f"{name}: its area is {area:g}, expected a positive one")
    if faces is None and normals is None:
        normals = estimate_normals(vertices, closed=True)
    unit = vertices / np.sqrt(area)
    basis = laplace_basis(unit, faces, EIGENPAIRS, cache)
    learned = vertex_features(
        extractor, unit, faces, normals=normals, voxel_size=SHAPE_VOXEL, scales=scales
    )
    if whole_area is None:
        others = [signature(kind, basis, SIGNATURE_CHANNELS) for kind in ("hks", "wks")]
    else:
        outer = normals if faces is None else outer_normals(unit, faces)[1]
        assert outer is not None
        others = [multi_scale_fpfh(unit, outer, 1.0)]
    blocks = tuple(np.asarray(block, dtype=np.float64) for block in (learned, *others))
    return DescribedShape(
        vertices, faces, area, _oriented(basis, unit, faces, normals), blocks, name
    )


def shape_area(vertices: np.ndarray, faces: np.ndarray | None) -> float:
    """Of a mesh, or about that of a cloud's surface."""
    return cloud_area(vertices) if faces is None else surface_area(vertices, faces)


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
