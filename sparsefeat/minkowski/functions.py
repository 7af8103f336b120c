"""What the engine's autograd functions share: features, keys and a manager in, features out."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.tensor import SparseTensor as EngineTensor


def on_key(features: Tensor, key: CoordinateMapKey, manager: CoordinateManager) -> SparseTensor:
    """The tensor that features, key and manager stand for."""
    return SparseTensor.on_map(features, manager, key.engine_key)


def target_of(key: CoordinateMapKey | None) -> EngineKey | None:
    """Where a function's output goes: an empty or absent key leaves it to the operation."""
    return key.engine_key if key is not None and key.is_key_set() else None


def fill(key: CoordinateMapKey | None, out: SparseTensor) -> Tensor:
    """Name the output's map in an empty key and return the features."""
    if key is not None and not key.is_key_set():
        key.set_key(out.key.tensor_stride, out.key.name)
    return out.features


def check_input(x, dimension: int | None, where: str) -> SparseTensor:
    """Return ``x``; raise ValueError unless it is a sparse tensor with this many axes."""
    if not isinstance(x, EngineTensor):
        raise ValueError(f"{where}: expected a SparseTensor, got {type(x).__name__}")
    if dimension is not None and x.D != dimension:
        raise ValueError(f"{where}: expected {dimension} spatial axes, got {x.D}")
    return x


def target_coordinates(
    x: SparseTensor, coordinates: Tensor | CoordinateMapKey | SparseTensor | None, tensor_stride: list[int]
) -> EngineKey | SparseTensor | None:
    """The output coordinates that a layer was asked for, as the engine takes them.

    Raw coordinates (N, 1 + D) may hold duplicates; they become a map of ``tensor_stride``.
    """
    if isinstance(coordinates, CoordinateMapKey):
        return coordinates.engine_key
    if isinstance(coordinates, Tensor):
        return x._manager.insert_rows(coordinates, tensor_stride, parent=x.key)[0]
    return coordinates
