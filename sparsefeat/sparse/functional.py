"""Operations on sparse tensors: convolution, pooling, broadcasting, and element-wise functions.

All are differentiable, convolution and pooling to any order.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.sparse.channelwise import convolve_channels
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.convolve import convolve_rows
from sparsefeat.sparse.coordinate_map import CoordinateMapKey
from sparsefeat.sparse.coordinates import as_tuple, constant
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.pooling import pool_clouds, pool_neighbours, sum_rows
from sparsefeat.sparse.precision import widen
from sparsefeat.sparse.tensor import SparseTensor


def target_key(
    x: SparseTensor,
    coordinates: Tensor | CoordinateMapKey | SparseTensor,
    tensor_stride: tuple[int, ...],
) -> CoordinateMapKey:
    """The key of explicitly given output coordinates: a tensor's map, a key, or raw distinct coordinates."""
    if isinstance(coordinates, SparseTensor):
        if coordinates.manager is not x.manager:
            raise ValueError("target coordinates: the tensors must share a coordinate manager")
        return coordinates.key
    if isinstance(coordinates, CoordinateMapKey):
        x.manager[coordinates]
        return coordinates
    return x.manager.insert(coordinates, tensor_stride, parent=x.key)


def strided_key(
    x: SparseTensor, kernel: Kernel, stride: tuple[int, ...], coordinates=None, expand: bool = False
) -> CoordinateMapKey:
    """Where the output of a convolution or pooling of ``x`` lives."""
    coarse = tuple(t * s for t, s in zip(x.tensor_stride, stride))
    if coordinates is not None:
        return target_key(x, coordinates, coarse)
    if expand:
        return x.manager.expand(
            x.key, kernel, coarse, x.key.tensor_stride, own_family=True, backwards=True
        )
    return x.key if all(s == 1 for s in stride) else x.manager.stride(x.key, stride)


def upsampled_key(
    x: SparseTensor,
    kernel: Kernel,
    stride: tuple[int, ...],
    coordinates=None,
    generate: bool = False,
) -> CoordinateMapKey:
    """Where the output of a transposed convolution or pooling of ``x`` lives.

    The existing finer level of the same family, row for row; all ``v + offset`` where there is none
    or ``generate`` asks for them.
    """
    if any(t % s for t, s in zip(x.tensor_stride, stride)):
        raise ValueError(
            f"up-sampling: tensor stride {x.tensor_stride} is not divisible by stride {stride}"
        )
    fine = tuple(t // s for t, s in zip(x.tensor_stride, stride))
    if coordinates is not None:
        return target_key(x, coordinates, fine)
    if not generate:
        existing = x.manager.finer(x.key, fine)
        if existing is not None:
            return existing
    return x.manager.expand(x.key, kernel, fine, fine, own_family=generate)


def convolution(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Kernel,
    stride=1,
    coordinates=None,
    expand_coordinates: bool = False,
) -> SparseTensor:
    """``out[u] = sum_k weight[k]^T x[u + offset_k]`` at the coordinates of ``x`` strided by ``stride``.

    Args:
        weight: Shape (K, C_in, C_out).
        bias: Shape (1, C_out) or None.
        kernel: window; its offsets are worth the tensor stride of ``x`` each.
        coordinates: other output coordinates: a SparseTensor, a key, or distinct coordinates (V', 1 + D).
        expand_coordinates: also produce outputs wherever the window touches an input.
    """
    stride = as_tuple(stride, x.D, "stride")
    key = strided_key(x, kernel, stride, coordinates, expand_coordinates)
    plan = x.manager.kernel_map(x.key, key, kernel)
    return x.replace(convolve_rows(x.features, weight, plan, bias), key)


def convolution_transpose(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Kernel,
    stride=1,
    coordinates=None,
    expand_coordinates: bool = False,
) -> SparseTensor:
    """The transpose of the :func:`convolution` that leads from the finer level to that of ``x``.

    Shapes as there. The output is the existing finer level, or every reached coordinate where there
    is none or ``expand_coordinates`` is set (a generative convolution).
    """
    stride = as_tuple(stride, x.D, "stride")
    key = upsampled_key(x, kernel, stride, coordinates, expand_coordinates)
    plan = x.manager.kernel_map(key, x.key, kernel).transpose
    return x.replace(convolve_rows(x.features, weight, plan, bias), key)


def channelwise_convolution(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Kernel,
    stride=1,
    coordinates=None,
    expand_coordinates: bool = False,
) -> SparseTensor:
    """Each channel with its own kernel. Shape: weight (K, C)."""
    if weight.shape != (kernel.volume, x.features.shape[1]):
        raise ValueError(
            f"channelwise convolution: expected a kernel [{kernel.volume}, {x.features.shape[1]}], "
            f"got {list(weight.shape)}"
        )
    key = strided_key(x, kernel, as_tuple(stride, x.D, "stride"), coordinates, expand_coordinates)
    plan = x.manager.kernel_map(x.key, key, kernel)
    out = convolve_channels(x.features, weight, plan)
    return x.replace(out if bias is None else out + bias.to(out.dtype), key)


def pool(
    x: SparseTensor,
    mode: str,
    kernel: Kernel,
    stride=1,
    coordinates=None,
    expand_coordinates: bool = False,
) -> SparseTensor:
    """Pool the voxels that each window holds; ``mode`` is ``"max"``, ``"average"`` or ``"sum"``.

    A cube as large as its stride is the block [u, u + stride); any other window has the offsets of
    a convolution. An average divides by the voxels present.
    """
    stride = as_tuple(stride, x.D, "stride")
    if _is_block(kernel, stride):
        # Every voxel lies in one block, so that there is nothing to expand to.
        key = strided_key(x, kernel, stride, coordinates)
        # The map of a global pool has stride 0, and no blocks: its voxels see the window at the origin.
        whole = min(key.tensor_stride) > 0
        plan = (
            x.manager.block_map(x.key, key) if whole else x.manager.kernel_map(x.key, key, kernel)
        )
    else:
        key = strided_key(x, kernel, stride, coordinates, expand_coordinates)
        plan = x.manager.kernel_map(x.key, key, kernel)
    return x.replace(pool_neighbours(x.features, plan, mode), key)


def _is_block(kernel: Kernel, stride: tuple[int, ...]) -> bool:
    return kernel.region == "cube" and kernel.size == stride and any(s > 1 for s in stride)


def pool_transpose(
    x: SparseTensor, kernel: Kernel, stride=1, coordinates=None, expand_coordinates: bool = False
) -> SparseTensor:
    """Give every finer voxel the mean of the coarse ones whose window holds it."""
    stride = as_tuple(stride, x.D, "stride")
    if _is_block(kernel, stride):
        block = Kernel(
            (1,) * x.D, (1,) * x.D, "custom", tuple(itertools.product(*map(range, stride)))
        )
        key = upsampled_key(x, block, stride, coordinates, expand_coordinates)
        plan = x.manager.block_map(key, x.key).transpose
    else:
        key = upsampled_key(x, kernel, stride, coordinates, expand_coordinates)
        plan = x.manager.kernel_map(key, x.key, kernel).transpose
    return x.replace(pool_neighbours(x.features, plan, "average"), key)


def global_pool(x: SparseTensor, mode: str) -> SparseTensor:
    """One row per cloud, in order of batch index: ``"max"``, ``"average"`` or ``"sum"`` over its voxels."""
    key = x.manager.origin(x.key)
    return x.replace(pool_clouds(x.features, x.coordinate_map.clouds, mode), key)


def _summary_rows(x: SparseTensor, summary: SparseTensor) -> Tensor:
    """For every voxel of ``x`` the row of its cloud in ``summary``. Shape: (V,)."""
    clouds, cloud, _ = x.coordinate_map.clouds
    if summary.manager is x.manager and summary.key == CoordinateMapKey((0,) * x.D, x.key.name):
        return cloud
    given, order = torch.sort(summary.coordinates[:, 0])
    if not torch.isin(clouds, given).all() or bool((given[1:] == given[:-1]).any()):
        raise ValueError(
            f"broadcast: expected one summary row for each cloud {clouds.tolist()}, got {given.tolist()[:100]}"
        )
    return order[torch.searchsorted(given, clouds)][cloud]


def broadcast(x: SparseTensor, summary: SparseTensor, mode: str) -> SparseTensor:
    """Give each voxel of ``x`` its cloud's row of ``summary``.

    ``mode``: ``"copy"`` (the row itself), ``"add"``, ``"multiply"``, or ``"cat"`` (channels of x, then of the row).
    """
    if mode not in ("copy", "add", "multiply", "cat"):
        raise ValueError(f"broadcast: expected 'copy', 'add', 'multiply' or 'cat', got {mode!r}")
    rows = summary.features.index_select(0, _summary_rows(x, summary))
    if mode == "copy":
        return x.replace(rows)
    if mode == "add":
        return x.replace(x.features + rows)
    if mode == "multiply":
        return x.replace(x.features * rows)
    return x.replace(torch.cat([x.features, rows], 1))


def instance_norm(x: SparseTensor, weight: Tensor, bias: Tensor, eps: float = 1e-8) -> SparseTensor:
    """Normalise each channel of each cloud by its mean and biased variance.

    Ulyanov et al., Instance Normalization, 2016, eq. 3. Shape: weight, bias (1, C).
    """
    if weight.shape[-1] != x.features.shape[1]:
        raise ValueError(
            f"instance norm: {weight.shape[-1]} channels expected, got {x.features.shape[1]}"
        )
    wide, clouds = widen(x.features), x.coordinate_map.clouds
    centred = wide - pool_clouds(wide, clouds, "average").index_select(0, clouds.rows)
    variance = pool_clouds(centred * centred, clouds, "average")
    normal = centred * torch.rsqrt(variance + eps).index_select(0, clouds.rows)
    return x.replace((normal * weight + bias).to(x.dtype))


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Concatenate channels of tensors on the same voxels."""
    if not tensors:
        raise ValueError("cat: expected at least one tensor, got none")
    first = tensors[0]
    for other in tensors[1:]:
        if other.manager is not first.manager or other.key != first.key:
            raise ValueError(
                f"cat: expected tensors on one coordinate map, got {first!r} and {other!r}"
            )
    return first.replace(torch.cat([t.features for t in tensors], 1))


def union(*tensors: SparseTensor) -> SparseTensor:
    """Sum of tensors on the union of their voxels."""
    if not tensors:
        raise ValueError("union: expected at least one tensor, got none")
    first = tensors[0]
    if any(t.manager is not first.manager for t in tensors):
        raise ValueError("union: the tensors must share a coordinate manager")
    channels = [t.features.shape[1] for t in tensors]
    if len(set(channels)) != 1:
        raise ValueError(f"union: expected equal channels, got {channels}")
    key, rows = first.manager.union(*(t.key for t in tensors))
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    total = first.features.new_zeros(len(first.manager[key]), channels[0], dtype=dtype)
    for tensor, mine in zip(tensors, rows):
        total = total.index_add(0, mine, tensor.features.to(dtype))
    return first.replace(total, key)


@compile_disabled
def prune(x: SparseTensor, keep: Tensor) -> SparseTensor:
    """The voxels where ``keep`` (V,) bool is true, in their order; possibly none."""
    if keep.shape != (len(x),) or keep.dtype != torch.bool:
        raise ValueError(f"prune: expected {len(x)} booleans, got {tuple(keep.shape)} {keep.dtype}")
    keep = keep.to(x.device)
    key = x.manager.insert(x.coordinates[keep], x.tensor_stride, parent=x.key)
    return x.replace(x.features[keep], key)


def normalize(x: SparseTensor, eps: float = 1e-12) -> SparseTensor:
    """Scale each row to unit L2 norm."""
    # In float32 for the half types: eps is 0 in float16, and a norm may be infinite.
    return x.replace(F.normalize(widen(x.features), dim=1, eps=eps).to(x.dtype))


@compile_disabled
def interpolate(x: SparseTensor, points: Tensor) -> Tensor:
    """Multilinear interpolation of the voxel features, in units of coordinates.

    The 2^D voxels around a point, at multiples of the tensor stride, weigh in; missing ones count
    zero and the weights are not renormalised.

    Args:
        points: Shape (N, 1 + D) floating point, batch index first.

    Returns:
        Shape (N, C), differentiable in the features and, through the weights, in the points.
    """
    plan, weights = interpolation_map(x, points)
    products = x.features.index_select(0, plan.in_rows) * weights.to(x.dtype)[:, None]
    return sum_rows(products, plan.out_rows, plan.n_out)


@compile_disabled
def interpolation_map(x: SparseTensor, points: Tensor) -> tuple[KernelMap, Tensor]:
    """The voxels around each point and their weights (P,): corner by corner, existing ones.

    Those of weight zero only where the points require a gradient.
    """
    if points.ndim != 2 or points.shape[1] != x.D + 1:
        raise ValueError(
            f"interpolate: expected points of shape (N, {x.D + 1}), got {tuple(points.shape)}"
        )
    if points.device != x.device:
        raise ValueError(f"interpolate: features on {x.device}, points on {points.device}")
    if not torch.isfinite(points).all():
        row = int((~torch.isfinite(points)).any(1).nonzero()[0])
        raise ValueError(f"interpolate: point {row} is not finite: {points[row].tolist()}")
    if 0 in x.tensor_stride:
        raise ValueError(
            "interpolate: a globally pooled tensor (tensor stride 0) has no neighbouring voxels"
        )
    if not points.is_floating_point():
        points = points.double()
    stride = constant(x.tensor_stride, points.device)
    scaled = points[:, 1:] / stride
    base = torch.floor(scaled.detach())
    fraction = scaled - base
    # Corners as integers: float32 has no odd numbers above 2^24. Beyond 2^40 nothing can be found anyway.
    nearest = (
        widen(torch.cat([torch.floor(points[:, :1].detach()), base], 1))
        .clamp(-(2**40), 2**40)
        .long()
    )
    rows, weights = [], []
    for offset in constant(Kernel.of(2, dimension=x.D).cells, points.device):
        corner = torch.cat([nearest[:, :1], (nearest[:, 1:] + offset) * stride], 1)
        rows.append(x.coordinate_map.find(corner))
        weights.append(torch.where(offset == 1, fraction, 1 - fraction).prod(1))
    row, weight = torch.stack(rows), torch.stack(weights)
    # A weight of zero has a slope: on a plane through voxels it is that of the cell above.
    hit = (row >= 0) & ((weight.detach() > 0) | points.requires_grad)
    cell, target = hit.nonzero().unbind(1)
    plan = KernelMap(row[cell, target], target, hit.sum(1).tolist(), len(x), len(points))
    return plan, weight[cell, target]
