"""The engine: sparse voxel tensors, kernel maps and the operations over them.

Notation: N points, V voxels, C channels, K kernel cells, P pairs of a kernel map, D spatial axes.
"""

from sparsefeat.sparse.compiling import compile_network
from sparsefeat.sparse.coordinate_map import CoordinateMap, CoordinateMapKey
from sparsefeat.sparse.field import TensorField, slice_field
from sparsefeat.sparse.folding import fuse
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.tensor import Quantized, SparseTensor, collate, quantize

__all__ = [
    "CoordinateManager",
    "CoordinateMap",
    "CoordinateMapKey",
    "Kernel",
    "KernelMap",
    "Quantized",
    "SparseTensor",
    "TensorField",
    "collate",
    "compile_network",
    "fuse",
    "quantize",
    "slice_field",
]
