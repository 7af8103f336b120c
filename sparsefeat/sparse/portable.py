"""A network on the voxels of one cloud, in operators that torch itself has: to be saved, or turned into ONNX."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, nn

from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.operators import AVAILABLE
from sparsefeat.sparse.tensor import SparseTensor


def export_network(network: nn.Module, x: SparseTensor) -> torch.export.ExportedProgram:
    """Export a network that takes and returns a SparseTensor, for the voxels of ``x`` alone.

    A kernel map is known to a running program only, so ``torch.export`` of a network is no use in another one. Here
    each convolution becomes a gather by a table (V, K) of rows and one matrix product. The result neither needs
    sparsefeat nor any operator of its own, and ``torch.onnx.export`` takes it. It needs more memory than the engine:
    K C_in numbers for each output of a layer.

    Args:
        network: in evaluation mode, with grid kernels, such as FCGF's. Its weights become part of the result.
        x: voxels and input features. Other features on the same voxels may be given to the result; other voxels
            need another one.

    Returns:
        A program from features (V, C_in) to features (V, C_out), rows as in ``x``.

    Raises:
        ValueError: the network is in training mode, has parts that cannot be expressed (pair kernels, pooling), or
            torch is older than 2.4.
    """
    if network.training:
        raise ValueError("export_network: the network is in training mode; call network.eval()")
    if not AVAILABLE:
        raise ValueError(f"export_network: torch {torch.__version__}, expected 2.4 or newer")
    features = x.F.detach()
    with torch.no_grad():
        network(x)  # makes the maps
        module = torch.export.export(_Fixed(network, x), (features,), strict=False).module()
        _replace_convolutions(module)
        return torch.export.export(module, (features,), strict=False)


class _Fixed(nn.Module):
    """A network as a function of features alone."""

    def __init__(self, network: nn.Module, x: SparseTensor):
        super().__init__()
        self.network, self.x = network, x

    def forward(self, features: Tensor) -> Tensor:
        return self.network(self.x.replace(features)).F


def _replace_convolutions(module: torch.fx.GraphModule) -> None:
    graph = module.graph
    tables: dict[tuple[int, bool], str] = {}
    for node in list(graph.nodes):
        if not str(node.target).startswith("sparsefeat."):
            continue
        if node.target is not torch.ops.sparsefeat.convolve.default:
            raise ValueError(f"export_network: {node.target} is not in the operators of torch")
        features, weight, handle, transposed = node.args[:4]
        value = attrgetter(handle.target)(module)
        key = (value.data_ptr(), transposed)
        if key not in tables:
            tables[key] = f"rows_{len(tables)}"
            module.register_buffer(tables[key], _table(KernelMap.behind(value, transposed)))
        count, volume = getattr(module, tables[key]).shape
        c_in, c_out = weight.meta["val"].shape[1:]
        with graph.inserting_before(node):
            call, ops = graph.call_function, torch.ops.aten
            zero = call(ops.new_zeros.default, (features, [1, c_in]))
            padded = call(ops.cat.default, ([features, zero],))
            rows = call(ops.view.default, (graph.get_attr(tables[key]), [-1]))
            gathered = call(ops.index_select.default, (padded, 0, rows))
            unfolded = call(ops.view.default, (gathered, [count, volume * c_in]))
            matrix = call(ops.reshape.default, (weight, [volume * c_in, c_out]))
            product = call(ops.mm.default, (unfolded, matrix))
        node.replace_all_uses_with(product)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def _table(plan: KernelMap) -> Tensor:
    """For each output row and cell the input row, or one past the last where there is none. Shape: (V, K) int64."""
    table = torch.full((plan.n_out, plan.volume), plan.n_in, device=plan.device)
    table[plan.out_rows, plan.cells] = plan.in_rows
    return table
