"""In which type sums are kept."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """The half types as float32: sums over many rows would lose digits in them, or overflow."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
