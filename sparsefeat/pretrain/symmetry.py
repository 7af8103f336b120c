"""Starting a network with symmetric kernels."""

from __future__ import annotations

import torch
from torch import nn

from sparsefeat.sparse.modules import symmetric_layers


@torch.no_grad()
def start_symmetric(model: nn.Module) -> None:
    """Make new kernels symmetric without shrinking them.

    The mean of n random cells has 1/sqrt(n) of their spread; an optimiser whose steps do not scale with the
    weights would move such a kernel too fast.
    """
    for layer in symmetric_layers(model):
        spread = layer.kernel.std()
        layer.symmetrize()
        layer.kernel *= spread / layer.kernel.std()
