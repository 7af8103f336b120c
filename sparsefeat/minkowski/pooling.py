"""Pooling layers (MinkowskiPooling)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.backend import PoolingMode
from sparsefeat.minkowski.common import MinkowskiModuleBase, StrideType, positive_dimension
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.functions import check_input, fill, on_key, points_or_voxels, target_of
from sparsefeat.minkowski.kernel_generator import KernelGenerator
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor_field import TensorField
from sparsefeat.minkowski.window import WindowModule
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
        raise ArgumentError(
            f"pooling mode: expected one of {', '.join(m.name for m in words)}, got {mode}"
        )
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
        g, target = kernel_generator, target_of(out_coordinate_map_key)
        out = _pool(
            pooling_mode,
            cls._transposed,
            x,
            g.window,
            g.kernel_stride,
            target,
            g.expand_coordinates,
        )
        return fill(out_coordinate_map_key, out)


class MinkowskiLocalPoolingTransposeFunction(MinkowskiLocalPoolingFunction):
    """Transposed average pooling as a function of features."""

    _transposed = True


def _pool(mode: PoolingMode, transposed: bool, x: SparseTensor, *window) -> SparseTensor:
    word = _word(_LOCAL, mode)
    if not transposed:
        return functional.pool(x, word, *window)
    if word != "average":
        raise ArgumentError(f"transposed pooling: only LOCAL_AVG_POOLING is defined, got {mode}")
    return functional.pool_transpose(x, *window)


class MinkowskiPoolingBase(WindowModule):
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
        super().__init__(kernel_size, stride, dilation, kernel_generator, is_transpose, dimension)
        _word(_LOCAL, pooling_mode)
        self.pooling_mode = pooling_mode
        self.pooling = (
            MinkowskiLocalPoolingTransposeFunction()
            if is_transpose
            else MinkowskiLocalPoolingFunction()
        )

    def forward(
        self,
        input: SparseTensor,
        coordinates: Tensor | CoordinateMapKey | SparseTensor | None = None,
    ) -> SparseTensor:
        """Pool; ``coordinates`` sets the output's: a tensor on them, their key, or they themselves."""
        return _pool(self.pooling_mode, self.is_transpose, *self.placed(input, coordinates))

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
            kernel_size,
            stride,
            dilation,
            kernel_generator,
            False,
            PoolingMode.LOCAL_AVG_POOLING,
            dimension,
        )


class _PoolingOfSize(MinkowskiPoolingBase):
    """The arguments that sum and max pooling have in common; average pooling has a default size, as in the engine."""

    _mode: PoolingMode

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ):
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, False, self._mode, dimension
        )


class MinkowskiSumPooling(_PoolingOfSize):
    """The sum over the voxels present in the window."""

    _mode = PoolingMode.LOCAL_SUM_POOLING


class MinkowskiMaxPooling(_PoolingOfSize):
    """The largest value of each channel in the window."""

    _mode = PoolingMode.LOCAL_MAX_POOLING


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
            kernel_size,
            stride,
            dilation,
            kernel_generator,
            True,
            PoolingMode.LOCAL_AVG_POOLING,
            dimension,
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
        """Pool features (V, C) of voxels, or (N, C) of a field's points, to one row per cloud.

        An empty output key is set. Returns shape (B, C).
        """
        x = points_or_voxels(input_features, in_coordinate_map_key, coordinate_manager)
        return fill(out_coordinate_map_key, _pool_clouds(x, pooling_mode))


def _pool_clouds(x: SparseTensor | TensorField, mode: PoolingMode) -> SparseTensor:
    word = _word(_GLOBAL, mode)
    if not isinstance(x, TensorField):
        return functional.global_pool(x, word)
    manager = x.coordinate_manager
    key = manager.origin_field(x.coordinate_field_map_key).engine_key
    rows = torch.unique(x.C[:, 0].detach().round(), return_inverse=True)[1]
    return SparseTensor.on_map(
        pool_groups(x.F, rows, len(manager._manager[key]), word), manager, key
    )


class MinkowskiGlobalPooling(MinkowskiModuleBase):
    """One row per cloud, in order of batch index.

    Args:
        mode: any of the GLOBAL_* pooling modes.
        legacy_names: the ``dimension`` of version 0.4.
    """

    def __init__(
        self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX, **legacy_names
    ):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)
        _word(_GLOBAL, mode)
        self.pooling_mode = mode
        self.pooling = MinkowskiGlobalPoolingFunction()

    def forward(self, input: SparseTensor | TensorField, coordinates=None) -> SparseTensor:
        """Pool a sparse tensor or a field; the output's coordinates are the clouds' origins."""
        if not isinstance(input, TensorField):
            check_input(input, None, type(self).__name__)
        return _pool_clouds(input, self.pooling_mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.pooling_mode})"


class MinkowskiGlobalSumPooling(MinkowskiGlobalPooling):
    """The sum over each cloud."""

    def __init__(
        self, mode: PoolingMode = PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX, **legacy_names
    ):
        super().__init__(mode, **legacy_names)


class MinkowskiGlobalAvgPooling(MinkowskiGlobalPooling):
    """The mean over each cloud."""

    def __init__(
        self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX, **legacy_names
    ):
        super().__init__(mode, **legacy_names)


class MinkowskiGlobalMaxPooling(MinkowskiGlobalPooling):
    """The largest value of each channel over each cloud."""

    def __init__(
        self, mode: PoolingMode = PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX, **legacy_names
    ):
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
