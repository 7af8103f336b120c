"""Whole shapes: features pooled over the surface, and a classifier on them.

With a few shapes a class, :func:`pool_shapes` followed by a
:class:`~sparsefeat.heads.probes.LinearProbe` is enough; :class:`PooledHead` is for training by gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.heads.initialization import seeded
from sparsefeat.heads.mlp import Standardize, perceptron

PoolMode = Literal["mean", "max", "mean_max"]


def pool_features(
    features: Tensor, weights: Tensor | None = None, mode: PoolMode = "mean_max"
) -> Tensor:
    """One vector for a shape.

    Args:
        features: Shape (N, C).
        weights: of the mean, such as the area of each vertex; None for equal ones. Shape (N,).
        mode: the mean, the maximum of each channel, or one after the other.

    Returns:
        (C,), or (2 C,) for ``"mean_max"``.

    Raises:
        InputError: no rows, shapes that do not fit, an unknown mode, weights that do not sum to more than 0.
    """
    if mode not in ("mean", "max", "mean_max"):
        raise InputError(f"pool_features: unknown mode {mode!r}; there are mean, max, mean_max")
    if features.ndim != 2 or len(features) == 0:
        raise InputError(
            f"pool_features: expected features (N, C), N at least 1, got {tuple(features.shape)}"
        )
    if weights is None:
        mean = features.mean(0)
    else:
        weights = weights.to(features)
        if weights.shape != features.shape[:1] or not bool(weights.sum() > 0):
            raise InputError(
                f"pool_features: expected {len(features)} weights with a positive sum, got "
                f"{tuple(weights.shape)}, sum {float(weights.sum())}"
            )
        mean = (weights[:, None] * features).sum(0) / weights.sum()
    if mode == "mean":
        return mean
    highest = features.amax(0)
    return highest if mode == "max" else torch.cat([mean, highest])


def pool_shapes(
    features: Sequence[Tensor], weights: Sequence[Tensor] | None = None, mode: PoolMode = "mean_max"
) -> Tensor:
    """:func:`pool_features` of several shapes. Shape: S times (N, C) -> (S, C) or (S, 2 C)."""
    if len(features) == 0:
        raise InputError("pool_shapes: no shapes")
    given = [None] * len(features) if weights is None else weights
    return torch.stack([pool_features(f, w, mode) for f, w in zip(features, given, strict=True)])


class PooledHead(nn.Module):
    """A class for a shape: a perceptron on each vertex, pooling, a perceptron on the result.

    Args:
        in_channels: C of the features.
        out_channels: classes L.
        width: of what is pooled; None pools the (standardised) features as they are.
        hidden: widths of the layers after pooling; () is a linear classifier.
        mode: see :func:`pool_features`.
        dropout: share of hidden values set to zero in training.
        seed: of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int | None = None,
        hidden: Sequence[int] = (),
        mode: PoolMode = "mean_max",
        dropout: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.mode = mode
        self.standardize = Standardize(in_channels)
        pooled = (width or in_channels) * (2 if mode == "mean_max" else 1)
        with seeded(seed):
            self.before = (
                nn.Identity()
                if width is None
                else nn.Sequential(perceptron(in_channels, width, (width,), dropout), nn.ReLU())
            )
            self.after = perceptron(pooled, out_channels, hidden, dropout)

    def forward(self, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scores of the classes before the softmax. Shape: (N, C), weights (N,) -> (L,)."""
        return self.after(
            pool_features(self.before(self.standardize(features)), weights, self.mode)
        )
