"""Folders of data sets that may not be what a loader expects: what they hold, for its message."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sparsefeat.errors import InputError


def open_folder(root: str | os.PathLike, expected: str) -> Path:
    """``root`` as a path, or InputError that says what was ``expected`` of the folder."""
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}, expected a folder of {expected}")
    return root


def contents(folder: Path) -> str:
    """What is in a folder, in a few words: the end of a message on a layout that does not fit."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    if not names:
        return "it is empty"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"it has {', '.join(names[:4])}{more}"


def natural(name: str) -> list:
    """Sorting key by which cat2 comes before cat10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def find_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders ``names`` (of ``root``) that exists; "." is ``root``."""
    return next((root / name for name in names if (root / name).is_dir()), None)
