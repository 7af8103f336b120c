"""Fragments of a scene: their points, from any of the files that the field keeps them in."""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch.torch_version import TorchVersion

from sparsefeat.data.pointcloud import POINT_SUFFIXES, read_points

# What torch.load raises for a file that ends early or is something else, beside UnpicklingError.
_BROKEN = (
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
)

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
    if TorchVersion(torch.__version__) < (2, 6):  # safe_globals with names of their own
        raise ValueError(
            f"{path}: reading pickled arrays safely needs torch 2.6 or later, this is {torch.__version__}; "
            "save the fragment as npz (key 'pcd') instead"
        )
    try:
        with torch.serialization.safe_globals(_array_globals()):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {_refusal(str(error))}") from error
    except _BROKEN as error:
        raise ValueError(f"{path}: not a file that torch.save wrote, or cut off") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
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


def _array_globals() -> list:
    """What a pickled array of numbers needs and nothing else, under the names of numpy 1 and numpy 2."""
    reconstruct = np.ndarray.__reduce__(np.empty(0))[0]
    numbers = [np.float64, np.float32]
    return [
        np.ndarray,
        np.dtype,
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        *(type(np.dtype(kind)) for kind in numbers),
    ]


def _refusal(text: str) -> str:
    """The one thing that matters in torch's message of several paragraphs."""
    name = re.search(r"GLOBAL ([\w.]+)", text)
    if name:
        return f"refused: it asks for {name[1]}, and only an array of numbers is read"
    if "Can only" in text:
        return "refused: it asks for other objects, and only an array of float numbers is read"
    return "not a file that torch.save wrote, or cut off"
