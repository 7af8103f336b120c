"""What sparse tensors and fields have in common, and where new ones get their manager (MinkowskiTensor)."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor as Matrix

from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.errors import ArgumentError

COORDINATE_MANAGER_DIFFERENT_ERROR = (
    "the tensors must share a coordinate manager: give coordinate_manager=x.coordinate_manager, or see "
    "set_sparse_tensor_operation_mode"
)
COORDINATE_KEY_DIFFERENT_ERROR = "the tensors must have the same coordinate_map_key"


class SparseTensorOperationMode(Enum):
    """Whether a new tensor gets a manager of its own, or all share one until it is cleared."""

    SEPARATE_COORDINATE_MANAGER = 0
    SHARE_COORDINATE_MANAGER = 1


class SparseTensorQuantizationMode(Enum):
    """What becomes of the features of points in one voxel."""

    RANDOM_SUBSAMPLE = 0
    UNWEIGHTED_AVERAGE = 1
    UNWEIGHTED_SUM = 2
    NO_QUANTIZATION = 3
    MAX_POOL = 4
    SPLAT_LINEAR_INTERPOLATION = 5


REDUCTIONS = {
    SparseTensorQuantizationMode.RANDOM_SUBSAMPLE: "first",
    SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE: "average",
    SparseTensorQuantizationMode.UNWEIGHTED_SUM: "sum",
    SparseTensorQuantizationMode.MAX_POOL: "max",
    SparseTensorQuantizationMode.NO_QUANTIZATION: "error",
}
"""The engine's word for each mode; RANDOM_SUBSAMPLE keeps the first point, as MinkowskiEngine does."""


class _State:
    """The operation mode is process-wide, as its users expect."""

    mode = SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
    manager: CoordinateManager | None = None


def set_sparse_tensor_operation_mode(operation_mode: SparseTensorOperationMode) -> None:
    """Choose whether new tensors share one coordinate manager, process-wide."""
    if not isinstance(operation_mode, SparseTensorOperationMode):
        raise ArgumentError(f"expected a SparseTensorOperationMode, got {operation_mode!r}")
    _State.mode = operation_mode


def sparse_tensor_operation_mode() -> SparseTensorOperationMode:
    """The current mode."""
    return _State.mode


def global_coordinate_manager() -> CoordinateManager | None:
    """The shared manager, if there is one."""
    return _State.manager


def set_global_coordinate_manager(coordinate_manager: CoordinateManager | None) -> None:
    """Set the shared manager."""
    _State.manager = coordinate_manager


def clear_global_coordinate_manager() -> None:
    """Forget the shared manager and its maps; needed after each step in the sharing mode."""
    _State.manager = None


def manager_for(
    coordinate_manager: CoordinateManager | None,
    dimension: int,
    minkowski_algorithm=None,
    allocator_type=None,
) -> CoordinateManager:
    """The manager of a new tensor: the given one, the shared one, or a new one."""
    if coordinate_manager is not None:
        if not isinstance(coordinate_manager, CoordinateManager):
            raise ArgumentError(
                f"coordinate_manager: expected a CoordinateManager, got {coordinate_manager!r}"
            )
        if coordinate_manager.D != dimension:
            raise ArgumentError(
                f"coordinate_manager: it has {coordinate_manager.D} spatial axes, not {dimension}"
            )
        return coordinate_manager
    shared = _State.mode == SparseTensorOperationMode.SHARE_COORDINATE_MANAGER
    if shared and _State.manager is not None:
        return manager_for(_State.manager, dimension)
    manager = CoordinateManager(
        dimension, allocator_type=allocator_type, minkowski_algorithm=minkowski_algorithm
    )
    if shared:
        _State.manager = manager
    return manager


class Tensor:
    """Features with coordinates in a coordinate manager: the part common to SparseTensor and TensorField.

    Subclasses hold ``features``, ``_manager`` and a key, and make a tensor with other features on the
    same coordinates with ``replace``.
    """

    features: Matrix
    _manager: CoordinateManager
    _rows: list[Matrix] | None = None

    @property
    def coordinate_manager(self) -> CoordinateManager:
        """Where the coordinates are kept."""
        return self._manager

    @property
    def _F(self) -> Matrix:
        return self.features

    @_F.setter
    def _F(self, features: Matrix) -> None:
        self.features = features

    @property
    def _C(self) -> Matrix:
        return self.C

    @property
    def _D(self) -> int:
        return self._manager.D

    @property
    def F(self) -> Matrix:
        """Features. Shape: (V, C)."""
        return self.features

    @property
    def C(self) -> Matrix:
        """Coordinates, batch index first. Shape: (V, 1 + D)."""
        return self.coordinates

    @property
    def D(self) -> int:
        """Spatial axes."""
        return self._manager.D

    dimension = D

    @property
    def coords(self) -> Matrix:
        """The 0.4 name of ``C``."""
        return self.C

    @property
    def feats(self) -> Matrix:
        """The 0.4 name of ``F``."""
        return self.features

    @property
    def coords_man(self) -> CoordinateManager:
        """The 0.4 name of ``coordinate_manager``."""
        return self._manager

    @property
    def coords_key(self):
        """The 0.4 name of ``coordinate_key``."""
        return self.coordinate_key

    @property
    def _batchwise_row_indices(self) -> list[Matrix]:
        if self._rows is None:
            self._rows = self._rows_of_batches()
        return self._rows

    @property
    def decomposition_permutations(self) -> list[Matrix]:
        """Rows of each cloud, ascending; none for a batch index that does not occur."""
        return self._batchwise_row_indices

    @property
    def decomposed_coordinates(self) -> list[Matrix]:
        """Coordinates of each cloud without the batch index. Shape: (V_b, D)."""
        return [self.C[rows, 1:] for rows in self._batchwise_row_indices]

    @property
    def decomposed_features(self) -> list[Matrix]:
        """Features of each cloud. Shape: (V_b, C)."""
        return [self.F[rows] for rows in self._batchwise_row_indices]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[Matrix], list[Matrix]]:
        """Coordinates (V_b, D) and features (V_b, C) of each cloud."""
        return self.decomposed_coordinates, self.decomposed_features

    def coordinates_at(self, batch_index: int) -> Matrix:
        """Coordinates of one cloud. Shape: (V_b, D)."""
        return self.C[self._batchwise_row_indices[batch_index], 1:]

    def features_at(self, batch_index: int) -> Matrix:
        """Features of one cloud. Shape: (V_b, C)."""
        return self.F[self._batchwise_row_indices[batch_index]]

    def coordinates_and_features_at(self, batch_index: int) -> tuple[Matrix, Matrix]:
        """Coordinates (V_b, D) and features (V_b, C) of one cloud."""
        return self.coordinates_at(batch_index), self.features_at(batch_index)

    @property
    def requires_grad(self) -> bool:
        return self.features.requires_grad

    def requires_grad_(self, requires_grad: bool = True):
        """Set whether the features gather a gradient."""
        self.features.requires_grad_(requires_grad)
        return self

    def float(self):
        """The same with float32 features."""
        return self.replace(self.features.float())

    def double(self):
        """The same with float64 features."""
        return self.replace(self.features.double())

    def detach(self):
        """The same with features cut off from their history; this tensor stays as it is."""
        return self.replace(self.features.detach())

    def size(self, *dim: int):
        """The size of the features, as torch's."""
        return self.features.size(*dim)

    @property
    def shape(self) -> torch.Size:
        """The shape of the features."""
        return self.features.shape

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    def get_device(self) -> int:
        """The CUDA device number, -1 on the CPU."""
        return self.features.get_device()

    def cpu(self):
        """The same in main memory."""
        return self.to("cpu")

    def cuda(self, device=None):
        """The same on a CUDA device."""
        return self.to(device if device is not None else "cuda")

    def __len__(self) -> int:
        return len(self.features)

    def _in_place(self, other, operation):
        """Features combined with those of a tensor on the same coordinates, and the object itself."""
        if isinstance(other, Tensor):
            if type(other) is not type(self) or other.coordinate_manager != self.coordinate_manager:
                raise ArgumentError(COORDINATE_MANAGER_DIFFERENT_ERROR)
            if other.coordinate_key != self.coordinate_key:
                raise ArgumentError(
                    f"{COORDINATE_KEY_DIFFERENT_ERROR}: {self.coordinate_key}, {other.coordinate_key}"
                )
            other = other.F
        # The features are replaced, not written into: they may be shared, or needed for a gradient.
        self.features = operation(self.features, other)
        return self

    def __iadd__(self, other):
        return self._in_place(other, torch.add)

    def __isub__(self, other):
        return self._in_place(other, torch.sub)

    def __imul__(self, other):
        return self._in_place(other, torch.mul)

    def __itruediv__(self, other):
        return self._in_place(other, torch.div)

    def __pow__(self, power):
        return self.replace(self.features**power)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(\n  coordinates={self.C}\n  features={self.F}\n"
            f"  coordinate_map_key={self.coordinate_key}\n  coordinate_manager={self.coordinate_manager}\n"
            f"  spatial dimension={self.D})"
        )
