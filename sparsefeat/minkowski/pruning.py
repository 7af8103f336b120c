"""Voxels picked by a mask (MinkowskiPruning)."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.common import MinkowskiModuleBase
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.functions import check_input, fill, on_key
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse import functional


class MinkowskiPruningFunction:
    """Pruning as a function of features."""

    @staticmethod
    def apply(
        in_feat: Tensor,
        mask: Tensor,
        in_coords_key: CoordinateMapKey,
        out_coords_key: CoordinateMapKey | None = None,
        coords_manager: CoordinateManager | None = None,
    ) -> Tensor:
        """The rows of (V, C) where ``mask`` (V,) is true; an empty output key is set."""
        if out_coords_key is not None and out_coords_key.is_key_set():
            return in_feat[mask.bool()]
        return fill(
            out_coords_key,
            functional.prune(on_key(in_feat, in_coords_key, coords_manager), mask.bool()),
        )


class MinkowskiPruning(MinkowskiModuleBase):
    """The voxels where a mask (V,) is true, in their order; ``legacy_names``: 0.4's ``dimension``."""

    def __init__(self, **legacy_names):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)
        self.pruning = MinkowskiPruningFunction()

    def forward(self, input: SparseTensor, mask: Tensor) -> SparseTensor:
        return functional.prune(check_input(input, None, type(self).__name__), mask.bool())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
