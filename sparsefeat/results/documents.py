"""Markdown files whose tables are rendered from results.

A block begins with ``<!-- results: VIEW TASK/NAME ... key=value ... -->``, on a line of its own or on several, and ends with
the line ``<!-- /results -->``. What lies between is replaced by the view (:mod:`sparsefeat.results.views`) of these results.
All else in the file is written by hand.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from sparsefeat.errors import InputError
from sparsefeat.results.store import find_result
from sparsefeat.results.views import VIEWS

_END = "<!-- /results -->"
_BEGIN = re.compile(r"<!-- results: (\S.*) -->", re.DOTALL)
_OPEN = re.compile(r"<!-- results: (?!.*-->)")
_FENCE = re.compile(r"\s*(```+|~~~+)")


def documents(root: Path) -> Iterator[Path]:
    """The files of a checkout that may have blocks: README, BENCHMARKS, ``docs`` and the cards."""
    yield from (path for path in (root / "README.md", root / "BENCHMARKS.md") if path.is_file())
    yield from sorted((root / "assets").glob("*.md"))
    yield from sorted(path for path in (root / "docs").rglob("*.md") if "_build" not in path.parts)


def fill(text: str, root: Path, where: str = "text") -> str:
    """The text with all blocks rendered anew. Examples inside code fences are left alone.

    Args:
        text: of a Markdown file.
        root: of the checkout whose results are taken.
        where: named in errors.

    Raises:
        InputError: a block that is not closed, or of an unknown view, result or option.
    """
    filled: list[str] = []
    opened, fence = 0, ""
    for number, line in _joined(text):
        if opened:
            if line == _END:
                filled.append(line)
                opened = 0
            elif _BEGIN.fullmatch(line):
                break
            continue
        filled.append(line)
        mark = _FENCE.match(line)
        if mark:
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        block = None if fence else _BEGIN.fullmatch(line)
        if block:
            filled += ["", _render(block[1], root, f"{where}:{number}"), ""]
            opened = number
    if opened:
        raise InputError(f"{where}:{opened}: a block of results is not closed; expected {_END}")
    return "\n".join(filled)


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text and their numbers from 1; what begins a block is one line, however it is broken."""
    lines = enumerate(text.split("\n"), 1)
    for number, line in lines:
        if _OPEN.match(line):
            for _, more in lines:
                line += f"\n{more}"
                if "-->" in more:
                    break
        yield number, line


def _render(wanted: str, root: Path, where: str) -> str:
    try:
        view, *words = shlex.split(wanted)
        if view not in VIEWS:
            raise InputError(f"expected a view, one of {', '.join(VIEWS)}; got {view!r}")
        options = dict(word.split("=", 1) for word in words if "=" in word)
        results = [find_result(root, word) for word in words if "=" not in word]
        if not results:
            raise InputError("expected TASK/NAME of a result")
        function = VIEWS[view]
        unknown = options.keys() - set(function.__annotations__)
        if unknown:
            raise InputError(f"{view} has no option {', '.join(sorted(unknown))}")
        return function(results, **options)
    except (InputError, ValueError) as error:  # ValueError: of shlex, a quote that is not closed
        raise InputError(f"{where}: {error}") from error
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{where}: not a result that {view} can show ({error!r})") from error
