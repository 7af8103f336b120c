"""Writing files so that nothing is ever half-written, and nothing of a killed process stays.

A temporary file is locked by the process that writes it, so that others know what is left of a process that
was killed: its lock went with it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sparsefeat.errors import InputError, opening

# Without such locks nothing is swept.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_MARK = "sparsefeat-"
_LEFTOVER = re.compile(rf"\..*\.{_MARK}\w{{8}}(\.[^.]*)?")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there if the block succeeds, delete it if not.

    The temporary file has the suffix of ``path``, since writers such as ``numpy.savez`` go by it.
    A file that is already at ``path`` stays untouched until the new one is complete.

    Raises:
        InputError: the folder of ``path`` does not exist or cannot be written.
    """
    # Through a link: the file that it leads to is replaced, not the link.
    path = Path(os.path.realpath(path))
    handle, temporary = _temporary_file(path)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file private to its owner; give it what a plain open() would have given.
        os.chmod(temporary, 0o666 & ~_mask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; move it there if the block succeeds, delete it if not.

    Args:
        path: absent or an empty folder; its parent is made.

    Raises:
        InputError: a folder cannot be made, or something is at ``path`` by now.
    """
    path = Path(path)
    with opening(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, deep=False, name=path.name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_MARK}", dir=path.parent))
        handle = None if fcntl is None else os.open(temporary, os.O_RDONLY)
    try:
        if handle is not None:
            _try_lock(handle)
        yield temporary
        os.chmod(temporary, 0o777 & ~_mask())
        try:
            os.replace(temporary, path)
        except OSError as error:  # which names the temporary folder
            raise InputError(f"{path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def made_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder, and those around it, for the block; those that are empty behind it are removed again.

    Raises:
        InputError: a folder cannot be made.
    """
    folder = Path(path)
    with opening(folder):
        # Absolute: the block may change the working folder.
        around = folder.absolute()
        absent = [place for place in (around, *around.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        for place in absent:
            try:
                place.rmdir()
            except OSError:  # something is in it
                break


def sweep(folder: str | os.PathLike, deep: bool = True, name: str | None = None) -> list[Path]:
    """Delete the temporary files and folders of processes that were killed; those of living ones stay.

    Args:
        folder: where to look; it may be absent.
        deep: also in the folders within.
        name: only those of this file or folder.

    Returns:
        What was deleted.
    """
    removed: list[Path] = []
    if fcntl is None:
        return removed
    top: str = os.fspath(folder)
    for place, folders, files in os.walk(top):
        for entry in _leftovers([*folders, *files], name):
            path = Path(place, entry)
            # The writer may end, or another sweep be faster.
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY)
                try:
                    if _try_lock(handle):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                        removed.append(path)
                finally:
                    os.close(handle)
        folders[:] = [entry for entry in folders if not _LEFTOVER.fullmatch(entry)] if deep else []
    return removed


def _leftovers(entries: Iterable[str], name: str | None) -> list[str]:
    start = "." if name is None else f".{Path(name).stem}.{_MARK}"
    whole = "." if name is None else f".{name}.{_MARK}"
    return [
        entry
        for entry in entries
        if _LEFTOVER.fullmatch(entry) and entry.startswith((start, whole))
    ]


def _temporary_file(path: Path) -> tuple[int | None, Path]:
    """A file beside ``path``, open and locked where there are locks."""
    while True:
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{path.stem}.{_MARK}", suffix=path.suffix, dir=path.parent
            )
        except OSError as error:
            raise InputError(f"{path}: cannot write there ({error.strerror})") from error
        if fcntl is None:
            os.close(handle)
            return None, Path(name)
        _try_lock(handle)
        # Between the two lines a sweep may have taken it for a leftover.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock an open file or folder; False if another process holds it, or where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
