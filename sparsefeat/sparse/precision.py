"""In which type sums are kept, and how exact products are."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """The half types as float32: sums over many rows would lose digits in them, or overflow."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def allows_tf32() -> bool:
    """Whether torch's products of float32 may go through tf32 on CUDA."""
    chosen = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    # Where the newer setting was made, asking for the older one is an error; where it was not, it says "none".
    return (
        torch.get_float32_matmul_precision() != "highest" if chosen == "none" else chosen == "tf32"
    )


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast asks for on this device, or None."""
    try:
        enabled = torch.is_autocast_enabled(device_type)
    except TypeError:  # torch < 2.4 has one function per device
        enabled = (
            torch.is_autocast_cpu_enabled() if device_type == "cpu" else torch.is_autocast_enabled()
        )
        cast = (
            torch.get_autocast_cpu_dtype()
            if device_type == "cpu"
            else torch.get_autocast_gpu_dtype()
        )
        return cast if enabled else None
    return torch.get_autocast_dtype(device_type) if enabled else None
