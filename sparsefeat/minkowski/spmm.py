"""Products of a sparse matrix in coordinate form with a dense one (sparse_matrix_functions)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefeat.minkowski.errors import ArgumentError


def spmm(
    rows: Tensor,
    cols: Tensor,
    vals: Tensor,
    size: Sequence[int],
    mat: Tensor,
    is_sorted: bool = False,
    cuda_spmm_alg: int = 1,
) -> Tensor:
    """``S @ mat`` with ``S[rows[p], cols[p]] += vals[p]``.

    Args:
        rows, cols, vals: Shape (P,).
        size: rows and columns of S.
        mat: Shape (columns, C).

    Returns:
        Shape (rows, C).
    """
    if not len(rows) == len(cols) == len(vals):
        raise ArgumentError(f"spmm: {len(rows)} rows, {len(cols)} columns and {len(vals)} values")
    if vals.dtype != mat.dtype or len(mat) != size[1]:
        raise ArgumentError(
            f"spmm: {vals.dtype} values of a matrix {tuple(size)} do not fit {mat.dtype} {tuple(mat.shape)}"
        )
    products = vals[:, None] * mat.index_select(0, cols.long())
    return mat.new_zeros(size[0], mat.shape[1]).index_add(0, rows.long(), products)


def spmm_average(
    rows: Tensor, cols: Tensor, size: Sequence[int], mat: Tensor, cuda_spmm_alg: int = 1
):
    """As :func:`spmm`, each row's values one over their number.

    Returns:
        The product (rows, C), the sparse matrix's rows and columns (2, P) int64, and its values (P,).
    """
    counts = torch.bincount(rows.long(), minlength=size[0])
    vals = counts[rows.long()].to(mat.dtype).reciprocal()
    return spmm(rows, cols, vals, size, mat), torch.stack([rows, cols]).long(), vals


class MinkowskiSPMMFunction:
    """:func:`spmm` under the name of the engine's autograd function."""

    @staticmethod
    def apply(
        rows: Tensor,
        cols: Tensor,
        vals: Tensor,
        size: Sequence[int],
        mat: Tensor,
        cuda_spmm_alg: int = 1,
    ) -> Tensor:
        return spmm(rows, cols, vals, size, mat)


class MinkowskiSPMMAverageFunction:
    """:func:`spmm_average` under the name of the engine's autograd function; the product alone."""

    @staticmethod
    def apply(
        rows: Tensor, cols: Tensor, size: Sequence[int], mat: Tensor, cuda_spmm_alg: int = 1
    ) -> Tensor:
        return spmm_average(rows, cols, size, mat)[0]
