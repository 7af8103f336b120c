"""SparseTensor: features at voxels, and how clouds become one and come apart again."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.sparse.coordinate_map import CoordinateMap, CoordinateMapKey
from sparsefeat.sparse.coordinates import check_coordinates, unique_first
from sparsefeat.sparse.manager import CoordinateManager
from sparsefeat.sparse.pooling import pool_groups

REDUCTIONS = ("first", "average", "sum", "max", "error")


def reduce_rows(features: Tensor, index: Tensor, inverse: Tensor, reduce: str) -> Tensor:
    """Features of distinct voxels from those of points. Shape: (N, C), (V,), (N,) -> (V, C).

    ``"first"`` takes the first point of a voxel, ``"average"``, ``"sum"`` and ``"max"`` all of them. Averages of
    integers, such as colours, are floats.
    """
    if reduce in ("first", "error"):
        return features if len(index) == len(features) else features[index]
    return pool_groups(features, inverse, len(index), reduce)


class Quantized(NamedTuple):
    """What :func:`quantize` returns: one row per voxel.

    Attributes:
        coordinates: Shape (V, D), or (V, 1 + D) as given, int32.
        features: Shape (V, C), or None.
        labels: Shape (V,) int64, or None.
        index: Shape (V,) int64, the first point of each voxel.
        inverse: Shape (N,) int64, the voxel of each point.
    """

    coordinates: Tensor
    features: Tensor | None
    labels: Tensor | None
    index: Tensor
    inverse: Tensor


def quantize(
    coordinates: Tensor,
    features: Tensor | None = None,
    labels: Tensor | None = None,
    ignore_label: int = -100,
    voxel_size: float | None = None,
    reduce: str = "first",
) -> Quantized:
    """Round points down to voxels and keep one row per voxel, in order of first occurrence.

    Args:
        coordinates: Shape (N, D), or (N, 1 + D) with a batch index where ``voxel_size`` is None.
        features: Shape (N, C). Averages of integers, such as colours, are floats, and their sums int64.
        labels: Shape (N,) integers; a voxel whose points disagree gets ``ignore_label``.
        voxel_size: same unit as ``coordinates``; None where these are voxels already.
        reduce: how the features of a voxel's points are combined: ``"first"``, ``"average"``, ``"sum"`` or
            ``"max"``; ``"error"`` refuses voxels of several points.

    Raises:
        ValueError: lengths differ, ``voxel_size`` is not a positive number, labels are no integers, features no matrix,
            coordinates are not finite or too large, an unknown ``reduce``, or several points in a voxel with ``"error"``.
    """
    coordinates = torch.as_tensor(coordinates)
    if coordinates.ndim != 2:
        raise ValueError(
            f"quantize: expected coordinates of shape (N, D), got {tuple(coordinates.shape)}"
        )
    for name, other in (("features", features), ("labels", labels)):
        if other is not None and len(other) != len(coordinates):
            raise ValueError(f"quantize: {len(coordinates)} coordinates but {len(other)} {name}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    if voxel_size is not None:
        try:
            positive = 0 < voxel_size < math.inf
        except TypeError:
            positive = False
        if not positive:
            raise ValueError(f"voxel_size: expected a positive length, got {voxel_size!r}")
        # Divided in float64: a float32 quotient can round up across a voxel's border.
        coordinates = torch.floor(coordinates.double() / voxel_size)
    batched = torch.cat([torch.zeros_like(coordinates[:, :1]), coordinates], 1)
    voxels = check_coordinates(batched)[:, 1:]
    index, inverse = unique_first(torch.nn.functional.pad(voxels, (1, 0)))
    if reduce == "error" and len(index) != len(coordinates):
        raise ValueError(
            f"quantize: {len(coordinates) - len(index)} of {len(coordinates)} rows are duplicates"
        )
    if labels is not None:
        labels = torch.as_tensor(labels)
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"quantize: labels {tuple(labels.shape)} of {labels.dtype}, expected integers (N,)"
            )
        labels = labels.long()  # a narrower type need not hold the label to ignore
        first = labels[index]
        agree = torch.ones(len(index), dtype=torch.bool, device=labels.device)
        agree[inverse[labels != first[inverse]]] = False
        labels = torch.where(agree, first, torch.full_like(first, ignore_label))
    if features is not None:
        features = torch.as_tensor(features)
        if features.ndim != 2:
            raise ValueError(
                f"quantize: expected features of shape (N, C), got {tuple(features.shape)}"
            )
        features = reduce_rows(features, index, inverse, reduce)
    return Quantized(voxels[index].contiguous(), features, labels, index, inverse)


def collate(
    coordinates: list[Tensor], features: list[Tensor] | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Put clouds into one batch: a batch index before each coordinate, rows one cloud after the other.

    Args:
        coordinates: B tensors (V_b, D); floats are rounded down.
        features: B tensors (V_b, C), concatenated beside them.

    Returns:
        Coordinates (V, 1 + D) int32, and the features (V, C) where given.

    Raises:
        ValueError: no cloud, shapes or lengths that do not fit, or coordinates that are not finite or too large.
    """
    if not coordinates:
        raise ValueError("collate: expected at least one cloud, got none")
    batched = []
    for b, cloud in enumerate(coordinates):
        cloud = torch.as_tensor(cloud)
        if cloud.ndim != 2 or (batched and cloud.shape[1] != batched[0].shape[1] - 1):
            raise ValueError(
                f"collate: cloud {b}: expected shape (V, D), D the same in all, got {tuple(cloud.shape)}"
            )
        voxels = check_coordinates(torch.cat([torch.zeros_like(cloud[:, :1]), cloud], 1))
        voxels[:, 0] = b  # only now: a narrow type of coordinates need not hold the batch index
        batched.append(voxels)
    if features is None:
        return torch.cat(batched)
    lengths = [(len(c), len(f)) for c, f in zip(coordinates, features)]
    if len(features) != len(coordinates) or any(a != b for a, b in lengths):
        raise ValueError(f"collate: clouds and features differ in length: {lengths}")
    return torch.cat(batched), torch.cat([torch.as_tensor(f) for f in features])


class SparseTensor:
    """Features (V, C) at voxels (V, 1 + D); row i of one belongs to row i of the other.

    Args:
        features: Shape (V, C), floating point.
        coordinates: Shape (V, 1 + D), batch index first; floats are rounded down.
        tensor_stride: spacing of the coordinates, one int or D.
        reduce: what becomes of rows with the same coordinate: ``"first"`` keeps the first,
            ``"average"``, ``"sum"``, ``"max"`` combine them, ``"error"`` raises. Distinct rows keep
            their order; ``unique_index`` and ``inverse_mapping`` lead there and back.
        manager, key: an existing coordinate map instead of ``coordinates``.
        device: where to move both; by default they stay.

    Raises:
        ValueError: shapes or devices that do not fit, coordinates out of range, duplicates with ``"error"``.
    """

    def __init__(
        self,
        features: Tensor,
        coordinates: Tensor | None = None,
        tensor_stride=1,
        reduce: str = "first",
        manager: CoordinateManager | None = None,
        key: CoordinateMapKey | None = None,
        device=None,
    ):
        if features.ndim != 2:
            raise ValueError(f"features: expected shape (V, C), got {tuple(features.shape)}")
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        if device is not None:
            features = features.to(device)
            coordinates = coordinates if coordinates is None else coordinates.to(device)
        self.unique_index: Tensor | None = None
        self.inverse_mapping: Tensor | None = None
        if key is None:
            if coordinates is None:
                raise ValueError("SparseTensor: expected coordinates, or a manager and a key")
            if len(coordinates) != len(features):
                raise ValueError(
                    f"SparseTensor: {len(coordinates)} coordinates but {len(features)} features"
                )
            if coordinates.device != features.device:
                raise ValueError(
                    f"SparseTensor: coordinates on {coordinates.device}, features on {features.device}; "
                    "give device= to move both"
                )
            coordinates = check_coordinates(coordinates)
            manager = manager or CoordinateManager(coordinates.shape[1] - 1)
            if reduce == "error":
                key = manager.insert(coordinates, tensor_stride)
                self.unique_index = self.inverse_mapping = torch.arange(
                    len(features), device=features.device
                )
            else:
                key, (index, inverse) = manager.insert_unique(coordinates, tensor_stride)
                features = reduce_rows(features, index, inverse, reduce)
                self.unique_index, self.inverse_mapping = index, inverse
        elif manager is None or coordinates is not None:
            raise ValueError("SparseTensor: a key goes with its manager and without coordinates")
        elif len(manager[key]) != len(features):
            raise ValueError(
                f"SparseTensor: {len(features)} features for a map of {len(manager[key])} voxels"
            )
        elif manager[key].device != features.device:
            raise ValueError(
                f"SparseTensor: map on {manager[key].device}, features on {features.device}"
            )
        self.features = features
        self.manager = manager
        self.key = key

    @property
    def F(self) -> Tensor:
        """Features. Shape: (V, C)."""
        return self.features

    @property
    def C(self) -> Tensor:
        """Coordinates, batch index first. Shape: (V, 1 + D) int32."""
        return self.coordinates

    @property
    def coordinate_map(self) -> CoordinateMap:
        """The coordinates with the order of their keys, by which kernel maps find neighbours."""
        return self.manager[self.key]

    @property
    def coordinates(self) -> Tensor:
        """Coordinates, batch index first. Shape: (V, 1 + D) int32."""
        return self.coordinate_map.coordinates

    @property
    def tensor_stride(self) -> tuple[int, ...]:
        """Spacing of the coordinates on each axis."""
        return self.key.tensor_stride

    @property
    def D(self) -> int:
        """Spatial dimensions."""
        return self.manager.dimension

    @property
    def device(self) -> torch.device:
        """Device of the features and coordinates."""
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features."""
        return self.features.dtype

    @property
    def shape(self) -> torch.Size:
        """Shape of the features: (V, C)."""
        return self.features.shape

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)} voxels, {self.features.shape[1]} channels, "
            f"tensor_stride={self.tensor_stride}, {self.dtype}, {self.device})"
        )

    def replace(self, features: Tensor, key: CoordinateMapKey | None = None) -> SparseTensor:
        """A tensor with these features on the same voxels, or on those of ``key`` in the same manager."""
        return type(self)(features, manager=self.manager, key=self.key if key is None else key)

    def to(self, *args, **kwargs) -> SparseTensor:
        """Move or convert as ``torch.Tensor.to`` does; on another device the coordinates start a new manager."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.device:
            return self.replace(features)
        return type(self)(
            features,
            self.coordinates.to(features.device),
            tensor_stride=self.tensor_stride,
            reduce="error",
        )

    def decompose(self) -> tuple[list[Tensor], list[Tensor]]:
        """Coordinates (V_b, D) and features (V_b, C) of each cloud; an absent batch index gives an empty one."""
        if len(self) == 0:
            return [], []
        batch = self.coordinates[:, 0].long()
        order = torch.sort(batch, stable=True).indices
        counts = torch.bincount(batch).tolist()
        coordinates = self.coordinates[order, 1:].split(counts)
        return list(coordinates), list(self.features[order].split(counts))

    def dense(
        self,
        shape: torch.Size | tuple[int, ...] | None = None,
        min_coordinate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The features in a dense grid, zero where there is no voxel.

        Args:
            shape: (B, C, X, Y, Z) of the result; by default as large as the voxels need.
            min_coordinate: Shape (D,), the coordinate of cell 0; by default the smallest that occurs.

        Returns:
            The grid (B, C, X, Y, Z), ``min_coordinate`` and the tensor stride.

        Raises:
            ValueError: voxels outside the grid.
        """
        if len(self) == 0 and shape is None:
            raise ValueError("dense: an empty tensor has no extent; give shape=")
        stride = torch.tensor(self.tensor_stride, device=self.device).clamp_(min=1)
        if min_coordinate is None:
            space = self.coordinates[:, 1:]
            min_coordinate = space.amin(0) if len(self) else torch.zeros_like(stride).int()
        min_coordinate = (
            torch.as_tensor(min_coordinate, device=self.device).to(torch.int32).reshape(-1)
        )
        cell = self.coordinates[:, 1:].long() - min_coordinate
        if (cell % stride != 0).any():
            raise ValueError(
                f"dense: coordinates are not all multiples of {self.tensor_stride} from the minimum"
            )
        cell = torch.div(cell, stride, rounding_mode="floor")
        batch = self.coordinates[:, 0].long()
        if shape is None:
            shape = (int(batch.max()) + 1, self.features.shape[1], *(cell.amax(0) + 1).tolist())
        if shape[1] != self.features.shape[1]:
            raise ValueError(f"dense: shape {tuple(shape)} for {self.features.shape[1]} channels")
        size = torch.tensor(shape[2:], device=self.device)
        if len(self) and (
            bool((cell < 0).any()) or bool((cell >= size).any()) or int(batch.max()) >= shape[0]
        ):
            raise ValueError(f"dense: voxels lie outside a grid of shape {tuple(shape)}")
        grid = self.features.new_zeros(shape[0], *shape[2:], shape[1])
        grid = grid.index_put((batch, *cell.unbind(1)), self.features)
        return grid.movedim(-1, 1).contiguous(), min_coordinate, self.tensor_stride

    @classmethod
    def from_dense(cls, grid: Tensor) -> SparseTensor:
        """The non-zero cells of a grid (B, C, X, Y, Z) as voxels; the inverse of :meth:`dense`."""
        cells = (grid != 0).any(1).nonzero()
        batch, *space = cells.unbind(1)
        return cls(grid.movedim(1, -1)[(batch, *space)], cells.int(), reduce="error")

    def _combine(self, other, operation) -> SparseTensor:
        if not isinstance(other, SparseTensor):
            return self.replace(operation(self.features, other))
        if other.manager is self.manager and other.key == self.key:
            return self.replace(operation(self.features, other.features))
        if other.manager is not self.manager:
            raise ValueError(
                "sparse arithmetic: the tensors must share a coordinate manager (manager=x.manager)"
            )
        channels = self.features.shape[1]
        if other.features.shape[1] != channels:
            raise ValueError(
                f"sparse arithmetic: {channels} channels and {other.features.shape[1]}"
            )
        key, (mine, theirs) = self.manager.union(self.key, other.key)
        rows = len(self.manager[key])
        a = self.features.new_zeros(rows, channels).index_copy(0, mine, self.features)
        b = other.features.new_zeros(rows, channels).index_copy(0, theirs, other.features)
        if operation is torch.div:
            # Zero where either is missing, as in a product; without the ones 0 / 0 would spoil the gradient.
            both = torch.zeros(rows, 1, dtype=torch.int8, device=self.device)
            both[mine] += 1
            both[theirs] += 1
            both = both == 2
            return self.replace(torch.where(both, a, 0) / torch.where(both, b, 1), key)
        return self.replace(operation(a, b), key)

    def __add__(self, other) -> SparseTensor:
        return self._combine(other, torch.add)

    __radd__ = __add__

    def __sub__(self, other) -> SparseTensor:
        return self._combine(other, torch.sub)

    def __mul__(self, other) -> SparseTensor:
        return self._combine(other, torch.mul)

    __rmul__ = __mul__

    def __truediv__(self, other) -> SparseTensor:
        return self._combine(other, torch.div)

    def __neg__(self) -> SparseTensor:
        return self.replace(-self.features)
