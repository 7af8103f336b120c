"""A convolution whose weights depend on pairs, not on cells: ``out[o] = sum_k (sum_i weight_k(i, o) x[i]) W[k]``.

It is computed function by function, and each time either the products are summed or the sums multiplied, so
that nothing is ever as large as functions times rows times channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sparsefeat.sparse import operators
from sparsefeat.sparse.compile_disabled import compile_disabled
from sparsefeat.sparse.kernel_map import KernelMap, RowOrder

_PAIRING = ("pairing",)
_PAIRS_AT_ONCE = 2**15
"""Pairs that are weighed at once for each thread of a CPU: a few dozen numbers for each of them fit its caches."""
_PAIRS_AT_ONCE_ELSEWHERE = 2**24


class Pairs(NamedTuple):
    """All pairs of some output rows that follow each other: what weighs them takes a few thousand at once.

    Attributes:
        rows: input row of each pair. Shape: (P,).
        targets: output row of each, ascending. Shape: (P,).
        places: of the targets among the output rows from ``start`` on. Shape: (P,).
        start, stop: the output rows that they are of.
    """

    rows: Tensor
    targets: Tensor
    places: Tensor
    start: int
    stop: int

    def totals(self, values: Tensor) -> Tensor:
        """Sums of values (P,) over the pairs of each output row. Shape: (stop - start,)."""
        return values.new_zeros(self.stop - self.start).index_add(0, self.places, values)


Weigh = Callable[[Pairs], Sequence[Tensor]]
"""Returns F factors of each pair. Shape: (P,) each."""

Product = tuple[int, ...]
"""The numbers of the one or two factors that make a weight."""


class Pairing(NamedTuple):
    """The pairs of a kernel map in the order of its output rows.

    Attributes:
        rows: input row of each pair. Shape: (P,) int32 where that is enough, since it halves what a sum reads
            beside the features; else int64.
        splits: output row o has the pairs from ``splits[o]`` to ``splits[o + 1]``. Shape: (n_out + 1,), as rows.
        targets: output row of each pair. Shape: (P,), as rows.
        blocks: first and last output row and first and last pair (the last ones excluded) of what is weighed at once.
        order: of a transpose, the numbers of its pairs in the pairing of the map that was searched. Shape: (P,) int64.
    """

    rows: Tensor
    splits: Tensor
    targets: Tensor
    blocks: list[tuple[int, int, int, int]]
    order: Tensor | None


def pairing(plan: KernelMap) -> Pairing:
    """That of a kernel map, made once for each of its directions."""
    return plan.derived(_PAIRING, lambda: _make_pairing(plan))


def has_pairing(plan: KernelMap) -> bool:
    """Whether :func:`pairing` has been asked for."""
    return plan.has(_PAIRING)


@compile_disabled
def _make_pairing(plan: KernelMap) -> Pairing:
    if plan.transposed:
        there = pairing(plan.transpose)
        order = RowOrder(there.rows, plan.n_out)
        rows, targets = (part.index_select(0, order.pairs) for part in (there.targets, there.rows))
        return Pairing(
            rows,
            order.splits.to(rows.dtype),
            targets,
            _make_blocks(order.splits, len(rows)),
            order.pairs,
        )
    rows, counts = plan.by_output()
    index = torch.int32 if max(plan.n_in, plan.n_out, len(rows)) < 2**31 else torch.int64
    targets = torch.arange(plan.n_out, dtype=index, device=rows.device)
    targets = targets.repeat_interleave(counts, output_size=len(rows))
    splits = F.pad(counts.cumsum(0), (1, 0))
    return Pairing(rows.to(index), splits.to(index), targets, _make_blocks(splits, len(rows)), None)


def _make_blocks(splits: Tensor, pairs: int) -> list[tuple[int, int, int, int]]:
    rows = len(splits) - 1
    at_once = _PAIRS_AT_ONCE_ELSEWHERE
    if splits.device.type == "cpu":
        at_once = _PAIRS_AT_ONCE * torch.get_num_threads()
    if pairs <= at_once:
        return [(0, rows, 0, pairs)]
    wanted = torch.arange(at_once, pairs, at_once, device=splits.device)
    starts = torch.searchsorted(splits, wanted).unique()
    bounds = torch.stack([starts, splits.index_select(0, starts)]).tolist()
    starts, firsts = ([0, *bound] for bound in bounds)
    return list(zip(starts, [*starts[1:], rows], firsts, [*firsts[1:], pairs]))


class PairWeights:
    """W weights for each pair of a kernel map, each a factor or the product of two.

    Weights that share factors are kept as these: they take less memory, and to multiply costs less than to read.

    Args:
        plan: which rows meet.
        factors: pairs in the order of :func:`pairing`. Shape: (F, P).
        products: which factors make each weight. None: each factor is one.
        own: inputs and outputs are the same rows, and each sum is preceded by the row itself.
    """

    def __init__(
        self,
        plan: KernelMap,
        factors: Tensor,
        products: Sequence[Product] | None = None,
        own: bool = False,
    ):
        self.plan, self.factors, self.own = plan, factors, own
        self.products = [(f,) for f in range(len(factors))] if products is None else products
        self._transpose: PairWeights | None = None

    @classmethod
    def of(
        cls,
        plan: KernelMap,
        weigh: Weigh,
        products: Sequence[Product] | None = None,
        own: bool = False,
    ) -> PairWeights:
        """Those of the factors that ``weigh`` computes."""
        return cls(plan, _weigh(plan, weigh), products, own)

    def __len__(self) -> int:
        return len(self.products)

    def column(self, number: int) -> Tensor:
        """One of the weights. Shape: (P,)."""
        first, *second = self.products[number]
        return self.factors[first] * self.factors[second[0]] if second else self.factors[first]

    @property
    def transpose(self) -> PairWeights:
        """The same weights for the map with input and output exchanged; no gradient leads back."""
        if self._transpose is None:
            factors = self.factors.detach().index_select(1, _order_back(self.plan))
            self._transpose = PairWeights(self.plan.transpose, factors, self.products, self.own)
        return self._transpose


def _weigh(plan: KernelMap, weigh: Weigh) -> Tensor:
    """Shape: (F, P)."""
    pairs = pairing(plan)
    if operators.wanted():
        # A graph must not depend on how many blocks there are, and its compiler makes blocks of its own.
        return torch.stack(
            [*weigh(Pairs(pairs.rows, pairs.targets, pairs.targets, 0, plan.out_handle.shape[0]))]
        )
    parts: list[Tensor] = []
    factors = None
    for start, stop, first, last in pairs.blocks:
        targets = pairs.targets[first:last]
        found = weigh(Pairs(pairs.rows[first:last], targets, targets - start, start, stop))
        if found[0].requires_grad:
            parts.append(torch.stack([*found]))
            continue
        if factors is None:
            factors = found[0].new_empty(len(found), len(pairs.rows))
        for factor, values in zip(factors, found):
            factor[first:last] = values
    return torch.cat(parts, 1) if factors is None else factors


def _order_back(plan: KernelMap) -> Tensor:
    """Pairs as numbered by the pairing of the map, in the order of that of its transpose. Shape: (P,) int64."""
    if not plan.transposed:
        return pairing(plan.transpose).order
    order = pairing(plan).order
    return torch.empty_like(order).index_copy_(
        0, order, torch.arange(len(order), device=order.device)
    )


def weighted_sums(features: Tensor, weights: PairWeights) -> Tensor:
    """``out[o, w] = sum over pairs (i, o) of weight[pair, w] * features[i]``.

    Shape: (n_in, C) -> (n_out, W, C), or (n_out, 1 + W, C) with the rows themselves. Derivatives as for
    :func:`weighted_convolution`.
    """
    sums, channels = len(weights) + weights.own, features.shape[1]
    each = torch.eye(sums * channels, dtype=features.dtype, device=features.device)
    return weighted_convolution(features, each.view(sums, channels, -1), weights).view(
        -1, sums, channels
    )


def weighted_convolution(features: Tensor, kernel: Tensor, weights: PairWeights) -> Tensor:
    """``out[o] = sum_k (sum over pairs (i, o) of weight_k[pair] * features[i]) @ kernel[k]``.

    Differentiable in features and kernel to any order, and once in factors that have a gradient.

    Args:
        features: Shape (n_in, C), float32 or float64: sums are kept in it.
        kernel: in the type that products are computed in. Shape: (W, C, C_out), or (1 + W, C, C_out) where the first
            is for the rows themselves.
        weights: of the pairs.

    Returns:
        Shape (n_out, C_out), of the kernel's type.
    """
    if operators.wanted():
        plan = weights.plan
        handle = plan.out_handle
        return torch.ops.sparsefeat.weighted_convolution(
            features,
            kernel,
            weights.factors,
            handle,
            _flat(weights.products),
            plan.transposed,
            weights.own,
            handle.shape[0],
        )
    return _Convolution.apply(features, kernel, weights.factors, weights)


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, kernel: Tensor, factors: Tensor, weights: PairWeights
    ) -> Tensor:
        ctx.weights = weights
        ctx.save_for_backward(features, kernel)
        return _convolve(features, kernel, weights)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (features, kernel), weights, needs = ctx.saved_tensors, ctx.weights, ctx.needs_input_grad
        if not torch.is_grad_enabled():
            return *_gradients(features, kernel, grad, weights, needs), None
        # Derivatives are asked for that have derivatives themselves.
        wide = grad.to(features.dtype)
        to_features = weighted_convolution(wide, kernel.transpose(1, 2), weights.transpose).to(
            features.dtype
        )
        to_kernel = weighted_sums(features, weights).flatten(1).t() @ wide
        to_factors = (
            _to_factors(features.detach(), kernel.detach(), grad.detach(), weights)
            if needs[2]
            else None
        )
        return to_features, to_kernel.view(kernel.shape).to(kernel.dtype), to_factors, None


def _convolve(features: Tensor, kernel: Tensor, weights: PairWeights) -> Tensor:
    features, own = features.detach(), int(weights.own)
    pairs, given = pairing(weights.plan), features.to(kernel.dtype)
    out = features.new_zeros(weights.plan.n_out, kernel.shape[2])
    # Sums and products may be exchanged: products are computed where there are fewer numbers.
    multiply_first = weights.plan.n_in * kernel.shape[2] < weights.plan.n_out * kernel.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        if own:
            _add_product(out, given, kernel[0])
        for number, matrix in enumerate(kernel[own:]):
            column = weights.column(number)
            if multiply_first:
                out += _bag((given @ matrix).to(features.dtype), pairs, column)
            else:
                _add_product(out, _bag(features, pairs, column).to(kernel.dtype), matrix)
    return out.to(kernel.dtype)


def _add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out += a @ b``; sums are kept in the type of ``out``."""
    if out.dtype == a.dtype:
        out.addmm_(a, b)
    else:
        out += a @ b


def _gradients(
    features: Tensor, kernel: Tensor, grad: Tensor, weights: PairWeights, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those to features, kernel and factors of the weights."""
    features, kernel = features.detach(), kernel.detach()
    to_factors = _to_factors(features, kernel, grad, weights) if needs[2] else None
    if not needs[0]:
        return None, _to_kernel(features, kernel, grad, weights) if needs[1] else None, to_factors
    # sum_o weight_k(i, o) grad[o] is all that either gradient needs.
    back, given, wide = weights.transpose, features.to(kernel.dtype), grad.to(features.dtype)
    pairs = pairing(back.plan)
    to_features, to_kernel = torch.zeros_like(features), torch.empty_like(kernel)
    for number, matrix in enumerate(kernel):
        sums = (
            grad if back.own and number == 0 else _bag(wide, pairs, back.column(number - back.own))
        )
        sums = sums.to(kernel.dtype)
        _add_product(to_features, sums, matrix.t())
        if needs[1]:
            torch.mm(given.t(), sums, out=to_kernel[number])
    return to_features, to_kernel if needs[1] else None, to_factors


def _to_kernel(features: Tensor, kernel: Tensor, grad: Tensor, weights: PairWeights) -> Tensor:
    pairs, to_kernel = pairing(weights.plan), torch.empty_like(kernel)
    for number, out in enumerate(to_kernel):
        own = weights.own and number == 0
        sums = features if own else _bag(features, pairs, weights.column(number - weights.own))
        torch.mm(sums.to(kernel.dtype).t(), grad, out=out)
    return to_kernel


def _to_factors(features: Tensor, kernel: Tensor, grad: Tensor, weights: PairWeights) -> Tensor:
    """Shape: (F, P)."""
    pairs, wide, factors = pairing(weights.plan), grad.to(features.dtype), weights.factors.detach()
    met, out = features.index_select(0, pairs.rows), torch.zeros_like(factors)
    for product, matrix in zip(weights.products, kernel[int(weights.own) :]):
        to_sums = wide @ matrix.t().to(wide.dtype)
        to_weight = (to_sums.index_select(0, pairs.targets) * met).sum(1)
        if len(product) == 1:
            out[product[0]] += to_weight
        else:
            first, second = product
            out[first].addcmul_(to_weight, factors[second])
            out[second].addcmul_(to_weight, factors[first])
    return out


def _bag(rows: Tensor, pairs: Pairing, column: Tensor) -> Tensor:
    """``out[o] = sum over pairs (i, o) of column[pair] * rows[i]``. Shape: (n_in, C) -> (n_out, C)."""
    return F.embedding_bag(
        pairs.rows,
        rows.contiguous(),
        pairs.splits,
        mode="sum",
        include_last_offset=True,
        per_sample_weights=column.detach().to(rows.dtype),
    )


def _flat(products: Sequence[Product]) -> list[int]:
    """Two numbers for each weight, the second -1 where there is one factor: operators take lists of numbers alone."""
    return [number for product in products for number in (*product, -1)[:2]]


def _weights_of(factors, handle, products, transposed, own) -> PairWeights:
    pairs = zip(products[::2], products[1::2])
    plan = KernelMap.behind(handle, transposed)
    return PairWeights(plan, factors, [p if p[1] >= 0 else p[:1] for p in pairs], own)


def _run(features, kernel, factors, handle, products, transposed, own, count):
    return _convolve(features, kernel, _weights_of(factors, handle, products, transposed, own))


def _run_back(features, kernel, factors, grad, handle, products, transposed, own, *needs):
    weights = _weights_of(factors, handle, products, transposed, own)
    found = _gradients(features, kernel, grad, weights, needs)
    return [features.new_empty(0) if each is None else each for each in found]


def _shaped_back(features, kernel, factors, grad, handle, products, transposed, own, *needs):
    given = zip((features, kernel, factors), needs)
    return [torch.empty_like(each) if wanted else features.new_empty(0) for each, wanted in given]


def _backward(needs, features, kernel, factors, handle, products, transposed, own, count, grad):
    found = torch.ops.sparsefeat.weighted_convolution_gradients(
        features, kernel, factors, grad, handle, products, transposed, own, *needs[:3]
    )
    return *(each if wanted else None for each, wanted in zip(found, needs)), *[None] * 5


operators.define(
    "weighted_convolution",
    "(Tensor features, Tensor kernel, Tensor factors, Tensor handle, int[] products, bool transposed, bool own, "
    "SymInt count) -> Tensor",
    _run,
    lambda features, kernel, factors, handle, products, transposed, own, count: kernel.new_empty(
        count, kernel.shape[2]
    ),
    _backward,
)
operators.define(
    "weighted_convolution_gradients",
    "(Tensor features, Tensor kernel, Tensor factors, Tensor grad, Tensor handle, int[] products, bool transposed, "
    "bool own, bool to_features, bool to_kernel, bool to_factors) -> Tensor[]",
    _run_back,
    _shaped_back,
)
