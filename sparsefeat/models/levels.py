"""Where the points of voxels lie and what the surface around them is like, on each level of a network.

Positions are those of the points, not of the voxels' centres. A fitted normal has no sign, and edges and lines have
no normal; so the surface at a voxel is described by a tensor, the inverse square of the neighbourhood's covariance
scaled to trace 1. On a plane that is n n^T.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.symmetric import adjugate, at, dot, inner, outer, times
from sparsefeat.sparse import Kernel, SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.sums import group_sums
from sparsefeat.sparse.weighted import Pairs, PairWeights, weighted_sums

GRAZING = 0.1
"""Sine of the angle to the surface below which a direction does not decide which normal points outwards."""
FLATNESS = 0.04
"""Added to variances, in squares of a cell: the roughness below which a surface counts as a plane."""


class Level(NamedTuple):
    """The points of one coordinate map.

    Attributes:
        position: their means, in voxels. Shape: (3, V).
        surface: surface tensors of their neighbourhoods: xx, yy, zz, xy, xz, yz. Shape: (6, V).
        size: one over the norm of each. Shape: (V,).
        weight: how much of the surface each stands for, against others of its level. Shape: (V,).
        normal: unit normals that point outwards, shorter where that is uncertain; None where outside is not
            known at all. Shape: (3, V).
        shape: invariants of the neighbourhoods. Shape: (V, ``PointFrames.channels``).
    """

    position: Tensor
    surface: Tensor
    size: Tensor
    weight: Tensor
    normal: Tensor | None
    shape: Tensor


class Levels:
    """The levels of one pass of a network, made when first needed, and the pair weights between them.

    They go with the features and not with the kernel maps, which outlive a pass: the same voxels may hold other
    points in the next.

    Attributes:
        weights: what pair convolutions have computed so far, which those that follow share.
    """

    def __init__(
        self,
        base: CoordinateMapKey,
        position: Tensor,
        weight: Tensor,
        outward: Tensor | None,
        dtype: torch.dtype,
        chiral: bool = False,
    ):
        self.base = base
        self.chiral = chiral
        self.dtype = dtype
        self.position = position
        self.weight = weight
        self.outward = outward
        self._made: dict[CoordinateMapKey, Level] = {}
        self.weights: dict[tuple, PairWeights] = {}

    def __call__(self, manager: CoordinateManager, key: CoordinateMapKey) -> Level:
        if key not in self._made:
            self._made[key] = self._make(manager, key)
        return self._made[key]

    def _make(self, manager: CoordinateManager, key: CoordinateMapKey) -> Level:
        stride = max(key.tensor_stride)
        total = _moments(self.position / stride) * self.weight
        weight, outward = self.weight[:, 0], self.outward
        window = Kernel.of(5)
        if key != self.base:
            plan = manager.block_map(self.base, key)
            # A coarse voxel is there as much as the one in it that is there most.
            inside = at(weight, plan.in_rows)
            voxels = len(manager[key])
            weight = weight.new_zeros(voxels).scatter_reduce(0, plan.out_rows, inside, "amax")
            total = group_sums(total, plan, (0,))
            if outward is not None:
                outward = group_sums(outward * self.weight, plan, (0,)) / total[:, :1].clamp(
                    min=1e-12
                )
            window = Kernel.of(3)
        mean = (total[:, 1:4].t() / total[:, 0].clamp(min=1e-12)).contiguous()
        plan = manager.kernel_map(key, key, window)
        reach = (window.size[0] + 1) / 2
        place = mean.to(self.dtype)

        def near(pairs: Pairs) -> list[Tensor]:
            distance = sum((at(c, pairs.rows) - at(c, pairs.targets)).square() for c in place)
            return [(1 - distance / reach**2).clamp(min=0).square().to(total)]

        # In float64, so that the covariance may be a difference of moments.
        total = weighted_sums(total, PairWeights.of(plan, near))[:, 0].t()
        count = total[0].clamp(min=1e-12)
        centre = total[1:4] / count
        covariance = total[4:] / count - outer(centre)
        covariance = torch.cat([covariance[:3] + FLATNESS, covariance[3:]])
        surface = _surface(covariance)
        shape, normal = _statistics(covariance, centre - mean, count), None
        if outward is not None:
            normal = torch.stack(times(surface, outward.t()))
            normal = normal * (dot(normal, normal) + GRAZING**2).rsqrt()
            shape = torch.cat([shape, dot(centre - mean, normal)[:, None]], 1)
            normal = normal.to(self.dtype)
        mean, surface, weight, shape = (
            part.to(self.dtype) for part in (mean * stride, surface, weight, shape)
        )
        return Level(mean, surface, inner(surface, surface).rsqrt(), weight, normal, shape)


class PointTensor(SparseTensor):
    """A SparseTensor that knows the points in its voxels, as do all that are made from it."""

    levels: Levels | None = None
    side: Tensor | None = None

    def replace(self, features: Tensor, key: CoordinateMapKey | None = None) -> PointTensor:
        out = super().replace(features, key)
        out.levels = self.levels
        return out


class PointFrames(nn.Module):
    """Makes the points of voxels known to the pair convolutions that follow; has no parameters.

    The input's features say where in its voxel a point lies: offsets from the centre, in voxels. The output's
    say how linear, flat or scattered the surroundings are, none of which a rotation changes. A fourth channel
    says how much a voxel counts beside others (1 where there is none): one of weight 0 is as good as not
    there. Where the input has a gradient, the features of the network are differentiable by it.
    Shape: (V, 3 or 4) -> (V, ``channels``); rows stay.
    """

    def __init__(self, dimension: int = 3, oriented: bool = False, chiral: bool = False):
        super().__init__()
        self.oriented = oriented
        self.chiral = chiral
        self.channels = 7 + oriented
        if dimension != 3:
            raise InputError(f"pair kernels need three spatial dimensions, got {dimension}")
        self.window = Kernel.of(5)
        self.stride = (1, 1, 1)

    def forward(self, x: SparseTensor) -> PointTensor:
        stride = constant(x.tensor_stride, x.device)
        # MPS has no float64.
        given = x.features.to(torch.float32 if x.device.type == "mps" else torch.float64)
        position = x.coordinate_map.corners.to(given) + (given[:, :3] + 0.5) * stride
        outward = given[:, 3:6] if self.oriented else None
        weight = given[:, -1:] if given.shape[1] % 3 else torch.ones_like(given[:, :1])
        dtype = torch.promote_types(x.dtype, torch.float32)
        levels = Levels(x.key, position, weight, outward, dtype, self.chiral)
        out = PointTensor(levels(x.manager, x.key).shape.to(x.dtype), manager=x.manager, key=x.key)
        out.levels = levels
        return out


def _moments(points: Tensor) -> Tensor:
    """1, x, y, z and their products. Shape: (N, 3) -> (N, 10)."""
    points = points.t()
    return torch.cat([torch.ones_like(points[:1]), points, outer(points)]).t().contiguous()


def _surface(covariance: Tensor) -> Tensor:
    """The inverse square of symmetric matrices, of trace 1. Shape: (6, N) -> (6, N)."""
    inverse = adjugate(covariance)
    a, b, c, d, e, f = inverse / inverse[:3].sum(0)
    square = torch.stack(
        [
            a * a + d * d + e * e,
            d * d + b * b + f * f,
            e * e + f * f + c * c,
            a * d + d * b + e * f,
            a * e + d * f + e * c,
            d * e + b * f + f * c,
        ]
    )
    return square / square[:3].sum(0)


def _statistics(covariance: Tensor, centre: Tensor, count: Tensor) -> Tensor:
    """Invariants of the covariance, how far off the centroid lies along the normal and across, the filling."""
    trace = covariance[:3].sum(0)
    minors = adjugate(covariance)
    second = minors[:3].sum(0)
    determinant = covariance[0] * minors[0] + covariance[3] * minors[3] + covariance[4] * minors[4]
    along = dot(centre, times(_surface(covariance), centre))
    across = dot(centre, centre) - along
    return torch.stack(
        [
            3 * second / trace.square(),
            27 * determinant / trace**3,
            (9 * determinant / (second * trace)).sqrt(),
            trace,
            along.clamp(min=1e-12).sqrt(),
            across.clamp(min=1e-12).sqrt(),
            count / 8,
        ],
        1,
    )
