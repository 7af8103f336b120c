"""A scan as matching needs it: its points, some of them as key points, and their features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import as_array, checked_count, checked_seed
from sparsefeat.data.fragments import read_fragment
from sparsefeat.data.orientation import Viewpoints, load_orientation
from sparsefeat.errors import InputError, naming
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.inputs import as_tensor, check_points
from sparsefeat.io.objects import object_arrays
from sparsefeat.mesh.orientation import as_viewpoints
from sparsefeat.sparse import quantize

CHECKPOINT = "sparsefeat/rooms-5cm-oriented-v2"
"""What features are made with unless another extractor is given; it expects metres."""

LEAST_KEYPOINTS = 3
"""Of a scan: fewer have no pose."""

Points = Any
"""An array or tensor (N, 3), the path of a file, or a cloud or mesh of this package, trimesh or Open3D."""


@dataclass(frozen=True, eq=False)
class View:
    """Points, and what is known of the outer side of their surface.

    Attributes:
        points: (N, 3) float64.
        normals: (N, 3) vectors to the outer side, or None.
        viewpoint: (3,) or (K, 3), where the points were seen from, or None.
        name: for messages.
    """

    points: np.ndarray
    normals: np.ndarray | None
    viewpoint: np.ndarray | None
    name: str


@dataclass(frozen=True, eq=False)
class Scan:
    """A described scan.

    Attributes:
        points: (N, 3) float64, all points.
        rows: (P,) int64, the key points' rows of ``points``, ascending.
        features: (P, C) float32, of the key points.
        voxel_size: of the features, in the unit of the points.
        name: for messages.
    """

    points: np.ndarray
    rows: np.ndarray
    features: np.ndarray
    voxel_size: float
    name: str

    @property
    def keypoints(self) -> np.ndarray:
        """Shape: (P, 3)."""
        keypoints: np.ndarray = self.points[self.rows]
        return keypoints


def open_view(
    points: Points,
    normals: np.ndarray | Tensor | None = None,
    viewpoint: Sequence[float] | np.ndarray | None = None,
    name: str = "points",
    viewpoints: Viewpoints | None = None,
) -> View:
    """Check points, or read them from a file; a file may say where its points were seen from.

    Args:
        points: (N, 3) array or tensor, N > 0; the path of a file that
            :func:`sparsefeat.data.fragments.load_fragment` reads; or an object of this package, trimesh
            or Open3D, of which the points are taken, and the normals of a cloud where neither
            ``normals`` nor ``viewpoint`` is given.
        normals, viewpoint: as :class:`sparsefeat.FeatureExtractor` takes them.
        name: of an array or tensor, for messages; a file's is its path.
        viewpoints: of files, in place of ``viewpoint`` and of what the files say.

    Raises:
        InputError: a file that cannot be read, points that are not finite (N, 3) or none, or a viewpoint or normals
            that do not fit.
    """
    if isinstance(points, (str, os.PathLike)):
        name = os.fspath(points)
        read = read_fragment(points)
        cloud = read.points
        if normals is None:
            normals, viewpoint = load_orientation(
                points, cloud, read.normals, viewpoints, viewpoint
            )
    else:
        arrays = object_arrays(points)
        if arrays is not None:
            points = np.asarray(arrays.points)
            if normals is None and viewpoint is None:
                normals = arrays.normals
        tensor = as_tensor(points, name)
        check_points(tensor, name)
        cloud = tensor.cpu().double().numpy()
    if not len(cloud):
        raise InputError(f"{name}: no points")
    normals = (
        None if normals is None else as_tensor(normals, f"{name}: normals").cpu().double().numpy()
    )
    places: np.ndarray | None = None
    if viewpoint is not None:
        places = as_viewpoints(viewpoint, f"{name}: viewpoint")
        if as_array(viewpoint, name).ndim == 1:
            places = places[0]
    return View(cloud, normals, places, name)


def choose_extractor(
    extractor: FeatureExtractor | str | os.PathLike | None,
    device: str | None = None,
    unit: str | None = None,
) -> FeatureExtractor:
    """The extractor itself, the one of a checkpoint's name, or for None the released one.

    With a ``unit`` of the points the voxel size is converted to it.
    """
    if extractor is None:
        extractor = _released(None if device is None else str(device))
    if not isinstance(extractor, FeatureExtractor):
        extractor = FeatureExtractor.from_pretrained(extractor, device=device)
    return extractor if unit is None else extractor.in_unit(unit)


@lru_cache(maxsize=1)
def _released(device: str | None) -> FeatureExtractor:
    return FeatureExtractor.from_pretrained(CHECKPOINT, device=device)


def check_choice(points: int, seed: int) -> None:
    """Raise InputError unless so many key points can be chosen with this seed."""
    checked_count(points, "points", LEAST_KEYPOINTS)
    checked_seed(seed)


def describe_scan(
    view: View,
    extractor: FeatureExtractor,
    scales: Sequence[float] = (1.0,),
    points: int = 5000,
    seed: int = 0,
) -> Scan:
    """Features of up to ``points`` key points, a seeded choice of one point per voxel.

    The network sees all points.

    Raises:
        InputError: what :class:`sparsefeat.FeatureExtractor` refuses, ``points`` below 3, or no whole number.
    """
    check_choice(points, seed)
    try:
        voxels = quantize(torch.from_numpy(view.points), voxel_size=extractor.voxel_size)
    except ValueError as error:  # coordinates of another unit, as a rule
        raise InputError(f"{view.name}: {error}") from error
    rows = voxels.index.numpy()
    if len(rows) > points:
        rows = rows[np.random.default_rng(seed).choice(len(rows), points, replace=False)]
    rows = np.sort(rows)
    with naming(view.name):
        features = extractor(
            view.points,
            "trilinear",
            normals=view.normals,
            viewpoint=view.viewpoint,
            rows=rows,
            scales=scales,
        )
    return Scan(
        view.points, rows, np.asarray(features, dtype=np.float32), extractor.voxel_size, view.name
    )
