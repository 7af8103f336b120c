"""A positive number, or one per group of shapes, that gradients can tune."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError


class PositiveParameter(nn.Module):
    """Positive values within bounds, held by their logarithms: a step changes them by a factor.

    Args:
        initial: the first value, of every group.
        low, high: bounds, inclusive.
        groups: how many values, such as one per class of shapes.

    Raises:
        InputError: not 0 < low <= initial <= high.
    """

    def __init__(self, initial: float, low: float, high: float, groups: int = 1):
        super().__init__()
        if not (0 < low <= initial <= high < math.inf):
            raise InputError(
                f"initial {initial!r}, low {low!r}, high {high!r}: expected 0 < low <= initial <= high"
            )
        if groups < 1:
            raise InputError(f"groups must be at least 1, got {groups}")
        self.low, self.high = float(low), float(high)
        # float64: optimizers take small steps, and voxel coordinates divide by this.
        self.log = nn.Parameter(torch.full((groups,), math.log(initial), dtype=torch.float64))

    def forward(self) -> Tensor:
        """The values. Shape: (groups,) float64."""
        return self.log.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the values back within the bounds; to be called after an optimizer's step."""
        self.log.clamp_(math.log(self.low), math.log(self.high))
