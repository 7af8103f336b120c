"""What a bug report should say about the machine (diagnostics)."""

from __future__ import annotations

import platform
import sys

import torch

from sparsefeat.minkowski.backend import cuda_version, is_cuda_available


def print_diagnostics() -> None:
    """Write versions of the system, Python, torch and CUDA to standard output."""
    lines = [
        "==========System==========",
        platform.platform(),
        f"Python {platform.python_version()}",
        "==========Pytorch==========",
        torch.__version__,
        f"torch.cuda.is_available(): {is_cuda_available()}",
        f"CUDA version of torch: {cuda_version()}",
        *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        "==========MinkowskiEngine==========",
        "0.5.4's names on sparsefeat's engine",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
