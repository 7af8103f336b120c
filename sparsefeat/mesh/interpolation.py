"""Features from voxels to points, as one sparse linear operator with its exact adjoint."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.io.meshes import check_mesh
from sparsefeat.mesh.keys import Box

MODES = ("nearest", "trilinear")


class VoxelInterpolation:
    """A linear map from features of voxels to features of points; every point gets one.

    The matrix is (N, V), sparse, its rows are non-negative and of sum 1. It is constant: gradients reach the
    features, not the points. For gradients of the points use :func:`trilinear_weights`.

    Args:
        points: where features are wanted, in the unit of the voxel size. Shape: (N, 3)
        coordinates: distinct whole numbers; voxel i occupies [i, i + 1) times the voxel size. Shape: (V, 3)
        voxel_size: edge of a voxel.
        mode: ``"trilinear"``: see :func:`trilinear_weights`; ``"nearest"``: the voxel that contains the
            point, or if it is not there the one whose centre is nearest, however far.

    Raises:
        InputError: shapes, types or numbers that do not fit, repeated voxels, or points but no voxel.
    """

    def __init__(
        self,
        points: np.ndarray | Tensor,
        coordinates: np.ndarray | Tensor,
        voxel_size: float,
        mode: str = "trilinear",
    ):
        if mode not in MODES:
            raise InputError(f"mode {mode!r}, expected one of {', '.join(MODES)}")
        if not (isinstance(voxel_size, (int, float)) and math.isfinite(voxel_size) and voxel_size > 0):
            raise InputError(f"voxel size {voxel_size!r}, expected a positive number")
        coordinates = torch.as_tensor(coordinates)
        points = torch.as_tensor(points).detach().to(coordinates.device, torch.float64)
        # Divided as in voxelisation, so that a point is in the voxel that it was counted to.
        position = points / float(voxel_size)
        if mode == "nearest":
            index = nearest_voxels(position, coordinates)[:, None]
            weight = torch.ones(index.shape, dtype=torch.float64, device=index.device)
        else:
            index, weight = trilinear_weights(position, coordinates)
        self.mode = mode
        self.shape = (len(points), len(coordinates))
        used = weight > 0
        rows = torch.arange(len(index), device=index.device)[:, None].expand_as(index)[used]
        columns, values = index[used], weight[used]
        self._forward = _Csr(rows, columns, values, self.shape)
        order = torch.argsort(columns, stable=True)
        self._adjoint = _Csr(columns[order], rows[order], values[order], self.shape[::-1])

    @classmethod
    def to_faces(
        cls,
        vertices: np.ndarray | Tensor,
        faces: np.ndarray | Tensor,
        coordinates: np.ndarray | Tensor,
        voxel_size: float,
        mode: str = "trilinear",
    ) -> VoxelInterpolation:
        """The map to the faces of a mesh: to their centroids. For its vertices, give them as points.

        Args:
            vertices: Shape (N, 3).
            faces: Shape (F, 3).
            coordinates, voxel_size, mode: see the class.
        """
        vertices, faces = (
            x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in (vertices, faces)
        )
        vertices, faces = check_mesh(vertices, faces)
        return cls(torch.from_numpy(vertices[faces].mean(1)), coordinates, voxel_size, mode)

    def __repr__(self) -> str:
        return f"VoxelInterpolation({self.shape[1]} voxels to {self.shape[0]} points, {self.mode})"

    def __call__(self, features: Tensor) -> Tensor:
        """Return the features of the points. Shape: (V, C) or (V,) -> (N, C) or (N,), differentiable."""
        return self._apply(features, self._forward, self._adjoint, "features")

    def adjoint(self, values: Tensor) -> Tensor:
        """Return the transposed matrix times ``values``. Shape: (N, C) or (N,) -> (V, C) or (V,)."""
        return self._apply(values, self._adjoint, self._forward, "values")

    def average(self, values: Tensor) -> Tensor:
        """Return, for each voxel, the mean of ``values`` by their weights in it; 0 where no point reaches.

        Shape: (N, C) -> (V, C).
        """
        total = self.adjoint(values.new_ones(self.shape[0], 1))
        return self.adjoint(values) / torch.where(total > 0, total, 1)

    def matrix(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrix as a sparse CSR tensor. Shape: (N, V)"""
        return self._forward.matrix(dtype)

    def _apply(self, x: Tensor, matrix: _Csr, transposed: _Csr, what: str) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim not in (1, 2):
            found = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"{what}: {found}, expected a tensor ({matrix.shape[1]}, C) of floats")
        if len(x) != matrix.shape[1]:
            raise InputError(f"{what}: {len(x)} rows, expected {matrix.shape[1]}")
        result = _Product.apply(x if x.ndim == 2 else x[:, None], matrix, transposed)
        return result if x.ndim == 2 else result[:, 0]


def trilinear_weights(points_in_voxels: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Return which voxels a point takes its value from, and with what weights.

    Of the eight voxels whose centres surround the point, those that exist count, each with the product of
    its linear weights along the axes; the sum is made 1. Where none of them exists, or only ones of weight
    zero, the nearest voxel counts alone, however far it is.

    Args:
        points_in_voxels: points / voxel size, float; voxel i has its centre at i + 0.5. Weights are
            differentiable with respect to them (almost everywhere). Shape: (N, 3)
        coordinates: distinct whole numbers. Shape: (V, 3)

    Returns:
        index (N, 8) int64, rows of ``coordinates``, and weight (N, 8) in the points' type, >= 0, of sum 1.
        Slots without a voxel have index 0 and weight 0.

    Raises:
        InputError: shapes, types or numbers that do not fit, repeated voxels, or points but no voxel.
    """
    table = _Table(coordinates, points_in_voxels)
    count, device = len(points_in_voxels), coordinates.device
    if not count:
        return torch.empty(0, 8, dtype=torch.int64, device=device), points_in_voxels.new_empty(0, 8)
    position = points_in_voxels - 0.5
    base = torch.floor(position.detach())
    fraction = position - base
    indices, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        row, exists = table.rows(base + torch.tensor(corner, dtype=base.dtype, device=device))
        factors = [fraction[:, axis] if side else 1 - fraction[:, axis] for axis, side in enumerate(corner)]
        indices.append(row)
        weights.append(torch.where(exists, factors[0] * factors[1] * factors[2], 0))
    index, weight = torch.stack(indices, 1), torch.stack(weights, 1)
    total = weight.sum(1, keepdim=True)
    # Also where the sum is so small that dividing by it would lose the digits.
    alone = total.detach()[:, 0] < torch.finfo(weight.dtype).tiny * 1e6
    index = torch.where(weight.detach() > 0, index, 0)
    # The quotient is not taken where it is not used: its gradient would be NaN.
    weight = weight / torch.where(alone[:, None], 1, total)
    if alone.any():
        single = torch.zeros(1, 8, dtype=weight.dtype, device=device)
        single[0, 0] = 1
        weight = torch.where(alone[:, None], single, weight)
        index[alone] = 0
        index[alone, 0] = table.nearest(points_in_voxels.detach()[alone])
    return index, weight


def nearest_voxels(points_in_voxels: Tensor, coordinates: Tensor) -> Tensor:
    """Return the row of the voxel that contains each point, else of the one with the nearest centre.

    Args:
        points_in_voxels: points / voxel size, float. Shape: (N, 3)
        coordinates: distinct whole numbers. Shape: (V, 3)

    Returns:
        (N,) int64.

    Raises:
        InputError: as :func:`trilinear_weights`.
    """
    table = _Table(coordinates, points_in_voxels)
    position = points_in_voxels.detach()
    if not len(position):
        return torch.empty(0, dtype=torch.int64, device=coordinates.device)
    row, exists = table.rows(torch.floor(position))
    if not exists.all():
        row[~exists] = table.nearest(position[~exists])
    return row


class _Table:
    """Looks up the rows of cells."""

    def __init__(self, coordinates: Tensor, points: Tensor):
        for tensor, what in ((points, "points"), (coordinates, "coordinates")):
            if tensor.ndim != 2 or tensor.shape[1] != 3:
                raise InputError(f"{what}: shape {tuple(tensor.shape)}, expected rows of three")
        if not points.is_floating_point() or coordinates.is_floating_point() or coordinates.is_complex():
            raise InputError(
                f"points of {points.dtype} and coordinates of {coordinates.dtype}, expected floats and "
                "whole numbers"
            )
        if not torch.isfinite(points.detach()).all():
            raise InputError("points: NaN or infinite coordinates")
        if len(points) and not len(coordinates):
            raise InputError(f"{len(points)} points and no voxel, expected at least one voxel")
        self.cells = coordinates.long()
        if not len(coordinates):
            return
        low, high = self.cells.amin(0), self.cells.amax(0)
        self.box = Box(low.tolist(), (high - low + 1).tolist())
        self.keys, self.order = torch.sort(self.box.keys(self.cells.unbind(1)))
        repeated = self.keys[1:] == self.keys[:-1]
        if repeated.any():
            cell = self.cells[self.order[int(repeated.int().argmax())]].tolist()
            raise InputError(f"coordinates: voxel {cell} is there more than once")

    def rows(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of cells, given as whole floats, and whether they are there; (N,) int64, (N,) bool."""
        # Asked as floats: a point may be farther away than whole numbers reach.
        inside = self.box.contains(cells.unbind(1))
        low = torch.tensor(self.box.low, device=cells.device)
        moved = torch.where(inside[:, None], cells, low.to(cells)).long()
        key = self.box.keys(moved.unbind(1))
        found = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return self.order[found], inside & (self.keys[found] == key)

    def nearest(self, points: Tensor) -> Tensor:
        """Rows of the voxels with the nearest centres. Shape: (N, 3) -> (N,)"""
        tree = cKDTree(self.cells.double().cpu().numpy() + 0.5)
        return torch.from_numpy(tree.query(points.double().cpu().numpy())[1]).to(points.device)


class _Csr:
    """A constant sparse matrix, in each floating type that was asked for."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]):
        counts = torch.bincount(rows, minlength=shape[0])
        self.starts = torch.nn.functional.pad(torch.cumsum(counts, 0), (1, 0))
        self.columns, self.values, self.shape = columns, values, shape
        self._made: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def matrix(self, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        key = (dtype, device or self.values.device)
        if key not in self._made:
            parts = (t.to(key[1]) for t in (self.starts, self.columns, self.values.to(dtype)))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                self._made[key] = torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)
        return self._made[key]

    def times(self, x: Tensor) -> Tensor:
        # Half precision would add up the rounding errors, and the sparse product does not have it.
        wide = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        if 0 in self.shape or 0 in x.shape:
            return x.new_zeros(self.shape[0], x.shape[1])
        return (self.matrix(wide, x.device) @ x.to(wide).contiguous()).to(x.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, matrix: _Csr, transposed: _Csr) -> Tensor:
        ctx.matrices = matrix, transposed
        return matrix.times(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        matrix, transposed = ctx.matrices
        # As an operation of autograd again, so that derivatives of derivatives work.
        return _Product.apply(gradient, transposed, matrix), None, None
