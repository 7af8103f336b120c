"""TensorField under MinkowskiEngine's names (MinkowskiTensorField)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor as Matrix

from sparsefeat.minkowski.common import StrideType
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor import (
    COORDINATE_KEY_DIFFERENT_ERROR,
    COORDINATE_MANAGER_DIFFERENT_ERROR,
    REDUCTIONS,
    SparseTensorQuantizationMode,
    Tensor,
    manager_for,
)
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinates import check_coordinates, offset_coordinates
from sparsefeat.sparse.field import TensorField as EngineField
from sparsefeat.sparse.pooling import pool_groups

_MODES = [m for m in REDUCTIONS if m != SparseTensorQuantizationMode.NO_QUANTIZATION]


def create_splat_coordinates(coordinates: Matrix) -> Matrix:
    """The 2^D voxels around each point, duplicates included. Shape: (N, 1 + D) -> (N 2^D, 1 + D) int32.

    Raises:
        ValueError: a point is not finite, or a voxel beyond int32.
    """
    corners = itertools.product(range(2), repeat=coordinates.shape[1] - 1)
    return offset_coordinates(check_coordinates(coordinates), list(corners))


def reduce_points(
    features: Matrix, rows: Matrix, count: int, mode: SparseTensorQuantizationMode
) -> Matrix:
    """Features of voxels from those of their points; zero for a voxel without any.

    Args:
        features: Shape (N, C).
        rows: Shape (N,), the voxel of each point.
        count: voxels V.

    Returns:
        Shape (V, C).
    """
    reduce = REDUCTIONS[mode]
    if reduce == "first":
        number = torch.arange(len(rows), device=rows.device)
        first = torch.full((count,), len(rows), device=rows.device).scatter_reduce(
            0, rows, number, "amin"
        )
        chosen = (first < len(rows)).nonzero()[:, 0]
        return features.new_zeros(count, features.shape[1]).index_copy(
            0, chosen, features[first[chosen]]
        )
    return pool_groups(features, rows, count, reduce)


class TensorField(Tensor):
    """Features (N, C) at points (N, 1 + D), batch index first, in units of voxels.

    Args:
        features: Shape (N, C).
        coordinates: Shape (N, 1 + D), floating point or integer.
        tensor_stride: a label of the field.
        coordinate_field_map_key, coordinate_manager: an existing field instead of ``coordinates``.
        quantization_mode: how :meth:`sparse` combines the points of a voxel.
        allocator_type, minkowski_algorithm: accepted, without effect.
        requires_grad: where not None, whether the features gather a gradient; False cuts them off from their
            history.
        device: where to move both.
    """

    def __init__(
        self,
        features: Matrix,
        coordinates: Matrix | None = None,
        tensor_stride: StrideType = 1,
        coordinate_field_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE,
        allocator_type=None,
        minkowski_algorithm=None,
        requires_grad: bool | None = None,
        device=None,
    ):
        if not isinstance(features, Matrix) or features.ndim != 2:
            raise ArgumentError(
                f"features: expected a tensor of shape (N, C), got {getattr(features, 'shape', features)}"
            )
        if quantization_mode not in _MODES:
            raise ArgumentError(
                f"quantization_mode: expected one of {_MODES}, got {quantization_mode}"
            )
        if (coordinates is None) == (coordinate_field_map_key is None):
            raise ArgumentError(
                "TensorField: expected either coordinates or a coordinate_field_map_key with its manager"
            )
        if device is not None:
            features = features.to(device)
            coordinates = coordinates if coordinates is None else coordinates.to(device)
        if coordinates is None:
            if coordinate_manager is None:
                raise ArgumentError(
                    "TensorField: a coordinate_field_map_key needs its coordinate_manager"
                )
            manager = manager_for(coordinate_manager, coordinate_manager.D)
        else:
            if coordinates.ndim != 2 or coordinates.device != features.device:
                raise ArgumentError(
                    f"coordinates: expected shape (N, 1 + D) on {features.device}, "
                    f"got {tuple(coordinates.shape)} on {coordinates.device}"
                )
            manager = manager_for(
                coordinate_manager, coordinates.shape[1] - 1, minkowski_algorithm, allocator_type
            )
            coordinate_field_map_key = manager.insert_field(coordinates, tensor_stride)
        points = manager.get_coordinate_field(coordinate_field_map_key)
        if len(points) != len(features):
            raise ArgumentError(f"TensorField: {len(features)} features for {len(points)} points")
        self.features = features
        self._manager = manager
        self.coordinate_field_map_key = coordinate_field_map_key
        self.quantization_mode = quantization_mode
        if requires_grad is not None:
            self.features = features.requires_grad_() if requires_grad else features.detach()

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        """The key of the points in the manager."""
        return self.coordinate_field_map_key

    @property
    def coordinates(self) -> Matrix:
        """Points, batch index first. Shape: (N, 1 + D), as they were given."""
        return self._manager.get_coordinate_field(self.coordinate_field_map_key)

    @property
    def tensor_stride(self) -> list[int]:
        """The label of the field, D integers."""
        return self.coordinate_field_map_key.get_tensor_stride()

    def _rows_of_batches(self) -> list[Matrix]:
        return self._manager.origin_field_map(self.coordinate_field_map_key)[1]

    def replace(self, features: Matrix) -> TensorField:
        """A field with these features at the same points."""
        return type(self)(
            features,
            coordinate_field_map_key=self.coordinate_field_map_key,
            coordinate_manager=self._manager,
            quantization_mode=self.quantization_mode,
        )

    def to(self, *args, **kwargs) -> TensorField:
        """Move or convert as ``torch.Tensor.to``; on another device the points start a new manager."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.device:
            return self.replace(features)
        return type(self)(
            features,
            self.coordinates.to(features.device),
            tensor_stride=self.tensor_stride,
            quantization_mode=self.quantization_mode,
        )

    @compile_disabled
    def sparse(
        self,
        tensor_stride: StrideType = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        quantization_mode: SparseTensorQuantizationMode | None = None,
    ) -> SparseTensor:
        """The voxels that hold the points, in order of first occurrence.

        Args:
            tensor_stride: edge of a voxel, one integer or D.
            coordinate_map_key: an existing map instead; points outside of it are dropped, voxels
                without a point are zero.
            quantization_mode: how to combine the points of a voxel; by default the field's own.
        """
        mode = self.quantization_mode if quantization_mode is None else quantization_mode
        if mode not in _MODES:
            raise ArgumentError(
                f"quantization_mode: expected one of {_MODES}, got {mode}; splat() is a method of its own"
            )
        field = self.coordinate_field_map_key
        features = self.features
        if coordinate_map_key is None:
            coordinate_map_key, (_, rows) = self._manager.field_to_sparse_insert_and_map(
                field, tensor_stride
            )
        else:
            rows, inside = self._manager.field_to_sparse_map(field, coordinate_map_key)
            features = (
                features if len(inside) == len(features) else features.index_select(0, inside)
            )
        count = self._manager.size(coordinate_map_key)
        out = reduce_points(features, rows, count, mode)
        return SparseTensor.on_map(out, self._manager, coordinate_map_key.engine_key)

    @compile_disabled
    def splat(self) -> SparseTensor:
        """Spread each point over the 2^D voxels around it, multilinearly: the adjoint of interpolation."""
        out = EngineField(self.features, self.coordinates, self._manager._manager).splat()
        return SparseTensor.on_map(out.features, self._manager, out.key)

    def inverse_mapping(self, sparse_tensor_map_key: CoordinateMapKey) -> Matrix:
        """The voxel of each point in a map, whatever its stride. Shape: (N,) int64.

        Raises:
            ValueError: a point lies in no voxel of the map.
        """
        rows = self._manager.field_rows(self.coordinate_field_map_key, sparse_tensor_map_key)
        if (rows < 0).any():
            missing = int((rows < 0).nonzero()[0, 0])
            raise ArgumentError(
                f"inverse_mapping: point {self.coordinates[missing].tolist()} (row {missing}) lies in no "
                f"voxel of {sparse_tensor_map_key}"
            )
        return rows

    def _combine(self, other, operation) -> TensorField:
        if isinstance(other, Tensor):
            if (
                not isinstance(other, TensorField)
                or other.coordinate_manager != self.coordinate_manager
            ):
                raise ArgumentError(COORDINATE_MANAGER_DIFFERENT_ERROR)
            if other.coordinate_key != self.coordinate_key:
                raise ArgumentError(
                    f"{COORDINATE_KEY_DIFFERENT_ERROR}: {self.coordinate_key}, {other.coordinate_key}"
                )
            other = other.F
        return self.replace(operation(self.features, other))

    def __add__(self, other) -> TensorField:
        return self._combine(other, torch.add)

    def __sub__(self, other) -> TensorField:
        return self._combine(other, torch.sub)

    def __mul__(self, other) -> TensorField:
        return self._combine(other, torch.mul)

    def __truediv__(self, other) -> TensorField:
        return self._combine(other, torch.div)
