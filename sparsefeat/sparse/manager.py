"""Coordinate maps and who holds them: every set of coordinates and every kernel map is made once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.coordinate_map import CoordinateMap, CoordinateMapKey, keep_for_training
from sparsefeat.sparse.coordinates import (
    as_tuple,
    check_coordinates,
    constant,
    offset_coordinates,
    sorted_unique,
    stride_coordinates,
    unique_first,
)
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.kernel_search import Search
from sparsefeat.sparse.weighted import has_pairing, pairing

BLOCK = "block"


class MapNames(NamedTuple):
    """Which maps a network asked for on one input, so that they can be made for another.

    Attributes:
        root: the input's key.
        strided: each strided map, and the one that it was made from.
        clouds: maps whose clouds were told apart.
        corners: maps whose coordinates were asked for from an origin near by.
        kernel_maps: input, output and window of each; ``BLOCK`` stands for the blocks of a strided map.
        pairings: the same of those whose pairs were taken by output row, and whether of the transpose.
    """

    root: CoordinateMapKey
    strided: tuple[tuple[CoordinateMapKey, CoordinateMapKey], ...]
    clouds: tuple[CoordinateMapKey, ...]
    corners: tuple[CoordinateMapKey, ...]
    kernel_maps: tuple[tuple[CoordinateMapKey, CoordinateMapKey, Kernel | str], ...]
    pairings: tuple[tuple[CoordinateMapKey, CoordinateMapKey, Kernel | str, bool], ...]


class CoordinateManager:
    """All coordinate maps and kernel maps that belong to a set of tensors.

    Tensors that meet in an operation share a manager. The layers of a network do so by
    themselves. Whoever keeps the manager, or any of its tensors, reuses its maps in later steps.

    Args:
        dimension: number of spatial axes, D.
    """

    def __init__(self, dimension: int = 3):
        self.dimension = dimension
        self.maps: dict[CoordinateMapKey, CoordinateMap] = {}
        self._parents: dict[str, str | None] = {}
        self._strided: dict[CoordinateMapKey, CoordinateMapKey] = {}
        self._kernel_maps: dict[tuple, KernelMap] = {}
        self._expansions: dict[tuple, CoordinateMapKey] = {}
        self._unions: dict[tuple[CoordinateMapKey, ...], tuple[CoordinateMapKey, list[Tensor]]] = {}

    def __getitem__(self, key: CoordinateMapKey) -> CoordinateMap:
        if key not in self.maps:
            raise ValueError(
                f"coordinate map {tuple(key)} is not in this manager; it has {list(self.maps)}"
            )
        return self.maps[key]

    @compile_disabled
    @keep_for_training
    def insert(
        self,
        coordinates: Tensor,
        tensor_stride=1,
        parent: CoordinateMapKey | None = None,
        name: str | None = None,
    ) -> CoordinateMapKey:
        """Add coordinates as a map of their own, rows as given.

        Args:
            coordinates: Shape (V, 1 + D), distinct, batch index first.
            tensor_stride: their spacing, one int or D.
            parent: the map these coordinates were derived from; a finer level that the new family
                lacks is then looked for in the parent's.
            name: of the new family, if it is not taken; by default one is made up.

        Returns:
            The key of the new map.

        Raises:
            ValueError: a coordinate occurs twice, is not finite, or is too large; or another number of axes.
        """
        coordinates = check_coordinates(coordinates)
        if coordinates.shape[1] != self.dimension + 1:
            raise ValueError(
                f"coordinates: this manager has {self.dimension} spatial axes, got {coordinates.shape[1] - 1}"
            )
        tensor_stride = as_tuple(tensor_stride, self.dimension, "tensor_stride")
        if min(tensor_stride) < 0:
            raise ValueError(
                f"tensor_stride: expected at least 0 on every axis, got {tensor_stride}"
            )
        other = next((m.device for m in self.maps.values()), coordinates.device)
        if coordinates.device != other:
            raise ValueError(
                f"coordinates: on {coordinates.device}, but those of this manager are on {other}"
            )
        # A copy: what the caller does to his tensor afterwards must not change the map under its indices.
        new = CoordinateMap(coordinates.clone(), tensor_stride)
        keys = new.index().keys
        repeated = (keys[1:] == keys[:-1]).nonzero()
        if len(repeated):
            rows = new.index().rows(torch.stack([repeated[0, 0], repeated[0, 0] + 1])).tolist()
            raise ValueError(
                f"coordinates: {coordinates[rows[0]].tolist()} occurs twice (rows {rows[0]} and {rows[1]}); "
                "distinct coordinates are needed here, quantize() makes them so"
            )
        return self._register(new, parent, name)

    def _register(
        self, new: CoordinateMap, parent: CoordinateMapKey | None, name: str | None = None
    ) -> CoordinateMapKey:
        if name is None:
            name = str(len(self._parents)) if self._parents or self.maps else ""
        while name in self._parents:
            name += "'"
        self._parents[name] = parent.name if parent is not None else None
        key = CoordinateMapKey(new.tensor_stride, name)
        self.maps[key] = new
        return key

    @compile_disabled
    @keep_for_training
    def insert_unique(
        self, coordinates: Tensor, tensor_stride=1
    ) -> tuple[CoordinateMapKey, tuple[Tensor, Tensor]]:
        """Add the distinct rows of ``coordinates`` (N, 1 + D), in order of first occurrence.

        Returns:
            The key of the map, and (index, inverse): the first row (V,) of each coordinate, and the coordinate (N,)
            of each row.
        """
        coordinates = check_coordinates(coordinates)
        index, inverse = unique_first(coordinates)
        unique = coordinates if len(index) == len(coordinates) else coordinates[index]
        return self.insert(unique, tensor_stride), (index, inverse)

    def stride(self, key: CoordinateMapKey, stride) -> CoordinateMapKey:
        """The map of ``floor(c / s) * s``, with s the tensor stride of ``key`` times ``stride``."""
        stride = as_tuple(stride, self.dimension, "stride")
        coarse = tuple(t * s for t, s in zip(key.tensor_stride, stride))
        target = CoordinateMapKey(coarse, key.name)
        if target not in self.maps:
            self._make_strided(key, target)
        return target

    @compile_disabled
    @keep_for_training
    def _make_strided(self, key: CoordinateMapKey, target: CoordinateMapKey) -> None:
        coarse = target.tensor_stride
        self._strided[target] = key
        coordinates = stride_coordinates(self[key].coordinates, coarse)
        self.maps[target] = CoordinateMap(coordinates, coarse, aligned=True)

    def finer(
        self, key: CoordinateMapKey, tensor_stride: tuple[int, ...]
    ) -> CoordinateMapKey | None:
        """The existing map of this tensor stride in the family of ``key``, or in those it was derived from."""
        name: str | None = key.name
        while name is not None:
            candidate = CoordinateMapKey(tensor_stride, name)
            if candidate in self.maps:
                return candidate
            name = self._parents[name]
        return None

    @compile_disabled
    @keep_for_training
    def expand(
        self,
        key: CoordinateMapKey,
        kernel: Kernel,
        tensor_stride: tuple[int, ...],
        offset_stride: tuple[int, ...],
        own_family: bool,
        backwards: bool = False,
    ) -> CoordinateMapKey:
        """The map of all ``c + offset``; where ``tensor_stride`` is coarser than that of ``key``, of its multiples.

        Args:
            offset_stride: what one step of the kernel is worth in coordinates.
            own_family: register it apart, so that it does not become the finer level of ``key``.
            backwards: of all ``c - offset``: the places whose window holds c.
        """
        cached = (key, kernel, tensor_stride, offset_stride, backwards)
        if own_family and cached in self._expansions:
            return self._expansions[cached]
        offsets = kernel.offsets(offset_stride)
        if backwards:
            offsets = [[-o for o in offset] for offset in offsets]
        grown = offset_coordinates(self[key].coordinates, offsets)
        # Where the stride stays the same there is nothing to select, and the input need not be aligned.
        step = [t if t != o else 1 for t, o in zip(tensor_stride, offset_stride)]
        if any(s != 1 for s in step):
            grown = grown[(grown[:, 1:] % constant(step, grown.device) == 0).all(1)]
        new = CoordinateMap(sorted_unique(grown, (1,) * self.dimension), tensor_stride)
        if own_family:
            self._expansions[cached] = self._register(new, parent=key)
            return self._expansions[cached]
        self.maps[CoordinateMapKey(tensor_stride, key.name)] = new
        return CoordinateMapKey(tensor_stride, key.name)

    def origin(self, key: CoordinateMapKey) -> CoordinateMapKey:
        """The map with one row per batch index that occurs, all spatial coordinates zero, tensor stride 0."""
        target = CoordinateMapKey((0,) * self.dimension, key.name)
        if target not in self.maps:
            self._make_origin(key, target)
        return target

    @compile_disabled
    @keep_for_training
    def _make_origin(self, key: CoordinateMapKey, target: CoordinateMapKey) -> None:
        batch = self[key].clouds.indices
        coordinates = torch.zeros(
            len(batch), self.dimension + 1, dtype=torch.int32, device=batch.device
        )
        coordinates[:, 0] = batch
        self.maps[target] = CoordinateMap(coordinates, target.tensor_stride)

    @compile_disabled
    @keep_for_training
    def union(self, *keys: CoordinateMapKey) -> tuple[CoordinateMapKey, list[Tensor]]:
        """The map of all coordinates that occur in any of ``keys``, and for each of them its rows there."""
        if keys not in self._unions:
            strides = {key.tensor_stride for key in keys}
            if len(strides) != 1:
                raise ValueError(f"union: expected equal tensor strides, got {sorted(strides)}")
            every = torch.cat([self[key].coordinates for key in keys])
            index, inverse = unique_first(every)
            union = self._register(
                CoordinateMap(every[index], keys[0].tensor_stride), parent=keys[0]
            )
            self._unions[keys] = union, list(inverse.split([len(self[key]) for key in keys]))
        return self._unions[keys]

    def kernel_map(
        self, in_key: CoordinateMapKey, out_key: CoordinateMapKey, kernel: Kernel
    ) -> KernelMap:
        """Pairs with ``input = output + offset``; offsets scale with the input's tensor stride."""
        cached = (in_key, out_key, kernel)
        if cached not in self._kernel_maps:
            self._make_kernel_map(*cached)
        return self._kernel_maps[cached]

    def names(self, root: CoordinateMapKey) -> MapNames:
        """The strided maps and kernel maps that have been asked for so far, with ``root`` as the input."""
        clouds = tuple(key for key, each in self.maps.items() if each.has_clouds)
        corners = tuple(key for key, each in self.maps.items() if each.has_corners)
        pairings = tuple(
            (*cached, each.transposed)
            for cached, plan in self._kernel_maps.items()
            for each in (plan, plan.transpose)
            if has_pairing(each)
        )
        return MapNames(
            root, tuple(self._strided.items()), clouds, corners, tuple(self._kernel_maps), pairings
        )

    @compile_disabled
    def make(self, names: MapNames, root: CoordinateMapKey) -> None:
        """Make the maps that another input asked for, with ``root`` as the input, as far as it has what they need."""

        def here(key: CoordinateMapKey) -> CoordinateMapKey:
            return key._replace(name=root.name) if key.name == names.root.name else key

        if root.tensor_stride != names.root.tensor_stride:
            return
        for target, source in names.strided:
            if here(source) in self.maps and here(target) not in self.maps:
                self._make_strided(here(source), here(target))
        for key in map(here, names.clouds):
            if key in self.maps:
                self.origin(key)
                self[key].clouds  # noqa: B018
        for key in map(here, names.corners):
            if key in self.maps:
                self[key].corners  # noqa: B018
        for in_key, out_key, kernel in names.kernel_maps:
            keys = here(in_key), here(out_key)
            if keys[0] in self.maps and keys[1] in self.maps:
                self.block_map(*keys) if kernel == BLOCK else self.kernel_map(*keys, kernel)
        for in_key, out_key, kernel, transposed in names.pairings:
            plan = self._kernel_maps.get((here(in_key), here(out_key), kernel))
            if plan is not None:
                pairing(plan.transpose if transposed else plan)

    def block_map(self, in_key: CoordinateMapKey, out_key: CoordinateMapKey) -> KernelMap:
        """Pairs of each coordinate with the coarse cell that contains it, as a map with one kernel cell."""
        cached = (in_key, out_key, BLOCK)
        if cached not in self._kernel_maps:
            self._make_block_map(in_key, out_key)
        return self._kernel_maps[cached]

    @compile_disabled
    @keep_for_training
    def _make_block_map(self, in_key: CoordinateMapKey, out_key: CoordinateMapKey) -> None:
        fine, coarse = self[in_key], self[out_key]
        stride = constant((1, *out_key.tensor_stride), fine.device, torch.int32)
        cell = torch.div(fine.coordinates, stride, rounding_mode="floor") * stride
        out_rows = coarse.find(cell)
        in_rows = (out_rows >= 0).nonzero()[:, 0]
        self._kernel_maps[in_key, out_key, BLOCK] = KernelMap(
            in_rows, out_rows[in_rows], [len(in_rows)], len(fine), len(coarse)
        )

    @compile_disabled
    @keep_for_training
    def _make_kernel_map(
        self, in_key: CoordinateMapKey, out_key: CoordinateMapKey, kernel: Kernel
    ) -> None:
        self._kernel_maps[in_key, out_key, kernel] = self._build(in_key, out_key, kernel)

    def _build(
        self, in_key: CoordinateMapKey, out_key: CoordinateMapKey, kernel: Kernel
    ) -> KernelMap:
        source, target = self[in_key], self[out_key]
        index = source.index(kernel.reach(in_key.tensor_stride))
        if in_key == out_key:
            search = Search(index, index.keys, kernel, in_key.tensor_stride, same=True)
            return KernelMap.of(search, index)
        target_index = target.index()
        coordinates = target.coordinates
        if target_index.order is not None:
            coordinates = coordinates[target_index.order]
        keys = index.space.encode_any(coordinates)
        search = Search(index, keys, kernel, in_key.tensor_stride, same=False)
        return KernelMap.of(search, target_index)
