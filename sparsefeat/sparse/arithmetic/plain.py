"""The arithmetic of a kernel map in plain PyTorch: any device, any dtype, deterministic on CPU.

Two ways to convolve, chosen by :func:`unfolds` from sizes alone, so that the same input always takes the same one:

- unfolded: the neighbours of an output side by side in one row of a dense [V, K C_in] matrix, and one product.
  Empty cells are multiplied too; for a few channels (an occupancy grid has one) that costs less than finding
  the others.
- by cell: gather the rows of a cell's pairs, multiply them into a buffer of [pairs, C_out], and sum the buffer's
  rows by output, which needs no atomics and always adds in the same order. Outputs are taken in blocks, so that
  the buffer stays in the cache; beyond some 30 MB it would moreover be mapped and cleared anew for every layer.

Both go by position instead of by row: neighbours in space are then neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsefeat.sparse.arithmetic.scratch import scratch
from sparsefeat.sparse.kernel_map import Block, KernelMap, Segment

BLOCK_NUMBERS = {"cpu": 2**22}
"""Products of a block of outputs, by device type: 16 MB in float32, half of a CPU's cache."""

BLOCK_NUMBERS_ELSEWHERE = 2**28

LEAST_SEGMENT = 256
"""Pairs of a cell in a block, on average: with fewer, products become too small to be worth a call each."""

UNFOLDED_BYTES = 32 * 2**20
"""Largest unfolded matrix; a layer with more outputs goes block by block."""

WINDOW_BYTES = {"cpu": 2 * 2**20}
"""Likewise of one made of windows of a box, by device type: so small that the product finds it in the cache."""

BOX_BYTES = 128 * 2**20
"""Largest dense box of features to take windows from."""

# Nanoseconds on one core of a Zen 3 at 2.4 GHz in float32. Only their ratios matter.
PRODUCT_NS = 0.03
"""A multiplication with addition inside a matrix product (65 GFLOP/s)."""
MOVE_NS = 0.5
"""Gathering one number, or adding one up."""
UNFOLD_NS = 0.8
"""Putting one number into the unfolded matrix, and taking it through a product that is bound by memory."""
CALL_NS = 15_000
"""A gather and a product of any size: the calls alone."""

COPIED_ROWS = 32
"""Outputs per cell from which a transposed weight is copied: products run 10 % faster on the copy."""


def unfolds(plan: KernelMap, c_in: int, c_out: int) -> bool:
    """Whether the unfolded product is expected to be cheaper than products by cell.

    How many pairs there are is not known before they are searched, which the unfolded way can do without.
    So the voxels are taken to be those of surfaces: of K cells, 1.5 K^(2/3) are occupied (measured: 14 of 27
    and 70 of 343 in indoor scans).
    """
    volume = plan.volume
    pairs = plan.n_out * min(volume, 1.5 * volume ** (2 / 3))
    unfolded = plan.n_out * volume * c_in * (UNFOLD_NS + PRODUCT_NS * c_out)
    by_cell = volume * CALL_NS + pairs * (MOVE_NS * (c_in + c_out) + PRODUCT_NS * c_in * c_out)
    return unfolded < by_cell


def convolve(
    features: Tensor, weight: Tensor, plan: KernelMap, bias: Tensor | None = None
) -> Tensor:
    """``out[o] = sum over pairs (i, o, k) of features[i] @ weight[k]``, plus a bias.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), bias (1, C_out) -> (n_out, C_out).
    """
    if plan.volume == 1 and plan.identity_cell == 0:
        return _with_bias(features @ weight[0], bias)
    features = _by_position(plan, features)
    way = _convolve_unfolded if unfolds(plan, *weight.shape[1:]) else _convolve_by_cell
    return plan.by_row(_with_bias(way(features, weight, plan), bias))


def weight_gradient(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    """``out[k] = sum over pairs (i, o, k) of features[i]^T grad[o]``.

    Shape: features (n_in, C_in), grad (n_out, C_out) -> (K, C_in, C_out).
    """
    if plan.volume == 1 and plan.identity_cell == 0:
        return (features.t() @ grad)[None]
    features, grad = _by_position(plan, features), _by_position(plan.transpose, grad, "gradient")
    c_in, c_out = features.shape[1], grad.shape[1]
    if unfolds(plan, c_in, c_out):
        return _weight_gradient_unfolded(features, grad, plan)
    out = features.new_zeros(plan.volume, c_in, c_out, dtype=_accumulator(features.dtype))
    totals = out.unbind(0)
    blocks = _blocks(plan, max(c_in, c_out))
    xs, gs = _room(blocks, features), _room(blocks, grad, "gathered gradient")
    for block in blocks:
        for s in block.segments:
            x = _gather(features, s.sources, s, block, xs)
            _add_product(totals[s.cell], x.t(), _gather(grad, s.targets, s, block, gs))
    return out.to(features.dtype)


def gradients(
    features: Tensor, weight: Tensor, grad: Tensor, plan: KernelMap
) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`convolve` to features and weight, in one pass over the pairs.

    Shape: features (n_in, C_in), weight (K, C_in, C_out), grad (n_out, C_out) -> as features, as weight.
    """
    c_in, c_out = weight.shape[1:]
    back = plan.transpose
    pointwise = plan.volume == 1 and plan.identity_cell == 0
    if pointwise or unfolds(plan, c_in, c_out) or unfolds(back, c_out, c_in):
        return convolve(grad, weight.transpose(1, 2), back), weight_gradient(features, grad, plan)
    features, grad = _by_position(plan, features), _by_position(back, grad, "gradient")
    out = features.new_zeros(weight.shape, dtype=_accumulator(weight.dtype))
    totals = out.unbind(0)
    blocks = _blocks(back, max(c_in, c_out))
    room = _room(blocks, features, "gathered beside")
    sums = _Sums(back, blocks, grad, weight.transpose(1, 2))
    for block in blocks:
        for s, g in sums.of(block):
            _add_product(totals[s.cell], _gather(features, s.targets, s, block, room).t(), g)
    return back.by_row(sums.out), out.to(weight.dtype)


def _convolve_by_cell(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    blocks = _blocks(plan, max(weight.shape[1:]))
    sums = _Sums(plan, blocks, features, weight)
    for block in blocks:
        for _ in sums.of(block):
            pass
    return sums.out


class _Sums:
    """The output of a convolution in the making, and the scratch that its blocks share."""

    def __init__(self, plan: KernelMap, blocks: list[Block], features: Tensor, weight: Tensor):
        if plan.n_out > COPIED_ROWS * plan.volume:
            weight = weight.contiguous()
        self.features = features
        self.weights = weight.unbind(0)
        self.gathered = _room(blocks, features)
        self.wide = _accumulator(features.dtype)
        longest = max(sum(block.counts) for block in blocks)
        self.products = scratch("products", features, (longest, weight.shape[2]), self.wide)
        self.out = _room_for_sums(plan, features, weight.shape[2])

    def of(self, block: Block) -> Iterator[tuple[Segment, Tensor]]:
        """Make a block of the output; yields each segment with its gathered input rows on the way."""
        products = self.products[: len(block.order)]
        for s, part in zip(block.segments, products.split_with_sizes(block.counts)):
            rows = _gather(self.features, s.sources, s, block, self.gathered)
            if self.wide == rows.dtype:
                torch.mm(rows, self.weights[s.cell], out=part)
            else:
                part.copy_(rows @ self.weights[s.cell])
            yield s, rows
        # sum mode, nothing sparse, no weights, and a last split
        sums = torch.embedding_bag(
            products, block.order, block.splits, False, 0, False, None, True
        )[0]
        self.out[block.start : block.stop] = sums


def _blocks(plan: KernelMap, widest: int) -> list[Block]:
    """Blocks of such a size that the products stay in the cache; the same for all layers up to 64 channels."""
    numbers = BLOCK_NUMBERS.get(plan.device.type, BLOCK_NUMBERS_ELSEWHERE)
    pairs = max(numbers // max(widest, 64), LEAST_SEGMENT * plan.volume)
    rows = max(16, pairs * plan.n_out // max(plan.n_pairs, 1))
    return plan.blocks(1 << (rows.bit_length() - 1))


def _room(blocks: list[Block], features: Tensor, purpose: str = "gathered") -> Tensor:
    """Room for the gathered rows of any segment."""
    longest = max((count for block in blocks for count in block.counts), default=0)
    return scratch(purpose, features, (longest, features.shape[1]))


def _room_for_sums(plan: KernelMap, features: Tensor, channels: int) -> Tensor:
    """Room for the output by position, which is the layer's output itself where rows are in that order."""
    shape = plan.n_out, channels
    return (
        features.new_empty(shape) if plan.transpose.in_order else scratch("sums", features, shape)
    )


def _by_position(plan: KernelMap, features: Tensor, purpose: str = "features") -> Tensor:
    if plan.in_order:
        return features
    return plan.by_position(features, out=scratch(purpose, features, tuple(features.shape)))


def _gather(
    features: Tensor, positions: Tensor, segment: Segment, block: Block, room: Tensor
) -> Tensor:
    if segment.identical:
        return features[block.start : block.stop]
    return torch.index_select(features, 0, positions, out=room[: segment.count])


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """Sums over neighbours are kept in float32 for the half types."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _with_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out.add_(bias.to(out.dtype))


def _unfold(features: Tensor, plan: KernelMap) -> Iterator[tuple[slice, Tensor]]:
    """Yield output positions and what they see (rows, K C_in), cells in the order of :func:`_cell_order`.

    A matrix is overwritten by the next one.
    """
    channels = features.shape[1]
    width = plan.volume * channels
    row_bytes = width * features.element_size()
    if _has_box(features, plan):
        box = plan.windows.box(features)
        rows = WINDOW_BYTES.get(features.device.type, UNFOLDED_BYTES) // row_bytes
        rows = max(1, min(rows, plan.n_out))
        room = scratch("unfolded", features, (rows * width,))
        for start in range(0, plan.n_out, rows):
            stop = min(start + rows, plan.n_out)
            yield slice(start, stop), plan.windows.unfold(box, start, stop, room)
        return
    rows = max(1, UNFOLDED_BYTES // row_bytes)
    for block in plan.blocks(1 << (rows.bit_length() - 1)):
        unfolded = features.new_zeros(block.stop - block.start, plan.volume, channels)
        for s in block.segments:
            unfolded[:, s.cell].index_copy_(
                0, s.targets.long() - block.start, features.index_select(0, s.sources)
            )
        yield slice(block.start, block.stop), unfolded.view(-1, width)


def _has_box(features: Tensor, plan: KernelMap) -> bool:
    windows = plan.windows
    return (
        windows is not None
        and windows.cells * features[:1].numel() * features.element_size() <= BOX_BYTES
    )


def _cell_order(features: Tensor, plan: KernelMap) -> Tensor:
    if _has_box(features, plan):
        return plan.windows.order
    return torch.arange(plan.volume, device=features.device)


def _convolve_unfolded(features: Tensor, weight: Tensor, plan: KernelMap) -> Tensor:
    flat = weight.index_select(0, _cell_order(features, plan)).view(-1, weight.shape[2])
    out = _room_for_sums(plan, features, weight.shape[2])
    for rows, unfolded in _unfold(features, plan):
        torch.mm(unfolded, flat, out=out[rows])
    return out


def _weight_gradient_unfolded(features: Tensor, grad: Tensor, plan: KernelMap) -> Tensor:
    order = _cell_order(features, plan)
    flat = features.new_zeros(
        plan.volume * features.shape[1], grad.shape[1], dtype=_accumulator(features.dtype)
    )
    for rows, unfolded in _unfold(features, plan):
        _add_product(flat, unfolded.t(), grad[rows])
    out = flat.view(plan.volume, features.shape[1], grad.shape[1]).to(features.dtype)
    return torch.empty_like(out).index_copy_(0, order, out)
