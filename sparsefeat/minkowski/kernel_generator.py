"""The shape of a kernel in MinkowskiEngine's terms (MinkowskiKernelGenerator)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefeat.minkowski.backend import RegionType
from sparsefeat.minkowski.common import StrideType, convert_to_int_list, positive_dimension
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.sparse.kernel import Kernel


def hybrid_offsets(kernel_size: Sequence[int], axis_types: Sequence[RegionType]) -> list[list[int]]:
    """Cells of a kernel that is a cube over some axes and a cross over the others, in version 0.4's order.

    The centre comes first; each cube axis in turn then repeats all cells so far off its centre, and
    each cross axis adds its own line. With cubes alone this is the full cube in another order than
    HYPER_CUBE's, the order that weights trained with it have (PointContrast's Res16UNets).
    """
    if len(axis_types) != len(kernel_size):
        raise ArgumentError(
            f"axis_types: expected {len(kernel_size)} region types, got {list(axis_types)}"
        )
    cells = [[0] * len(kernel_size)]
    for kind in (RegionType.HYPER_CUBE, RegionType.HYPER_CROSS):
        for axis, (k, axis_type) in enumerate(zip(kernel_size, axis_types)):
            if axis_type != kind:
                continue
            steps = [i - (k - 1) // 2 for i in range(k) if i != (k - 1) // 2]
            bases = list(cells) if kind == RegionType.HYPER_CUBE else [[0] * len(kernel_size)]
            cells += [[*base[:axis], step, *base[axis + 1 :]] for base in bases for step in steps]
    return cells


def _kernel(
    region_type: RegionType,
    kernel_size: list[int],
    dilation: list[int],
    region_offsets: Tensor | None,
    axis_types,
) -> Kernel:
    size, steps = tuple(kernel_size), tuple(dilation)
    if axis_types is not None and region_type != RegionType.HYBRID:
        raise ArgumentError(f"axis_types: only region_type HYBRID takes them, got {region_type}")
    has_offsets = region_offsets is not None and len(region_offsets) > 0
    if has_offsets != (region_type == RegionType.CUSTOM):
        raise ArgumentError(
            "region_offsets: region_type CUSTOM needs them, and no other takes them"
        )
    if region_type == RegionType.HYPER_CUBE:
        return Kernel(size, steps)
    if region_type == RegionType.HYPER_CROSS:
        return Kernel(size, steps, "cross")
    if region_type == RegionType.HYBRID:
        if axis_types is None:
            raise ArgumentError("region_type HYBRID needs axis_types, one region type per axis")
        if any(k < 1 for k in size):
            raise ArgumentError(f"kernel_size: expected at least 1 on every axis, got {size}")
        cells = hybrid_offsets(kernel_size, axis_types)
    else:
        cells = torch.as_tensor(region_offsets).tolist()
    return Kernel(
        (1,) * len(size), steps, "custom", tuple(tuple(int(c) for c in cell) for cell in cells)
    )


def get_kernel_volume(region_type, kernel_size, region_offset, axis_types, dimension) -> int:
    """The number of cells K of a kernel; arguments as in :class:`KernelGenerator`."""
    kernel_size = convert_to_int_list(kernel_size, dimension)
    return _kernel(region_type, kernel_size, [1] * dimension, region_offset, axis_types).volume


def convert_region_type(
    region_type,
    tensor_stride,
    kernel_size,
    up_stride,
    dilation,
    region_offset,
    axis_types,
    dimension,
    center=True,
) -> tuple[RegionType, Tensor, int]:
    """Region type, offsets in coordinates (K, D) int32 (none for cube and cross) and the number of cells.

    ``up_stride`` divides the tensor stride: the stride of a transposed convolution, else 1.
    """
    if not center:
        raise NotImplementedError("convert_region_type: center=False")
    kernel_size, dilation, tensor_stride, up_stride = (
        convert_to_int_list(a, dimension) for a in (kernel_size, dilation, tensor_stride, up_stride)
    )
    kernel = _kernel(region_type, kernel_size, dilation, region_offset, axis_types)
    if kernel.region != "custom":
        return region_type, torch.empty(0, dtype=torch.int32), kernel.volume
    offsets = kernel.offsets(tuple(t // u for t, u in zip(tensor_stride, up_stride)))
    return RegionType.CUSTOM, torch.tensor(offsets, dtype=torch.int32), kernel.volume


class KernelGenerator:
    """Size, stride, dilation and region of a kernel.

    Args:
        kernel_size, stride, dilation: one integer or D of them; a CUSTOM region needs no size.
        is_transpose: not used, as in the engine.
        region_type: HYPER_CUBE, HYPER_CROSS (odd sizes), CUSTOM, or HYBRID.
        region_offsets: Shape (K, D) integers, for CUSTOM: steps of ``dilation * tensor stride``.
        expand_coordinates: produce outputs wherever the window touches an input.
        axis_types: for HYBRID, HYPER_CUBE or HYPER_CROSS per axis.
        dimension: spatial axes D.
    """

    def __init__(
        self,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        is_transpose: bool = False,
        region_type: RegionType = RegionType.HYPER_CUBE,
        region_offsets: Tensor | None = None,
        expand_coordinates: bool = False,
        axis_types: Sequence[RegionType] | None = None,
        dimension: int = -1,
    ):
        if not isinstance(region_type, RegionType):
            raise ArgumentError(f"region_type: expected a RegionType, got {region_type!r}")
        self.dimension = positive_dimension(dimension, "KernelGenerator")
        self.kernel_size = convert_to_int_list(kernel_size, dimension)
        self.kernel_stride = convert_to_int_list(stride, dimension)
        self.kernel_dilation = convert_to_int_list(dilation, dimension)
        if any(s < 1 for s in self.kernel_stride):
            raise ArgumentError(
                f"stride: expected at least 1 on every axis, got {self.kernel_stride}"
            )
        self.region_type = region_type
        self.region_offsets = (
            torch.empty(0, dtype=torch.int32) if region_offsets is None else region_offsets
        )
        self.axis_types = axis_types
        self.expand_coordinates = expand_coordinates
        self.kernel_volume = self.window.volume
        # The engine's name for it; in one dimension the engine takes stride 2 for true.
        self.requires_strided_coordinates = all(s == 1 for s in self.kernel_stride)

    @cached_property
    def window(self) -> Kernel:
        """The engine's own description of the kernel."""
        return _kernel(
            self.region_type,
            self.kernel_size,
            self.kernel_dilation,
            self.region_offsets,
            self.axis_types,
        )

    def get_kernel(
        self, tensor_stride: Sequence[int], is_transpose: bool
    ) -> tuple[RegionType, Tensor, int]:
        """See :func:`convert_region_type`, for an input of this tensor stride."""
        return convert_region_type(
            self.region_type,
            tensor_stride,
            self.kernel_size,
            self.kernel_stride if is_transpose else 1,
            self.kernel_dilation,
            self.region_offsets,
            self.axis_types,
            self.dimension,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(kernel_size={self.kernel_size}, kernel_stride={self.kernel_stride}, "
            f"kernel_dilation={self.kernel_dilation}, region_type={self.region_type}, "
            f"expand_coordinates={self.expand_coordinates}, dimension={self.dimension})"
        )


class KernelRegion(NamedTuple):
    """The arguments of a kernel as one tuple."""

    kernel_size: list[int]
    kernel_stride: list[int]
    kernel_dilation: list[int]
    region_type: RegionType
    offset: Tensor | None
    D: int
