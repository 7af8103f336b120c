"""Convolution whose kernel cells are rotation-invariant features of point pairs instead of grid offsets.

A grid kernel knows a neighbour by its offset (dx, dy, dz), which changes when a shape is turned. Here a pair
of voxels is known by its distance and by how the two surfaces lie to each other and to the line between
them: the pair features of Drost et al. (CVPR 2010) and Rusu et al. (FPFH, ICRA 2009), which no rotation
changes. Their smooth functions take the place of the cells, so that
``out[o] = sum_k (sum_i phi_k(o, i) x[i]) W[k]``. Positions are those of the points, not of the voxels'
centres; what depends on the grid is only which points share a voxel and which voxels are near enough to meet.

A fitted normal has no sign, and edges and lines have no normal; so the surface at a voxel is described by a
tensor, the inverse square of the neighbourhood's covariance scaled to trace 1. On a plane that is n n^T.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.backends import Backend
from sparsefeat.sparse import Kernel, KernelMap, SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import as_tuple, constant
from sparsefeat.sparse.functional import strided_key, upsampled_key
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.precision import autocast_dtype, widen
from sparsefeat.sparse.sums import group_sums
from sparsefeat.sparse.weighted import Pairs, PairWeights, weighted_convolution, weighted_sums

RADII = (0.9, 1.7, 2.5)
"""Centres of the radial functions, in cells; a window of 3 cells has the first two, a larger one all."""
REACH = 1.1
"""How far from its centre each of them ends, cells."""
SCARCE = 0.5
"""Neighbours, in full weights, below which a mean is drawn towards zero."""
ANGLES = 5
"""Functions of direction for each radial one."""
GRAZING = 0.1
"""Sine of the angle to the surface below which a direction does not decide which normal points outwards."""
FLATNESS = 0.04
"""Added to variances, in squares of a cell: the roughness below which a surface counts as a plane."""
# Means of the functions have about these sizes on indoor scans; dividing by them gives all kernel cells a
# similar say in the beginning.
_SCALE = (1.0, 0.3, 0.3, 0.3, 0.1)
_SCALE_ORIENTED = (1.0, 0.3, 0.3, 0.2, 0.2)
_SCALE_CHIRAL = 0.1

_DOWN = Kernel(
    (4, 4, 4),
    (1, 1, 1),
    "custom",
    tuple((x, y, z) for z in range(-1, 3) for y in range(-1, 3) for x in range(-1, 3)),
)
"""Fine cells that meet a coarse one, from its corner: its own eight and one more on every side."""


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


class _Levels:
    """The levels of one pass of a network, made when first needed, and the pair weights between them.

    They go with the features and not with the kernel maps, which outlive a pass: the same voxels may hold other
    points in the next.
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
        self._weights: dict[tuple, PairWeights] = {}

    def __call__(self, manager: CoordinateManager, key: CoordinateMapKey) -> Level:
        if key not in self._made:
            self._made[key] = self._make(manager, key)
        return self._made[key]

    def weights(
        self,
        manager: CoordinateManager,
        plan: KernelMap,
        source: CoordinateMapKey,
        target: CoordinateMapKey,
        unit: float,
        radii: int,
    ) -> PairWeights:
        """Pair functions of a kernel map between two levels."""
        cached = (source, target, unit, radii)
        if cached not in self._weights:
            levels = self(manager, source), self(manager, target)

            def weigh(pairs: Pairs) -> list[Tensor]:
                return pair_functions(pairs, *levels, unit, radii, self.chiral)

            self._weights[cached] = PairWeights.of(plan, weigh, own=source == target)
        return self._weights[cached]

    def _make(self, manager: CoordinateManager, key: CoordinateMapKey) -> Level:
        stride = max(key.tensor_stride)
        total = _moments(self.position / stride) * self.weight
        weight, outward = self.weight[:, 0], self.outward
        window = Kernel.of(5)
        if key != self.base:
            plan = manager.block_map(self.base, key)
            # A coarse voxel is there as much as the one in it that is there most.
            inside = _at(weight, plan.in_rows)
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
            distance = sum((_at(c, pairs.rows) - _at(c, pairs.targets)).square() for c in place)
            return [(1 - distance / reach**2).clamp(min=0).square().to(total)]

        # In float64, so that the covariance may be a difference of moments.
        total = weighted_sums(total, PairWeights.of(plan, near))[:, 0].t()
        count = total[0].clamp(min=1e-12)
        centre = total[1:4] / count
        covariance = total[4:] / count - _outer(centre)
        covariance = torch.cat([covariance[:3] + FLATNESS, covariance[3:]])
        surface = _surface(covariance)
        shape, normal = _statistics(covariance, centre - mean, count), None
        if outward is not None:
            normal = torch.stack(_times(surface, outward.t()))
            normal = normal * (_dot(normal, normal) + GRAZING**2).rsqrt()
            shape = torch.cat([shape, _dot(centre - mean, normal)[:, None]], 1)
            normal = normal.to(self.dtype)
        mean, surface, weight, shape = (
            part.to(self.dtype) for part in (mean * stride, surface, weight, shape)
        )
        return Level(mean, surface, _inner(surface, surface).rsqrt(), weight, normal, shape)


class PointTensor(SparseTensor):
    """A SparseTensor that knows the points in its voxels, as do all that are made from it."""

    levels: _Levels | None = None
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
        corner = x.coordinates[:, 1:]
        # From the lowest corner: float32 then holds positions well, wherever a scan lies.
        low = corner.amin(0, keepdim=True) if len(x) else corner.new_zeros(1, 3)
        # MPS has no float64.
        given = x.features.to(torch.float32 if x.device.type == "mps" else torch.float64)
        position = (corner - low).to(given) + (given[:, :3] + 0.5) * stride
        outward = given[:, 3:6] if self.oriented else None
        weight = given[:, -1:] if given.shape[1] % 3 else torch.ones_like(given[:, :1])
        dtype = torch.promote_types(x.dtype, torch.float32)
        levels = _Levels(x.key, position, weight, outward, dtype, self.chiral)
        out = PointTensor(levels(x.manager, x.key).shape.to(x.dtype), manager=x.manager, key=x.key)
        out.levels = levels
        return out


def _at(values: Tensor, rows: Tensor) -> Tensor:
    return values.index_select(0, rows)  # several times faster than values[rows]


def _columns(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """Columns of values. Shape: (V,) or (N, V), (P,) -> (P,) or (N, P)."""
    # Numbers of one kind side by side: gathering rows of three or six and multiplying is several times slower.
    if values is None or values.ndim == 1 or not values.requires_grad:
        return None if values is None else values.index_select(-1, rows)
    # The gradient of single ones is many times faster.
    return torch.stack([_at(each, rows) for each in values])


def _outer(v: Tensor) -> Tensor:
    """xx, yy, zz, xy, xz, yz. Shape: (3, N) -> (6, N)."""
    x, y, z = v
    return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z])


def _moments(points: Tensor) -> Tensor:
    """1, x, y, z and their products. Shape: (N, 3) -> (N, 10)."""
    points = points.t()
    return torch.cat([torch.ones_like(points[:1]), points, _outer(points)]).t().contiguous()


def _adjugate(m: Tensor) -> Tensor:
    """Inverse times determinant. Shape: (6, N) -> (6, N)."""
    a, b, c, d, e, f = m  # [[a, d, e], [d, b, f], [e, f, c]]
    return torch.stack(
        [
            b * c - f * f,
            a * c - e * e,
            a * b - d * d,
            e * f - d * c,
            d * f - b * e,
            d * e - a * f,
        ]
    )


def _times(m: Sequence[Tensor], v: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Shape: (6, N), (3, N) -> (3, N)."""
    a, b, c, d, e, f = m
    return _dot((a, d, e), v), _dot((d, b, f), v), _dot((e, f, c), v)


def _dot(v: Sequence[Tensor], w: Sequence[Tensor]) -> Tensor:
    """Shape: (3, N), (3, N) -> (N,)."""
    return torch.addcmul(torch.addcmul(v[0] * w[0], v[1], w[1]), v[2], w[2])


def _inner(m: Sequence[Tensor], n: Sequence[Tensor]) -> Tensor:
    """Sum of the products of all nine entries. Shape: (6, N), (6, N) -> (N,)."""
    return m[0] * n[0] + m[1] * n[1] + m[2] * n[2] + 2 * (m[3] * n[3] + m[4] * n[4] + m[5] * n[5])


def _surface(covariance: Tensor) -> Tensor:
    """The inverse square of symmetric matrices, of trace 1. Shape: (6, N) -> (6, N)."""
    inverse = _adjugate(covariance)
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
    adjugate = _adjugate(covariance)
    second = adjugate[:3].sum(0)
    determinant = (
        covariance[0] * adjugate[0] + covariance[3] * adjugate[3] + covariance[4] * adjugate[4]
    )
    along = _dot(centre, _times(_surface(covariance), centre))
    across = _dot(centre, centre) - along
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


def pair_functions(
    pairs: Pairs, source: Level, target: Level, unit: float, radii: int, chiral: bool = False
) -> list[Tensor]:
    """phi of pairs of points: radii * ANGLES functions, (P,) each; zero for a point and itself.

    With ``chiral``, ``radii`` more follow: the triple product of the ray and both normals, which changes its sign
    where a shape is reflected. All other functions are the same for a shape and its mirror image.
    """
    there, here = (
        [_columns(part, rows) for part in level[:5]]
        for level, rows in zip((source, target), pairs[:2])
    )
    position, surface, size, weight, normal = there
    line = position - here[0]
    if unit != 1:
        line = line / unit
    # A root has no slope at zero; clamped a little above it, none is asked for.
    distance = _dot(line, line).clamp(min=1e-12).sqrt()
    ray = line / distance
    away = _times(here[1], ray)
    roots = [_dot(away, ray), 1 - _inner(here[1], surface) * size * here[2]]
    if normal is None:
        toward = _times(surface, ray)
        roots.insert(1, _dot(toward, ray))
        others, scale = [_dot(away, toward)], _SCALE
    else:
        # Seen from outside: whether the other lies above this surface, and whether it turns towards this point.
        others, scale = [_dot(here[4], ray), _dot(normal, ray)], _SCALE_ORIENTED
    angles = [root.clamp(1e-12, 1).sqrt() for root in roots] + others
    angles = [angle / size for angle, size in zip(angles, scale[1:])]
    if source is target:
        weight = weight.masked_fill(pairs.rows == pairs.targets, 0)
    scarce = SCARCE * target.weight[pairs.start : pairs.stop]
    twist = (
        _dot(ray, torch.linalg.cross(here[4], normal, dim=0)) / _SCALE_CHIRAL if chiral else None
    )
    phi, twisted = [], []
    for centre in RADII[:radii]:
        # A Gaussian's likeness that ends, and costs no exponential.
        radial = (1 - ((distance - centre) / REACH).square()).clamp(min=0).square() * weight
        # A surface that lies askew in the grid occupies more voxels: means do not notice, sums would.
        radial = radial * _at(1 / (pairs.totals(radial) + scarce).clamp(min=1e-12), pairs.places)
        phi += [radial, *(radial * angle for angle in angles)]
        if twist is not None:
            twisted.append(radial * twist)
    return phi + twisted


class PairConvolution(nn.Module):
    """Convolution with pair features as cells: ``kernel`` [K, C_in, C_out], ``bias`` [1, C_out] or None.

    The first cell is the voxel itself where input and output are one level. Arguments as for
    :class:`sparsefeat.sparse.modules.Convolution`; a strided one meets the cells in and around a coarse one.
    """

    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        dimension: int = 3,
        chiral: bool = False,
    ):
        super().__init__()
        if stride not in (1, 2) or dimension != 3 or kernel_size % 2 == 0:
            raise InputError(
                "pair kernels: expected an odd window in three dimensions and a stride of 1 or 2, got "
                f"{kernel_size}, {dimension} and {stride}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.window = Kernel.of(kernel_size, dilation) if stride == 1 else _DOWN
        self.stride = as_tuple(stride, 3, "stride")
        self.radii = 2 if kernel_size == 3 else len(RADII)
        # The chiral cells come last: a kernel without them is one whose last cells are zero.
        cells = (stride == 1) + self.radii * (ANGLES + chiral)
        self.kernel = nn.Parameter(torch.empty(cells, in_channels, out_channels))
        bound = (cells * in_channels) ** -0.5
        nn.init.uniform_(self.kernel, -bound, bound)
        self.bias = (
            nn.Parameter(torch.empty(1, out_channels).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        if x.features.shape[1] != self.in_channels:
            raise InputError(
                f"{self}: expected {self.in_channels} channels, got {x.features.shape[1]}"
            )
        manager = x.manager
        levels = x.levels if isinstance(x, PointTensor) else None
        if levels is None:
            raise InputError(
                f"{self}: positions of the points are not known; PointFrames comes first"
            )
        if self.transposed:
            key = upsampled_key(x, self.window, self.stride)
            plan = manager.kernel_map(key, x.key, self.window).transpose
        else:
            key = strided_key(x, self.window, self.stride)
            plan = manager.kernel_map(x.key, key, self.window)
        unit = float(min(*x.tensor_stride, *key.tensor_stride)) * self.window.dilation[0]
        weights = levels.weights(manager, plan, x.key, key, unit, self.radii)
        dtype = autocast_dtype(x.device.type)
        kernel = self.kernel if dtype is None or x.dtype == torch.float64 else self.kernel.to(dtype)
        out = weighted_convolution(widen(x.features), kernel, weights)
        return x.replace(out if self.bias is None else out + self.bias, key)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {self.kernel.shape[0]} cells, stride={self.stride}"


class PairConvolutionTranspose(PairConvolution):
    __doc__ = "From a coarse level to the existing finer one.\n\n" + PairConvolution.__doc__
    transposed = True


def pair_backend(ops: Backend, chiral: bool = False) -> Backend:
    """The same backend with pair convolutions in place of those that see more than one cell."""
    if ops.name != "torch":
        raise InputError(f"pair kernels are not available on the backend {ops.name!r}")
    # Partial functions and not local ones: networks are pickled with their backend.
    return dataclasses.replace(
        ops,
        Convolution=functools.partial(_convolution, ops.Convolution, chiral),
        ConvolutionTranspose=functools.partial(PairConvolutionTranspose, chiral=chiral),
    )


def _convolution(
    pointwise: Callable[..., nn.Module],
    chiral: bool,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    **options,
) -> nn.Module:
    """A pair convolution, or the pointwise one where the kernel is a single cell."""
    if kernel_size == 1:
        return pointwise(in_channels, out_channels, kernel_size=1, **options)
    return PairConvolution(
        in_channels, out_channels, kernel_size=kernel_size, chiral=chiral, **options
    )


def with_chiral_cells(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network without the chiral function for one with it: the new cells of its kernels are zero."""
    out = dict(state)
    for name, weights in state.items():
        if name in wanted and weights.ndim == 3 and len(weights) < len(wanted[name]):
            missing = weights.new_zeros(len(wanted[name]) - len(weights), *weights.shape[1:])
            out[name] = torch.cat([weights, missing])
    return out
