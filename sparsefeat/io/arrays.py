"""Arrays of numbers from npy and npz, bounded by what the file holds; Python objects are never loaded."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io.damage import parsing

_MAX_HEADER = 10_000
_CHUNK = 1 << 24
# Arrays of zeros shrink up to a thousand times; beyond this size, more than a hundred times is a trap.
_LARGE = 1 << 28
_MAX_RATIO = 100


def read_npy(path: Path) -> np.ndarray:
    """The array of an npy file.

    Raises:
        InputError: not a complete npy file of numbers.
    """
    with open(path, "rb") as file, parsing(path, "a complete npy file of numbers"):
        if file.read(4) == b"PK\x03\x04":
            raise InputError(f"{path}: is an archive (npz) with the suffix of an npy")
        file.seek(0)
        return _read_array(file, os.fstat(file.fileno()).st_size)


class Npz:
    """The arrays of an npz, read one by one. A context manager.

    Raises:
        InputError: not a complete npz file.
    """

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise InputError(f"{path}: is a single array (npy) with the suffix of an npz")
        self._size = path.stat().st_size
        with parsing(path, "a complete npz file of numbers"):
            self._archive = zipfile.ZipFile(path)
            self._members = {
                info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
            }

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    @property
    def keys(self) -> list[str]:
        """The names of the arrays."""
        return list(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def __getitem__(self, key: str) -> np.ndarray:
        info = self._members[key]
        with parsing(
            self.path, "a complete npz file of numbers", f"key {key[:40]!r} cannot be read"
        ):
            if (
                info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                or info.flag_bits & 1
            ):
                raise InputError("packed in another way than numpy does")
            if info.compress_size > self._size:
                raise InputError(f"cut off, {info.compress_size} bytes in a file of {self._size}")
            if info.file_size > max(_LARGE, _MAX_RATIO * info.compress_size):
                raise InputError(
                    f"it would unpack {info.compress_size} bytes to {info.file_size}, more than {_MAX_RATIO} times "
                    "as many; numbers do not shrink like this"
                )
            with self._archive.open(info) as file:
                return _read_array(cast(io.BufferedIOBase, file), info.file_size)

    def first(self, keys: Sequence[str], what: str) -> np.ndarray:
        """The array under the first of several names.

        Raises:
            InputError: it has none of them, or the array cannot be read.
        """
        key = next((key for key in keys if key in self), None)
        if key is None:
            found = ", ".join(key[:40] for key in self.keys[:20]) or "(none)"
            several = "one of " if len(keys) > 1 else ""
            raise InputError(
                f"{self.path}: {what}it has the keys {found}, expected {several}{', '.join(keys)}"
            )
        return self[key]


def _read_array(file: io.BufferedIOBase, size: int) -> np.ndarray:
    """The array that an npy of ``size`` bytes holds, which is not more than these."""
    version = np.lib.format.read_magic(file)
    # Only the encoding of the names of fields differs from version 2 to version 3, and numbers have none.
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on headers of Python 2
        shape, by_columns, dtype = read(file, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise InputError("Python objects in it, which are never loaded (allow_pickle)")
    if not all(0 <= length < 2**62 for length in shape):
        raise InputError(f"an array of shape {str(shape)[:60]}")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size:
        raise InputError(
            f"cut off, {size} bytes for an array of {needed}: {dtype} of shape {shape}"
        )
    flat = np.empty(needed, dtype=np.uint8)
    done = 0
    while done < needed:
        count = file.readinto(flat.data[done : done + _CHUNK])
        if not count:
            raise InputError(f"cut off, {done} of {needed} bytes are there")
        done += count
    if not needed:
        return np.empty(shape, dtype)
    return flat.view(dtype).reshape(shape, order="F" if by_columns else "C")
