"""The arithmetic of a kernel map in plain PyTorch: any device, any dtype, deterministic on CPU.

Three ways to convolve, chosen by size alone so that the same input always takes the same one:

- few input channels (an occupancy grid has one): unfold the neighbours into a dense [V, K C_in] matrix
  and multiply once, instead of K products with almost no arithmetic in each;
- otherwise per cell: gather, multiply into one buffer of [P, C_out], then sum the buffer's rows by
  output row, which needs no atomics and always adds in the same order;
- where that buffer would be too large: add each cell's product to the output directly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.sparse.kernel_map import KernelMap

UNFOLD_CHANNELS = 4
"""Input channels up to which the unfolded product is used."""

BUFFER_BYTES = 256 * 2**20
"""Largest scratch matrix of a layer."""


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """Sums over neighbours are kept in float32 for the half types."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def convolve(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``.

    Shape: features (n_in, C_in), weight (K, C_in, C_out) -> (n_out, C_out).
    """
    if plan.volume == 1 and plan.identity_cell == 0:
        return features @ weight[0]
    c_in, c_out = weight.shape[1:]
    if c_in <= UNFOLD_CHANNELS and plan.volume > 1:
        return _convolve_unfolded(features, weight, plan)
    accumulator = _accumulator(features.dtype)
    item = torch.finfo(accumulator).bits // 8
    identity = plan.identity_cell
    if identity is not None:
        out = (features @ weight[identity]).to(accumulator)
    else:
        out = features.new_zeros(plan.n_out, c_out, dtype=accumulator)
    if len(plan.in_rows) * c_out * item > BUFFER_BYTES:
        for cell, (rows, targets) in enumerate(plan.by_cell):
            if cell != identity and len(rows):
                out.index_add_(0, targets, (features[rows] @ weight[cell]).to(accumulator))
        return out.to(features.dtype)
    products = features.new_empty(len(plan.in_rows), c_out, dtype=accumulator)
    start = 0
    for cell, (rows, _) in enumerate(plan.by_cell):
        part = products[start : start + len(rows)]
        start += len(rows)
        if cell == identity:
            part.zero_()  # counted above; zero keeps one row order for all layers on this map
        elif len(rows):
            gathered = features.index_select(0, rows)
            if accumulator == features.dtype:
                torch.mm(gathered, weight[cell], out=part)
            else:
                part.copy_(gathered @ weight[cell])
    order = plan.out_order
    out += F.embedding_bag(order.pairs, products, order.splits, mode="sum", include_last_offset=True)
    return out.to(features.dtype)


def weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    """``out[k] = sum over pairs (i, o, k) of features[i]^T grad[o]``.

    Shape: features (n_in, C_in), grad (n_out, C_out) -> (K, C_in, C_out).
    """
    c_in, c_out = features.shape[1], grad.shape[1]
    if plan.volume == 1 and plan.identity_cell == 0:
        return (features.t() @ grad)[None]
    if c_in <= UNFOLD_CHANNELS and plan.volume > 1:
        out = features.new_zeros(plan.volume * c_in, c_out)
        for rows, unfolded in _unfold(features, plan):
            out += unfolded.t() @ grad[rows]
        return out.view(plan.volume, c_in, c_out)
    out = features.new_zeros(plan.volume, c_in, c_out)
    for cell, (rows, targets) in enumerate(plan.by_cell):
        if cell == plan.identity_cell:
            out[cell] = features.t() @ grad
        elif len(rows):
            out[cell] = features.index_select(0, rows).t() @ grad.index_select(0, targets)
    return out


def _unfold(features: Tensor, plan: KernelMap):
    """Yield (output rows, their neighbours side by side (rows, K C_in)) in blocks of bounded size."""
    width = plan.volume * features.shape[1]
    block = max(1, BUFFER_BYTES // (4 * width * features.element_size()))
    if block >= plan.n_out:
        unfolded = features.new_zeros(plan.n_out, plan.volume, features.shape[1])
        unfolded[plan.out_rows, plan.cells] = features.index_select(0, plan.in_rows)
        yield slice(0, plan.n_out), unfolded.view(plan.n_out, width)
        return
    order = plan.out_order
    for start in range(0, plan.n_out, block):
        stop = min(start + block, plan.n_out)
        pairs = order.pairs[order.splits[start] : order.splits[stop]]
        unfolded = features.new_zeros(stop - start, plan.volume, features.shape[1])
        unfolded[plan.out_rows[pairs] - start, plan.cells[pairs]] = features[plan.in_rows[pairs]]
        yield slice(start, stop), unfolded.view(stop - start, width)


def _convolve_unfolded(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    flat = weight.reshape(-1, weight.shape[2])
    parts = [unfolded @ flat for _, unfolded in _unfold(features, plan)]
    if not parts:
        return features.new_zeros(0, weight.shape[2])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
