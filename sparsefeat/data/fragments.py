"""Fragments of a scene: their points, from any of the files that the field keeps them in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from sparsefeat.errors import InputError, opening
from sparsefeat.io.arrays import Npz
from sparsefeat.io.pointcloud import POINT_SUFFIXES, PointCloud, compact, read_points
from sparsefeat.io.torchfile import read_torch_file

FRAGMENT_SUFFIXES = (*POINT_SUFFIXES, ".pth")


def load_fragment(path: str | os.PathLike) -> np.ndarray:
    """Read the points of a fragment; see :func:`read_fragment`. Shape: (N, 3) float64."""
    return read_fragment(path).points


def read_fragment(path: str | os.PathLike) -> PointCloud:
    """Read a fragment.

    Args:
        path: npz (FCGF: key ``pcd``), ply (3DMatch), pth (Predator, GeoTransformer: one pickled array),
            or any other format of ``sparsefeat.io.pointcloud``.

    Returns:
        PointCloud of (N, 3) float64 points in metres, N at least 1, and its normals if it has any.

    Raises:
        InputError: the file is absent, cut off, of another kind, empty, has NaN or infinite coordinates,
            or, for pth, asks for anything but an array of numbers. The file is named.
    """
    path = Path(path)
    if path.suffix.lower() == ".pth":
        cloud = PointCloud(_read_pth(path), None, path)
    else:
        cloud = read_points(path)
    if not len(cloud):
        raise InputError(f"{path}: the fragment has no points")
    return cloud


def load_viewpoint(path: str | os.PathLike) -> np.ndarray | None:
    """Where the sensor of a fragment stood, in the frame of its points.

    Returns:
        (3,) float64: the key ``viewpoint`` of an npz; the origin for the ``cloud_bin_<k>.ply`` of 3DMatch's test layout,
        which are in the frame of their first camera; None where the file does not say.

    Raises:
        InputError: the viewpoint is not three finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        with opening(path), Npz(path) as archive:
            known = "viewpoint" in archive
            viewpoint = archive["viewpoint"] if known else None
        if viewpoint is None:
            return None
        if (
            viewpoint.shape != (3,)
            or viewpoint.dtype.kind not in "fiu"
            or not np.isfinite(viewpoint).all()
        ):
            raise InputError(
                f"{path}: viewpoint has shape {viewpoint.shape} of {viewpoint.dtype}, expected three finite numbers"
            )
        return viewpoint.astype(np.float64)
    return np.zeros(3) if path.name.startswith("cloud_bin_") else None


def directions(points: np.ndarray, viewpoint: np.ndarray | None) -> np.ndarray:
    """Unit vectors from points to where they were seen from, the outer side of their surface; zeros for None.

    Shape: (N, 3), (3,) -> (N, 3) float32.
    """
    if viewpoint is None:
        return np.zeros(points.shape, dtype=np.float32)
    line = np.asarray(viewpoint, dtype=np.float64) - points
    return (line / np.linalg.norm(line, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


class FragmentCache:
    """Fragments in memory, as float32 unless they lie far from the origin, so that reading one again costs nothing.

    Attributes:
        bytes: how much is kept.
        full: whether a fragment did not fit.

    A pickled cache takes no fragment with it: each worker process fills its own, unless it is forked
    from a process whose cache is already full.

    Args:
        max_bytes: fragments that would go beyond this size are read each time; None keeps all, 0 keeps none. Pairs
            come in random order, for which keeping the first is as good as keeping the last.
    """

    def __init__(self, max_bytes: int | None = None):
        self.max_bytes = max_bytes
        self.bytes = 0
        self.full = False
        self._fragments: dict[str, np.ndarray] = {}
        self._viewpoints: dict[str, np.ndarray | None] = {}

    def __len__(self) -> int:
        return len(self._fragments)

    def __call__(self, path: str | os.PathLike) -> np.ndarray:
        """Return the (N, 3) points of a fragment, metres, as `compact` has them; the array is shared and read-only.

        Raises:
            InputError: see ``load_fragment``.
        """
        key = os.fspath(path)
        if key in self._fragments:
            return self._fragments[key]
        points = compact(load_fragment(path))
        points.flags.writeable = False
        if self.max_bytes is None or self.bytes + points.nbytes <= self.max_bytes:
            self._fragments[key] = points
            self.bytes += points.nbytes
        else:
            self.full = True
        return points

    def viewpoint(self, path: str | os.PathLike) -> np.ndarray | None:
        """Return where the sensor of a fragment stood; see ``load_viewpoint``."""
        key = os.fspath(path)
        if key not in self._viewpoints:
            self._viewpoints[key] = load_viewpoint(path)
        return self._viewpoints[key]

    def __getstate__(self) -> dict:
        return {
            "max_bytes": self.max_bytes,
            "bytes": 0,
            "full": False,
            "_fragments": {},
            "_viewpoints": {},
        }


def _read_pth(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    value = read_torch_file(path)
    array = value.numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"{path}: holds a {type(value).__name__}, expected one array of points (N, 3)"
        )
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: holds {array.dtype} of shape {array.shape}, expected numbers, (N, 3)"
        )
    invalid = ~np.isfinite(array).all(axis=1)
    if invalid.any():
        raise InputError(
            f"{path}: {int(invalid.sum())} of {len(array)} points have a NaN or infinite coordinate, "
            f"first in row {int(np.argmax(invalid))} (from 0)"
        )
    return np.ascontiguousarray(array, dtype=np.float64)
