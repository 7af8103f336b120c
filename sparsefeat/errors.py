"""Errors that a user can set right, and warnings; any other exception is a bug of ours."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

_LONGEST = 1500
"""Characters of a message."""

P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """Input is not as expected. The message says where (file, line, field), what was given and what was expected.

    The command line prints the message and exits with code 2. A message is one line: further lines follow after a
    semicolon. Names come from files, which may hold anything: what is not printable is escaped, and the middle of an
    overlong message is left out.
    """

    def __init__(self, message: str = ""):
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    text = "; ".join(line for line in message.split("\n") if line.strip())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 300]} ... {text[-290:]}"
    return text


class InputWarning(UserWarning):
    """Input is as expected, and yet the result will be poor or late. The message says why, and what helps.

    The command line prints the message as one line.
    """


class MissingExtraError(InputError, ImportError):
    """An optional package is missing. The message names the package, the extra, and what works without it."""


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """``; did you mean 'extract'?``, to end the message about an unknown name; empty where no choice is like it."""
    names = {choice.lstrip("-"): choice for choice in choices}  # dashes would make options alike
    near = difflib.get_close_matches(given.lstrip("-"), names, n=1, cutoff=0.7)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def warn(message: str) -> None:
    """Issue an :class:`InputWarning` that points to the caller outside of this package."""
    level, frame = 1, sys._getframe()
    while (
        frame.f_back is not None
        and frame.f_globals.get("__name__", "").partition(".")[0] == __package__
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, InputWarning, stacklevel=level)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Within the block errors and warnings that begin with ``points:`` begin with this name instead.

    Warnings are given when the block ends without an error.

    Args:
        name: of the scan or file that the points are of.
    """

    def named(message: object) -> str:
        text = str(message)
        return f"{name}: {text.removeprefix('points: ')}" if text.startswith("points: ") else text

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            yield
        except InputError as error:
            if named(error) == str(error):
                raise
            raise InputError(named(error)) from error
    for warning in caught:
        if issubclass(warning.category, InputWarning):
            warn(named(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


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
        raise InputError(
            f"{error.filename or os.fspath(path)}: {error.strerror or error}"
        ) from error


def opens_path(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that reads or writes at its first argument: see :func:`opening`."""
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def opened(*args: P.args, **options: P.kwargs) -> T:
        path: Any = args[0] if args else options.get(first, "")
        with opening(path):
            return function(*args, **options)

    return opened
