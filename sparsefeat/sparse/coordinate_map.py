"""One set of coordinates with what is known of it, and the key that it goes by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinates import SortedIndex, constant, sort_index

keep_for_training = torch.inference_mode(False)
"""Decorates what makes index tensors that are kept: made in inference mode they would be useless for training."""


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
