"""The results that a checkout has: one JSON file each, ``results/<task>/<name>.json``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from sparsefeat.errors import InputError
from sparsefeat.io.results import RESULTS, read_result

Result = dict[str, Any]
"""See :func:`sparsefeat.io.results.write_result`."""


_OUTPUTS = ("--json", "--result", "--output", "--cache", "--plots", "--plot", "--html")


def list_results(root: Path) -> dict[str, Path]:
    """``{"task/name": file}``, in order.

    Args:
        root: of a checkout.

    Raises:
        InputError: it has no folder ``results``.
    """
    folder = root / RESULTS
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected to be run in a checkout")
    paths = sorted(folder.glob("*/*.json"))
    return {f"{path.parent.name}/{path.stem}": path for path in paths}


def find_result(root: Path, name: str) -> Result:
    """The result ``"task/name"``, or ``"name"`` where one task alone has it.

    Raises:
        InputError: there is none, or more than one.
    """
    known = list_results(root)
    wanted = name.removesuffix(".json").removeprefix(f"{RESULTS}/")
    found = [key for key in known if wanted in (key, key.partition("/")[2])]
    if len(found) != 1:
        listed = ", ".join(found or known) or "none"
        problem = "more than one result of this name" if found else "no such result; there are"
        raise InputError(f"{name}: {problem}: {listed}")
    return read_result(known[found[0]])


def command_words(result: Result) -> list[str]:
    """The recorded command, without the options that only say where its output goes, or what it may find made."""
    words: list[str] = []
    skips = False
    for word in shlex.split(result["command"]):
        if skips:
            skips = False
        elif word in _OUTPUTS:
            skips = True
        elif word != "--resume" and not word.startswith(("output=", *(f"{o}=" for o in _OUTPUTS))):
            words.append(word)
    return words
