"""Voxels that are more or less there: occupancy as a smooth function of where the points lie in the grid."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.sparse import SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.modules import _Convolution

DEFAULT_SHARPNESS = 0.01
"""Squared distance from a cell's face, in voxels, at which a point's hold on the cell has fallen from 1/2 to 0.27."""
_LEAST_LOGIT = -18.0


class SoftVoxels(NamedTuple):
    """Cells that points hold, wholly or in part.

    Attributes:
        coordinates: (V, 4) int32, batch first.
        occupancy: (V,) in (0, 1], differentiable by the points.
        points, rows: (P,) int64 each: point ``points[p]`` has a hold on cell ``rows[p]``.
        hold: (P,) its strength.
    """

    coordinates: Tensor
    occupancy: Tensor
    points: Tensor
    rows: Tensor
    hold: Tensor


def soft_voxels(
    points: Tensor, batch: Tensor | None = None, sharpness: float = DEFAULT_SHARPNESS, reach: int | None = None
) -> SoftVoxels:
    """Occupancy 1 - prod_i (1 - sigmoid(sign(-d_i) d_i^2 / sharpness)), d_i the signed distance from point i to a cell.

    d is negative inside; a point on a face holds the cells of either side with 1/2, and the occupancy is smooth
    by the points' coordinates, while the cells are whole numbers. As ``sharpness`` goes to 0 this becomes the
    ordinary voxelisation. The formula is that of dense local grids around key points (see :class:`LocalGrids`).

    Args:
        points: in voxels. Shape: (N, 3)
        batch: index of the cloud that each belongs to; None: all 0. Shape: (N,)
        sharpness: in squared voxels.
        reach: keep cells up to so many from zero on every axis; None: all.
    """
    device = points.device
    batch = torch.zeros(len(points), dtype=torch.int64, device=device) if batch is None else batch
    base = torch.floor(points.detach()).long()
    shifts = constant(list(itertools.product((-1, 0, 1), repeat=3)), device)
    cells = base[:, None] + shifts
    with torch.no_grad():
        kept = _logit(points.detach()[:, None], cells, sharpness) > _LEAST_LOGIT
        if reach is not None:
            kept &= (cells.abs() <= reach).all(2)
    owner, which = kept.nonzero(as_tuple=True)
    cells = cells[owner, which]
    logit = _logit(points[owner], cells, sharpness)
    coordinates, rows = torch.unique(torch.cat([batch[owner, None], cells], 1), dim=0, return_inverse=True)
    free = points.new_zeros(len(coordinates)).index_add(0, rows, F.logsigmoid(-logit))
    hold = torch.sigmoid(logit)
    return SoftVoxels(coordinates.int(), -torch.expm1(free), owner, rows, hold)


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

    hooks = [layer.register_forward_pre_hook(gate) for layer in model.modules() if isinstance(layer, _Convolution)]
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
