"""One set of coordinates with what is known of it, and the key that it goes by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.errors import warn
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinates import SortedIndex, constant, sort_index

keep_for_training = torch.inference_mode(False)
"""Decorates what makes index tensors that are kept: made in inference mode they would be useless for training."""


APART = 2**10
"""Coordinates between parts of a cloud that are taken to have nothing to do with each other; see ``corners``."""
_FARTHEST = 2**17
"""Corners above which float32 holds a place in a voxel to 1/64 or worse."""


class CoordinateMapKey(NamedTuple):
    """What a coordinate map is known by in its manager.

    ``name`` tells families apart: all maps that come from one input by striding share it, so that
    up-sampling finds the finer level of the same input and never that of another.
    """

    tensor_stride: tuple[int, ...]
    name: str


class Clouds(NamedTuple):
    """The clouds of a coordinate map.

    Attributes:
        indices: their batch indices, ascending. Shape: (B,).
        rows: which of them each voxel belongs to. Shape: (V,).
        counts: voxels of each. Shape: (B,).
    """

    indices: Tensor
    rows: Tensor
    counts: Tensor


class CoordinateMap:
    """Distinct coordinates (V, 1 + D) int32 in fixed row order, with a sorted index made when first needed.

    ``aligned``: they are known to be multiples of the tensor stride.
    """

    def __init__(self, coordinates: Tensor, tensor_stride: tuple[int, ...], aligned: bool = False):
        self.coordinates = coordinates
        self.tensor_stride = tensor_stride
        self._index: SortedIndex | None = None
        self._unit = tuple(max(s, 1) for s in tensor_stride) if aligned else None
        self._clouds: Clouds | None = None
        self._corners: Tensor | None = None

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def dimension(self) -> int:
        """Spatial dimensions D."""
        return self.coordinates.shape[1] - 1

    @property
    def device(self) -> torch.device:
        return self.coordinates.device

    @property
    def unit(self) -> tuple[int, ...]:
        """The tensor stride on each axis where all coordinates are multiples of it, else 1."""
        if self._unit is None:
            stride = tuple(max(s, 1) for s in self.tensor_stride)
            aligned = [True] * len(stride)
            if max(stride) > 1:
                steps = constant(stride, self.device, torch.int32)
                aligned = (self.coordinates[:, 1:] % steps == 0).all(0).tolist()
            self._unit = tuple(s if a else 1 for s, a in zip(stride, aligned))
        return self._unit

    def index(self, reach: tuple[int, ...] | None = None) -> SortedIndex:
        """The sorted index; its key space has room for offsets of up to ``reach`` (in coordinates) per axis."""
        needed = tuple(-(-r // u) for r, u in zip(reach or (0,) * self.dimension, self.unit))
        if self._index is None or any(n > m for n, m in zip(needed, self._index.space.margin)):
            # Generous at first, so that the usual kernels of a network share one index.
            margin = tuple(max(n, 8) for n in needed)
            if self._index is not None:
                # Kernel maps keep the narrower index, which can make its table again; it is up to 512 MB.
                vars(self._index).pop("table", None)
            self._index = sort_index(self.coordinates, self.unit, margin)
        return self._index

    def find(self, coordinates: Tensor) -> Tensor:
        """Row of each coordinate (N, 1 + D), -1 where there is none. Shape: (N,) int64."""
        index = self.index()
        return index.find(index.space.encode_any(coordinates))

    @property
    def has_clouds(self) -> bool:
        """Whether ``clouds`` has been asked for."""
        return self._clouds is not None

    @property
    def clouds(self) -> Clouds:
        """Which batch indices there are, and which row belongs to which."""
        if self._clouds is None:
            self._find_clouds()
        return self._clouds

    @compile_disabled
    @keep_for_training
    def _find_clouds(self) -> None:
        batch = self.coordinates[:, 0]
        self._clouds = Clouds(*torch.unique(batch, return_inverse=True, return_counts=True))

    @property
    def has_corners(self) -> bool:
        """Whether ``corners`` has been asked for."""
        return self._corners is not None

    @property
    def corners(self) -> Tensor:
        """Spatial coordinates from an origin near by: float32 then holds places well, wherever a cloud lies.

        Within a cloud, differences along an axis are kept wherever no gap is wider than ``APART``. A wider one is
        shown as that wide, so that a stray point does not move all others far from the origin. Shape: (V, D) int64.
        """
        if self._corners is None:
            self._find_corners()
        return self._corners

    @compile_disabled
    @keep_for_training
    def _find_corners(self) -> None:
        corners = self.coordinates[:, 1:].long()
        if len(corners):
            # The index knows the extent already, so that no device is waited for.
            space = self.index().space
            inner = (e - 2 * m for e, m in zip(space.extent[1:], space.margin))
            if max(e * u for e, u in zip(inner, space.unit)) > APART:
                corners = _close_gaps(corners, self.clouds)
            else:
                corners = corners - corners.amin(0)
        self._corners = corners


def _close_gaps(corners: Tensor, clouds: Clouds) -> Tensor:
    """Coordinates from the lowest of each cloud, none more than APART above the next. Shape: (V, D) -> (V, D)."""
    out = torch.empty_like(corners)
    first = clouds.counts.cumsum(0) - clouds.counts
    for axis, values in enumerate(corners.unbind(1)):
        # Cloud by cloud, each in ascending order: a coordinate is less than 2^31 from zero.
        ordered, order = torch.sort((clouds.rows << 33) + values)
        place = ordered.diff(prepend=ordered[:1]).clamp(max=APART).cumsum(0)
        out[order, axis] = place - place[first].repeat_interleave(
            clouds.counts, output_size=len(out)
        )
    farthest = int(out.max())
    if farthest > _FARTHEST:
        warn(
            f"coordinates: a cloud reaches over {farthest} voxels without a gap of {APART}, expected at most {_FARTHEST}: "
            "where points lie in their voxels is rounded; larger voxels or parts of the cloud are better"
        )
    return out
