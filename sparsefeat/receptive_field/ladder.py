"""A ladder of voxel sizes whose features are blended smoothly: exact gradients, one forward pass per rung.

With a frozen network a rung is computed once, when the blend first needs it, and kept; then a step costs next
to nothing, whatever its objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsefeat.errors import InputError

DEFAULT_RATIO = math.sqrt(2)

# Between two rungs the third has no weight, but for the rounding of a logarithm; it would cost a pass.
_NO_WEIGHT = 1e-12


def blend_weights(position: Tensor, rungs: Tensor) -> Tensor:
    """Weights of the rungs around a position: quadratic B-splines.

    They are smooth (once continuously differentiable), non-negative and of sum 1; halfway between two rungs
    only these two have weight, elsewhere three. Unlike with the hat function the blend averages over about as
    many rungs everywhere, so that a position between two rungs is not favoured just because an average of two
    features is less noisy than one.

    Args:
        position: in rungs. Shape: (G,)
        rungs: whole numbers. Shape: (R,)

    Returns:
        Shape (G, R).
    """
    distance = (position[:, None] - rungs[None, :]).abs()
    inner = 0.75 - distance.square()
    outer = (1.5 - distance).clamp(min=0).square() / 2
    return torch.where(distance <= 0.5, inner, outer)


class ScaleLadder:
    """Features at voxel sizes ``start * ratio ** (k - 1/2)`` for whole k, blended in the logarithm of the size.

    The start lies between two rungs, where two forward passes are enough for value and gradient.

    Args:
        describe: voxel size, number of the shape, dilation -> features (..., n, C) of that shape.
        shapes: how many shapes.
        start: voxel size at position 1/2.
        ratio: between neighbouring rungs, above 1.
        normalize: scale blended features to unit length, as those of the network are.

    Attributes:
        computed: the (rung, dilation, shape) that were computed so far, in order.
    """

    def __init__(
        self,
        describe: Callable[[float, int, int], Tensor],
        shapes: int,
        start: float,
        ratio: float = DEFAULT_RATIO,
        normalize: bool = False,
    ):
        if not ratio > 1:
            raise InputError(f"ratio must be above 1, got {ratio!r}")
        self.describe = describe
        self.shapes = shapes
        self.start = float(start)
        self.ratio = float(ratio)
        self.normalize = normalize
        self._cache: dict[tuple[int, int, int], Tensor] = {}

    @property
    def computed(self) -> list[tuple[int, int, int]]:
        return list(self._cache)

    def voxel_size(self, rung: int) -> float:
        """Voxel size of rung k."""
        return self.start * self.ratio ** (rung - 0.5)

    def rung(self, rung: int, shape: int, dilation: int = 1) -> Tensor:
        """Features of one shape at one rung, computed once."""
        key = (rung, dilation, shape)
        if key not in self._cache:
            self._cache[key] = self.describe(self.voxel_size(rung), shape, dilation)
        return self._cache[key]

    def features(
        self, log_voxel_size: Tensor, groups: Sequence[int], dilation: Tensor | None = None
    ) -> list[Tensor]:
        """Blended features of every shape; differentiable by voxel size and dilation.

        Args:
            log_voxel_size: logarithms. Shape: (G,)
            groups: which of the G values each shape has.
            dilation: at least 1, the features of the two whole numbers around it are blended linearly; None: 1.
                Shape: (1,)

        Returns:
            One tensor per shape, in float64.
        """
        position = (log_voxel_size - math.log(self.start)) / math.log(self.ratio) + 0.5
        low = int(torch.floor(position.min() - 1.5))
        rungs = torch.arange(low, int(torch.ceil(position.max() + 1.5)) + 1, dtype=position.dtype)
        weights = blend_weights(position, rungs)
        shares = {1: None} if dilation is None else _neighbours(dilation)
        blended = []
        for shape, group in enumerate(groups):
            total = None
            for column, rung in enumerate(rungs.tolist()):
                if weights[group, column] <= _NO_WEIGHT:
                    continue
                for whole, share in shares.items():
                    part = weights[group, column] * self.rung(int(rung), shape, whole).double()
                    part = part if share is None else share * part
                    total = part if total is None else total + part
            blended.append(
                torch.nn.functional.normalize(total, dim=-1) if self.normalize else total
            )
        return blended


def _neighbours(dilation: Tensor) -> dict[int, Tensor]:
    lower = max(1, math.floor(float(dilation.detach())))
    share = (dilation - lower).squeeze()
    if not dilation.requires_grad and not share:
        return {lower: None}
    # At a whole number the upper neighbour has no weight but decides the gradient.
    return {lower: 1 - share, lower + 1: share}
