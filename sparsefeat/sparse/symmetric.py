"""Convolution with kernels that are symmetric under the rotations and reflections of the cube.

Cells with the same |dx|, |dy|, |dz| up to order form an orbit (of 3^3 cells: centre, faces, edges, corners) and
share one matrix. Such a kernel sees a neighbourhood and its turned copy alike, and it is cheap: the neighbours
of an orbit are summed first, then multiplied once. Of 3^3 cells 4 products remain, of 7^3 cells 20.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.kernel_map import KernelMap, RowOrder


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
    index = torch.tensor(orbit, device=weight.device)
    total = weight.new_zeros(max(orbit) + 1, *weight.shape[1:]).index_add(0, index, weight)
    return total / torch.bincount(index).to(weight.dtype)[:, None, None]


def convolve_symmetric(features: Tensor, weight: Tensor, plan: KernelMap, orbit: tuple[int, ...]) -> Tensor:
    """Convolve with the symmetric part of a kernel: ``weight`` averaged over each orbit.

    Shape: features (n_in, C_in), weight (K, C_in, C_out) -> (n_out, C_out).
    """
    groups = max(orbit) + 1
    means = orbit_means(weight, orbit)
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    sums = _OrbitSum.apply(wide, _Orbits(plan, orbit, groups)).to(features.dtype)
    return sums.view(plan.n_out, groups * features.shape[1]) @ means.reshape(-1, weight.shape[2])


class _Orbits:
    """The pairs of a plan as a sparse 0/1 matrix from input rows to (output row, orbit), and its transpose."""

    def __init__(self, plan: KernelMap, orbit: tuple[int, ...], groups: int):
        self.plan = plan
        self.orbit = orbit
        self.groups = groups

    def forward(self) -> tuple[Tensor, Tensor]:
        """Input rows in order of (output row, orbit), and where each of these begins."""
        return self.plan.derived(("orbit sum", self.orbit), self._forward)

    def backward(self) -> tuple[Tensor, Tensor]:
        """Numbers of (output row, orbit) in order of input row, and where each of these begins."""
        return self.plan.derived(("orbit spread", self.orbit), self._backward)

    def _places(self) -> Tensor:
        orbit = torch.tensor(self.orbit, device=self.plan.device)
        return self.plan.out_rows * self.groups + orbit[self.plan.cells]

    def _forward(self) -> tuple[Tensor, Tensor]:
        order = RowOrder(self._places(), self.plan.n_out * self.groups)
        return self.plan.in_rows[order.pairs], order.splits

    def _backward(self) -> tuple[Tensor, Tensor]:
        if self.plan.identity_cell is not None:
            # On one coordinate map i sees o as o sees i, under the mirrored cell, which is in the same orbit:
            # row i's list is already there.
            rows, splits = self.forward()
            orbit = torch.arange(len(splits) - 1, device=rows.device) % self.groups
            return rows * self.groups + orbit.repeat_interleave(splits.diff()), splits[:: self.groups].contiguous()
        order = self.plan.transpose.out_order
        return self._places()[order.pairs], order.splits


class _OrbitSum(Function):
    """Sum neighbours by orbit. Shape: (n_in, C) -> (n_out G, C)."""

    @staticmethod
    def forward(ctx, features: Tensor, orbits: _Orbits) -> Tensor:
        ctx.orbits = orbits
        return _bag(features, *orbits.forward())

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _OrbitSpread.apply(grad, ctx.orbits), None


class _OrbitSpread(Function):
    """The transpose of :class:`_OrbitSum`. Shape: (n_out G, C) -> (n_in, C)."""

    @staticmethod
    def forward(ctx, sums: Tensor, orbits: _Orbits) -> Tensor:
        ctx.orbits = orbits
        return _bag(sums, *orbits.backward())

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _OrbitSum.apply(grad, ctx.orbits), None


def _bag(rows: Tensor, indices: Tensor, splits: Tensor) -> Tensor:
    return F.embedding_bag(indices, rows.contiguous(), splits, mode="sum", include_last_offset=True)
