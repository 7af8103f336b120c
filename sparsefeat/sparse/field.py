"""Features at continuous positions, and their way to voxels and back."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.sparse import functional
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinates import (
    check_coordinates,
    constant,
    offset_coordinates,
    sorted_unique,
)
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.pooling import sum_rows
from sparsefeat.sparse.tensor import SparseTensor


class TensorField:
    """Features (N, C) at points (N, 1 + D), batch index first, in units of voxels.

    Args:
        features: Shape (N, C).
        coordinates: Shape (N, 1 + D), floating point.
        manager: where the voxels of :meth:`sparse` go; a new one by default.

    Raises:
        ValueError: shapes or devices that do not fit.
    """

    def __init__(
        self, features: Tensor, coordinates: Tensor, manager: CoordinateManager | None = None
    ):
        if features.ndim != 2 or coordinates.ndim != 2 or len(features) != len(coordinates):
            raise ValueError(
                f"TensorField: expected (N, C) features and (N, 1 + D) coordinates, got {tuple(features.shape)} "
                f"and {tuple(coordinates.shape)}"
            )
        if features.device != coordinates.device:
            raise ValueError(
                f"TensorField: features on {features.device}, coordinates on {coordinates.device}"
            )
        self.features = features
        # A copy: what the caller does to his tensor afterwards must not move points away from their voxels.
        self.coordinates = coordinates.clone()
        self.manager = manager or CoordinateManager(coordinates.shape[1] - 1)
        self.inverse_mapping: dict = {}

    @property
    def F(self) -> Tensor:
        """Features. Shape: (N, C)."""
        return self.features

    @property
    def C(self) -> Tensor:
        """Coordinates. Shape: (N, 1 + D)."""
        return self.coordinates

    @property
    def D(self) -> int:
        """Spatial dimensions."""
        return self.coordinates.shape[1] - 1

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} points, {self.features.shape[1]} channels)"

    @compile_disabled
    def sparse(self, reduce: str = "average") -> SparseTensor:
        """The voxels that hold the points, in order of first occurrence; see SparseTensor for ``reduce``."""
        out = SparseTensor(self.features, self.coordinates, reduce=reduce, manager=self.manager)
        self.inverse_mapping[out.key] = out.inverse_mapping
        return out

    @compile_disabled
    def splat(self) -> SparseTensor:
        """Spread each point over the 2^D voxels around it, multilinearly: the adjoint of interpolation."""
        base = check_coordinates(self.coordinates.detach())
        around = offset_coordinates(base, Kernel.of(2, dimension=self.D).offsets((1,) * self.D))
        key = self.manager.insert(sorted_unique(around, (1,) * self.D))
        grid = SparseTensor(
            self.features.new_zeros(len(self.manager[key]), 1), manager=self.manager, key=key
        )
        plan, weights = functional.interpolation_map(grid, self.coordinates)
        products = (
            self.features.index_select(0, plan.out_rows) * weights.to(self.features.dtype)[:, None]
        )
        return grid.replace(sum_rows(products, plan.in_rows, plan.n_in))


@compile_disabled
def slice_field(x: SparseTensor, field: TensorField) -> TensorField:
    """The features of ``x`` at each point of ``field``: those of the voxel that holds it.

    Raises:
        ValueError: a point lies in no voxel of ``x``.
    """
    rows = field.inverse_mapping.get(x.key) if x.manager is field.manager else None
    if rows is None:
        # A globally pooled tensor (tensor stride 0) has one voxel per cloud, at zero.
        stride = constant((1, *x.tensor_stride), field.coordinates.device)
        voxel = check_coordinates(field.coordinates.detach()).long()
        cell = torch.div(voxel, stride.clamp(min=1), rounding_mode="floor") * stride
        rows = x.coordinate_map.find(cell)
        if (rows < 0).any():
            missing = int((rows < 0).nonzero()[0, 0])
            raise ValueError(
                f"slice: point {field.coordinates[missing].tolist()} (row {missing}) lies in no voxel"
            )
    out = TensorField(x.features.index_select(0, rows), field.coordinates, field.manager)
    out.inverse_mapping = field.inverse_mapping
    return out
