"""Small networks that several tests compute with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsefeat.models import create_model


def small(width: int = 4, depth: int = 1, **options: Any) -> dict[str, Any]:
    """Options of a network with all kinds of layers and few channels, as a configuration has them too."""
    widths = [width] * (depth + 1)
    return {
        "conv1_kernel_size": 3,
        "depth": depth,
        "channels": widths,
        "tr_channels": widths,
        "out_channels": width,
    } | options


def small_network(width: int = 4, depth: int = 1, seed: int = 0, **options: Any) -> nn.Module:
    """A network of :func:`small` with as many input channels as its kernels take, for inference."""
    channels = 1
    if options.get("kernels") == "pair":
        channels = 6 if options.get("oriented") else 3
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = {"in_channels": channels} | small(width, depth, **options)
        return create_model("ResUNetBN2C", **options).eval()
