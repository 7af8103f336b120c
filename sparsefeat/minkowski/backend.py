"""What MinkowskiEngine's compiled back end exports to Python: enumerations and facts about the device.

It answers ``import MinkowskiEngineBackend._C``. The compiled functions themselves have no counterpart here.
"""

from __future__ import annotations

from enum import Enum, IntEnum

import torch

from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.utils.quantization import (
    quantize_label_np,
    quantize_label_th,
    quantize_np,
    quantize_th,
)

__all__ = [
    "BroadcastMode",
    "CUDAKernelMapMode",
    "ConvolutionMode",
    "CoordinateMapKey",
    "CoordinateMapType",
    "GPUMemoryAllocatorType",
    "MinkowskiAlgorithm",
    "PoolingMode",
    "RegionType",
    "cuda_version",
    "cudart_version",
    "get_gpu_memory_info",
    "is_cuda_available",
    "quantize_label_np",
    "quantize_label_th",
    "quantize_np",
    "quantize_th",
]


class _Mode(IntEnum):
    __str__ = Enum.__str__
    __format__ = Enum.__format__


class GPUMemoryAllocatorType(_Mode):
    """Where scratch memory comes from; torch's allocator serves every device here."""

    PYTORCH = 0
    CUDA = 1


class CUDAKernelMapMode(_Mode):
    """How kernel maps are built; without effect here."""

    MEMORY_EFFICIENT = 0
    SPEED_OPTIMIZED = 1


class MinkowskiAlgorithm(_Mode):
    """Memory against speed; without effect here."""

    DEFAULT = 0
    MEMORY_EFFICIENT = 1
    SPEED_OPTIMIZED = 2


class CoordinateMapType(_Mode):
    """The device of coordinates; here they live where they were given."""

    CPU = 0
    CUDA = 1


class RegionType(_Mode):
    """The shape of a kernel. The names without underscore, and HYBRID, are those of version 0.4."""

    HYPER_CUBE = 0
    HYPER_CROSS = 1
    CUSTOM = 2
    HYBRID = 3
    HYPERCUBE = 0
    HYPERCROSS = 1


class PoolingMode(_Mode):
    """What is pooled over what; the three ways to compute a global pooling are one here."""

    LOCAL_SUM_POOLING = 0
    LOCAL_AVG_POOLING = 1
    LOCAL_MAX_POOLING = 2
    GLOBAL_SUM_POOLING_DEFAULT = 3
    GLOBAL_AVG_POOLING_DEFAULT = 4
    GLOBAL_MAX_POOLING_DEFAULT = 5
    GLOBAL_SUM_POOLING_KERNEL = 6
    GLOBAL_AVG_POOLING_KERNEL = 7
    GLOBAL_MAX_POOLING_KERNEL = 8
    GLOBAL_SUM_POOLING_PYTORCH_INDEX = 9
    GLOBAL_AVG_POOLING_PYTORCH_INDEX = 10
    GLOBAL_MAX_POOLING_PYTORCH_INDEX = 11


class BroadcastMode(_Mode):
    """How a cloud's row meets its voxels; the spelling is the engine's."""

    ELEMENTWISE_ADDITON = 0
    ELEMENTWISE_MULTIPLICATION = 1


class ConvolutionMode(_Mode):
    """How a convolution is computed; without effect here."""

    DEFAULT = 0
    DIRECT_GEMM = 1
    COPY_GEMM = 2


def is_cuda_available() -> bool:
    """Whether torch can use a CUDA device."""
    return torch.cuda.is_available()


def cuda_version() -> int:
    """The CUDA version that torch was built with, as 1000 major + 10 minor; -1 without CUDA."""
    if not torch.version.cuda:
        return -1
    major, minor = torch.version.cuda.split(".")[:2]
    return 1000 * int(major) + 10 * int(minor)


cudart_version = cuda_version


def get_gpu_memory_info() -> tuple[int, int]:
    """Free and total memory of the current CUDA device, bytes."""
    if not torch.cuda.is_available():
        raise RuntimeError("get_gpu_memory_info: torch finds no CUDA device")
    return torch.cuda.mem_get_info()


def __getattr__(name: str):
    raise AttributeError(
        f"MinkowskiEngineBackend._C.{name} is not available: sparsefeat has no compiled back end"
    )
