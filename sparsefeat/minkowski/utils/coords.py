"""Rows that meet between two levels (MinkowskiEngine.utils.coords)."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.sparse_tensor import SparseTensor


def get_coords_map(x: SparseTensor, y: SparseTensor) -> tuple[Tensor, Tensor]:
    """Rows of ``x``, and for each the row of the coarser ``y`` whose cell contains it. Shape: (P,), (P,)."""
    if x.coordinate_manager != y.coordinate_manager:
        raise ArgumentError("get_coords_map: the tensors must share a coordinate manager")
    return x.coordinate_manager.stride_map(x.coordinate_map_key, y.coordinate_map_key)
