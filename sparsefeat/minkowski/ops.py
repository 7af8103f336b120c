"""Linear layers, tensors on the same coordinates into one, dense grids to voxels and back (MinkowskiOps)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sparsefeat.minkowski.common import MinkowskiModuleBase
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor import (
    COORDINATE_KEY_DIFFERENT_ERROR,
    COORDINATE_MANAGER_DIFFERENT_ERROR,
)
from sparsefeat.minkowski.tensor import Tensor as Coordinated
from sparsefeat.minkowski.tensor_field import TensorField


class MinkowskiLinear(nn.Module):
    """torch.nn.Linear on the features of a sparse tensor or field; parameters under ``linear``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, input: SparseTensor | TensorField):
        return input.replace(self.linear(input.F))

    def __repr__(self) -> str:
        linear = self.linear
        return (
            f"{type(self).__name__}(in_features={linear.in_features}, out_features={linear.out_features}, "
            f"bias={linear.bias is not None})"
        )


def _combined(tensors: Sequence, operation: Callable[[list[Tensor]], Tensor]):
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tensors[0]
    if len(tensors) < 2:
        raise ArgumentError(f"expected at least two tensors, got {len(tensors)}")
    first = tensors[0]
    for other in tensors:
        if not isinstance(other, Coordinated) or type(other) is not type(first):
            raise ArgumentError("expected sparse tensors, or fields, and not both")
        if other.coordinate_manager != first.coordinate_manager:
            raise ArgumentError(COORDINATE_MANAGER_DIFFERENT_ERROR)
        if other.coordinate_key != first.coordinate_key:
            raise ArgumentError(
                f"{COORDINATE_KEY_DIFFERENT_ERROR}: {first.coordinate_key}, {other.coordinate_key}"
            )
    return first.replace(operation([t.F for t in tensors]))


def cat(*sparse_tensors):
    """Concatenate the channels of tensors, or of fields, on the same coordinates."""
    return _combined(sparse_tensors, lambda features: torch.cat(features, -1))


def _sum(*sparse_tensors):
    """The sum of tensors, or of fields, on the same coordinates."""
    return _combined(sparse_tensors, lambda features: torch.stack(features).sum(0))


def mean(*sparse_tensors):
    """The mean of tensors, or of fields, on the same coordinates."""
    return _combined(sparse_tensors, lambda features: torch.stack(features).mean(0))


def var(*sparse_tensors):
    """The biased variance of tensors, or of fields, on the same coordinates."""
    return _combined(sparse_tensors, lambda features: torch.stack(features).var(0, unbiased=False))


def dense_coordinates(shape: Sequence[int]) -> Tensor:
    """Coordinates of all cells of a grid (B, C, X, Y, Z), last axis fastest. Shape: (B X Y Z, 4) int32."""
    if len(shape) < 3:
        raise ArgumentError(f"dense_coordinates: expected (B, C, X, ...), got {tuple(shape)}")
    axes = [torch.arange(n, dtype=torch.int32) for n in (shape[0], *shape[2:])]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


def to_sparse(
    x: Tensor, format: str | None = None, coordinates: Tensor | None = None, device=None
) -> SparseTensor:
    """The cells of a grid with some non-zero channel, as voxels.

    Args:
        x: Shape as ``format`` says.
        format: one letter per axis: B first, C once, X for the others; by default "BCX..X".
        coordinates: not used, as in the engine.
        device: of the result; by default that of ``x``.
    """
    if x.ndim < 3:
        raise ArgumentError(
            f"to_sparse: expected at least one spatial axis, got shape {tuple(x.shape)}"
        )
    format = "BC" + "X" * (x.ndim - 2) if format is None else format
    if (
        len(format) != x.ndim
        or format[0] != "B"
        or sorted(format) != sorted("BC" + "X" * (x.ndim - 2))
    ):
        raise ArgumentError(
            f"format: expected {x.ndim} letters, B first, one C, else X; got {format!r}"
        )
    last = x.movedim(format.index("C"), -1)
    cells = (last != 0).any(-1).nonzero()
    return SparseTensor(
        last[cells.unbind(1)], cells.int(), device=x.device if device is None else device
    )


def to_sparse_all(dense_tensor: Tensor, coordinates: Tensor | None = None) -> SparseTensor:
    """All cells of a grid (B, C, X, Y, Z) as voxels, those with zeros too.

    ``coordinates``: the result of :func:`dense_coordinates` for this shape, where it is kept between calls.
    """
    if coordinates is None:
        coordinates = dense_coordinates(dense_tensor.shape)
    features = dense_tensor.movedim(1, -1).reshape(-1, dense_tensor.shape[1])
    return SparseTensor(features, coordinates, device=dense_tensor.device)


class MinkowskiToSparseTensor(MinkowskiModuleBase):
    """A dense grid (B, C, X, Y, Z), or a field, to a sparse tensor.

    Args:
        remove_zeros: leave out cells whose channels are all zero; without effect on a field.
        coordinates: the result of ``dense_coordinates`` for all grids to come; keeps all cells.
    """

    def __init__(self, remove_zeros: bool = True, coordinates: Tensor | None = None):
        super().__init__()
        self.remove_zeros = remove_zeros
        self.coordinates = coordinates

    def forward(self, input: TensorField | Tensor) -> SparseTensor:
        if isinstance(input, TensorField):
            return input.sparse()
        if not isinstance(input, Tensor):
            raise ArgumentError(
                f"{self}: expected a TensorField or a torch tensor, got {type(input).__name__}"
            )
        if self.remove_zeros and self.coordinates is None:
            return to_sparse(input)
        return to_sparse_all(input, self.coordinates)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiToDenseTensor(MinkowskiModuleBase):
    """A sparse tensor to a grid (B, C, X, Y, Z); ``shape`` is the grid's, by default as large as needed."""

    def __init__(self, shape: torch.Size | None = None):
        super().__init__()
        self.shape = shape

    def forward(self, input: SparseTensor) -> Tensor:
        return input.dense(shape=self.shape)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiToFeature(MinkowskiModuleBase):
    """The features of a sparse tensor or field as a torch tensor."""

    def forward(self, x: SparseTensor | TensorField) -> Tensor:
        return x.F


class MinkowskiStackCat(nn.Sequential):
    """The outputs of all modules on one input, concatenated."""

    def forward(self, x):
        return cat([module(x) for module in self])


class MinkowskiStackSum(nn.Sequential):
    """The sum of the outputs of all modules on one input."""

    def forward(self, x):
        return _sum([module(x) for module in self])


class MinkowskiStackMean(nn.Sequential):
    """The mean of the outputs of all modules on one input."""

    def forward(self, x):
        return mean([module(x) for module in self])


class MinkowskiStackVar(nn.Sequential):
    """The variance of the outputs of all modules on one input."""

    def forward(self, x):
        return var([module(x) for module in self])
