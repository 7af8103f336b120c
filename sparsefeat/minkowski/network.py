"""The base class of networks (MinkowskiNetwork)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class MinkowskiNetwork(nn.Module, ABC):
    """A network over D spatial axes; subclasses define ``forward``."""

    def __init__(self, D: int):
        super().__init__()
        self.D = D

    @abstractmethod
    def forward(self, x):
        """Apply the network."""
