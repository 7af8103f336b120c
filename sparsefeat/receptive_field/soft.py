"""Features as a differentiable function of the voxel size, through voxels that come and go smoothly."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.models.blocks import Network
from sparsefeat.models.pairs import PointFrames
from sparsefeat.receptive_field.occupancy import DEFAULT_SHARPNESS, SoftVoxels, gated, soft_voxels
from sparsefeat.sparse import SparseTensor
from sparsefeat.sparse.coordinates import constant

_GEOMETRY_STEP = 0.05
"""Relative change of the voxel size over which the derivative of geometry channels is taken."""


class SoftNetwork(nn.Module):
    """A network whose features at given points have a derivative by the voxel size.

    Points enter as x / v; cells are occupied in part (:func:`soft_voxels`), fade in and out of every layer
    (:func:`gated`), and features are read off by trilinear interpolation, weighted by occupancy. Where cells
    are full this is the sparse network itself. Networks with pair kernels are differentiable by the points
    themselves. For those with geometry channels, which are statistics of discrete neighbourhoods, the derivative
    of these channels is a central difference over 5 % of the voxel size.

    Args:
        model: a network of the package on the torch backend, in the mode (train or eval) that is wanted;
            instance norm sees partial voxels as whole ones.
        sharpness: see :func:`soft_voxels`.

    Raises:
        InputError: the model is on another backend or takes inputs other than occupancy or geometry.
    """

    def __init__(self, model: Network, sharpness: float = DEFAULT_SHARPNESS):
        super().__init__()
        _check_model(model)
        if not sharpness > 0:
            raise InputError(f"sharpness must be positive, got {sharpness!r}")
        self.model = model
        self.sharpness = sharpness

    def forward(
        self, points: Tensor, voxel_size: Tensor, queries: Tensor, normals: Tensor | None = None
    ) -> Tensor:
        """Features at the queries.

        Args:
            points: the surface, sampled at least once per voxel. Shape: (N, 3)
            voxel_size: in their unit. Shape: () or (1,)
            queries: among or near the points. Shape: (Q, 3)
            normals: to the outer side at the points, for networks with ``sides``; None: not known. Shape: (N, 3)

        Returns:
            Shape (Q, C).

        Raises:
            InputError: a query with no voxel around it.
        """
        place = points / voxel_size
        voxels = soft_voxels(place, sharpness=self.sharpness)
        y = run_softly(self.model, voxels, place, voxel_size, normals=normals)
        return _read_off(y, voxels.occupancy, queries / voxel_size)


class LocalGrids(nn.Module):
    """The exact reference: a grid of its own around each key point, whose cells are softly occupied.

    The key point is the centre of cell 0, whatever the voxel size, so that nothing depends on where a global
    grid happens to lie and nothing is interpolated. Cells up to ``radius`` away take part. One pass per key
    point: slow.

    Args:
        model: as for :class:`SoftNetwork`.
        radius: voxels; None: as far as the network sees, which makes it exact.
        sharpness: see :func:`soft_voxels`.
    """

    def __init__(self, model: Network, radius: int | None = None, sharpness: float = DEFAULT_SHARPNESS):
        super().__init__()
        _check_model(model)
        self.model = model
        self.radius = math.ceil(model.receptive_field / 2) if radius is None else radius
        self.sharpness = sharpness

    def forward(
        self, points: Tensor, voxel_size: Tensor, keypoints: Tensor, normals: Tensor | None = None
    ) -> Tensor:
        """Features at the key points; normals as for :class:`SoftNetwork`, the key points themselves have none.

        Shape: (N, 3), () or (1,), (Q, 3), (N, 3) -> (Q, C).
        """
        place, batch, sides = [], [], []
        if normals is not None:
            normals = torch.cat([normals.new_zeros(1, 3), normals])
        for index, keypoint in enumerate(keypoints):
            local = torch.cat([keypoint[None], points]) - keypoint
            near = (local.detach().abs() <= (self.radius + 1.5) * voxel_size.detach()).all(1)
            place.append(local[near] / voxel_size + 0.5)
            batch.append(torch.full((int(near.sum()),), index, device=points.device))
            if normals is not None:
                sides.append(normals[near])
        place, batch = torch.cat(place), torch.cat(batch)
        voxels = soft_voxels(place, batch, self.sharpness, reach=self.radius)
        y = run_softly(self.model, voxels, place, voxel_size, batch, torch.cat(sides) if sides else None)
        own = torch.zeros(len(keypoints), 4, dtype=torch.int32, device=points.device)
        own[:, 0] = torch.arange(len(keypoints), device=points.device)
        return y.features[y.coordinate_map.find(own)]


def run_softly(
    model: Network, voxels: SoftVoxels, place: Tensor, voxel_size: Tensor, batch: Tensor | None = None,
    normals: Tensor | None = None,
) -> SparseTensor:
    """One pass of a network over partly occupied voxels.

    Args:
        model: a network of the package.
        voxels: of ``place``.
        place: points in voxels. Shape: (N, 3)
        voxel_size: what the points' coordinates were divided by; geometry channels follow it.
        batch: of the points; None: all 0. Shape: (N,)
        normals: of the points; see :class:`SoftNetwork`. Shape: (N, 3)

    Returns:
        Features of the rows of ``voxels``.
    """
    dtype = next(p.dtype for p in model.parameters())
    if isinstance(model.geometry, PointFrames):
        # Its kernels know positions and weights themselves.
        if not model.geometry.sides:
            normals = None
        elif normals is None:
            normals = torch.zeros_like(place)
        means = _point_means(voxels, place, normals)
        x = SparseTensor(means.to(dtype), coordinates=voxels.coordinates, reduce="error")
        return model.ops.leave(model.run(model.ops.enter(model.geometry(x))), x)
    inputs = torch.ones(len(voxels.coordinates), model.in_channels, dtype=dtype, device=place.device)
    x = SparseTensor(inputs, coordinates=voxels.coordinates, reduce="error")
    hooks = []
    if model.geometry is not None:
        channels = _geometry_channels(model.geometry, voxels, place, voxel_size, batch).to(dtype)
        hooks.append(model.geometry.register_forward_hook(lambda module, args, y: x.replace(channels)))
    try:
        with gated(model, voxels.occupancy):
            return model(x)
    finally:
        for hook in hooks:
            hook.remove()


def _point_means(voxels: SoftVoxels, place: Tensor, normals: Tensor | None) -> Tensor:
    """Where the points of each voxel lie on average, from its centre, their normals if any, and its occupancy.

    Shape: (V, 4) or (V, 7)
    """
    count = len(voxels.coordinates)
    given = place if normals is None else torch.cat([place, normals.to(place)], 1)
    total = given.new_zeros(count, given.shape[1])
    total = total.index_add(0, voxels.rows, voxels.hold[:, None] * given[voxels.points])
    weight = place.new_zeros(count).index_add(0, voxels.rows, voxels.hold)
    means = total / weight[:, None]
    offset = means[:, :3] - voxels.coordinates[:, 1:] - 0.5
    return torch.cat([offset, means[:, 3:], voxels.occupancy[:, None]], 1)


def _geometry_channels(
    geometry: nn.Module, voxels: SoftVoxels, place: Tensor, voxel_size: Tensor, batch: Tensor | None
) -> Tensor:
    """Channels of soft voxels: means over their points, linear in log voxel size around the present one."""
    step = _GEOMETRY_STEP
    with torch.no_grad():
        fixed = place.detach()
        middle, finer, coarser = (
            _channels_of_points(geometry, fixed * math.exp(-shift), batch) for shift in (0.0, -step, step)
        )
    ratio = voxel_size.log() - voxel_size.detach().log()
    channels = middle + ratio * (coarser - finer) / (2 * step)
    hold = voxels.hold.detach().to(channels.dtype)
    count = len(voxels.coordinates)
    total = channels.new_zeros(count, channels.shape[1])
    total = total.index_add(0, voxels.rows, hold[:, None] * channels[voxels.points])
    weight = hold.new_zeros(count).index_add(0, voxels.rows, hold)
    return total / weight[:, None]


def _channels_of_points(geometry: nn.Module, place: Tensor, batch: Tensor | None) -> Tensor:
    """Geometry channels of the ordinary voxel that each point is in. Shape: (N, channels) in place's dtype."""
    cell = torch.floor(place)
    offsets = (place - cell - 0.5).float()
    owner = torch.zeros(len(place), 1, device=place.device) if batch is None else batch[:, None]
    coordinates = torch.cat([owner.to(cell), cell], 1).int()
    x = SparseTensor(offsets, coordinates=coordinates, reduce="average")
    return geometry(x).features[x.inverse_mapping].to(place.dtype)


def _read_off(y: SparseTensor, occupancy: Tensor, queries: Tensor) -> Tensor:
    """Trilinear interpolation over the voxels that exist, each counting as much as it is occupied."""
    position = queries - 0.5
    base = torch.floor(position.detach())
    fraction = position - base
    total, weights = 0.0, 0.0
    for shift in constant(list(itertools.product((0, 1), repeat=3)), queries.device):
        cell = F.pad((base + shift).int(), (1, 0))
        rows = y.coordinate_map.find(cell)
        weight = torch.where(shift == 1, fraction, 1 - fraction).prod(1)
        weight = torch.where(rows >= 0, weight * occupancy[rows.clamp(min=0)], 0)
        total = total + weight[:, None] * y.features[rows.clamp(min=0)]
        weights = weights + weight
    alone = weights.detach() <= 1e-9
    if alone.any():
        raise InputError(
            f"{int(alone.sum())} of {len(queries)} queries have no voxel around them; they must lie on the points"
        )
    return total / weights[:, None]


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, Network) or model.ops.name != "torch":
        raise InputError(f"{type(model).__name__}: expected a network of sparsefeat.models on the torch backend")
    if model.geometry is None and model.in_channels != 1:
        raise InputError(f"{type(model).__name__} takes {model.in_channels} channels, expected occupancy alone")
