"""What the engine's autograd functions share: features, keys and a manager in, features out."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor_field import TensorField
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.tensor import SparseTensor as EngineTensor


def on_key(features: Tensor, key: CoordinateMapKey, manager: CoordinateManager) -> SparseTensor:
    """The tensor that features, key and manager stand for."""
    if key in manager.fields:
        raise ArgumentError(
            f"{key} is the key of a field, which has no voxels; expected that of a sparse tensor"
        )
    return SparseTensor.on_map(features, manager, key.engine_key)


def points_or_voxels(
    features: Tensor, key: CoordinateMapKey, manager: CoordinateManager
) -> SparseTensor | TensorField:
    """As :func:`on_key`; a field where the key is a field's."""
    if key in manager.fields:
        return TensorField(features, coordinate_field_map_key=key, coordinate_manager=manager)
    return on_key(features, key, manager)


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
        raise ArgumentError(f"{where}: expected a SparseTensor, got {type(x).__name__}")
    if dimension is not None and x.D != dimension:
        raise ArgumentError(f"{where}: expected {dimension} spatial axes, got {x.D}")
    return x
