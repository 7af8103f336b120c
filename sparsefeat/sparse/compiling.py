"""A network under torch.compile: its maps made beforehand, so that its graph has no break."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import nn

from sparsefeat.sparse.folding import example_input
from sparsefeat.sparse.tensor import SparseTensor


def compile_network(
    network: nn.Module, example: SparseTensor | None = None, **options
) -> Callable[[SparseTensor], SparseTensor]:
    """``torch.compile`` for a network that takes a SparseTensor.

    The sizes of a network's coarser levels depend on data, so making them interrupts a graph. Here they are
    made for each input before the graph is run, and a network is one graph without a break; a second one,
    compiled when the number of voxels first changes, serves every number. ``torch.compile`` itself works too,
    with a break at every map that an input does not have yet.

    Pruning, interpolation, and the ways between points and voxels look at coordinates or features to see how
    large they are. They are run between graphs, with gradients, and the maps of pruned voxels are made as above
    where they are first needed; ``fullgraph=True`` refuses all of these. A manager that is kept
    and pruned anew in each step grows, so that torch compiles again until its limit, and then no more.

    Args:
        network: compiled as it is: parameters and mode are shared with it.
        example: input that asks for the same maps as every other, run once in a copy of the network; by
            default a small random cloud with ``network.in_channels`` channels.
        options: those of ``torch.compile``.

    Returns:
        A function from input to output, as the network is.

    Raises:
        ValueError: the network has no ``in_channels`` and no example was given.
    """
    x = example_input(network) if example is None else example
    with torch.no_grad():
        copy.deepcopy(network).eval()(x)
    names = x.manager.names(x.key)
    compiled = torch.compile(network, **options)

    @functools.wraps(network.forward)
    def run(x: SparseTensor) -> SparseTensor:
        x.manager.make(names, x.key)
        return compiled(x)

    return run
