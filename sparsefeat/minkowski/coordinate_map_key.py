"""The name of a coordinate map, as MinkowskiEngine's users hold it."""

from __future__ import annotations

from collections.abc import Sequence

from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.sparse.coordinate_map import CoordinateMapKey as EngineKey


class CoordinateMapKey:
    """A tensor stride and a string id, or an empty key that an operation will fill in.

    Args:
        tensor_stride: D integers; or one integer, 1 + D, for an empty key.
        string_id: tells maps of one stride apart.
    """

    def __init__(self, tensor_stride: int | Sequence[int], string_id: str = ""):
        self._key: EngineKey | None = None
        if isinstance(tensor_stride, int):
            self._size = tensor_stride
        else:
            self._size = len(tensor_stride) + 1
            self._key = EngineKey(tuple(int(t) for t in tensor_stride), string_id)

    @classmethod
    def of(cls, key: EngineKey) -> CoordinateMapKey:
        """The key that stands for the engine's own."""
        return cls(key.tensor_stride, key.name)

    @property
    def engine_key(self) -> EngineKey:
        """The engine's own key; raises ValueError where this one is empty."""
        if self._key is None:
            raise ArgumentError("CoordinateMapKey: this key is empty; no operation has set it")
        return self._key

    def is_key_set(self) -> bool:
        """Whether the key names a map."""
        return self._key is not None

    def get_coordinate_size(self) -> int:
        """Columns of the coordinates, 1 + D."""
        return self._size

    def get_tensor_stride(self) -> list[int]:
        """D integers; none for an empty key."""
        return [] if self._key is None else list(self._key.tensor_stride)

    def get_key(self) -> tuple[list[int], str]:
        """Tensor stride and string id."""
        return list(self.engine_key.tensor_stride), self.engine_key.name

    def set_key(
        self, tensor_stride: Sequence[int] | tuple[Sequence[int], str], string_id: str | None = None
    ) -> None:
        """Name a map: ``set_key(tensor_stride, string_id)``, or one pair of the two."""
        if string_id is None:
            tensor_stride, string_id = tensor_stride
        if len(tensor_stride) != self._size - 1:
            raise ArgumentError(
                f"CoordinateMapKey: expected {self._size - 1} strides, got {list(tensor_stride)}"
            )
        self._key = EngineKey(tuple(int(t) for t in tensor_stride), string_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CoordinateMapKey):
            return NotImplemented
        return self._key is not None and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        if self._key is None:
            return "coordinate map key: not set"
        stride = "[" + ", ".join(map(str, self._key.tensor_stride)) + "]"
        return f"coordinate map key:{stride}" + (f":{self._key.name}" if self._key.name else "")
