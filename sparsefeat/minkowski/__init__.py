"""MinkowskiEngine 0.5.4's public names on sparsefeat's engine.

Write ``import sparsefeat.minkowski as ME``, or call :func:`install` once so that code which says
``import MinkowskiEngine as ME`` runs unchanged. Names, argument names and defaults are the engine's,
and so are the results, except where the engine is wrong: labels of points that disagree, the
maximum over a field, products across maps, expanded coordinates of even kernels, target coordinates
given as such, single-voxel clouds, several clouds in one manager. ``detach``, ``float`` and ``double``
return a new tensor. ``docs/minkowski.md`` has what runs and all differences.
"""

# ruff: noqa: F401
from __future__ import annotations

import sys

from sparsefeat.minkowski import functional as MinkowskiFunctional
from sparsefeat.minkowski import modules, utils
from sparsefeat.minkowski import ops as MinkowskiOps
from sparsefeat.minkowski.backend import (
    BroadcastMode,
    ConvolutionMode,
    CoordinateMapKey,
    CoordinateMapType,
    GPUMemoryAllocatorType,
    MinkowskiAlgorithm,
    PoolingMode,
    RegionType,
    cuda_version,
    cudart_version,
    get_gpu_memory_info,
    is_cuda_available,
)
from sparsefeat.minkowski.broadcast import (
    MinkowskiBroadcast,
    MinkowskiBroadcastAddition,
    MinkowskiBroadcastConcatenation,
    MinkowskiBroadcastFunction,
    MinkowskiBroadcastMultiplication,
)
from sparsefeat.minkowski.common import (
    MinkowskiModuleBase,
    convert_to_int_list,
    convert_to_int_tensor,
)
from sparsefeat.minkowski.convolution import (
    MinkowskiChannelwiseConvolution,
    MinkowskiConvolution,
    MinkowskiConvolutionFunction,
    MinkowskiConvolutionTranspose,
    MinkowskiConvolutionTransposeFunction,
    MinkowskiGenerativeConvolutionTranspose,
)
from sparsefeat.minkowski.coordinate_manager import (
    CoordinateManager,
    CoordsManager,
    set_coordinate_map_type,
    set_gpu_allocator,
    set_memory_manager_backend,
)
from sparsefeat.minkowski.diagnostics import print_diagnostics
from sparsefeat.minkowski.install import install, installed, submodules, uninstall
from sparsefeat.minkowski.interpolation import (
    MinkowskiInterpolation,
    MinkowskiInterpolationFunction,
)
from sparsefeat.minkowski.kernel_generator import (
    KernelGenerator,
    KernelRegion,
    convert_region_type,
    get_kernel_volume,
)
from sparsefeat.minkowski.network import MinkowskiNetwork
from sparsefeat.minkowski.nonlinearity import (
    MinkowskiAdaptiveLogSoftmaxWithLoss,
    MinkowskiAlphaDropout,
    MinkowskiCELU,
    MinkowskiDropout,
    MinkowskiELU,
    MinkowskiGELU,
    MinkowskiHardshrink,
    MinkowskiHardsigmoid,
    MinkowskiHardswish,
    MinkowskiHardtanh,
    MinkowskiLeakyReLU,
    MinkowskiLogSigmoid,
    MinkowskiLogSoftmax,
    MinkowskiPReLU,
    MinkowskiReLU,
    MinkowskiReLU6,
    MinkowskiRReLU,
    MinkowskiSELU,
    MinkowskiSigmoid,
    MinkowskiSiLU,
    MinkowskiSinusoidal,
    MinkowskiSoftmax,
    MinkowskiSoftmin,
    MinkowskiSoftplus,
    MinkowskiSoftshrink,
    MinkowskiSoftsign,
    MinkowskiTanh,
    MinkowskiTanhshrink,
    MinkowskiThreshold,
)
from sparsefeat.minkowski.normalization import (
    MinkowskiBatchNorm,
    MinkowskiInstanceNorm,
    MinkowskiInstanceNormFunction,
    MinkowskiStableInstanceNorm,
    MinkowskiSyncBatchNorm,
)
from sparsefeat.minkowski.ops import (
    MinkowskiLinear,
    MinkowskiStackCat,
    MinkowskiStackMean,
    MinkowskiStackSum,
    MinkowskiStackVar,
    MinkowskiToDenseTensor,
    MinkowskiToFeature,
    MinkowskiToSparseTensor,
    cat,
    dense_coordinates,
    mean,
    to_sparse,
    to_sparse_all,
    var,
)
from sparsefeat.minkowski.ops import _sum as sum
from sparsefeat.minkowski.pooling import (
    MinkowskiAvgPooling,
    MinkowskiDirectMaxPoolingFunction,
    MinkowskiGlobalAvgPooling,
    MinkowskiGlobalMaxPooling,
    MinkowskiGlobalPooling,
    MinkowskiGlobalPoolingFunction,
    MinkowskiGlobalSumPooling,
    MinkowskiLocalPoolingFunction,
    MinkowskiLocalPoolingTransposeFunction,
    MinkowskiMaxPooling,
    MinkowskiPoolingTranspose,
    MinkowskiSumPooling,
)
from sparsefeat.minkowski.pruning import MinkowskiPruning, MinkowskiPruningFunction
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.spmm import MinkowskiSPMMAverageFunction, MinkowskiSPMMFunction, spmm
from sparsefeat.minkowski.tensor import (
    SparseTensorOperationMode,
    SparseTensorQuantizationMode,
    clear_global_coordinate_manager,
    global_coordinate_manager,
    set_global_coordinate_manager,
    set_sparse_tensor_operation_mode,
    sparse_tensor_operation_mode,
)
from sparsefeat.minkowski.tensor_field import TensorField
from sparsefeat.minkowski.union import MinkowskiUnion, MinkowskiUnionFunction

__version__ = "0.5.4"

# The engine's file names work below this package too: import sparsefeat.minkowski.MinkowskiFunctional as MEF.
for _name, _module in submodules().items():
    sys.modules.setdefault(f"{__name__}.{_name}", _module)
    if _name.startswith("Minkowski") and _name not in globals():
        globals()[_name] = _module
del _name, _module


def __getattr__(name: str):
    raise AttributeError(
        f"sparsefeat.minkowski has no {name}: MinkowskiEngine 0.5.4 has no such name, or it is left out"
    )
