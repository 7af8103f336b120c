"""Fragments of a scene: their points, from any of the files that the field keeps them in."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from sparsefeat.data.pointcloud import POINT_SUFFIXES, read_points
from sparsefeat.torchfile import read_torch_file

FRAGMENT_SUFFIXES = (*POINT_SUFFIXES, ".pth")


def load_fragment(path: str | os.PathLike) -> np.ndarray:
    """Read the points of a fragment.

    Args:
        path: npz (FCGF: key ``pcd``), ply (3DMatch), pth (Predator, GeoTransformer: one pickled array),
            or any other format of ``sparsefeat.data.pointcloud``.

    Returns:
        (N, 3) float64 points in metres, N at least 1.

    Raises:
        ValueError: the file is absent, cut off, of another kind, empty, has NaN or infinite coordinates,
            or, for pth, asks for anything but an array of numbers. The file is named.
    """
    path = Path(path)
    points = _read_pth(path) if path.suffix.lower() == ".pth" else read_points(path).points
    if not len(points):
        raise ValueError(f"{path}: the fragment has no points")
    return points


class FragmentCache:
    """Fragments in memory as float32, so that reading one again costs nothing.

    A pickled cache takes no fragment with it: each worker process fills its own, unless it is forked
    from a process whose cache is already full.

    Args:
        max_bytes: the least recently used fragments are forgotten beyond this size; None keeps all,
            0 keeps none.
    """

    def __init__(self, max_bytes: int | None = None):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._fragments: OrderedDict[str, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._fragments)

    def __call__(self, path: str | os.PathLike) -> np.ndarray:
        """Return the (N, 3) float32 points of a fragment, metres; the array is shared and read-only.

        Raises:
            ValueError: see ``load_fragment``.
        """
        key = os.fspath(path)
        if key in self._fragments:
            self._fragments.move_to_end(key)
            return self._fragments[key]
        points = load_fragment(path).astype(np.float32)
        points.flags.writeable = False
        self._fragments[key] = points
        self.bytes += points.nbytes
        while self.max_bytes is not None and self.bytes > self.max_bytes:
            self.bytes -= self._fragments.popitem(last=False)[1].nbytes
        return points

    def __getstate__(self) -> dict:
        return {"max_bytes": self.max_bytes, "bytes": 0, "_fragments": OrderedDict()}


def _read_pth(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    value = read_torch_file(path)
    array = value.numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: holds a {type(value).__name__}, expected one array of points (N, 3)")
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {array.dtype} of shape {array.shape}, expected numbers, (N, 3)")
    invalid = ~np.isfinite(array).all(axis=1)
    if invalid.any():
        raise ValueError(
            f"{path}: {int(invalid.sum())} of {len(array)} points have a NaN or infinite coordinate, "
            f"first in row {int(np.argmax(invalid))} (from 0)"
        )
    return np.ascontiguousarray(array, dtype=np.float64)
