"""The outer side of a surface as oriented networks take it: given, checked, or estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError, warn
from sparsefeat.extract.inputs import as_tensor
from sparsefeat.mesh.orientation import (
    as_viewpoints,
    best_viewpoint,
    check_viewpoint,
    estimate_normals,
)
from sparsefeat.models.levels import GRAZING
from sparsefeat.models.voxel_cloud import VoxelCloud, voxelize

_MANY_ZEROS = 0.1
"""Share of zero normals above which a warning says so; a mesh may have a few vertices in no face."""


def outward_vectors(
    cloud: Tensor,
    normals: np.ndarray | Tensor | None,
    viewpoint: Sequence[float] | np.ndarray | Tensor | None,
    voxel_size: float,
    closed: bool = False,
    where: str = "points",
) -> Tensor:
    """Vectors to the outer side of the surface: of length 1, and shorter where an estimated side is uncertain.

    A viewpoint that can have seen too little of the cloud is not used: the side is estimated then, and an InputWarning
    says how much it can have seen.

    Args:
        cloud: Shape (N, 3).
        normals, viewpoint, closed: as :class:`sparsefeat.FeatureExtractor` takes them.
        voxel_size: of the network; orientation is looked at with one point in each voxel.
        where: begins a warning.

    Returns:
        Shape (N, 3) float32, on the cloud's device.

    Raises:
        InputError: both normals and viewpoint are given, or one that does not fit.
    """
    if normals is not None and viewpoint is not None:
        raise InputError("normals and viewpoint are both given, expected at most one of them")
    if normals is not None:
        given = as_tensor(normals, "normals").to(cloud.device).double()
        if given.shape != cloud.shape or not torch.isfinite(given).all():
            raise InputError(
                f"normals of shape {tuple(given.shape)}, expected finite {tuple(cloud.shape)}"
            )
        return _unit(given, where)
    places = None if viewpoint is None else as_viewpoints(viewpoint)
    if not len(cloud):
        return torch.zeros(cloud.shape, device=cloud.device)
    voxels = voxelize(cloud, voxel_size, device="cpu", where=where)
    points = voxels.points.numpy()
    if places is not None:
        check = check_viewpoint(points, places)
        if check.credible:
            seen_from = torch.from_numpy(places[best_viewpoint(points, places)])
            seen_from = seen_from[voxels.inverse].to(cloud.device)
            return torch.nn.functional.normalize(seen_from - cloud.double()).float()
        named = f"{len(places)} viewpoints" if len(places) > 1 else f"viewpoint {_shown(places[0])}"
        warn(
            f"{where}: {named} can have seen {check.support:.0%} of the surface, and fit it {check.quality / check.best:.0%} "
            "as well as another place: not used, the side of the surface is estimated; give normals to insist"
        )
    else:
        shape = "" if closed else ", closed=True (--closed) if they cover a shape from all sides"
        warn(
            f"{where}: neither viewpoint nor normals are known: the side of the surface is estimated from the points; "
            f"give viewpoint= or normals= where you can{shape}"
        )
    return estimated_vectors(voxels, closed)[voxels.inverse].to(cloud.device)


def estimated_vectors(voxels: VoxelCloud, closed: bool = False) -> Tensor:
    """Vectors to the outer side as it is estimated from one point in each voxel. Shape: (V, 3) float32."""
    found = torch.from_numpy(estimate_normals(voxels.points.numpy(), closed=closed))
    certain = found.norm(dim=1, keepdim=True).clamp(max=1)
    # Pair kernels make a vector of length s one of s / sqrt(s^2 + GRAZING^2): that becomes the certainty.
    length = GRAZING / (1 - certain.square() + GRAZING**2).sqrt()
    oriented: Tensor = (found * length).float()
    return oriented


def _unit(normals: Tensor, where: str) -> Tensor:
    """Normals of any length scaled to length 1; zero vectors stay. Shape: (N, 3) float64 -> (N, 3) float32."""
    largest = normals.abs().amax(1, keepdim=True)
    # normalize() takes vectors below 1e-12 for zero, and squares of numbers above 1e154 are infinite.
    odd = (largest > 0) & ((largest < 1e-6) | (largest > 1e100))
    zeros = int((largest == 0).sum())
    if zeros > _MANY_ZEROS * len(normals):
        warn(
            f"{where}: {zeros} of {len(normals)} normals are zero vectors: the side of the surface is not known there"
        )
    return torch.nn.functional.normalize(normals / torch.where(odd, largest, 1.0)).float()


def _shown(place: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in place)
