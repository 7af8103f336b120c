"""Sums over the union of voxels (MinkowskiUnion)."""

from __future__ import annotations

from torch import Tensor, nn

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.functions import check_input, fill, on_key
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse import functional


class MinkowskiUnionFunction:
    """The union as a function of features."""

    @staticmethod
    def apply(
        in_coords_keys: list[CoordinateMapKey],
        out_coords_key: CoordinateMapKey,
        coordinate_manager: CoordinateManager,
        *in_feats: Tensor,
    ) -> Tensor:
        """The sum of features (V_i, C) on the union of their maps; the empty output key is set."""
        tensors = [on_key(f, key, coordinate_manager) for f, key in zip(in_feats, in_coords_keys)]
        return fill(out_coords_key, functional.union(*tensors))


class MinkowskiUnion(nn.Module):
    """The sum of tensors on the union of their voxels; ``legacy_names``: the ``dimension`` of version 0.4."""

    def __init__(self, **legacy_names):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)
        self.union = MinkowskiUnionFunction()

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)):
            inputs = tuple(inputs[0])
        if len(inputs) < 2:
            raise ArgumentError(f"{self}: expected at least two tensors, got {len(inputs)}")
        return functional.union(*(check_input(x, None, type(self).__name__) for x in inputs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
