"""Convolution whose kernel cells are rotation-invariant features of point pairs instead of grid offsets.

A grid kernel knows a neighbour by its offset (dx, dy, dz), which changes when a shape is turned. Here a pair
of voxels is known by its distance and by how the two surfaces lie to each other and to the line between
them: the pair features of Drost et al. (CVPR 2010) and Rusu et al. (FPFH, ICRA 2009), which no rotation
changes. Their smooth functions take the place of the cells, so that
``out[o] = sum_k (sum_i phi_k(o, i) x[i]) W[k]``. Positions and surfaces are those of the points, see
:mod:`sparsefeat.models.levels`; what depends on the grid is only which points share a voxel and which voxels are near
enough to meet.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.backends import Backend
from sparsefeat.models.levels import Level, Levels, PointTensor
from sparsefeat.models.symmetric import at, columns, dot, inner, times
from sparsefeat.sparse import Kernel, KernelMap, SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import as_tuple
from sparsefeat.sparse.functional import strided_key, upsampled_key
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.precision import autocast_dtype, widen
from sparsefeat.sparse.weighted import Pairs, PairWeights, Product, weighted_convolution

RADII = (0.9, 1.7, 2.5)
"""Centres of the radial functions, in cells; a window of 3 cells has the first two, a larger one all."""
REACH = 1.1
"""How far from its centre each of them ends, cells."""
SCARCE = 0.5
"""Neighbours, in full weights, below which a mean is drawn towards zero."""
ANGLES = 5
"""Functions of direction for each radial one."""
# Means of the functions of direction have about these sizes on indoor scans; dividing by them gives all kernel cells a
# similar say in the beginning.
_SIZES = (0.3, 0.3, 0.3, 0.1)
_SIZES_ORIENTED = (0.3, 0.3, 0.2, 0.2)
_SIZE_CHIRAL = 0.1

_DOWN = Kernel(
    (4, 4, 4),
    (1, 1, 1),
    "custom",
    tuple((x, y, z) for z in range(-1, 3) for y in range(-1, 3) for x in range(-1, 3)),
)
"""Fine cells that meet a coarse one, from its corner: its own eight and one more on every side."""


def pair_factors(
    pairs: Pairs, source: Level, target: Level, unit: float, radii: int, chiral: bool = False
) -> list[Tensor]:
    """Functions of pairs of points whose products are phi, see :func:`pair_products`. Shape: (P,) each.

    First ``radii`` functions of distance, which sum to one over the neighbours of a point and are zero for a point and
    itself. Then ``ANGLES - 1`` of direction. With ``chiral``, the triple product of the ray and both normals follows,
    which changes its sign where a shape is reflected. All others are the same for a shape and its mirror image.
    """
    there, here = (
        [columns(part, rows) for part in level[:5]]
        for level, rows in zip((source, target), pairs[:2])
    )
    position, surface, size, weight, normal = there
    line = position - here[0]
    if unit != 1:
        line = line / unit
    # A root has no slope at zero; clamped a little above it, none is asked for.
    distance = dot(line, line).clamp(min=1e-12).sqrt()
    ray = line / distance
    away = times(here[1], ray)
    roots = [dot(away, ray), 1 - inner(here[1], surface) * (size * here[2])]
    if normal is None:
        toward = times(surface, ray)
        roots.insert(1, dot(toward, ray))
        others, sizes = [dot(away, toward)], _SIZES
    else:
        # Seen from outside: whether the other lies above this surface, and whether it turns towards this point.
        others, sizes = [dot(here[4], ray), dot(normal, ray)], _SIZES_ORIENTED
    angles = [root.clamp(1e-12, 1).sqrt() for root in roots] + others
    if chiral:
        angles.append(dot(ray, torch.linalg.cross(here[4], normal, dim=0)))
    angles = [angle * (1 / size) for angle, size in zip(angles, (*sizes, _SIZE_CHIRAL))]
    if source is target:
        weight = weight.masked_fill(pairs.rows == pairs.targets, 0)
    scarce = SCARCE * target.weight[pairs.start : pairs.stop]
    scaled, one = distance / REACH, distance.new_ones(())
    radial = []
    for centre in RADII[:radii]:
        # A Gaussian's likeness that ends, and costs no exponential.
        off = scaled - centre / REACH
        near = torch.addcmul(one, off, off, value=-1).clamp(min=0).square() * weight
        # A surface that lies askew in the grid occupies more voxels: means do not notice, sums would.
        share = 1 / (pairs.totals(near) + scarce).clamp(min=1e-12)
        radial.append(near * at(share, pairs.places))
    return radial + angles


def pair_products(radii: int, chiral: bool = False) -> list[Product]:
    """Which of :func:`pair_factors` make phi: ``ANGLES`` functions for each radius, then the chiral ones."""
    angles = range(radii, radii + ANGLES - 1)
    plain = [(r, *angle) for r in range(radii) for angle in [(), *((a,) for a in angles)]]
    return plain + [(r, angles.stop) for r in range(radii) if chiral]


def _pair_weights(
    levels: Levels,
    manager: CoordinateManager,
    plan: KernelMap,
    window: Kernel,
    source: CoordinateMapKey,
    target: CoordinateMapKey,
    unit: float,
    radii: int,
) -> PairWeights:
    """phi of the pairs of a kernel map between two levels, computed once in a pass of the network."""
    cached = (window, source, target, unit, radii)
    if cached not in levels.weights:
        ends = levels(manager, source), levels(manager, target)

        def weigh(pairs: Pairs) -> list[Tensor]:
            return pair_factors(pairs, *ends, unit, radii, levels.chiral)

        products = pair_products(radii, levels.chiral)
        levels.weights[cached] = PairWeights.of(plan, weigh, products, own=source == target)
    return levels.weights[cached]


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
        self.chiral = chiral
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
        if levels.chiral != self.chiral:
            raise InputError(
                f"{self}: chiral is {self.chiral}, expected {levels.chiral} as in PointFrames"
            )
        if self.transposed:
            key = upsampled_key(x, self.window, self.stride)
            plan = manager.kernel_map(key, x.key, self.window).transpose
        else:
            key = strided_key(x, self.window, self.stride)
            plan = manager.kernel_map(x.key, key, self.window)
        unit = float(min(*x.tensor_stride, *key.tensor_stride)) * self.window.dilation[0]
        weights = _pair_weights(levels, manager, plan, self.window, x.key, key, unit, self.radii)
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
