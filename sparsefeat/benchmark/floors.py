"""What no engine can beat: the bare matrix products of a layer, its gathers, and moving its numbers once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsefeat.sparse.kernel_map import KernelMap

GATHERED_BYTES = 2**18
"""What is gathered at a time: half of a core's second-level cache, so that a product would find it there."""


def products(
    counts: Sequence[int],
    c_in: int,
    c_out: int,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool = False,
    to_input: bool = True,
) -> Callable[[], None]:
    """The products of one convolution on rows that lie ready: one per kernel cell, with its number of pairs.

    ``backward``: those of the gradients instead, to the weight and, with ``to_input``, to the input. Operands are
    shared between cells, so nothing is gathered and little is fetched from memory.
    """
    counts = [count for count in counts if count]
    longest = max(counts, default=0)
    x = torch.randn(longest, c_in, device=device, dtype=dtype)
    g = torch.randn(longest, c_out, device=device, dtype=dtype)
    w = torch.randn(c_in, c_out, device=device, dtype=dtype)
    to_x, to_g, to_w = torch.empty_like(x), torch.empty_like(g), torch.empty_like(w)

    def forward_products() -> None:
        for count in counts:
            torch.mm(x[:count], w, out=to_g[:count])

    def backward_products() -> None:
        for count in counts:
            if to_input:
                torch.mm(g[:count], w.t(), out=to_x[:count])
            torch.mm(x[:count].t(), g[:count], out=to_w)

    return backward_products if backward else forward_products


def captured(call: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """``call`` as a CUDA graph, so that small products do not wait for the host to launch them.

    On a CPU, or where it cannot be captured, it is ``call`` itself. It may not wait for the device.
    """
    if device.type != "cuda":
        return call
    graph = None
    try:
        graph = _capture(call, device)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = f"products are launched one by one, no CUDA graph could be made of them: {error}"
        warnings.warn(text, stacklevel=2)
    # ``call`` has to live as long as the graph, which reads and writes its operands.
    return lambda: call() if graph is None else graph.replay()


def _capture(call: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()  # cuBLAS makes its handle and workspace at the first call, which no graph may hold
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            call()
        torch.cuda.synchronize()
    return graph


def gathers(
    plan: KernelMap, c_in: int, c_out: int, dtype: torch.dtype, backward: bool = False
) -> Callable[[], None]:
    """Fetching the rows that those products are of: what they take at least where no kernel fuses the two.

    ``backward``: rows of the features and of the output's gradient, where forward it is the features' alone.
    """
    parts = []
    sides = zip(plan.positions, (plan.n_in, plan.n_out), (c_in, c_out))
    for positions, rows, channels in list(sides)[: 2 if backward else 1]:
        x = torch.randn(rows, channels, device=plan.device, dtype=dtype)
        at_once = max(1, GATHERED_BYTES // (channels * dtype.itemsize))
        room = torch.empty(at_once, channels, device=plan.device, dtype=dtype)
        for cell, there in enumerate(positions.split_with_sizes(plan.counts)):
            if cell != plan.identity_cell:
                parts += [(x, part, room[: len(part)]) for part in there.split(at_once)]

    def call() -> None:
        for x, part, out in parts:
            torch.index_select(x, 0, part, out=out)

    return call


def bytes_moved(
    n_in: int, n_out: int, volume: int, c_in: int, c_out: int, item: int, backward: bool = False
) -> int:
    """Bytes that a layer must read and write once: features, weights and the output."""
    forward = item * (n_in * c_in + volume * c_in * c_out + n_out * c_out)
    # Backward reads the features, the weights and the output's gradient, and writes two gradients.
    return forward + item * (n_in * c_in + volume * c_in * c_out) if backward else forward


def copy_bandwidth(device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """A copy that no cache holds, and the bytes that it reads and writes."""
    size = 2**27
    if device.type == "cuda":
        # A GPU copies 128 MB within 100 microseconds, of which starting it and waiting are a part.
        size = min(2**31, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.numel() * 4
