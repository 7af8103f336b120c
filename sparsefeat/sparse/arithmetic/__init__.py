"""Which arithmetic runs a kernel map: Triton's on CUDA where Triton is installed, plain PyTorch elsewhere."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from types import ModuleType

from torch import Tensor

from sparsefeat.sparse.arithmetic import plain
from sparsefeat.sparse.kernel_map import KernelMap

VARIABLE = "SPARSEFEAT_ARITHMETIC"
"""Environment variable: ``torch`` for plain PyTorch on CUDA, ``triton`` for Triton's interpreter on a CPU."""


def convolve(
    features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None = None
) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``, plus a bias.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), bias (1, C_out) -> (n_out, C_out).
    """
    return arithmetic_for(features).convolve(features, weight, plan, bias)


def weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    """``out[k] = sum over pairs (i, o, k) of features[i]^T grad[o]``.

    Shape: features (n_in, C_in), grad (n_out, C_out) -> (K, C_in, C_out).
    """
    return arithmetic_for(features).weight_gradient(features, grad, plan)


def gradients(
    features: Tensor, weight: Tensor, grad: Tensor, plan: KernelMap
) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`convolve` to features and weight.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), grad (n_out, C_out) -> as features, as weight.
    """
    return arithmetic_for(features).gradients(features, weight, grad, plan)


def arithmetic_for(features: Tensor) -> ModuleType:
    """The module whose arithmetic convolves these features: ``torch`` or ``triton`` of this package."""
    if features.is_cuda:
        return plain if os.environ.get(VARIABLE) == "torch" or not _runs_on_cuda() else _triton()
    # On a CPU Triton has nothing but its interpreter.
    return _triton() if os.environ.get(VARIABLE) == "triton" and _has_triton() else plain


@functools.cache
def _has_triton() -> bool:
    """Whether there is a Triton that has what the kernels use: version 3, which comes with torch 2.4."""
    if importlib.util.find_spec("triton") is None:
        return False
    version = getattr(importlib.import_module("triton"), "__version__", "0")
    return version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 3


@functools.cache
def _runs_on_cuda() -> bool:
    """Whether Triton can be used on this machine's GPU: it compiles a small driver first, and may lack a compiler."""
    if not _has_triton():
        return False
    try:
        importlib.import_module("triton").runtime.driver.active.get_current_device()
    except Exception as error:  # each of its drivers has its own errors for it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"Triton cannot run here ({reason}); convolutions use plain PyTorch, which is slower",
            stacklevel=2,
        )
        return False
    return True


def _triton() -> ModuleType:
    # Imported when first needed: it takes its time, and is absent on most systems without a GPU.
    return importlib.import_module("sparsefeat.sparse.arithmetic.triton")
