"""The arithmetic of a kernel map on CUDA: implicit matrix products in Triton, gathers fused with products.

- Output-stationary: every program owns a tile of outputs and loops over the kernel cells that occur in it
  (tiles.py), so nothing is scattered and no sum depends on who comes first. The input gradient is the same
  kernel over the transposed map.
- Few voxels and many cells: a tile's cells are shared out among several programs, whose float32 sums are
  added in fixed order.
- Weight gradient: pairs in units of one cell each, a product per unit, a cell's units added in fixed order.
  So results do not vary from run to run where tile sizes do not: these are measured (triton_tuning.py) unless
  ``torch.use_deterministic_algorithms`` or SPARSEFEAT_TUNE=0 say otherwise.
- float32 is exact unless ``torch.backends.cuda.matmul`` allows tf32; half types are summed in float32.

What it does not do (float64, 1^3 layers at stride 1, which are one matrix product) plain PyTorch does.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from sparsefeat.sparse.arithmetic import plain
from sparsefeat.sparse.arithmetic import triton_kernels as kernels
from sparsefeat.sparse.arithmetic.tiles import dropped_after, tiles, units
from sparsefeat.sparse.arithmetic.triton_tuning import tuned
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import allows_tf32

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

NARROW = 8
"""Input channels up to which several cells share a block of the inner dimension."""

STEPS_PER_PART = 4
"""Cells that each of the programs that share a tile should have to itself, at least."""

INTERPRETED = not isinstance(kernels.convolve_tiles, triton.runtime.JITFunction)
"""Whether the kernels run in Triton's interpreter, on any device and slowly: for tests."""


class TileConfig(NamedTuple):
    """Sizes of ``convolve_tiles``: outputs, channels, inner dimension, shares of a tile's cells."""

    height: int
    block_n: int
    block_k: int
    parts: int
    warps: int
    stages: int


class UnitConfig(NamedTuple):
    """Sizes of ``multiply_units``: pairs of a unit, and of a product; channels on either side."""

    length: int
    block_p: int
    block_c: int
    block_n: int
    warps: int
    stages: int


def convolve(
    features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None = None
) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``, plus a bias.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), bias (1, C_out) -> (n_out, C_out).
    """
    if not _does(features, plan):
        return plain.convolve(features, weight, plan, bias)
    if plan.n_out == 0 or weight.shape[2] == 0:
        return features.new_empty(plan.n_out, weight.shape[2])
    features = features.contiguous()
    kind = "convolve" if weight.stride(2) == 1 else "convolve transposed"
    with torch.cuda.device_of(
        features
    ):  # Triton launches on the current device, wherever the tensors are
        config = tuned(
            _name(kind, weight.shape, features, plan),
            lambda: tile_configs(features, weight, plan),
            lambda c: _convolve(features, weight, plan, bias, c),
            features.device,
            lambda configs: dropped_after(plan, heights={c.height for c in configs}),
        )
        return _convolve(features, weight, plan, bias, config)


def weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    """``out[k] = sum over pairs (i, o, k) of features[i]^T grad[o]``.

    Shape: features (n_in, C_in), grad (n_out, C_out) -> (K, C_in, C_out).
    """
    shape = (plan.volume, features.shape[1], grad.shape[1])
    if not _does(features, plan):
        return plain.weight_gradient(features, grad, plan)
    if plan.n_pairs == 0 or 0 in shape:
        return features.new_zeros(shape)
    features, grad = features.contiguous(), grad.contiguous()
    with torch.cuda.device_of(features):
        config = tuned(
            _name("weight gradient", shape, features, plan),
            lambda: unit_configs(features, shape, plan),
            lambda c: _weight_gradient(features, grad, plan, c),
            features.device,
            lambda configs: dropped_after(plan, lengths={c.length for c in configs}),
        )
        return _weight_gradient(features, grad, plan, config)


def gradients(
    features: Tensor, weight: Tensor, grad: Tensor, plan: KernelMap
) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`convolve` to features and weight.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), grad (n_out, C_out) -> as features, as weight.
    """
    if not _does(features, plan):
        return plain.gradients(features, weight, grad, plan)
    return convolve(grad, weight.transpose(1, 2), plan.transpose), weight_gradient(
        features, grad, plan
    )


def tile_configs(features: Tensor, weight: Tensor, plan: KernelMap) -> list[TileConfig]:
    """Sizes to choose from for a convolution, the default first.

    The default depends on sizes and the device alone: tall tiles where there are enough of them to fill the
    device, and a tile's cells shared out where there are not.
    """
    _, c_in, c_out = weight.shape
    half = features.dtype != torch.float32
    block_k = 32 if c_in <= NARROW else min(64 if half else 32, _power(c_in))
    block_n = min(128 if half else 64, _power(c_out))
    height = 128 if plan.n_out >= 2**15 else 64 if plan.n_out >= 2**12 else 32

    def config(height: int, block_n: int, block_k: int, stages: int) -> TileConfig:
        programs = -(-plan.n_out // height) * -(-c_out // block_n)
        wanted = 2 * _processors(features.device) // max(programs, 1)
        parts = 1 << max(0, min(wanted, plan.volume // STEPS_PER_PART, 16).bit_length() - 1)
        return TileConfig(
            height, block_n, block_k, parts, 8 if height * block_n >= 2**14 else 4, stages
        )

    stages = 3 if half else 2
    configs = [config(height, block_n, block_k, stages)]
    for other in (
        (height // 2, block_n, block_k, stages),
        (min(2 * height, 128), block_n, block_k, stages),
        (height, max(16, block_n // 2), block_k, stages),
        (height, block_n, max(16, block_k // 2), stages + 1),
        (height, block_n, block_k, stages + 1),
        (height // 2, max(16, block_n // 2), block_k, stages + 1),
    ):
        configs.append(config(*other))
    default = configs[0]
    configs.append(default._replace(parts=2 * default.parts))
    configs.append(default._replace(warps=12 - default.warps))
    return list(dict.fromkeys(configs))


def unit_configs(
    features: Tensor, shape: tuple[int, int, int], plan: KernelMap
) -> list[UnitConfig]:
    """Sizes to choose from for a weight gradient, the default first: enough units to fill the device."""
    _, c_in, c_out = shape
    half = features.dtype != torch.float32

    def config(block_p: int, block_c: int, block_n: int, rounds: int, stages: int) -> UnitConfig:
        blocks = -(-c_in // block_c) * -(-c_out // block_n)
        wanted = max(1, rounds * _processors(features.device) // blocks)
        length = max(4 * block_p, _power(-(-plan.n_pairs // wanted)))
        return UnitConfig(length, block_p, block_c, block_n, 4, stages)

    block_c, block_n = min(64, _power(c_in)), min(64, _power(c_out))
    block_p, stages = (64, 3) if half else (32, 2)
    configs = [config(block_p, block_c, block_n, 8, stages)]
    for other in (
        (block_p, block_c, block_n, 4, stages),
        (block_p, block_c, block_n, 16, stages),
        (block_p, block_c, block_n, 8, stages + 1),
        (block_p // 2, block_c, block_n, 8, stages + 1),
        (block_p, min(128, _power(c_in)), block_n, 8, stages),
        (block_p, max(16, block_c // 2), max(16, block_n // 2), 8, stages + 1),
    ):
        configs.append(config(*other))
    return list(dict.fromkeys(configs))


def _convolve(
    features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None, config: TileConfig
) -> Tensor:
    _, c_in, c_out = weight.shape
    table = tiles(plan, config.height)
    padded = _power(c_in, least=1)
    cells = max(1, config.block_k // padded)
    whole = config.parts == 1
    out = features.new_empty(
        config.parts, plan.n_out, c_out, dtype=features.dtype if whole else torch.float32
    )
    column_blocks = -(-c_out // config.block_n)
    kernels.convolve_tiles[(column_blocks * (len(table.starts) - 1), config.parts)](
        features, weight, bias if bias is not None and whole else weight, out,
        table.rows, table.starts, table.cells, table.sources,
        c_in, c_out, *weight.stride(), plan.n_out, column_blocks,
        HEIGHT=config.height, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        CHUNKS=1 if cells > 1 else -(-c_in // config.block_k), CELLS=cells, PARTS=config.parts,
        HAS_BIAS=bias is not None and whole,
        PRECISION=_precision(features.dtype), WIDEN=_widen(features.dtype),
        num_warps=config.warps, num_stages=config.stages, enable_fp_fusion=True,
    )  # fmt: skip
    if whole:
        return out[0]
    total = out.sum(0)
    return (total if bias is None else total.add_(bias)).to(features.dtype)


def _weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap, config: UnitConfig) -> Tensor:
    c_in, c_out = features.shape[1], grad.shape[1]
    table = units(plan, config.length)
    count = table.bounds.shape[1]
    parts = features.new_empty(count, c_in, c_out, dtype=torch.float32)
    kernels.multiply_units[(count, -(-c_in // config.block_c), -(-c_out // config.block_n))](
        features, grad, parts, table.sources, table.targets, table.bounds, count, c_in, c_out,
        BLOCK_P=config.block_p, BLOCK_C=config.block_c, BLOCK_N=config.block_n,
        PRECISION=_precision(features.dtype), WIDEN=_widen(features.dtype),
        num_warps=config.warps, num_stages=config.stages, enable_fp_fusion=True,
    )  # fmt: skip
    out = features.new_empty(plan.volume, c_in, c_out)
    size, block = c_in * c_out, 1024
    kernels.sum_units[(plan.volume, -(-size // block))](parts, out, table.firsts, size, BLOCK=block)
    return out


def _does(features: Tensor, plan: KernelMap) -> bool:
    if features.dtype not in DTYPES or (plan.volume == 1 and plan.identity_cell == 0):
        return False
    least = (8, 0) if features.dtype == torch.bfloat16 else (7, 0)
    return INTERPRETED or _capability(features.device) >= least


def _precision(dtype: torch.dtype) -> str:
    # It concerns float32 alone; half types go through tensor cores either way.
    return "tf32" if dtype == torch.float32 and allows_tf32() else "ieee"


def _widen(dtype: torch.dtype) -> bool:
    # The interpreter keeps bfloat16 as the 16 bits it is made of, and multiplies these as whole numbers.
    return INTERPRETED and dtype == torch.bfloat16


def _power(value: int, least: int = 16) -> int:
    """The next power of two, and at least what a product takes."""
    return max(least, 1 << max(value - 1, 0).bit_length())


def _name(kind: str, shape: tuple[int, ...], features: Tensor, plan: KernelMap) -> tuple:
    """What a measurement is known by: rows, and cells per pair, in powers of two; everything else exact."""
    rows = round(math.log2(max(plan.n_out, 1)))
    emptiness = round(math.log2(plan.volume * max(plan.n_out, 1) / max(plan.n_pairs, 1)))
    return (
        kind,
        *shape,
        rows,
        emptiness,
        str(features.dtype),
        _precision(features.dtype),
        _device_name(features.device),
        triton.__version__,
    )


@functools.cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _processors(device: torch.device) -> int:
    return (
        torch.cuda.get_device_properties(device).multi_processor_count
        if device.type == "cuda"
        else 1
    )
