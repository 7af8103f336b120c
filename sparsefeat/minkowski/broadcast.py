"""Layers that give each voxel its cloud's row of a summary (MinkowskiBroadcast)."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.backend import BroadcastMode
from sparsefeat.minkowski.common import MinkowskiModuleBase
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.functions import check_input, on_key
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse import functional

_WORDS = {
    BroadcastMode.ELEMENTWISE_ADDITON: "add",
    BroadcastMode.ELEMENTWISE_MULTIPLICATION: "multiply",
}


class MinkowskiBroadcastFunction:
    """Broadcasting as a function of features."""

    @staticmethod
    def apply(
        input_features: Tensor,
        input_features_global: Tensor,
        operation_type: BroadcastMode,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey,
        coords_manager: CoordinateManager,
    ) -> Tensor:
        """Features (V, C) combined with their clouds' rows (B, C). Returns shape (V, C)."""
        x = on_key(input_features, in_coords_key, coords_manager)
        summary = on_key(input_features_global, glob_coords_key, coords_manager)
        return functional.broadcast(x, summary, _WORDS[operation_type]).features


class MinkowskiBroadcast(MinkowskiModuleBase):
    """The cloud's row itself at each voxel; ``legacy_names``: the ``dimension`` of version 0.4."""

    _mode = "copy"

    def __init__(self, **legacy_names):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        """Combine voxels with a summary of their clouds (B, C)."""
        name = type(self).__name__
        return functional.broadcast(
            check_input(input, None, name), check_input(input_glob, None, name), self._mode
        )

    def __repr__(self) -> str:
        return type(self).__name__


class MinkowskiBroadcastConcatenation(MinkowskiBroadcast):
    """The channels of each voxel, then those of its cloud's row."""

    _mode = "cat"


class MinkowskiBroadcastBase(MinkowskiBroadcast):
    """Each voxel combined with its cloud's row by ``operation_type``."""

    def __init__(self, operation_type: BroadcastMode, **legacy_names):
        super().__init__(**legacy_names)
        if operation_type not in _WORDS:
            raise ArgumentError(f"operation_type: expected a BroadcastMode, got {operation_type!r}")
        self.operation_type = operation_type
        self.broadcast = MinkowskiBroadcastFunction()
        self._mode = _WORDS[operation_type]


class MinkowskiBroadcastAddition(MinkowskiBroadcastBase):
    """Each voxel plus its cloud's row."""

    def __init__(self, **legacy_names):
        super().__init__(BroadcastMode.ELEMENTWISE_ADDITON, **legacy_names)


class MinkowskiBroadcastMultiplication(MinkowskiBroadcastBase):
    """Each voxel times its cloud's row."""

    def __init__(self, **legacy_names):
        super().__init__(BroadcastMode.ELEMENTWISE_MULTIPLICATION, **legacy_names)
