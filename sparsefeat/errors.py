"""Errors that a user can set right; any other exception is a bug of ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class InputError(ValueError):
    """Input is not as expected. The message says where (file, line, field), what was given and what was expected.

    The command line prints the message as one line and exits with code 2.
    """


class MissingExtraError(InputError, ImportError):
    """An optional package is missing. The message names the package, the extra, and what works without it."""


@contextlib.contextmanager
def opening(path: str | os.PathLike) -> Iterator[None]:
    """Turn an operating-system error within the block into an :class:`InputError` that names the path.

    Args:
        path: named where the system does not say which file it could not open.

    Raises:
        InputError: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or os.fspath(path)}: {error.strerror or error}") from error
