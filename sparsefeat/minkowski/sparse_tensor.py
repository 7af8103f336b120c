"""SparseTensor under MinkowskiEngine's names (MinkowskiSparseTensor)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor as Matrix

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.common import StrideType
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.tensor import (
    REDUCTIONS,
    SparseTensorQuantizationMode,
    Tensor,
    manager_for,
)
from sparsefeat.sparse import functional
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.tensor import SparseTensor as EngineTensor
from sparsefeat.sparse.tensor import reduce_rows

if TYPE_CHECKING:
    from sparsefeat.minkowski.tensor_field import TensorField


class SparseTensor(Tensor, EngineTensor):
    """Features (V, C) at voxels (V, 1 + D): the engine's tensor with MinkowskiEngine's names.

    Args:
        features: Shape (V, C).
        coordinates: Shape (V, 1 + D), batch index first; rows with equal coordinates become one.
        tensor_stride: spacing of the coordinates, one integer or D.
        coordinate_map_key, coordinate_manager: an existing map instead of ``coordinates``; the manager
            alone puts new coordinates where others are.
        quantization_mode: what becomes of the features of equal coordinates.
        allocator_type, minkowski_algorithm: accepted, without effect.
        requires_grad: where not None, whether the features gather a gradient; False cuts them off from their
            history.
        device: where to move both.
        legacy_names: the names of version 0.4: feats, coords, coords_key, coords_manager.

    Raises:
        ValueError: shapes or devices that do not fit, coordinates out of range.
    """

    def __init__(
        self,
        features: Matrix | None = None,
        coordinates: Matrix | None = None,
        tensor_stride: StrideType = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = SparseTensorQuantizationMode.RANDOM_SUBSAMPLE,
        allocator_type=None,
        minkowski_algorithm=None,
        requires_grad: bool | None = None,
        device=None,
        **legacy_names,
    ):
        if legacy_names:
            current = {
                "features": features,
                "coordinates": coordinates,
                "coordinate_map_key": coordinate_map_key,
                "coordinate_manager": coordinate_manager,
            }
            current = legacy.rename(legacy_names, legacy.TENSOR, current, "SparseTensor")
            features, coordinates, coordinate_map_key, coordinate_manager = current.values()
        if not isinstance(features, Matrix) or features.ndim != 2:
            raise ArgumentError(
                f"features: expected a tensor of shape (V, C), got {getattr(features, 'shape', features)}"
            )
        if quantization_mode not in REDUCTIONS:
            raise ArgumentError(
                f"quantization_mode: expected one of {list(REDUCTIONS)}, got {quantization_mode}"
            )
        if (coordinates is None) == (coordinate_map_key is None):
            raise ArgumentError(
                "SparseTensor: expected either coordinates or a coordinate_map_key with its manager"
            )
        self.quantization_mode = quantization_mode
        if device is not None:
            features = features.to(device)
            coordinates = coordinates if coordinates is None else coordinates.to(device)
        if coordinates is None:
            if coordinate_manager is None:
                raise ArgumentError(
                    "SparseTensor: a coordinate_map_key needs its coordinate_manager"
                )
            self._set(
                features,
                manager_for(coordinate_manager, coordinate_manager.D),
                coordinate_map_key.engine_key,
            )
        else:
            self._insert(
                features,
                coordinates,
                tensor_stride,
                coordinate_manager,
                allocator_type,
                minkowski_algorithm,
            )
        if requires_grad is not None:
            self.features = (
                self.features.requires_grad_() if requires_grad else self.features.detach()
            )

    def _insert(
        self, features, coordinates, tensor_stride, coordinate_manager, allocator_type, algorithm
    ) -> None:
        if (
            not isinstance(coordinates, Matrix)
            or coordinates.ndim != 2
            or len(coordinates) != len(features)
        ):
            raise ArgumentError(
                f"coordinates: expected a tensor of shape ({len(features)}, 1 + D), "
                f"got {tuple(getattr(coordinates, 'shape', ()))}"
            )
        if coordinates.device != features.device:
            raise ArgumentError(
                f"SparseTensor: coordinates on {coordinates.device}, features on {features.device}"
            )
        if coordinates.dtype != torch.int32:
            warnings.warn(
                "coordinates are rounded down to int32; give int32 to silence this", stacklevel=3
            )
        manager = manager_for(
            coordinate_manager, coordinates.shape[1] - 1, algorithm, allocator_type
        )
        key, (index, inverse) = manager.insert_rows(coordinates, tensor_stride)
        reduce = REDUCTIONS[self.quantization_mode]
        if reduce == "error" and len(index) != len(features):
            raise ArgumentError(
                f"NO_QUANTIZATION: {len(features) - len(index)} of {len(features)} rows are duplicates"
            )
        self._set(reduce_rows(features, index, inverse, reduce), manager, key)
        self.unique_index, self.inverse_mapping = index, inverse

    def _set(self, features: Matrix, manager: CoordinateManager, key: EngineKey) -> None:
        rows = manager._manager[key]
        if len(rows) != len(features):
            raise ArgumentError(
                f"SparseTensor: {len(features)} features for a map of {len(rows)} voxels"
            )
        if rows.device != features.device:
            raise ArgumentError(
                f"SparseTensor: map on {rows.device}, features on {features.device}"
            )
        self.features = features
        self._manager = manager
        self.manager = manager._manager
        self.key = key
        self.unique_index: Matrix | None = None
        self.inverse_mapping: Matrix | None = None

    @classmethod
    def on_map(cls, features: Matrix, manager: CoordinateManager, key: EngineKey) -> SparseTensor:
        """A tensor on an existing map, by the engine's own key."""
        out = object.__new__(cls)
        out.quantization_mode = SparseTensorQuantizationMode.RANDOM_SUBSAMPLE
        out._set(features, manager, key)
        return out

    def replace(self, features: Matrix, key: EngineKey | None = None) -> SparseTensor:
        """A tensor with these features on the same voxels, or on those of ``key`` in the same manager."""
        return type(self).on_map(features, self._manager, self.key if key is None else key)

    def to(self, *args, **kwargs) -> SparseTensor:
        """Move or convert as ``torch.Tensor.to``; on another device the coordinates start a new manager."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.device:
            return self.replace(features)
        coordinates = self.coordinates.to(features.device)
        return type(self)(features, coordinates, tensor_stride=self.tensor_stride)

    @classmethod
    def from_dense(cls, grid: Matrix) -> SparseTensor:
        """The non-zero cells of a grid (B, C, X, Y, Z) as voxels."""
        cells = (grid != 0).any(1).nonzero()
        batch, *space = cells.unbind(1)
        return cls(grid.movedim(1, -1)[(batch, *space)], cells.int())

    @property
    def coordinate_map_key(self) -> CoordinateMapKey:
        """The key of the coordinates in the manager."""
        return CoordinateMapKey.of(self.key)

    coordinate_key = coordinate_map_key

    @property
    def tensor_stride(self) -> list[int]:
        """Spacing of the coordinates, D integers."""
        return list(self.key.tensor_stride)

    def _rows_of_batches(self) -> list[Matrix]:
        return self._manager.origin_map(self.coordinate_map_key)[1]

    def _stride_tensor(self) -> Matrix:
        return torch.tensor(self.key.tensor_stride, dtype=torch.int32)

    def sparse(
        self,
        min_coords: Matrix | None = None,
        max_coords: Matrix | None = None,
        contract_coords: bool = True,
    ) -> tuple[Matrix, Matrix, Matrix]:
        """The features as torch's own sparse tensor (B, X, Y, Z, C).

        Args:
            min_coords, max_coords: Shape (D,), first and last cell; by default as far as there are voxels.
            contract_coords: count cells in tensor strides.

        Returns:
            The tensor, the coordinate (1, D) of its first cell (contracted where asked for), the tensor
            stride (D,).

        Raises:
            ValueError: an empty tensor without both bounds, or bounds that are no multiples of the tensor stride.
        """
        if len(self) == 0 and (min_coords is None or max_coords is None):
            raise ArgumentError(
                "sparse: an empty tensor has no extent; give min_coords= and max_coords="
            )
        coordinates = self.C[:, 1:]
        low = coordinates.amin(0) if min_coords is None else min_coords.reshape(-1).to(self.device)
        high = None if max_coords is None else max_coords.reshape(-1).to(self.device)
        stride = self._stride_tensor().to(self.device)
        for name, bound in (("min_coords", low), ("max_coords", high)):
            if bound is not None and (bound % stride.clamp(min=1) != 0).any():
                raise ArgumentError(
                    f"sparse: {name} {bound.tolist()} is not a multiple of {stride.tolist()}"
                )
        cells = coordinates - low
        if contract_coords:
            step = stride.clamp(min=1)
            cells, low = (torch.div(c, step, rounding_mode="floor") for c in (cells, low))
            high = None if high is None else torch.div(high, step, rounding_mode="floor")
        indices = torch.cat([self.C[:, :1], cells], 1).long().t()
        if high is None:
            out = torch.sparse_coo_tensor(indices, self.features, check_invariants=True)
        else:
            batches = int(indices[0].max()) + 1 if len(self) else 0
            size = (batches, *(high - low + 1).tolist(), self.features.shape[1])
            out = torch.sparse_coo_tensor(indices, self.features, size, check_invariants=True)
        return out, low[None], self._stride_tensor()

    def dense(
        self,
        shape: torch.Size | None = None,
        min_coordinate: Matrix | None = None,
        contract_stride: bool = True,
    ) -> tuple[Matrix, Matrix, Matrix]:
        """The features in a grid (B, C, X, Y, Z), zero where there is no voxel.

        Args:
            shape: of the grid; by default as large as the voxels need. Its C follows the features.
            min_coordinate: Shape (D,), the coordinate of cell 0. By default cell 0 is the origin, and
                the smallest coordinate is returned in its place.
            contract_stride: count cells in tensor strides.

        Returns:
            The grid, ``min_coordinate`` (1, D) int32 and the tensor stride (D,) int32.

        Raises:
            ValueError: negative coordinates without a ``min_coordinate``, or voxels outside the grid.
        """
        channels = self.features.shape[1]
        if shape is not None:
            if len(shape) != self.D + 2:
                raise ArgumentError(
                    f"dense: expected a shape of {self.D + 2} numbers, got {tuple(shape)}"
                )
            shape = (shape[0], channels, *shape[2:])
        if len(self) == 0:
            if shape is None:
                raise ArgumentError("dense: an empty tensor has no extent; give shape=")
            nothing = torch.zeros(1, self.D, dtype=torch.int32, device=self.device)
            return self.features.new_zeros(shape), nothing, self._stride_tensor()
        step = self._stride_tensor().clamp(min=1).to(self.device)
        space = self.C[:, 1:]
        if min_coordinate is None:
            min_coordinate = space.amin(0)
            if (min_coordinate < 0).any():
                raise ArgumentError(
                    f"dense: coordinates go down to {min_coordinate.tolist()}; give min_coordinate="
                )
            cells = space
        else:
            min_coordinate = (
                torch.as_tensor(min_coordinate, device=self.device).to(torch.int32).reshape(-1)
            )
            min_coordinate = min_coordinate.expand(self.D)
            cells = space - min_coordinate
        if (min_coordinate % step != 0).any():
            raise ArgumentError(
                f"dense: min_coordinate {min_coordinate.tolist()} is not a multiple of {step.tolist()}"
            )
        if contract_stride:
            cells = torch.div(cells, step, rounding_mode="floor")
        batch = self.C[:, 0].long()
        if shape is None:
            shape = (int(batch.max()) + 1, channels, *(cells.amax(0) + 1).tolist())
        size = torch.tensor(shape[2:], device=self.device)
        if bool(((cells < 0) | (cells >= size)).any()) or int(batch.max()) >= shape[0]:
            raise ArgumentError(f"dense: voxels lie outside a grid of shape {tuple(shape)}")
        grid = self.features.new_zeros(shape[0], *shape[2:], channels)
        grid = grid.index_put((batch, *cells.long().unbind(1)), self.features)
        return grid.movedim(-1, 1).contiguous(), min_coordinate[None], self._stride_tensor()

    def interpolate(self, X: TensorField) -> TensorField:
        """Multilinear interpolation at the points of a field; see :meth:`features_at_coordinates`."""
        return X.replace(functional.interpolate(self, X.C))

    def features_at_coordinates(self, query_coordinates: Matrix) -> Matrix:
        """Multilinear interpolation at points (N, 1 + D); missing voxels count zero. Returns shape (N, C)."""
        if query_coordinates.device != self.device:
            raise ArgumentError(
                f"features_at_coordinates: points on {query_coordinates.device}, voxels on {self.device}"
            )
        return functional.interpolate(self, query_coordinates)

    def _point_rows(self, X: TensorField | SparseTensor) -> Matrix:
        """The voxel of each point that went into ``X``. Shape: (N,)."""
        if not isinstance(X, SparseTensor):
            return X.inverse_mapping(self.coordinate_map_key)
        if X.coordinate_map_key != self.coordinate_map_key:
            raise ArgumentError("slice: the tensors must have the same coordinate_map_key")
        if X.inverse_mapping is None:
            raise ArgumentError(
                "slice: expected the tensor that was built from the points, with its inverse_mapping"
            )
        return X.inverse_mapping

    @compile_disabled
    def slice(self, X: TensorField | SparseTensor) -> TensorField:
        """Give each point that went into ``X`` the features of its voxel, in the points' order."""
        return self._sliced(X, self.features.index_select(0, self._point_rows(X)))

    @compile_disabled
    def cat_slice(self, X: TensorField | SparseTensor) -> TensorField:
        """As :meth:`slice`, with the features of ``X`` behind."""
        rows = self._point_rows(X)
        given = X.F.index_select(0, rows) if isinstance(X, SparseTensor) else X.F
        return self._sliced(X, torch.cat([self.features.index_select(0, rows), given], 1))

    def _sliced(self, X: TensorField | SparseTensor, features: Matrix) -> TensorField:
        from sparsefeat.minkowski.tensor_field import TensorField

        if not isinstance(X, SparseTensor):
            return X.replace(features)
        return TensorField(
            features,
            coordinates=self.C.index_select(0, X.inverse_mapping),
            coordinate_manager=self._manager,
            quantization_mode=self.quantization_mode,
        )
