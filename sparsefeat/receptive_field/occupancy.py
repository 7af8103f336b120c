"""Voxels that are more or less there: occupancy as a smooth function of where the points lie in the grid."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.models.voxel_cloud import VoxelCloud
from sparsefeat.sparse import SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.modules import _Convolution

DEFAULT_SHARPNESS = 0.01
"""Squared distance from a cell's face, in voxels, at which a point's hold on the cell has fallen from 1/2 to 0.27."""
_LEAST_LOGIT = -18.0


def soft_voxels(
    points: Tensor,
    normals: Tensor | None = None,
    batch: Tensor | None = None,
    sharpness: float = DEFAULT_SHARPNESS,
    reach: int | None = None,
) -> VoxelCloud:
    """Voxels that points hold, wholly or in part.

    Occupancy is 1 - prod_i (1 - sigmoid(sign(-d_i) d_i^2 / sharpness)), d_i the signed distance from point i to a
    cell. d is negative inside; a point on a face holds the cells of either side with 1/2, and the occupancy is smooth
    by the points' coordinates, while the cells are whole numbers. As ``sharpness`` goes to 0 this becomes the
    ordinary voxelisation. The formula is that of dense local grids around key points.

    Args:
        points: in voxels. Shape: (N, 3)
        normals: unit vectors to the outer side; None: not known. Shape: (N, 3)
        batch: index of the cloud that each belongs to; None: there is one. Shape: (N,)
        sharpness: in squared voxels.
        reach: keep cells up to so many from zero on every axis; None: all.

    Returns:
        A cloud of voxel size 1, differentiable by the points; each point counts in a voxel by its hold on it.
    """
    device = points.device
    owners = torch.zeros(len(points), dtype=torch.int64, device=device) if batch is None else batch
    base = torch.floor(points.detach()).long()
    shifts = constant(list(itertools.product((-1, 0, 1), repeat=3)), device)
    cells = base[:, None] + shifts
    with torch.no_grad():
        kept = _logit(points.detach()[:, None], cells, sharpness) > _LEAST_LOGIT
        if reach is not None:
            kept &= (cells.abs() <= reach).all(2)
    point, which = kept.nonzero(as_tuple=True)
    cells = cells[point, which]
    logit = _logit(points[point], cells, sharpness)
    coordinates, rows = torch.unique(
        torch.cat([owners[point, None], cells], 1), dim=0, return_inverse=True
    )
    count = len(coordinates)
    free = points.new_zeros(count).index_add(0, rows, F.logsigmoid(-logit))
    hold = torch.sigmoid(logit)[:, None]
    weight = points.new_zeros(count, 1).index_add(0, rows, hold)

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(count, 3).index_add(0, rows, hold * values[point]) / weight

    cells = coordinates[:, 1:]
    # A multiple of any network's tensor stride.
    origin = torch.div(cells.amin(0), 1024, rounding_mode="floor") * 1024
    x, y, z = origin.tolist()
    return VoxelCloud(
        cells=cells - origin,
        points=mean(points),
        normal=None if normals is None else mean(normals.to(points)),
        inverse=rows[:0],
        origin=(x, y, z),
        voxel_size=1.0,
        occupancy=-torch.expm1(free),
        batch=None if batch is None else coordinates[:, 0],
        clouds=1 if batch is None else int(batch.max()) + 1,
    )


def _logit(points: Tensor, cells: Tensor, sharpness: float) -> Tensor:
    beyond = (points - cells - 0.5).abs() - 0.5
    outside = beyond.clamp(min=0).square().sum(-1)
    inside = beyond.amax(-1).clamp(max=0).square()
    # sign(-d) d^2, with one of the two terms zero; no root, whose slope at zero is infinite.
    return (inside - outside) / sharpness


@contextlib.contextmanager
def gated(model: nn.Module, occupancy: Tensor) -> Iterator[None]:
    """While this is open, what a voxel gives to its neighbours is weighted by its occupancy.

    Features are multiplied by it before every convolution of more than one cell, on every level; a coarse cell
    is empty if all cells in it are. So a voxel that fades to 0 is as good as not there, at every layer, and
    the network's output is continuous where voxels come and go. With occupancies of 1 nothing changes.

    Args:
        model: a network of the package on the torch backend.
        occupancy: of the rows of the tensor that the network is called with. Shape: (V,)
    """
    levels: dict[CoordinateMapKey, Tensor] = {}
    finest: list[CoordinateMapKey] = []

    def gate(layer: nn.Module, inputs: tuple) -> tuple | None:
        if layer.window.volume == 1:
            return None
        x: SparseTensor = inputs[0]
        if not finest:
            finest.append(x.key)
            levels[x.key] = occupancy
        if x.key not in levels:
            levels[x.key] = _coarser(x, finest[0], occupancy)
        return x.replace(x.features * levels[x.key][:, None].to(x.features.dtype)), *inputs[1:]

    hooks = [
        layer.register_forward_pre_hook(gate)
        for layer in model.modules()
        if isinstance(layer, _Convolution)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _coarser(x: SparseTensor, finest: CoordinateMapKey, occupancy: Tensor) -> Tensor:
    plan = x.manager.block_map(finest, x.key)
    free = torch.log1p(-occupancy.clamp(max=1 - 1e-7))
    total = occupancy.new_zeros(plan.n_out).index_add(0, plan.out_rows, free[plan.in_rows])
    return -torch.expm1(total)
