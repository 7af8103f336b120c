"""Coordinate maps and the questions that can be asked of them (MinkowskiCoordinateManager)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefeat.minkowski.backend import (
    CoordinateMapType,
    GPUMemoryAllocatorType,
    MinkowskiAlgorithm,
    RegionType,
    is_cuda_available,
)
from sparsefeat.minkowski.common import StrideType, convert_to_int_list
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.field_maps import FieldMaps
from sparsefeat.minkowski.kernel_generator import KernelGenerator
from sparsefeat.sparse import functional
from sparsefeat.sparse.coordinate_map import CoordinateMap, keep_for_training
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey
from sparsefeat.sparse.coordinates import check_coordinates, stride_coordinates, unique_first
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.manager import CoordinateManager as EngineManager
from sparsefeat.sparse.tensor import SparseTensor as EngineTensor


def set_coordinate_map_type(coordinate_map_type: CoordinateMapType) -> None:
    """Accepted; coordinates live on the device on which they are given."""
    if not isinstance(coordinate_map_type, CoordinateMapType):
        raise ArgumentError(f"expected a CoordinateMapType, got {coordinate_map_type!r}")


def set_gpu_allocator(backend: GPUMemoryAllocatorType) -> None:
    """Accepted; torch allocates."""
    if not isinstance(backend, GPUMemoryAllocatorType):
        raise ArgumentError(f"expected a GPUMemoryAllocatorType, got {backend!r}")


def set_memory_manager_backend(backend: GPUMemoryAllocatorType) -> None:
    """The old name of :func:`set_gpu_allocator`."""
    warnings.warn("set_memory_manager_backend is deprecated, use set_gpu_allocator", stacklevel=2)
    set_gpu_allocator(backend)


class CoordsManager:
    """The manager of version 0.3; not available."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("CoordsManager: use CoordinateManager")


class CoordinateManager(FieldMaps):
    """Coordinate maps by key, and the maps between them, each made once.

    Args:
        D: spatial axes.
        num_threads, allocator_type, minkowski_algorithm: accepted, without effect.
        coordinate_map_type: CUDA needs a CUDA device; maps live where their coordinates do.
    """

    def __init__(
        self,
        D: int = 0,
        num_threads: int = -1,
        coordinate_map_type: CoordinateMapType | None = None,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
    ):
        if D < 1:
            raise ArgumentError(
                f"CoordinateManager: expected D, the number of spatial axes, got {D}"
            )
        if coordinate_map_type == CoordinateMapType.CUDA and not is_cuda_available():
            raise ArgumentError(
                "CoordinateManager: coordinate_map_type CUDA, but torch finds no CUDA device"
            )
        super().__init__()
        self.D = D
        self.minkowski_algorithm = (
            MinkowskiAlgorithm.DEFAULT if minkowski_algorithm is None else minkowski_algorithm
        )
        self._manager = EngineManager(D)

    def insert_and_map(
        self, coordinates: Tensor, tensor_stride: StrideType = 1, string_id: str = ""
    ) -> tuple[CoordinateMapKey, tuple[Tensor, Tensor]]:
        """Add the distinct rows of ``coordinates`` as a map, in order of first occurrence.

        Args:
            coordinates: Shape (N, 1 + D), batch index first.
            tensor_stride: one integer or D.
            string_id: the map's name; another where it is taken.

        Returns:
            The key, and the first row (V,) of each coordinate and the map's row (N,) of each input.
        """
        key, maps = self.insert_rows(coordinates, tensor_stride, string_id)
        return CoordinateMapKey.of(key), maps

    @keep_for_training
    def insert_rows(
        self,
        coordinates: Tensor,
        tensor_stride: StrideType = 1,
        string_id: str = "",
        parent: EngineKey | None = None,
    ) -> tuple[EngineKey, tuple[Tensor, Tensor]]:
        """As :meth:`insert_and_map`, with the engine's own key.

        ``parent``: the map that the coordinates were derived from; by default one that contains them
        at this stride, so that a level taken out of a network and put back still knows its finer one.
        """
        stride = tuple(convert_to_int_list(tensor_stride, self.D))
        coordinates = check_coordinates(coordinates)
        index, inverse = unique_first(coordinates)
        distinct = coordinates if len(index) == len(coordinates) else coordinates[index]
        if parent is None:
            parent = self._containing(distinct, stride)
        while CoordinateMapKey(stride, string_id) in self.fields:
            string_id += "'"
        key = self._manager.insert(distinct, stride, parent=parent, name=string_id or None)
        return key, (index, inverse)

    def _containing(self, coordinates: Tensor, stride: tuple[int, ...]) -> EngineKey | None:
        """The first finer map whose voxels, at ``stride``, include all ``coordinates``."""
        for key, fine in self._manager.maps.items():
            t = fine.tensor_stride
            if t == stride or any(f < 1 or s < 1 or s % f for f, s in zip(t, stride)):
                continue
            if fine.device != coordinates.device:
                continue
            coarse = CoordinateMap(stride_coordinates(fine.coordinates, stride), stride)
            if bool((coarse.find(coordinates) >= 0).all()):
                return key
        return None

    def stride(
        self, coordinate_map_key: CoordinateMapKey, stride: StrideType, string_id: str = ""
    ) -> CoordinateMapKey:
        """The key of the map ``stride`` times coarser, made where it does not exist."""
        source = coordinate_map_key.engine_key
        stride = convert_to_int_list(stride, self.D)
        if string_id and string_id != source.name:
            coarse = tuple(t * s for t, s in zip(source.tensor_stride, stride))
            coordinates = stride_coordinates(self._manager[source].coordinates, coarse)
            return CoordinateMapKey.of(
                self._manager.insert(coordinates, coarse, parent=source, name=string_id)
            )
        return CoordinateMapKey.of(self._manager.stride(source, stride))

    def origin(self) -> CoordinateMapKey:
        """The key of the map with one row per batch index."""
        return CoordinateMapKey.of(self._manager.origin(self._fullest()))

    def _fullest(self) -> EngineKey:
        """The map with most batch indices, the first of them."""
        if not self._manager.maps:
            raise ArgumentError("CoordinateManager: no coordinate map has been added")
        return max(self._manager.maps, key=lambda key: len(self._manager[key].clouds.indices))

    def number_of_unique_batch_indices(self) -> int:
        """The number of clouds."""
        return len(self._manager[self._fullest()].clouds.indices)

    def exists(self, coordinate_map_key: CoordinateMapKey) -> bool:
        """Whether the map is in this manager."""
        return (
            coordinate_map_key.is_key_set() and coordinate_map_key.engine_key in self._manager.maps
        )

    def size(self, coordinate_map_key: CoordinateMapKey) -> int:
        """The number of rows of a map."""
        return len(self._manager[coordinate_map_key.engine_key])

    def _get_coordinate_map_key(
        self, key_or_tensor_strides: CoordinateMapKey | StrideType
    ) -> CoordinateMapKey:
        """A key as it is; for a tensor stride the first map that has it."""
        if isinstance(key_or_tensor_strides, CoordinateMapKey):
            return key_or_tensor_strides
        stride = tuple(convert_to_int_list(key_or_tensor_strides, self.D))
        for key in self._manager.maps:
            if key.tensor_stride == stride:
                return CoordinateMapKey.of(key)
        strides = sorted({key.tensor_stride for key in self._manager.maps})
        raise ArgumentError(
            f"CoordinateManager: no map has tensor stride {stride}; there are {strides}"
        )

    def get_coordinates(
        self, coords_key_or_tensor_strides: CoordinateMapKey | StrideType
    ) -> Tensor:
        """Coordinates of a map. Shape: (V, 1 + D) int32."""
        return self._manager[
            self._get_coordinate_map_key(coords_key_or_tensor_strides).engine_key
        ].coordinates

    def get_unique_coordinate_map_key(self, tensor_stride: StrideType) -> CoordinateMapKey:
        """A key of this tensor stride that no map has."""
        stride = tuple(convert_to_int_list(tensor_stride, self.D))
        number = 0
        while EngineKey(stride, f"unique{number}") in self._manager.maps:
            number += 1
        return CoordinateMapKey(stride, f"unique{number}")

    def plan(
        self,
        in_key: CoordinateMapKey,
        out_key: CoordinateMapKey,
        kernel_generator: KernelGenerator,
        is_transpose: bool = False,
        is_pool: bool = False,
    ) -> KernelMap:
        """The engine's own kernel map between two coordinate maps."""
        source, target = in_key.engine_key, out_key.engine_key
        if is_transpose:
            source, target = target, source
        if is_pool and kernel_generator.kernel_size == kernel_generator.kernel_stride:
            plan = self._manager.block_map(source, target)
        else:
            plan = self._manager.kernel_map(source, target, kernel_generator.window)
        return plan.transpose if is_transpose else plan

    def kernel_map(
        self,
        in_key: CoordinateMapKey | StrideType,
        out_key: CoordinateMapKey | StrideType,
        stride: StrideType = 1,
        kernel_size: StrideType = 3,
        dilation: StrideType = 1,
        region_type: RegionType = RegionType.HYPER_CUBE,
        region_offset: Tensor | None = None,
        is_transpose: bool = False,
        is_pool: bool = False,
    ) -> dict[int, Tensor]:
        """Input rows and output rows that meet under each kernel cell.

        Args:
            in_key, out_key: keys, or tensor strides that stand for the first map of that stride.
            region_type: without effect where the kernel size is 1: the engine's examples give a plain 1 there.
            is_transpose: the map of a transposed convolution from coarse ``in_key`` to fine ``out_key``.
            is_pool: with kernel size equal to stride, the blocks of a pooling.

        Returns:
            For every cell with at least one pair, shape (2, P) int32: input rows, output rows.
        """
        if set(convert_to_int_list(kernel_size, self.D)) == {1}:
            region_type = RegionType.HYPER_CUBE
        generator = KernelGenerator(
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            region_type=region_type,
            region_offsets=region_offset if region_type == RegionType.CUSTOM else None,
            dimension=self.D,
        )
        in_key, out_key = (
            self._get_coordinate_map_key(in_key),
            self._get_coordinate_map_key(out_key),
        )
        plan = self.plan(in_key, out_key, generator, is_transpose, is_pool)
        pairs = torch.stack([plan.in_rows, plan.out_rows]).int()
        return {
            cell: part for cell, part in enumerate(pairs.split(plan.counts, 1)) if part.shape[1]
        }

    def get_kernel_map(self, *args, **kwargs) -> dict[int, Tensor]:
        """The old name of :meth:`kernel_map`."""
        warnings.warn("get_kernel_map is deprecated, use kernel_map", stacklevel=2)
        return self.kernel_map(*args, **kwargs)

    def origin_map(self, key: CoordinateMapKey) -> tuple[Tensor, list[Tensor]]:
        """Batch indices (B,), and for every index up to the largest its rows, ascending, or none."""
        return self._rows_per_batch(self._manager[key.engine_key].coordinates[:, 0].long())

    def stride_map(
        self, in_key: CoordinateMapKey, stride_key: CoordinateMapKey
    ) -> tuple[Tensor, Tensor]:
        """Rows of a map and for each the row of the coarser map whose cell contains it. Shape: (P,), (P,)."""
        fine, coarse = in_key.engine_key, stride_key.engine_key
        if any(c % f for f, c in zip(fine.tensor_stride, coarse.tensor_stride) if f):
            raise ArgumentError(
                f"stride_map: {coarse.tensor_stride} is not a multiple of {fine.tensor_stride}"
            )
        plan = self._manager.block_map(fine, coarse)
        return plan.in_rows, plan.out_rows

    def union_map(
        self, in_keys: Sequence[CoordinateMapKey], out_key: CoordinateMapKey
    ) -> list[Tensor]:
        """Make the union of maps, name it in the empty ``out_key``, and return per map its rows there.

        Returns:
            Per map, shape (2, V) int64: its rows, and those of the union.
        """
        if out_key.is_key_set():
            raise ArgumentError("union_map: expected an empty key for the result")
        union, rows = self._manager.union(*(key.engine_key for key in in_keys))
        out_key.set_key(union.tensor_stride, union.name)
        return [torch.stack([torch.arange(len(r), device=r.device), r]) for r in rows]

    def interpolation_map_weight(self, key: CoordinateMapKey, samples: Tensor) -> list[Tensor]:
        """Voxels around each sample (N, 1 + D): map rows (P,), sample rows (P,) int32, and weights (P,)."""
        source = key.engine_key
        nothing = torch.empty(
            len(self._manager[source]), 0, dtype=samples.dtype, device=samples.device
        )
        grid = EngineTensor(nothing, manager=self._manager, key=source)
        plan, weights = functional.interpolation_map(grid, samples)
        return [plan.in_rows.int(), plan.out_rows.int(), weights]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CoordinateManager):
            return NotImplemented
        return self._manager is other._manager

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        maps = [
            f"  {CoordinateMapKey.of(key)}: {len(m)} rows" for key, m in self._manager.maps.items()
        ]
        fields = [f"  field {key}: {len(c)} points" for key, c in self.fields.items()]
        return "\n".join(
            [
                f"{type(self).__name__}(D={self.D}",
                *maps,
                *fields,
                f"  algorithm={self.minkowski_algorithm})",
            ]
        )
