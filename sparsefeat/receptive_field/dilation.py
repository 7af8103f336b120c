"""Dilation as a continuous parameter: the convolution at 1.4 is 0.6 of that at 1 and 0.4 of that at 2."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.pairs import PairConvolution
from sparsefeat.models.reach import measure_reach
from sparsefeat.receptive_field.parameter import PositiveParameter
from sparsefeat.sparse import Kernel, SparseTensor
from sparsefeat.sparse.modules import Convolution


class ContinuousDilation(nn.Module):
    """Multiplies the dilation of a network's stride-1 convolutions by a factor that gradients can tune.

    A factor between two whole numbers blends the outputs of the two convolutions, which share their weights.
    The network's parameters and state dict stay as they are; the factor acts inside :meth:`applied` only.
    Convolutions of one cell, strided ones and other windows than cubes are left alone.

    Args:
        model: any network of the package on the torch backend.
        initial, low, high: the factor and its bounds; ``low`` at least 1.
        per_layer: one factor per convolution, in the order of ``model.modules()``, instead of one for all.

    Raises:
        InputError: bounds below 1 or out of order, or no layer that could be dilated.
    """

    def __init__(
        self,
        model: nn.Module,
        initial: float = 1.0,
        low: float = 1.0,
        high: float = 4.0,
        per_layer: bool = False,
    ):
        super().__init__()
        if low < 1:
            raise InputError(f"dilation: expected bounds of at least 1, got {low!r}")
        if isinstance(model, DilatedNetwork):
            raise InputError(
                f"the network has dilation {model.factor:g} already; tune that of its .model"
            )
        layers = [layer for layer in model.modules() if _can_dilate(layer)]
        if not layers:
            raise InputError(
                f"{type(model).__name__} has no stride-1 convolution that could be dilated"
            )
        # Not as submodules: they belong to the model.
        self._layers = tuple(layers)
        self.factor = PositiveParameter(initial, low, high, len(layers) if per_layer else 1)

    def __len__(self) -> int:
        return len(self._layers)

    def forward(self) -> Tensor:
        """The factors. Shape: (1,) or (layers,)"""
        return self.factor()

    @contextlib.contextmanager
    def applied(self, factors: Tensor | None = None) -> Iterator[None]:
        """While this is open the network computes with the factors (those given, else its own)."""
        factors = (self() if factors is None else factors).expand(len(self._layers))
        for layer, factor in zip(self._layers, factors, strict=True):
            layer.forward = _Dilated(layer, factor)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward


class DilatedNetwork(nn.Module):
    """A network at a fixed factor of dilation; what a checkpoint says of it stays readable on it."""

    def __init__(self, model: nn.Module, factor: float):
        super().__init__()
        self.model = model
        self.factor = float(factor)
        self._dilation = ContinuousDilation(model, high=max(self.factor, 1.0))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """As the network's own."""
        with self._dilation.applied(torch.tensor([self.factor])):
            return self.model(x)

    @property
    def receptive_field(self) -> int:
        """Edge in voxels, as that of a network; at this dilation."""
        return 2 * measure_reach(self, self.model.in_channels).radius + 1

    def state_dict(self, *args, **options):
        """Raises InputError: a checkpoint has no place for the factor."""
        raise InputError(
            f"a network at dilation {self.factor:g} cannot be saved; save its .model, and the factor beside it"
        )

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


class _Dilated:
    def __init__(self, layer: Convolution, factor: Tensor):
        self.layer = layer
        lower = max(1, math.floor(float(factor.detach())))
        self.lower, self.share = lower, factor - lower

    @property
    def window(self) -> Kernel:
        """The widest that is run, for those who ask how far the network looks."""
        return self._window(self.lower if self._whole else self.lower + 1)

    @property
    def _whole(self) -> bool:
        return float(self.share.detach()) == 0 and not self.share.requires_grad

    def __call__(self, x: SparseTensor, coordinates=None) -> SparseTensor:
        low = self._at(x, self.lower, coordinates)
        if self._whole:
            return low
        high = self._at(x, self.lower + 1, coordinates)
        share = self.share.to(low.features.dtype)
        return low.replace((1 - share) * low.features + share * high.features)

    def _at(self, x: SparseTensor, factor: int, coordinates) -> SparseTensor:
        layer, window = self.layer, self.layer.window
        layer.window = self._window(factor)
        try:
            given = () if coordinates is None else (coordinates,)
            return type(layer).forward(layer, x, *given)
        finally:
            layer.window = window

    def _window(self, factor: int) -> Kernel:
        window = self.layer.window
        return Kernel(window.size, tuple(d * factor for d in window.dilation))


def _can_dilate(layer: nn.Module) -> bool:
    return (
        isinstance(layer, Convolution | PairConvolution)
        and not layer.transposed
        and layer.window.region == "cube"
        and layer.window.volume > 1
        and all(s == 1 for s in layer.stride)
    )
