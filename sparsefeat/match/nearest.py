"""Nearest neighbours in feature space, block by block, so that memory does not grow with the pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import as_array, checked_count
from sparsefeat.errors import InputError

# Two distances count as equal below this share of their scale. Identical features get distances that
# differ in the last bits, depending on where in a block they lie; a tie is a tie all the same.
_TIE = {torch.float64: 1e-12, torch.float32: 1e-6}


def nearest_neighbours(
    features0: np.ndarray | Tensor,
    features1: np.ndarray | Tensor,
    block: int = 2048,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """For every row of ``features0`` the row of ``features1`` at the smallest Euclidean distance.

    Args:
        features0: Shape (N, C).
        features1: Shape (M, C), M > 0.
        block: rows of either side in one distance matrix; memory is ``O(block ** 2)``.
        device: where to compute; default: where ``features0`` is.

    Returns:
        (N,) int64 rows of ``features1``; of equally near ones the lowest.

    Raises:
        InputError: shapes that do not fit, features that are not finite, M = 0.
    """
    a, b = _prepare(features0, features1, block, device)
    best = _Best(a[:, -2])
    for i in range(0, len(a), block):
        for j in range(0, len(b), block):
            best.update(a[i : i + block] @ b[j : j + block].T, 1, i, j)
    return best.index.cpu().numpy()


def nearest_both_ways(
    features0: np.ndarray | Tensor,
    features1: np.ndarray | Tensor,
    block: int = 2048,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`nearest_neighbours` in both directions from one pass over the distances.

    Returns:
        (N,) int64 rows of ``features1`` and (M,) int64 rows of ``features0``.
    """
    a, b = _prepare(features0, features1, block, device)
    if len(a) == 0:
        raise InputError("nearest neighbours: no features on the first side")
    forward, backward = _Best(a[:, -2]), _Best(b[:, -1])
    for i in range(0, len(a), block):
        for j in range(0, len(b), block):
            distances = a[i : i + block] @ b[j : j + block].T
            forward.update(distances, 1, i, j)
            backward.update(distances, 0, j, i)
    return forward.index.cpu().numpy(), backward.index.cpu().numpy()


def is_mutual(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Whether the neighbour of the neighbour is the point itself. Shape: (N,), (M,) -> (N,) bool."""
    mutual: np.ndarray = backward[forward] == np.arange(len(forward))
    return mutual


class _Best:
    """The nearest row so far of each query, which has half a squared norm."""

    def __init__(self, half: Tensor):
        self.half = half
        self.distance = torch.full_like(half, torch.inf)
        self.index = torch.zeros(len(half), dtype=torch.int64, device=half.device)

    def update(self, distances: Tensor, axis: int, query: int, candidate: int) -> None:
        """Take in one block of distances; its queries start at ``query``, its candidates at ``candidate``."""
        smallest = distances.amin(axis)
        rows = slice(query, query + distances.shape[1 - axis])
        # Bounds the terms that a distance is the difference of: |b|^2 <= 2 (|a|^2 + |a - b|^2).
        tie = _TIE[smallest.dtype] * 2 * (self.half[rows] + smallest.clamp(min=0))
        # argmax of booleans gives the first True: the lowest index among equals.
        near = distances <= (smallest + tie).unsqueeze(axis)
        first = near.to(torch.uint8).argmax(axis) + candidate
        # Blocks come in ascending order of candidates, so a tie with an earlier block keeps the earlier.
        better = smallest < self.distance[rows] - tie
        self.distance[rows] = torch.where(better, smallest, self.distance[rows])
        self.index[rows] = torch.where(better, first, self.index[rows])


def _prepare(
    features0: np.ndarray | Tensor,
    features1: np.ndarray | Tensor,
    block: int,
    device: torch.device | str | None,
) -> tuple[Tensor, Tensor]:
    """Both sides with columns appended, so that a product of rows is half a squared distance.

    ``(a, |a|^2 / 2, 1) . (-b, 1, |b|^2 / 2) = |a - b|^2 / 2``: one matrix product gives a whole block.
    """
    checked_count(block, "block")
    a, b = (
        given if isinstance(given, Tensor) else torch.as_tensor(as_array(given, "features"))
        for given in (features0, features1)
    )
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(
            f"nearest neighbours: expected features (N, C) and (M, C), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    if len(b) == 0:
        raise InputError("nearest neighbours: no features on the second side")
    device = torch.device(device) if device is not None else a.device
    # In float64 the difference of large terms is exact enough for descriptors that are not normalised.
    # MPS has no float64.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    a, b = a.detach().to(device, dtype), b.detach().to(device, dtype)
    for side, x in (("first", a), ("second", b)):
        if not bool(torch.isfinite(x).all()):
            row = int((~torch.isfinite(x)).any(1).nonzero()[0])
            raise InputError(f"nearest neighbours: the {side} features are not finite (row {row})")
    # Distances do not change, and what is equal to rounding is small for features far from the origin. A mean would go
    # where a single far row is.
    centre = b.median(0).values
    a, b = a - centre, b - centre
    half_a, half_b = a.square().sum(1, keepdim=True) / 2, b.square().sum(1, keepdim=True) / 2
    return (
        torch.cat([a, half_a, torch.ones_like(half_a)], 1),
        torch.cat([-b, torch.ones_like(half_b), half_b], 1),
    )
