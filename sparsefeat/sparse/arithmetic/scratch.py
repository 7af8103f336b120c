"""Memory that layers use one after the other, on a CPU.

What a layer needs only while it runs is as large as its input. Allocated and freed with every layer, it goes back
to the system each time and is mapped and cleared page by page for the next one: a fifth of a backward pass at
50k voxels and 64 channels. CUDA's allocator in torch keeps its memory by itself.

There are eight purposes, so that a thread keeps 256 MB at most; a 3^3 layer of 128 channels at 50k voxels leaves
95 MB. It ends with the thread.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

KEPT_BYTES = 2**25
"""Most that is kept for one purpose; what is larger is allocated anew each time."""

_kept = threading.local()


def scratch(
    purpose: str, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """Room of that shape, with anything in it, on the device of ``like`` and by default of its dtype.

    It is the caller's until this thread asks for room for the same ``purpose`` again.
    """
    dtype = dtype or like.dtype
    size = math.prod(shape) * dtype.itemsize
    if like.device.type != "cpu" or size > KEPT_BYTES:
        return like.new_empty(shape, dtype=dtype)
    buffer = getattr(_kept, purpose, None)
    if buffer is None or len(buffer) < size:
        with torch.inference_mode(False):
            buffer = torch.empty(size, dtype=torch.uint8, device="cpu")
        if type(buffer) is not Tensor:  # of a tracer, which is at work for now only
            return like.new_empty(shape, dtype=dtype)
        setattr(_kept, purpose, buffer)
    return buffer[:size].view(dtype).view(shape)
