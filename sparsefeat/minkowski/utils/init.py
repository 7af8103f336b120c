"""Initialisation of kernels [K, C_in, C_out] (MinkowskiEngine.utils.init)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsefeat.minkowski.errors import ArgumentError


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Fill a kernel from N(0, gain^2 / fan); He et al., Delving Deep into Rectifiers, 2015, eq. 10.

    Args:
        tensor: Shape (K, C_in, C_out), or a linear weight (C_out, C_in).
        a: negative slope of a leaky ReLU.
        mode: ``"fan_in"`` or ``"fan_out"``.
    """
    if tensor.ndim < 2:
        raise ArgumentError(
            f"kaiming_normal_: expected at least 2 dimensions, got shape {tuple(tensor.shape)}"
        )
    fans = {"fan_in": 1, "fan_out": 0} if tensor.ndim == 2 else {"fan_in": 1, "fan_out": 2}
    if mode.lower() not in fans:
        raise ArgumentError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    fan = tensor.shape[fans[mode.lower()]] * (tensor.shape[0] if tensor.ndim > 2 else 1)
    gain = torch.nn.init.calculate_gain(nonlinearity, a)
    with torch.no_grad():
        return tensor.normal_(0, gain / math.sqrt(fan))
