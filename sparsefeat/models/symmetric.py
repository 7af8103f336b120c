"""Vectors and symmetric matrices at many places: the numbers of one kind lie side by side, which is fastest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def at(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, several times faster. Shape: (V, ...), (P,) -> (P, ...)."""
    return values.index_select(0, rows)


def columns(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """Columns of values. Shape: (V,) or (N, V), (P,) -> (P,) or (N, P)."""
    # Numbers of one kind side by side: gathering rows of three or six and multiplying is several times slower.
    if values is None or values.ndim == 1 or not values.requires_grad:
        return None if values is None else values.index_select(-1, rows)
    # The gradient of single ones is many times faster.
    return torch.stack([at(each, rows) for each in values])


def outer(v: Tensor) -> Tensor:
    """xx, yy, zz, xy, xz, yz. Shape: (3, N) -> (6, N)."""
    x, y, z = v
    return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z])


def adjugate(m: Tensor) -> Tensor:
    """Inverse times determinant. Shape: (6, N) -> (6, N)."""
    a, b, c, d, e, f = m  # [[a, d, e], [d, b, f], [e, f, c]]
    return torch.stack(
        [
            b * c - f * f,
            a * c - e * e,
            a * b - d * d,
            e * f - d * c,
            d * f - b * e,
            d * e - a * f,
        ]
    )


def times(m: Sequence[Tensor], v: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Shape: (6, N), (3, N) -> (3, N)."""
    a, b, c, d, e, f = m
    return dot((a, d, e), v), dot((d, b, f), v), dot((e, f, c), v)


def dot(v: Sequence[Tensor], w: Sequence[Tensor]) -> Tensor:
    """Shape: (3, N), (3, N) -> (N,)."""
    return torch.addcmul(torch.addcmul(v[0] * w[0], v[1], w[1]), v[2], w[2])


def inner(m: Sequence[Tensor], n: Sequence[Tensor]) -> Tensor:
    """Sum of the products of all nine entries. Shape: (6, N), (6, N) -> (N,)."""
    return m[0] * n[0] + m[1] * n[1] + m[2] * n[2] + 2 * (m[3] * n[3] + m[4] * n[4] + m[5] * n[5])
