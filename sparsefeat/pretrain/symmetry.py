"""Kernels that start out symmetric under the rotations and reflections of the cube.

A kernel whose cells share one matrix per orbit (all cells with the same |dx|, |dy|, |dz| up to order: centre,
faces, edges, corners for 3 cells) treats a neighbourhood and its turned copy alike, so that a network learns
what is there before it has to learn that orientation does not matter. The layout stays that of an ordinary
kernel: a checkpoint is an ordinary checkpoint, and the constraint can be lifted at any step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefeat.sparse import Kernel


class SymmetricKernels:
    """Keeps the cubic kernels of a network symmetric by averaging values and gradients over orbits.

    An optimiser that treats all entries alike (SGD, Adam, weight decay) keeps symmetric kernels symmetric
    when their gradients are.

    Args:
        model: its convolutions with equal, odd edges are taken; pointwise and even ones are left alone.
    """

    def __init__(self, model: nn.Module):
        self._kernels: list[tuple[nn.Parameter, Tensor]] = []
        for module in model.modules():
            window, kernel = getattr(module, "window", None), getattr(module, "kernel", None)
            if not isinstance(window, Kernel) or not isinstance(kernel, nn.Parameter) or kernel.ndim != 3:
                continue
            if window.region == "cube" and len(set(window.size)) == 1 and window.size[0] % 2:
                self._kernels.append((kernel, orbits(window)))

    def symmetrize_weights(self) -> None:
        """Average each kernel over its orbits, keeping its spread (an average of n has less of it)."""
        with torch.no_grad():
            for kernel, orbit in self._kernels:
                mean = average_over_orbits(kernel, orbit)
                spread = mean.std()
                kernel.copy_(mean * (kernel.std() / spread) if spread > 0 else mean)

    def symmetrize_gradients(self) -> None:
        """Average each kernel's gradient over its orbits: the gradient of the shared matrices, spread out."""
        with torch.no_grad():
            for kernel, orbit in self._kernels:
                if kernel.grad is not None:
                    kernel.grad.copy_(average_over_orbits(kernel.grad, orbit))


def orbits(kernel: Kernel) -> Tensor:
    """The orbit of each cell under the 48 symmetries of the cube. Shape: (K,) int64."""
    numbers: dict[tuple[int, ...], int] = {}
    return torch.tensor([numbers.setdefault(tuple(sorted(map(abs, c))), len(numbers)) for c in kernel.cells])


def average_over_orbits(values: Tensor, orbit: Tensor) -> Tensor:
    """Replace each cell's entry by the mean over its orbit. Shape: (K, ...) and (K,) -> (K, ...)."""
    orbit = orbit.to(values.device)
    sums = values.new_zeros(int(orbit.max()) + 1, *values.shape[1:]).index_add(0, orbit, values)
    counts = torch.bincount(orbit).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return (sums / counts)[orbit]
