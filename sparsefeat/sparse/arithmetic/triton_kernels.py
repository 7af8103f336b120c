"""The kernels of :mod:`sparsefeat.sparse.arithmetic.triton`: products fused with the gathers of their operands.

They use Triton's built-in functions only, none of its library: these are compiled or interpreted as this file
is, whichever way the rest of Triton was imported.
"""

from __future__ import annotations

import triton
import triton.language as tl


# Triton compiles a kernel anew where a number is 1 or becomes a multiple of 16: not for numbers that change from
# cloud to cloud.
@triton.jit(do_not_specialize=["n_out", "column_blocks"])
def convolve_tiles(
    x, weight, bias, out, rows, starts, cells, sources,
    c_in, c_out, cell_stride, in_stride, out_stride, n_out, column_blocks,
    HEIGHT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, CHUNKS: tl.constexpr,
    CELLS: tl.constexpr, PARTS: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of outputs, BLOCK_N of its channels, and one of PARTS shares of its steps.

    The inner dimension of the product is BLOCK_K channels of one cell, CHUNKS times over for each cell; where
    CELLS > 1 it is that many cells of BLOCK_K / CELLS channels each, so that few channels fill a product too.
    """
    program = tl.program_id(0)
    part = tl.program_id(1)
    tile = program // column_blocks
    n = (program % column_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.load(starts + tile)
    last = tl.load(starts + tile + 1)
    groups = (last - first + CELLS - 1) // CELLS
    share = (groups + PARTS - 1) // PARTS
    begin = part * share
    end = tl.minimum(begin + share, groups)
    slots = tl.arange(0, HEIGHT)
    k = tl.arange(0, BLOCK_K)
    total = tl.full([HEIGHT, BLOCK_N], 0.0, tl.float32)
    for i in range(begin * CHUNKS, end * CHUNKS):
        if CELLS == 1:
            step = first + i // CHUNKS
            c = (i % CHUNKS) * BLOCK_K + k
            source = tl.load(sources + step.to(tl.int64) * HEIGHT + slots)
            a = tl.load(
                x + source.to(tl.int64)[:, None] * c_in + c[None, :],
                mask=(source >= 0)[:, None] & (c < c_in)[None, :],
                other=0.0,
            )
            cell = tl.load(cells + step)
            b = tl.load(
                weight + cell * cell_stride + c[:, None] * in_stride + n[None, :] * out_stride,
                mask=(c < c_in)[:, None] & (n < c_out)[None, :],
                other=0.0,
            )
        else:
            steps = first + i * CELLS + k // (BLOCK_K // CELLS)
            c = k % (BLOCK_K // CELLS)
            there = (steps < last) & (c < c_in)
            source = tl.load(
                sources + steps.to(tl.int64)[None, :] * HEIGHT + slots[:, None],
                mask=there[None, :],
                other=-1,
            )
            a = tl.load(x + source.to(tl.int64) * c_in + c[None, :], mask=source >= 0, other=0.0)
            cell = tl.load(cells + steps, mask=there, other=0)
            b = tl.load(
                weight
                + cell[:, None] * cell_stride
                + c[:, None] * in_stride
                + n[None, :] * out_stride,
                mask=there[:, None] & (n < c_out)[None, :],
                other=0.0,
            )
        if WIDEN:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + n, mask=n < c_out, other=0.0).to(tl.float32)[None, :]
    row = tl.load(rows + tile * HEIGHT + slots)
    # The product with c_out comes last: where that is a multiple of 16, whole vectors are stored.
    place = (part.to(tl.int64) * n_out + row.to(tl.int64)[:, None]) * c_out + n[None, :]
    tl.store(
        out + place, total.to(out.dtype.element_ty), mask=(row >= 0)[:, None] & (n < c_out)[None, :]
    )


@triton.jit(do_not_specialize=["units"])
def multiply_units(
    x, grad, parts, sources, targets, bounds, units, c_in, c_out,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """``parts[u] = x[sources]^T grad[targets]`` over the pairs of unit u; BLOCK_C x BLOCK_N of it."""
    unit = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.load(bounds + unit)
    end = tl.load(bounds + units + unit)
    total = tl.full([BLOCK_C, BLOCK_N], 0.0, tl.float32)
    for start in range(begin, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        there = pair < end
        i = tl.load(sources + pair, mask=there, other=0).to(tl.int64)
        o = tl.load(targets + pair, mask=there, other=0).to(tl.int64)
        a_there = there[:, None] & (c < c_in)[None, :]
        b_there = there[:, None] & (n < c_out)[None, :]
        a = tl.load(x + i[:, None] * c_in + c[None, :], mask=a_there, other=0.0)
        b = tl.load(grad + o[:, None] * c_out + n[None, :], mask=b_there, other=0.0)
        if WIDEN:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    place = unit.to(tl.int64) * c_in * c_out + c[:, None] * c_out + n[None, :]
    tl.store(parts + place, total, mask=(c < c_in)[:, None] & (n < c_out)[None, :])


@triton.jit
def sum_units(parts, out, firsts, size, BLOCK: tl.constexpr):
    """``out[k]`` = the parts of cell k's units, added in their order; BLOCK of its ``size`` numbers."""
    cell = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.full([BLOCK], 0.0, tl.float32)
    first = tl.load(firsts + cell)
    last = tl.load(firsts + cell + 1)
    place = parts + first.to(tl.int64) * size + at
    for _ in range(first, last):
        total += tl.load(place, mask=at < size, other=0.0)
        place += size
    tl.store(out + cell.to(tl.int64) * size + at, total.to(out.dtype.element_ty), mask=at < size)
