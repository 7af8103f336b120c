"""The shape of a convolution window: which offsets it covers, in MinkowskiEngine's cell order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsefeat.sparse.coordinates import as_tuple


@dataclass(frozen=True)
class Kernel:
    """Offsets of a window, in units of ``dilation * tensor stride``.

    Args:
        size: cells per axis, D values. An odd axis is centred (-1, 0, 1), an even one is not (0, 1).
        dilation: steps between cells per axis, D values.
        region: ``"cube"`` (all cells), ``"cross"`` (centre, then per axis 1, 2, .., -2, -1), or ``"custom"``.
        custom: with ``region="custom"``, the offsets themselves, K tuples of D integers.

    Cells of a cube are numbered ``i_x + k_x (i_y + k_y i_z)``: the first spatial axis runs fastest.
    """

    size: tuple[int, ...]
    dilation: tuple[int, ...]
    region: str = "cube"
    custom: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if any(k < 1 for k in self.size):
            raise ValueError(f"kernel_size: expected at least 1 on every axis, got {self.size}")
        if any(d < 1 for d in self.dilation):
            raise ValueError(f"dilation: expected at least 1 on every axis, got {self.dilation}")
        if self.region not in ("cube", "cross", "custom"):
            raise ValueError(f"region: expected 'cube', 'cross' or 'custom', got {self.region!r}")
        if (self.region == "custom") != (self.custom is not None):
            raise ValueError("region: 'custom' needs offsets, and only 'custom' takes them")
        if self.region == "cross" and any(k % 2 == 0 for k in self.size):
            raise ValueError(f"kernel_size: a cross needs odd sizes, got {self.size}")
        if self.custom is not None and any(len(o) != len(self.size) for o in self.custom):
            raise ValueError(
                f"custom offsets: expected {len(self.size)} values each, got {self.custom}"
            )

    @staticmethod
    def of(size, dilation=1, dimension: int = 3) -> Kernel:
        """A cube from an int or one value per axis."""
        return Kernel(
            as_tuple(size, dimension, "kernel_size"), as_tuple(dilation, dimension, "dilation")
        )

    @property
    def volume(self) -> int:
        """The number K of cells."""
        return len(self.cells) if self.region != "cube" else math.prod(self.size)

    @cached_property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """K cell positions, undilated, D integers each."""
        if self.custom is not None:
            return self.custom
        axes = [range(-(k // 2), k // 2 + 1) if k % 2 else range(k) for k in self.size]
        if self.region == "cross":
            dimension = len(self.size)
            cells = [(0,) * dimension]
            for axis, values in enumerate(axes):
                half = len(values) // 2
                for v in [*range(1, half + 1), *range(-half, 0)]:
                    cells.append(tuple(v if a == axis else 0 for a in range(dimension)))
            return tuple(cells)
        cells = [()]
        for values in reversed(axes):
            cells = [(v, *rest) for rest in cells for v in values]
        return tuple(cells)

    @cached_property
    def cell_positions(self) -> np.ndarray:
        """The cells' positions as an array, for arithmetic with all of them at once. Shape: (K, D) int64."""
        return np.array(self.cells, dtype=np.int64).reshape(-1, len(self.size))

    def offsets(self, tensor_stride: tuple[int, ...]) -> list[list[int]]:
        """K offsets in coordinates, for an input of this tensor stride."""
        spacing = self.spacing(tensor_stride)
        return [[c * s for c, s in zip(cell, spacing)] for cell in self.cells]

    def spacing(self, tensor_stride: tuple[int, ...]) -> tuple[int, ...]:
        """The distance of neighbouring cells along each axis in coordinates, for an input of this tensor stride."""
        if len(tensor_stride) != len(self.size):
            raise ValueError(f"kernel: {len(self.size)} axes for a tensor of {len(tensor_stride)}")
        return tuple(d * s for d, s in zip(self.dilation, tensor_stride))

    def reach(self, tensor_stride: tuple[int, ...]) -> tuple[int, ...]:
        """The largest offset along each axis, either way, for an input of this tensor stride."""
        farthest = abs(self.cell_positions).max(0).tolist()
        return tuple(f * s for f, s in zip(farthest, self.spacing(tensor_stride)))

    @cached_property
    def identity_cell(self) -> int | None:
        """The cell with offset zero, if there is one."""
        zero = (0,) * len(self.size)
        return self.cells.index(zero) if zero in self.cells else None

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether cell K - 1 - k is the mirror image of cell k."""
        return all(tuple(-c for c in a) == b for a, b in zip(self.cells, reversed(self.cells)))
