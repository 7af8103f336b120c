"""What a network is told about the points in its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def point_inputs(
    config: Mapping[str, Any], place: Tensor, sides: Tensor | None = None, cells: Tensor | None = None
) -> Tensor:
    """Input channels of points: ones, or where in their cells they lie and which side of them is outside.

    Args:
        config: of the network.
        place: points, in voxels. Shape: (N, 3).
        sides: vectors to the outer side of the surface, of length 1, or 0 where it is not known, for networks with
            ``sides``; None: known nowhere. Shape: (N, 3).
        cells: the voxels that the points are in; None: ``floor(place)``. Shape: (N, 3).

    Returns:
        Shape (N, C_in), float32.
    """
    if not config.get("geometry"):
        return torch.ones(len(place), int(config.get("in_channels") or 1), device=place.device)
    cells = torch.floor(place) if cells is None else cells
    offsets = (place - cells - 0.5).float()
    if not config.get("sides"):
        return offsets
    sides = torch.zeros_like(offsets) if sides is None else sides.to(offsets)
    return torch.cat([offsets, sides], 1)
