"""One process at a time writes an output; who it is stands in a lock file."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import made_folder, sweep

# Without such locks nobody is kept out.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

LOCK_NAME = ".sparsefeat.lock"


@contextlib.contextmanager
def output_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder and keep other processes from writing into it within the block.

    What killed processes left there is deleted: temporary files, and their lock. A block that leaves nothing there
    leaves no folder either.

    Raises:
        InputError: the folder cannot be made, or another process writes there; the message says which.
    """
    with made_folder(path) as folder, locked(folder / LOCK_NAME, folder):
        sweep(folder)
        yield folder


@contextlib.contextmanager
def locked(lock: Path, output: str | os.PathLike) -> Iterator[None]:
    """Hold a lock file within the block; it is deleted afterwards.

    The lock is the operating system's, which takes it from a process that dies: a file that a killed process left
    keeps nobody out.

    Args:
        lock: the file; its folder exists.
        output: what is written, for the message.

    Raises:
        InputError: another process holds it, or the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    with opening(output):
        handle = _take(lock, output)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
        yield
    finally:
        # First the file, then the lock: who waited for it sees that the file is gone.
        lock.unlink(missing_ok=True)
        os.close(handle)


def _take(lock: Path, output: str | os.PathLike) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(handle)
            os.close(handle)
            raise InputError(
                f"{os.fspath(output)}: {who} writes there; let it end, or name another output"
            ) from None
        except OSError:  # a file system without locks
            return handle
        # The one who held it may have deleted the file between the two lines.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        os.close(handle)


def _this_process() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": started,
        "program": Path(sys.argv[0]).name,
    }


def _holder(handle: int) -> str:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        place = "" if found["host"] == platform.node() else f" on {found['host']}"
        return f"process {found['pid']}{place} ({found['program']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is just beginning
        return "another process"
