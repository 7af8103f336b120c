"""Clouds into batches (MinkowskiEngine.utils.collation)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.sparse import collate

Array = np.ndarray | Tensor
logger = logging.getLogger(__name__)


def batched_coordinates(
    coords: Sequence[Array], dtype: torch.dtype = torch.int32, device=None
) -> Tensor:
    """Put a batch index before the coordinates of each cloud, one cloud after the other.

    Args:
        coords: B arrays or tensors (N_b, D).
        dtype: torch.int32 (fractions are rounded down) or torch.float32.

    Returns:
        Shape (N, 1 + D).

    Raises:
        ValueError: no cloud, shapes that do not fit, or, for int32, coordinates that are not finite or too large.
    """
    if not isinstance(coords, Sequence):
        raise ArgumentError(
            f"batched_coordinates: expected a sequence of arrays, got {type(coords).__name__}"
        )
    if dtype not in (torch.int32, torch.float32):
        raise ArgumentError(
            f"batched_coordinates: expected dtype torch.int32 or torch.float32, got {dtype}"
        )
    if not coords:
        raise ArgumentError("batched_coordinates: expected at least one cloud, got none")
    shapes = [tuple(c.shape) for c in coords]
    if any(len(s) != 2 for s in shapes) or len({s[-1] for s in shapes}) != 1:
        raise ArgumentError(
            f"batched_coordinates: expected arrays (N_b, D) of one D, got shapes {shapes}"
        )
    clouds = [torch.as_tensor(cloud).to(device or "cpu") for cloud in coords]
    if dtype == torch.int32:
        return collate(clouds)
    pad = torch.nn.functional.pad
    return torch.cat([pad(c.to(dtype), (1, 0), value=batch) for batch, c in enumerate(clouds)])


def sparse_collate(
    coords: Sequence[Array],
    feats: Sequence[Array],
    labels: Sequence | None = None,
    dtype: torch.dtype = torch.int32,
    device=None,
):
    """Batched coordinates, concatenated features and, where given, labels.

    Args:
        coords, feats: B arrays or tensors (N_b, D) and (N_b, C).
        labels: B arrays or tensors, concatenated; other objects are returned as a list.
    """
    if not isinstance(feats, Sequence) or len(feats) != len(coords):
        raise ArgumentError("sparse_collate: expected as many features as clouds")
    lengths = [(len(c), len(f)) for c, f in zip(coords, feats)]
    if any(a != b for a, b in lengths):
        raise ArgumentError(f"sparse_collate: clouds and features differ in length: {lengths}")
    batch = batched_coordinates(list(coords), dtype, device)
    features = torch.cat([torch.as_tensor(f) for f in feats])
    if labels is None:
        return batch, features
    labels = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in labels]
    if isinstance(labels[0], Tensor):
        labels = torch.cat(labels)
    return batch, features, labels


def batch_sparse_collate(data: Sequence[tuple], dtype: torch.dtype = torch.int32, device=None):
    """A ``collate_fn``: :func:`sparse_collate` of a list of (coordinates, features[, labels])."""
    return sparse_collate(*zip(*data), dtype=dtype, device=device)


class SparseCollation:
    """A ``collate_fn`` that cuts a batch at ``limit_numpoints`` points, by whole clouds (-1 or 0: never)."""

    def __init__(self, limit_numpoints: int = -1, dtype: torch.dtype = torch.int32, device=None):
        self.limit_numpoints = limit_numpoints
        self.dtype = dtype
        self.device = device

    def __call__(self, list_data: Sequence[tuple]):
        total, kept = 0, []
        for item in list_data:
            total += len(item[0])
            if 0 < self.limit_numpoints < total:
                logger.warning(
                    "batch cut to %d of %d clouds: more than %d points",
                    len(kept),
                    len(list_data),
                    self.limit_numpoints,
                )
                break
            kept.append(item)
        if not kept:
            raise ArgumentError(
                f"SparseCollation: the first cloud has {total} points, the limit is {self.limit_numpoints}"
            )
        return batch_sparse_collate(kept, dtype=self.dtype, device=self.device)
