"""Turns whatever a parser raises on a damaged file into one error that names the file."""

from __future__ import annotations

import binascii
import contextlib
import lzma
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

from sparsefeat.errors import InputError

# What numpy, zipfile, PyYAML, Pillow, trimesh and safetensors have been seen to raise on damaged files.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,  # with NotImplementedError and RecursionError
    SyntaxError,
    TypeError,
    ValueError,
    binascii.Error,
    lzma.LZMAError,
    pickle.PickleError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def parsing(path: str | os.PathLike, expected: str, where: str | None = None) -> Iterator[None]:
    """Turn what a parser raises into an :class:`InputError` of one line that names the file.

    For parsers that are not ours: an exception of these kinds in our own code is a bug.

    Args:
        path: of the file.
        expected: what the file should be, with its article: "a complete npy file".
        where: in place of ``expected``, the part of the file and what is wrong with it.

    Raises:
        InputError: the block raised one, which then gets the path, or anything else that damage leads to.
    """
    try:
        yield
    except InputError as error:
        text = str(error)
        if text.startswith(os.fspath(path)):
            raise
        raise InputError(f"{path}: {where or 'not ' + expected} ({text})") from error
    except DAMAGE as error:
        raise InputError(f"{path}: {where or 'not ' + expected} ({describe(error)})") from error
    except OSError as error:
        raise InputError(
            f"{path}: {where or 'not ' + expected} ({error.strerror or describe(error)})"
        ) from error


def describe(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    try:
        lines = str(error).strip().splitlines()
    except ValueError:  # numbers too long to be shown
        lines = []
    return lines[0][:200] if lines else type(error).__name__
