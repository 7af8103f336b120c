"""Arguments that may be one value or one per axis, and the base class of all layers (MinkowskiCommon)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sparsefeat.minkowski import backend
from sparsefeat.minkowski.errors import ArgumentError

StrideType = int | Sequence | np.ndarray | torch.Tensor


class MinkowskiModuleBase(nn.Module):
    """What every Minkowski layer with coordinates inherits."""


def convert_to_int_list(arg: StrideType, dimension: int) -> list[int]:
    """One integer per axis, from one value (repeated) or a sequence of ``dimension`` values."""
    if isinstance(arg, (np.ndarray, torch.Tensor)):
        arg = arg.tolist()
    if isinstance(arg, Sequence) and not isinstance(arg, str):
        if len(arg) != dimension:
            raise ArgumentError(f"expected one value or {dimension}, one per axis, got {list(arg)}")
        return [int(a) for a in arg]
    if np.isscalar(arg) and not isinstance(arg, str):
        return [int(arg)] * dimension
    raise ArgumentError(f"expected a number or a sequence of {dimension}, got {arg!r}")


def convert_to_int_tensor(arg: StrideType, dimension: int) -> torch.Tensor:
    """As :func:`convert_to_int_list`. Returns shape (D,) int32."""
    return torch.tensor(convert_to_int_list(arg, dimension), dtype=torch.int32)


def get_postfix(tensor: torch.Tensor) -> str:
    """The engine's name of the tensor's device: "GPU" or "CPU"."""
    return "GPU" if tensor.is_cuda else "CPU"


def get_minkowski_function(name: str, variable: torch.Tensor):
    """The function of the engine's compiled part called ``name`` for the device of ``variable``.

    Raises:
        ValueError: there is none, as for all that compute: these are Python classes here, such as
            ``MinkowskiConvolutionFunction``.
    """
    name += get_postfix(variable)
    if not hasattr(backend, name):
        raise ValueError(
            f"Function {name} not available: sparsefeat has no compiled back end; use the classes "
            "Minkowski*Function"
        )
    return getattr(backend, name)


def positive_dimension(dimension: int | None, where: str) -> int:
    """Return ``dimension``; raise ValueError unless it is a positive integer."""
    if not isinstance(dimension, (int, np.integer)) or dimension < 1:
        raise ArgumentError(f"{where}: expected a positive integer as dimension, got {dimension}")
    return int(dimension)
