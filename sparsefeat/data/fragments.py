"""One fragment of a scene: its points, from any of the files that the field keeps them in."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from sparsefeat.data.pointcloud import POINT_SUFFIXES, read_points

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
    if path.suffix.lower() != ".pth":
        # read_points has a keyword for clouds with holes; a fragment with NaN is a broken one.
        points = read_points(path).points
    else:
        points = _read_pth(path)
    if not len(points):
        raise ValueError(f"{path}: the fragment has no points")
    return points


def _read_pth(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if not hasattr(torch.serialization, "safe_globals"):
        raise ValueError(
            f"{path}: reading pickled arrays safely needs torch 2.5 or later, this is {torch.__version__}; "
            "save the fragment as npz (key 'pcd') instead"
        )
    try:
        with torch.serialization.safe_globals(_array_globals()):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        if "GLOBAL" in text or "global" in text:
            raise ValueError(f"{path}: refused, it is not only an array of numbers ({_asked_for(text)})") from error
        raise ValueError(f"{path}: not a file that torch.save wrote, or cut off") from error
    except (RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file that torch.save wrote, or cut off") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    array = value.numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: holds a {type(value).__name__}, expected one array of points (N, 3)")
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {array.dtype} of shape {array.shape}, expected numbers of shape (N, 3)")
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


def _asked_for(text: str) -> str:
    """The name of the refused global in torch's message of several paragraphs."""
    for line in text.splitlines():
        if "GLOBAL" in line and " was not an allowed" in line:
            return "it asks for " + line.split("GLOBAL", 1)[1].split(" was not", 1)[0].strip()
    return "it asks for other Python objects"
