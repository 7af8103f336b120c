"""Fields of points in a coordinate manager, and their ways to its voxel maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsefeat.minkowski.common import StrideType, convert_to_int_list
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.coordinate_map import keep_for_training

if TYPE_CHECKING:
    from sparsefeat.sparse.manager import CoordinateManager as EngineManager


class FieldMaps:
    """The part of a coordinate manager that knows points; the voxel maps are in ``_manager``."""

    D: int
    _manager: EngineManager

    def __init__(self) -> None:
        self.fields: dict[CoordinateMapKey, Tensor] = {}
        self._voxels: dict[tuple[CoordinateMapKey, EngineKey], tuple[Tensor, Tensor]] = {}
        self._origins: dict[CoordinateMapKey, EngineKey] = {}

    @keep_for_training
    def insert_field(
        self, coordinates: Tensor, tensor_stride: StrideType, string_id: str = ""
    ) -> CoordinateMapKey:
        """Add points (N, 1 + D), batch index first, and return their key; fields have names of their own."""
        if coordinates.ndim != 2 or coordinates.shape[1] != self.D + 1:
            raise ArgumentError(
                f"insert_field: expected points of shape (N, {self.D + 1}), got {tuple(coordinates.shape)}"
            )
        stride = convert_to_int_list(tensor_stride, self.D)
        # Never that of voxels too: functions learn from the key alone whose features they are given.
        key = CoordinateMapKey(stride, string_id or "field")
        while key in self.fields or key.engine_key in self._manager.maps:
            key = CoordinateMapKey(stride, key.engine_key.name + "'")
        # A copy: what the caller does to his tensor afterwards must not move points away from their voxels.
        self.fields[key] = coordinates.clone()
        return key

    def get_coordinate_field(
        self, coords_key_or_tensor_strides: CoordinateMapKey | StrideType
    ) -> Tensor:
        """Points of a field, by key or of the first field of a tensor stride. Shape: (N, 1 + D)."""
        if isinstance(coords_key_or_tensor_strides, CoordinateMapKey):
            return self._field(coords_key_or_tensor_strides)
        stride = convert_to_int_list(coords_key_or_tensor_strides, self.D)
        for key, points in self.fields.items():
            if key.get_tensor_stride() == stride:
                return points
        raise ArgumentError(f"get_coordinate_field: no field has tensor stride {stride}")

    def _field(self, key: CoordinateMapKey) -> Tensor:
        if key not in self.fields:
            raise ArgumentError(f"{key} is no field of this manager; it has {list(self.fields)}")
        return self.fields[key]

    def _cells(self, field_map_key: CoordinateMapKey, stride: tuple[int, ...]) -> Tensor:
        """The voxel of each point. Shape: (N, 1 + D) float64."""
        points = self._field(field_map_key).detach().double()
        # A global pooling's voxels have stride 0 and lie at the origin: each cloud's points are all in its own.
        steps = torch.tensor(
            (1, *(s or torch.inf for s in stride)), dtype=torch.float64, device=points.device
        )
        # The batch index is a number that went through float: rounded, where space is rounded down.
        points = torch.cat([points[:, :1].round(), points[:, 1:]], 1)
        return torch.where(steps.isinf(), 0.0, torch.floor(points / steps) * steps)

    def field_to_sparse_insert_and_map(
        self,
        field_map_key: CoordinateMapKey,
        sparse_tensor_stride: StrideType,
        sparse_tensor_string_id: str = "",
    ) -> tuple[CoordinateMapKey, tuple[Tensor, Tensor]]:
        """Add the voxels that hold a field's points as a map; see ``insert_and_map``."""
        stride = tuple(convert_to_int_list(sparse_tensor_stride, self.D))
        if any(s < 1 for s in stride):
            raise ArgumentError(f"tensor_stride: expected at least 1 on every axis, got {stride}")
        key, maps = self.insert_rows(
            self._cells(field_map_key, stride), stride, sparse_tensor_string_id
        )
        self._voxels[field_map_key, key] = maps
        return CoordinateMapKey.of(key), maps

    def exists_field_to_sparse(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> bool:
        """Whether the way from the field to the voxels is known."""
        return (field_map_key, sparse_map_key.engine_key) in self._voxels

    def field_to_sparse_keys(self, field_map_key: CoordinateMapKey) -> list[CoordinateMapKey]:
        """Keys of the voxel maps made from a field."""
        return [
            CoordinateMapKey.of(sparse) for field, sparse in self._voxels if field == field_map_key
        ]

    def get_field_to_sparse_map(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> tuple[Tensor, Tensor]:
        """First point (V,) of each voxel, and voxel (N,) of each point, for voxels made from the field."""
        if not self.exists_field_to_sparse(field_map_key, sparse_map_key):
            raise ArgumentError(
                f"get_field_to_sparse_map: {sparse_map_key} was not made from {field_map_key}"
            )
        return self._voxels[field_map_key, sparse_map_key.engine_key]

    def field_rows(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> Tensor:
        """The voxel of each point in any voxel map, -1 where there is none. Shape: (N,) int64."""
        if self.exists_field_to_sparse(field_map_key, sparse_map_key):
            return self._voxels[field_map_key, sparse_map_key.engine_key][1]
        voxels = self._manager[sparse_map_key.engine_key]
        cells = self._cells(field_map_key, sparse_map_key.engine_key.tensor_stride)
        return voxels.find(cells.clamp(-(2**40), 2**40).long())

    def field_to_sparse_map(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> tuple[Tensor, Tensor]:
        """Voxels (P,) and points (P,) of those points that lie in some voxel of the map."""
        rows = self.field_rows(field_map_key, sparse_map_key)
        inside = (rows >= 0).nonzero()[:, 0]
        return rows[inside], inside

    def origin_field(self, field_map_key: CoordinateMapKey | None = None) -> CoordinateMapKey:
        """The key of the map with one row per batch index of a field, of the first one by default."""
        if field_map_key is None:
            if not self.fields:
                raise ArgumentError("origin_field: no field has been added")
            field_map_key = next(iter(self.fields))
        if field_map_key not in self._origins:
            batch = torch.unique(self._field(field_map_key)[:, 0].detach().round().to(torch.int32))
            coordinates = torch.nn.functional.pad(batch[:, None], (0, self.D))
            self._origins[field_map_key] = self._manager.insert(coordinates, (0,) * self.D)
        return CoordinateMapKey.of(self._origins[field_map_key])

    def origin_field_map(self, key: CoordinateMapKey) -> tuple[Tensor, list[Tensor]]:
        """Batch indices (B,), and for every index up to the largest the rows of its points."""
        return self._rows_per_batch(self._field(key)[:, 0].detach().round().long())

    @staticmethod
    def _rows_per_batch(batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        if len(batch) == 0:
            return batch, []
        counts = torch.bincount(batch)
        order = torch.sort(batch, stable=True).indices
        return (counts > 0).nonzero()[:, 0], list(order.split(counts.tolist()))
