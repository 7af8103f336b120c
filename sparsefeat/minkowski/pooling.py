"""Pooling layers (MinkowskiPooling)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.backend import PoolingMode
from sparsefeat.minkowski.common import MinkowskiModuleBase, StrideType, positive_dimension
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.functions import check_input, fill, on_key, target_coordinates, target_of
from sparsefeat.minkowski.kernel_generator import KernelGenerator
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor_field import TensorField
from sparsefeat.sparse import functional
from sparsefeat.sparse.pooling import pool_groups

_LOCAL = {
    PoolingMode.LOCAL_SUM_POOLING: "sum",
    PoolingMode.LOCAL_AVG_POOLING: "average",
    PoolingMode.LOCAL_MAX_POOLING: "max",
}
_GLOBAL = {
    mode: word
    for mode in PoolingMode
    for part, word in (("GLOBAL_SUM", "sum"), ("GLOBAL_AVG", "average"), ("GLOBAL_MAX", "max"))
    if mode.name.startswith(part)
}


def _word(words: dict[PoolingMode, str], mode: PoolingMode) -> str:
    if mode not in words:
        raise ValueError(f"pooling mode: expected one of {', '.join(m.name for m in words)}, got {mode}")
    return words[mode]


class MinkowskiLocalPoolingFunction:
    """Pooling over a window as a function of features; see ``apply``."""

    _transposed = False

    @classmethod
    def apply(
        cls,
        input_features: Tensor,
        pooling_mode: PoolingMode,
        kernel_generator: KernelGenerator,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> Tensor:
        """Pool features (V, C); an empty output key is set. Returns shape (V', C)."""
        x = on_key(input_features, in_coordinate_map_key, coordinate_manager)
        target = target_of(out_coordinate_map_key)
        return fill(out_coordinate_map_key, _pool(x, pooling_mode, kernel_generator, target, cls._transposed))


class MinkowskiLocalPoolingTransposeFunction(MinkowskiLocalPoolingFunction):
    """Transposed average pooling as a function of features."""

    _transposed = True


def _pool(
    x: SparseTensor, mode: PoolingMode, generator: KernelGenerator, target, transposed: bool
) -> SparseTensor:
    word = _word(_LOCAL, mode)
    arguments = (generator.window, generator.kernel_stride, target, generator.expand_coordinates)
    if not transposed:
        return functional.pool(x, word, *arguments)
    if word != "average":
        raise ValueError(f"transposed pooling: only LOCAL_AVG_POOLING is defined, got {mode}")
    return functional.pool_transpose(x, *arguments)


class MinkowskiPoolingBase(MinkowskiModuleBase):
    """Pool over a window.

    A cube as large as its stride is the block [u, u + stride); any other window is a convolution's.

    Args:
        kernel_size, stride, dilation: one integer or D of them; not used with a ``kernel_generator``.
        kernel_generator: for other regions than a cube.
        is_transpose: from the coarse level to the finer one.
        pooling_mode: LOCAL_AVG_POOLING, LOCAL_SUM_POOLING or LOCAL_MAX_POOLING.
        dimension: spatial axes D.
    """

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        pooling_mode: PoolingMode = PoolingMode.LOCAL_AVG_POOLING,
        dimension: int = -1,
    ):
        super().__init__()
        self.dimension = positive_dimension(dimension, type(self).__name__)
        if kernel_generator is None:
            kernel_generator = KernelGenerator(
                kernel_size=kernel_size, stride=stride, dilation=dilation, dimension=dimension
            )
        _word(_LOCAL, pooling_mode)
        self.is_transpose = is_transpose
        self.kernel_generator = kernel_generator
        self.pooling_mode = pooling_mode
        self.pooling = (
            MinkowskiLocalPoolingTransposeFunction() if is_transpose else MinkowskiLocalPoolingFunction()
        )

    def forward(
        self, input: SparseTensor, coordinates: Tensor | CoordinateMapKey | SparseTensor | None = None
    ) -> SparseTensor:
        """Pool; ``coordinates`` sets the output's: a tensor on them, their key, or they themselves."""
        x = check_input(input, self.dimension, type(self).__name__)
        steps = zip(x.tensor_stride, self.kernel_generator.kernel_stride)
        out_stride = [t // s if self.is_transpose else t * s for t, s in steps]
        target = target_coordinates(x, coordinates, out_stride)
        return _pool(x, self.pooling_mode, self.kernel_generator, target, self.is_transpose)

    def __repr__(self) -> str:
        g = self.kernel_generator
        return (
            f"{type(self).__name__}(kernel_size={g.kernel_size}, stride={g.kernel_stride}, "
            f"dilation={g.kernel_dilation})"
        )


class MinkowskiAvgPooling(MinkowskiPoolingBase):
    """The mean over the voxels present in the window."""

    def __init__(
        self,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ):
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, False, PoolingMode.LOCAL_AVG_POOLING, dimension
        )


class MinkowskiSumPooling(MinkowskiPoolingBase):
    """The sum over the voxels present in the window."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ):
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, False, PoolingMode.LOCAL_SUM_POOLING, dimension
        )


class MinkowskiMaxPooling(MinkowskiPoolingBase):
    """The largest value of each channel in the window."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ):
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, False, PoolingMode.LOCAL_MAX_POOLING, dimension
        )


class MinkowskiPoolingTranspose(MinkowskiPoolingBase):
    """Every finer voxel gets the mean of the coarse ones whose window holds it."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        dimension: int | None = None,
    ):
        if kernel_generator is None:
            kernel_generator = KernelGenerator(
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                expand_coordinates=expand_coordinates,
                dimension=positive_dimension(dimension, type(self).__name__),
            )
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, True, PoolingMode.LOCAL_AVG_POOLING, dimension
        )


class MinkowskiGlobalPoolingFunction:
    """Pooling over whole clouds as a function of features."""

    @staticmethod
    def apply(
        input_features: Tensor,
        pooling_mode: PoolingMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> Tensor:
        """Pool features (V, C) to one row per cloud; an empty output key is set. Returns shape (B, C)."""
        x = on_key(input_features, in_coordinate_map_key, coordinate_manager)
        return fill(out_coordinate_map_key, functional.global_pool(x, _word(_GLOBAL, pooling_mode)))


class MinkowskiGlobalPooling(MinkowskiModuleBase):
    """One row per cloud, in order of batch index.

    Args:
        mode: any of the GLOBAL_* pooling modes.
        legacy_names: the ``dimension`` of version 0.4.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX, **legacy_names):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)
        _word(_GLOBAL, mode)
        self.pooling_mode = mode
        self.pooling = MinkowskiGlobalPoolingFunction()

    def forward(self, input: SparseTensor | TensorField, coordinates=None) -> SparseTensor:
        """Pool a sparse tensor or a field; the output's coordinates are the clouds' origins."""
        word = _word(_GLOBAL, self.pooling_mode)
        if isinstance(input, TensorField):
            manager = input.coordinate_manager
            key = manager.origin_field(input.coordinate_field_map_key).engine_key
            rows = torch.unique(input.C[:, 0].detach().round(), return_inverse=True)[1]
            pooled = pool_groups(input.F, rows, len(manager._manager[key]), word)
            return SparseTensor.on_map(pooled, manager, key)
        return functional.global_pool(check_input(input, None, type(self).__name__), word)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.pooling_mode})"


class MinkowskiGlobalSumPooling(MinkowskiGlobalPooling):
    """The sum over each cloud."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX, **legacy_names):
        super().__init__(mode, **legacy_names)


class MinkowskiGlobalAvgPooling(MinkowskiGlobalPooling):
    """The mean over each cloud."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX, **legacy_names):
        super().__init__(mode, **legacy_names)


class MinkowskiGlobalMaxPooling(MinkowskiGlobalPooling):
    """The largest value of each channel over each cloud."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX, **legacy_names):
        super().__init__(mode, **legacy_names)


class MinkowskiDirectMaxPoolingFunction:
    """The maximum over given pairs of rows."""

    @staticmethod
    def apply(
        in_map: Tensor, out_map: Tensor, in_feat: Tensor, out_nrows: int, is_sorted: bool = False
    ) -> Tensor:
        """The largest of the rows ``in_map`` (P,) that meet a row of ``out_map`` (P,); zero where none does.

        Shape: in_feat (V, C) -> (out_nrows, C).
        """
        return pool_groups(in_feat.index_select(0, in_map.long()), out_map.long(), out_nrows, "max")
