"""Rotation-invariant input channels: what the surface around a voxel looks like, in numbers.

An occupancy grid gives a network ones, and everything about shape has to be learned from where they are,
in every orientation. These channels say it from the start: how flat, linear or scattered a neighbourhood is,
and how the normals of its voxels lie to each other, as histograms over shells. The pair features are those of
Point Feature Histograms (Rusu et al., IROS 2008), with angles between lines instead of directions, since
normals without a viewpoint have no sides. They are computed from one point per voxel, not from its centre: up
to which points share a voxel, nothing changes when a shape is turned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.sparse import Kernel, KernelMap, SparseTensor
from sparsefeat.sparse.coordinates import constant

SHELLS = (1.1, 2.1, 2.9, 3.5)
"""Outer radii of the shells, voxels."""
FITS = (1.8, 2.9)
"""Radii of the neighbourhoods whose principal axes are taken, voxels; the larger one gives the normals."""
BINS = 5
"""Bins of each histogram over an angle from 0 to 90 degrees."""
_CHANNELS_PER_FIT = 6


class LocalGeometry(nn.Module):
    """Turns the points of voxels into rotation-invariant statistics of their neighbourhoods; has no parameters.

    The input's features say where in its voxel a point lies: offsets from the centre, in voxels (zeros where
    only the occupancy is known). Shape: (V, 3) -> (V, ``channels``); rows stay.
    """

    channels = len(FITS) * _CHANNELS_PER_FIT + len(SHELLS) * (3 * BINS + 1)

    def __init__(self, dimension: int = 3):
        super().__init__()
        if dimension != 3:
            raise InputError(f"local geometry needs three spatial dimensions, got {dimension}")
        edge = 2 * math.floor(max(SHELLS)) + 1
        self.neighbourhood = Kernel.of(edge)
        # What a voxel's channels depend on: the normals of voxels that are one neighbourhood away.
        self.window = Kernel.of(2 * edge - 1)
        self.stride = (1, 1, 1)

    @torch.no_grad()
    def forward(self, x: SparseTensor) -> SparseTensor:
        plan = x.manager.kernel_map(x.key, x.key, self.neighbourhood)
        cells = constant(self.neighbourhood.cells, x.device, torch.float32)
        pairs = _Pairs(plan, cells, x.features.float())
        channels, normal = [], None
        for reach in FITS:
            shape, normal = _principal_axes(pairs, reach)
            channels.append(shape)
        channels.append(_angle_histograms(pairs, normal))
        return x.replace(torch.cat(channels, 1).to(x.dtype))


class _Pairs:
    """Neighbouring points: rows, the way from one to the other in voxels, and its length; each point is its own."""

    def __init__(self, plan: KernelMap, cells: Tensor, offsets: Tensor):
        way = cells[plan.cells] + offsets[plan.in_rows] - offsets[plan.out_rows]
        radius = way.norm(dim=1)
        near = (radius <= max(SHELLS)).nonzero()[:, 0]
        self.count = plan.n_out
        self.source = plan.in_rows[near]
        self.target = plan.out_rows[near]
        self.offset = way[near]
        self.radius = radius[near]

    def total(self, values: Tensor, rows: Tensor) -> Tensor:
        """Sum of values (P, C) over the neighbours of each voxel. Shape: (V, C)."""
        return values.new_zeros(self.count, values.shape[1]).index_add(0, rows, values)


def _principal_axes(pairs: _Pairs, reach: float) -> tuple[Tensor, Tensor]:
    """Shape statistics (V, 6) of the voxels within ``reach``, and their normals (V, 3).

    From the eigenvalues a >= b >= c of the covariance: linearity (a - b) / a, planarity (b - c) / a, scatter
    c / a (Demantke et al., 2011), the number of voxels against that of a plane, and how far the centroid lies
    off along the normal and across it.
    """
    inside = (pairs.radius <= reach).nonzero()[:, 0]
    offset, rows = pairs.offset[inside], pairs.target[inside]
    first, second = torch.triu_indices(3, 3, device=offset.device)
    moments = torch.cat([torch.ones_like(offset[:, :1]), offset, offset[:, first] * offset[:, second]], 1)
    total = pairs.total(moments, rows)
    count = total[:, :1].clamp(min=1)
    mean = total[:, 1:4] / count
    covariance = offset.new_zeros(pairs.count, 3, 3)
    covariance[:, first, second] = covariance[:, second, first] = total[:, 4:] / count
    covariance -= mean[:, :, None] * mean[:, None, :]
    values, vectors = torch.linalg.eigh(covariance)
    c, b, a = values.clamp(min=0).unbind(1)
    normal = vectors[:, :, 0]
    largest = a.clamp(min=1e-6)
    off = (mean * normal).sum(1).abs()
    across = (mean - (mean * normal).sum(1, keepdim=True) * normal).norm(dim=1)
    fill = count[:, 0] / (math.pi * reach**2)
    shape = torch.stack([(a - b) / largest, (b - c) / largest, c / largest, fill, off / reach, across / reach], 1)
    return shape, normal


def _angle_histograms(pairs: _Pairs, normal: Tensor) -> Tensor:
    """Per shell: soft histograms of three angles and the number of neighbours. Shape: (V, S (3 B + 1)).

    The angles are those between the two normals and between either normal and the line from voxel to
    neighbour.
    """
    mine, theirs = normal[pairs.target], normal[pairs.source]
    line = pairs.offset / pairs.radius.clamp(min=1e-6)[:, None]
    cosines = torch.stack([(mine * theirs).sum(1), (mine * line).sum(1), (theirs * line).sum(1)], 1)
    place = torch.acos(cosines.abs_().clamp_(max=1)).mul_(2 / math.pi * (BINS - 1))
    lower = place.floor().clamp_(max=BINS - 2)
    upper_share = place - lower
    edges = constant(SHELLS, normal.device)
    shell = torch.bucketize(pairs.radius, edges).clamp_(max=len(SHELLS) - 1)
    groups = pairs.count * len(SHELLS)
    # A point is not its own neighbour: those pairs go to a group of their own, which is dropped.
    group = torch.where(pairs.radius > 0, pairs.target * len(SHELLS) + shell, groups)
    count = torch.bincount(group, minlength=groups + 1)[:groups].to(normal.dtype)[:, None]
    # Each angle votes for the two bins around it; counting scalars is cheaper than adding rows of bins.
    slot = (group[:, None] * 3 + torch.arange(3, device=normal.device)) * BINS + lower.long()
    votes = torch.bincount(slot.flatten(), (1 - upper_share).flatten(), minlength=(groups + 1) * 3 * BINS)
    votes += torch.bincount(slot.flatten() + 1, upper_share.flatten(), minlength=(groups + 1) * 3 * BINS)
    votes = votes[: groups * 3 * BINS].to(normal.dtype).view(groups, 3 * BINS) / count.clamp(min=1)
    area = math.pi * torch.diff(edges**2, prepend=edges.new_zeros(1))
    fill = count.view(-1, len(SHELLS), 1) / area[:, None]
    return torch.cat([votes.view(-1, len(SHELLS), 3 * BINS), fill], 2).flatten(1)
