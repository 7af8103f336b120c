"""Coordinates as 64-bit keys: packing, sorting, look-up, striding, range checks.

A key is the mixed-radix number of (batch, x, y, z) with the last axis fastest, counted from the
smallest coordinate that occurs. Its radices follow the extent of the data, not a fixed number of
bits, so a small cloud may lie anywhere in the int32 range; a cloud too large for 61 bits is an error.
Sorted keys make every look-up a binary search over neighbouring memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

KEY_LIMIT = 2**61
"""Keys are smaller; shifted by any offset within the margins they lie between -2^61 and 2^62."""

TABLE_CELLS = 2**20
TABLE_CELLS_PER_VOXEL = 512
TABLE_CELLS_AT_MOST = 2**27
"""A box of up to so many cells is looked up in a dense table (4 bytes a cell) instead of searched."""


def as_tuple(
    value: int | list[int] | tuple[int, ...] | Tensor, dimension: int, what: str
) -> tuple[int, ...]:
    """Return ``value`` as one int per axis: a single int is repeated, a sequence must have the right length."""
    if hasattr(value, "tolist"):  # a tensor, an array or a scalar of either
        value = value.tolist()
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * dimension
    if len(values) != dimension:
        raise ValueError(f"{what}: expected one value or {dimension}, got {len(values)}: {values}")
    if any(v != int(v) for v in values):
        raise ValueError(f"{what}: expected integers, got {value}")
    return tuple(int(v) for v in values)


def constant(values: object, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of a few numbers, made without waiting for the device as ``torch.tensor(device=...)`` does."""
    # Elsewhere than on CUDA, a copy that is not waited for may read the numbers after they are freed.
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=device.type == "cuda")


def check_range(low: float, high: float) -> None:
    """Raise ValueError unless coordinates from ``low`` to ``high`` fit int32."""
    if low < -(2**31) or high >= 2**31:
        raise ValueError(f"coordinates: values must fit int32, got {low:.0f} to {high:.0f}")


def check_coordinates(coordinates: Tensor) -> Tensor:
    """Return ``coordinates`` as contiguous int32 (V, 1 + D), floats rounded down; raise if that is impossible.

    Raises:
        ValueError: not a matrix, no spatial axis, not finite, beyond int32, or a negative batch index.
    """
    if coordinates.ndim != 2 or coordinates.shape[1] < 2:
        raise ValueError(
            f"coordinates: expected shape (V, 1 + D), batch index first, got {tuple(coordinates.shape)}"
        )
    if coordinates.dtype == torch.bool or coordinates.is_complex():
        raise ValueError(f"coordinates: expected integers or floats, got {coordinates.dtype}")
    if coordinates.dtype != torch.int32:
        if not coordinates.is_signed() and coordinates.dtype != torch.uint8:
            # torch has neither minimum nor maximum of these; float64 has every number that fits int32.
            coordinates = coordinates.double()
        if coordinates.is_floating_point():
            if not torch.isfinite(coordinates).all():
                row = int((~torch.isfinite(coordinates)).any(1).nonzero()[0])
                raise ValueError(
                    f"coordinates: row {row} is not finite: {coordinates[row].tolist()}"
                )
            coordinates = torch.floor(coordinates)
        if len(coordinates):
            check_range(coordinates.min().item(), coordinates.max().item())
        coordinates = coordinates.to(torch.int32)
    if len(coordinates) and int(coordinates[:, 0].min()) < 0:
        row = int(coordinates[:, 0].argmin())
        raise ValueError(
            f"coordinates: the batch index in column 0 is negative in row {row}: {coordinates[row].tolist()}"
        )
    return coordinates.contiguous()


@dataclass(frozen=True)
class KeySpace:
    """How coordinates (.., 1 + D) become keys: ``sum((c // unit - origin) * stride)``.

    ``unit`` is the tensor stride where all coordinates are multiples of it, so that neighbours on a
    coarse level are neighbouring keys too. ``margin`` free cells on each side of every spatial axis
    keep a shifted key from running into the next line.
    """

    unit: tuple[int, ...]
    origin: tuple[int, ...]
    extent: tuple[int, ...]
    stride: tuple[int, ...]
    margin: tuple[int, ...]

    @staticmethod
    def around(coordinates: Tensor, unit: tuple[int, ...], margin: tuple[int, ...]) -> KeySpace:
        """The key space of ``coordinates`` (V, 1 + D) int32 with ``margin`` units free on every side."""
        if len(coordinates):
            bounds = torch.stack([coordinates.amin(0), coordinates.amax(0)]).tolist()
        else:
            bounds = [[0] * coordinates.shape[1]] * 2
        units = (1, *unit)
        margins = (0, *margin)
        low = [b // u - m for b, u, m in zip(bounds[0], units, margins)]
        extent = [b // u + m - o + 1 for b, u, m, o in zip(bounds[1], units, margins, low)]
        stride = [1] * len(extent)
        for axis in range(len(extent) - 2, -1, -1):
            stride[axis] = stride[axis + 1] * extent[axis + 1]
        if stride[0] * extent[0] >= KEY_LIMIT:
            raise ValueError(
                "coordinates: beyond the key range: the bounding box of (batch, *space) has "
                f"{' x '.join(map(str, extent))} cells, at most 2^61 are possible; split the cloud"
            )
        return KeySpace(unit, tuple(low), tuple(extent), tuple(stride), margin)

    def _relative(self, coordinates: Tensor) -> Tensor:
        relative = coordinates.long()
        if any(u != 1 for u in self.unit):
            unit = constant((1, *self.unit), coordinates.device)
            relative = torch.div(relative, unit, rounding_mode="floor")
        return relative - constant(self.origin, coordinates.device)

    def encode(self, coordinates: Tensor) -> Tensor:
        """Keys (V,) int64 of ``coordinates`` that lie inside the space."""
        stride = constant(self.stride, coordinates.device)
        return (self._relative(coordinates) * stride).sum(-1)

    def encode_any(self, coordinates: Tensor) -> Tensor:
        """Keys of any coordinates; -1 for those outside the space or off its unit, which no row can have."""
        relative = self._relative(coordinates)
        extent = constant(self.extent, coordinates.device)
        inside = ((relative >= 0) & (relative < extent)).all(-1)
        if any(u != 1 for u in self.unit):
            unit = constant(self.unit, coordinates.device)
            inside &= (coordinates[..., 1:] % unit == 0).all(-1)
        stride = constant(self.stride, coordinates.device)
        return torch.where(inside, (relative * stride).sum(-1), -1)

    def steps(self, spacing: tuple[int, ...]) -> list[int]:
        """The difference of keys that a step of ``spacing`` (D values, multiples of unit) makes along each axis."""
        return [d // u * s for d, u, s in zip(spacing, self.unit, self.stride[1:])]


@dataclass(frozen=True)
class SortedIndex:
    """Keys in ascending order and the row each came from; ``order`` is None where rows are sorted already."""

    space: KeySpace
    keys: Tensor
    order: Tensor | None

    @cached_property
    def table(self) -> Tensor | None:
        """Sorted position of every key of the space, -1 where there is none; None where that would be too large.

        Shape: (cells,) int32. Indoor fragments and shapes fill their boxes well enough that a look-up
        in a dense table beats any search.
        """
        cells = math.prod(self.space.extent)
        allowed = min(TABLE_CELLS + TABLE_CELLS_PER_VOXEL * len(self.keys), TABLE_CELLS_AT_MOST)
        if cells > allowed or len(self.keys) == 0:
            return None
        table = torch.full((cells,), -1, dtype=torch.int32, device=self.keys.device)
        table[self.keys] = torch.arange(len(self.keys), dtype=torch.int32, device=self.keys.device)
        return table

    def rows(self, positions: Tensor) -> Tensor:
        """Rows at sorted ``positions``."""
        return positions if self.order is None else self.order[positions]

    @cached_property
    def positions(self) -> Tensor | None:
        """Position of each row, the inverse of ``order``. Shape: (V,)."""
        if self.order is None:
            return None
        positions = torch.empty_like(self.order)
        positions[self.order] = torch.arange(len(self.order), device=self.order.device)
        return positions

    def find(self, keys: Tensor) -> Tensor:
        """Row of each key, -1 where absent. Shape: any -> same, int64."""
        if len(self.keys) == 0:
            return torch.full_like(keys, -1)
        position = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[position] == keys, self.rows(position), -1)


def sort_index(coordinates: Tensor, unit: tuple[int, ...], margin: tuple[int, ...]) -> SortedIndex:
    """Sort ``coordinates`` (V, 1 + D) by key; equal coordinates stay in input order."""
    space = KeySpace.around(coordinates, unit, margin)
    keys = space.encode(coordinates)
    if bool((keys[1:] >= keys[:-1]).all()):
        return SortedIndex(space, keys, None)
    keys, order = torch.sort(keys, stable=True)
    return SortedIndex(space, keys, order)


def unique_first(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows in order of first occurrence.

    Args:
        coordinates: Shape (N, 1 + D), int32.

    Returns:
        ``index`` (V,), the row where each distinct coordinate first occurs, ascending; and
        ``inverse`` (N,), for every row the position of its coordinate in ``index``.
    """
    ones = (1,) * (coordinates.shape[1] - 1)
    zeros = (0,) * (coordinates.shape[1] - 1)
    sorted_index = sort_index(coordinates, ones, zeros)
    keys = sorted_index.keys
    n = len(keys)
    order = (
        torch.arange(n, device=keys.device) if sorted_index.order is None else sorted_index.order
    )
    starts = torch.ones(n, dtype=torch.bool, device=keys.device)
    starts[1:] = keys[1:] != keys[:-1]
    first = order[starts]  # the sort is stable, so the first of each run is the first occurrence
    index, rank = torch.sort(first)
    position = torch.empty_like(rank)
    position[rank] = torch.arange(len(rank), device=keys.device)
    inverse = torch.empty(n, dtype=torch.int64, device=keys.device)
    inverse[order] = position[torch.cumsum(starts, 0) - 1]
    return index, inverse


def offset_coordinates(coordinates: Tensor, offsets: list[list[int]]) -> Tensor:
    """Every coordinate plus each of K offsets, D values each. Shape: (V, 1 + D) -> (V K, 1 + D).

    Raises:
        ValueError: a sum beyond int32.
    """
    if len(coordinates):
        steps = list(zip(*offsets))
        low, high = (bound.tolist() for bound in coordinates[:, 1:].aminmax(dim=0))
        check_range(
            min(c + min(o) for c, o in zip(low, steps)),
            max(c + max(o) for c, o in zip(high, steps)),
        )
    step = constant([[0, *o] for o in offsets], coordinates.device, torch.int32)
    return (coordinates[:, None] + step).reshape(-1, coordinates.shape[1])


def stride_coordinates(coordinates: Tensor, tensor_stride: tuple[int, ...]) -> Tensor:
    """Distinct ``floor(c / tensor_stride) * tensor_stride`` in key order. Shape: (V, 1 + D) -> (V', 1 + D)."""
    if len(coordinates):
        lowest = coordinates[:, 1:].amin(0).tolist()
        check_range(min(c // s * s for c, s in zip(lowest, tensor_stride)), 0)
    stride = constant((1, *tensor_stride), coordinates.device, torch.int32)
    coarse = torch.div(coordinates, stride, rounding_mode="floor") * stride
    return sorted_unique(coarse, tensor_stride)


def sorted_unique(coordinates: Tensor, unit: tuple[int, ...]) -> Tensor:
    """Distinct rows in key order; every coordinate must be a multiple of ``unit``."""
    index = sort_index(coordinates, unit, (0,) * len(unit))
    if index.order is not None:
        coordinates = coordinates[index.order]
    keep = torch.ones(len(coordinates), dtype=torch.bool, device=coordinates.device)
    keep[1:] = index.keys[1:] != index.keys[:-1]
    return coordinates[keep].contiguous()
