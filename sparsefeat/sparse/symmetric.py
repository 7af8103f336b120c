"""Convolution with kernels that are symmetric under the rotations and reflections of the cube.

Cells with the same |dx|, |dy|, |dz| up to order form an orbit (of 3^3 cells: centre, faces, edges, corners) and
share one matrix. Such a kernel sees a neighbourhood and its turned copy alike, and it is cheap: the neighbours
of an orbit are summed first, then multiplied once. Of 3^3 cells 4 products remain, of 7^3 cells 20.
"""

from __future__ import annotations

from torch import Tensor

from sparsefeat.sparse.coordinates import constant
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import widen
from sparsefeat.sparse.sums import group_sums


def is_symmetrizable(kernel: Kernel) -> bool:
    """Whether the window maps onto itself under all symmetries of the cube, and has more than one cell."""
    return (
        kernel.region == "cube" and kernel.volume > 1 and len(set(kernel.size)) == 1 and kernel.size[0] % 2 == 1
        and len(set(kernel.dilation)) == 1
    )


def orbits(kernel: Kernel) -> tuple[int, ...]:
    """The orbit of each cell, K numbers counted from 0."""
    numbers: dict[tuple[int, ...], int] = {}
    return tuple(numbers.setdefault(tuple(sorted(map(abs, c))), len(numbers)) for c in kernel.cells)


def orbit_means(weight: Tensor, orbit: tuple[int, ...]) -> Tensor:
    """Mean of a kernel's cells over each orbit. Shape: (K, C_in, C_out) -> (G, C_in, C_out)."""
    index = constant(orbit, weight.device)
    groups = max(orbit) + 1
    total = weight.new_zeros(groups, *weight.shape[1:]).index_add(0, index, weight)
    size = weight.new_zeros(groups).index_add(0, index, weight.new_ones(len(orbit)))
    return total / size[:, None, None]


def convolve_symmetric(features: Tensor, weight: Tensor, plan: KernelMap, orbit: tuple[int, ...]) -> Tensor:
    """Convolve with the symmetric part of a kernel: ``weight`` averaged over each orbit.

    Shape: features (n_in, C_in), weight (K, C_in, C_out) -> (n_out, C_out).
    """
    means = orbit_means(weight, orbit)
    wide = widen(features)
    return group_sums(wide, plan, orbit).to(features.dtype) @ means.flatten(0, 1)
