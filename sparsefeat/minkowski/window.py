"""What the layers over a window share: convolutions and poolings."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski.common import MinkowskiModuleBase, StrideType, positive_dimension
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.functions import check_input
from sparsefeat.minkowski.kernel_generator import KernelGenerator
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.kernel import Kernel


class WindowModule(MinkowskiModuleBase):
    """A layer over a window: its kernel generator, and where its output lives.

    Args:
        kernel_size, stride, dilation: one integer or D of them; not used with a ``kernel_generator``.
        kernel_generator: for other regions than a cube.
        is_transpose: from the coarse level to the finer one.
        dimension: spatial axes D.
    """

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType,
        dilation: StrideType,
        kernel_generator: KernelGenerator | None,
        is_transpose: bool,
        dimension: int | None,
    ):
        super().__init__()
        self.dimension = positive_dimension(dimension, type(self).__name__)
        if kernel_generator is None:
            kernel_generator = KernelGenerator(
                kernel_size, stride, dilation, dimension=self.dimension
            )
        self.kernel_generator = kernel_generator
        self.is_transpose = is_transpose

    def placed(
        self,
        input,
        coordinates: Tensor | CoordinateMapKey | SparseTensor | None,
        channels: int | None = None,
    ) -> tuple[SparseTensor, Kernel, list[int], EngineKey | SparseTensor | None, bool]:
        """The checked input, and window, stride, output coordinates and expansion as the engine takes them.

        Args:
            coordinates: the output's: a tensor on them, their key, or they themselves (N, 1 + D), which may hold
                duplicates and become a map of the stride that the layer leads to.
            channels: how many the input must have.
        """
        x = check_input(input, self.dimension, type(self).__name__)
        if channels is not None and x.features.shape[1] != channels:
            raise ArgumentError(f"{self}: expected {channels} channels, got {x.features.shape[1]}")
        g = self.kernel_generator
        if isinstance(coordinates, CoordinateMapKey):
            coordinates = coordinates.engine_key
        elif isinstance(coordinates, Tensor):
            steps = zip(x.tensor_stride, g.kernel_stride)
            out_stride = [t // s if self.is_transpose else t * s for t, s in steps]
            coordinates = x._manager.insert_rows(coordinates, out_stride, parent=x.key)[0]
        return x, g.window, g.kernel_stride, coordinates, g.expand_coordinates
