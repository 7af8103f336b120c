"""A multilayer perceptron on each row of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.heads.initialization import seeded


class Standardize(nn.Module):
    """Subtract the mean and divide by the standard deviation of the training features, once known.

    Until :meth:`fit` it changes nothing. The statistics are buffers, so that they are saved with a head.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, features: Sequence[Tensor]) -> None:
        """Take the statistics of all rows. Shape: several (N, C); a channel that never varies stays.

        Raises:
            InputError: no rows, other channels than it was made for, or values that are not finite. What was fitted
                before remains.
        """
        for number, rows in enumerate(features):
            self._check(rows)
            finite = torch.isfinite(rows).reshape(-1, len(self.mean)).all(1)
            if not finite.all():
                raise InputError(
                    f"Standardize: features of shape {number} are not finite (row {int(finite.int().argmin())})"
                )
        count = sum(len(f) for f in features)
        if count == 0:
            raise InputError("Standardize: no rows to take the mean of")
        mean = sum(f.double().sum(0) for f in features) / count
        variance = sum((f.double() - mean).square().sum(0) for f in features) / count
        deviation = variance.sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-12 * mean.abs() + 1e-30, deviation, 1.0))
        self.fitted.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features. Shape: (..., C) -> (..., C).

        Raises:
            InputError: no tensor, or other channels than it was made for.
        """
        self._check(features)
        return (features - self.mean) / self.deviation

    def _check(self, features: Tensor) -> None:
        # One channel would be broadcast to all of them.
        if not isinstance(features, Tensor) or features.shape[-1:] != self.mean.shape:
            given = (
                tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            )
            raise InputError(
                f"features: got {given}, expected a tensor (N, {len(self.mean)}) of as many channels as in training"
            )


class MLPHead(nn.Module):
    """Standardised features, then linear layers with ReLU between them.

    Args:
        in_channels: C of the features.
        out_channels: classes L.
        hidden: widths of the layers between; () makes it a linear classifier.
        dropout: share of hidden values set to zero in training.
        seed: of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.standardize = Standardize(in_channels)
        with seeded(seed):
            self.layers = perceptron(in_channels, out_channels, hidden, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Scores of the classes before the softmax. Shape: (..., C) -> (..., L)."""
        if features.shape[-1] != self.in_channels:
            raise InputError(
                f"MLPHead: made for {self.in_channels} channels, got {tuple(features.shape)}"
            )
        return self.layers(self.standardize(features))


def perceptron(
    in_channels: int, out_channels: int, hidden: Sequence[int], dropout: float
) -> nn.Sequential:
    """Linear layers with ReLU, and dropout if any, between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_channels, width), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        in_channels = width
    return nn.Sequential(*layers, nn.Linear(in_channels, out_channels))
