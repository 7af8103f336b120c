"""Reads points from plain text: xyz tables, the vertices of OFF and of OBJ files."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from sparsefeat.errors import InputError


def read_xyz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (N, 3) points and (N, 3) uint8 colours or None of a table with at least three columns.

    Columns are separated by white space, commas or semicolons; a line of column names and a line with the
    number of points may come first; ``#`` and ``//`` begin comments. Columns 4 to 6 are colours if all
    their values are whole numbers from 0 to 255 (and not all 0 or 1, as axis-aligned normals are).

    Raises:
        InputError: fewer than three columns, or a line that differs from the first.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = _table_lines(file)
        first = next(lines, None)
        while first is not None and (_is_header(first) or first.strip().isdigit()):
            first = next(lines, None)
        if first is None:
            return np.empty((0, 3)), None
        columns = len(first.split())
        if columns < 3:
            raise InputError(f"{path}: {columns} columns in {first.strip()[:60]!r}, expected at least 3")
        use = range(min(columns, 6))
        table = parse_table(itertools.chain([first], lines), f"{path}: row", None, use)
    extra = table[:, 3:]
    if extra.shape[1] == 3 and len(extra):
        with np.errstate(invalid="ignore"):
            whole = np.array_equal(extra, np.rint(extra)) and extra.min() >= 0 and 1 < extra.max() <= 255
        if whole:
            return np.ascontiguousarray(table[:, :3]), extra.astype(np.uint8)
    return np.ascontiguousarray(table[:, :3]), None


def read_off(path: Path) -> tuple[np.ndarray, None]:
    """Return the (N, 3) vertices of an OFF file (OFF, COFF, NOFF, CNOFF: coordinates come first in each).

    Raises:
        InputError: not an OFF file, or fewer vertices than it promises.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = _table_lines(file)
        # The counts may stand on the line of the keyword ("OFF 8 6 12"), and ModelNet has "OFF8 6 12".
        head = next(lines, "").strip()
        keyword, _, counts = head.partition("OFF")
        if "OFF" not in head or keyword not in ("", "C", "N", "CN", "ST", "STN", "STC", "STCN"):
            raise InputError(f"{path}: not an OFF file, it begins with {head[:60]!r}")
        counts = (counts or next(lines, "")).split()
        if len(counts) < 2 or not all(word.isdigit() for word in counts):
            raise InputError(f"{path}: the numbers of vertices and faces are missing or malformed: {counts}")
        return parse_table(lines, f"{path}: vertex (from 0)", int(counts[0]), (0, 1, 2)), None


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the (N, 3) vertices (lines ``v``) of an OBJ file, and their colours if each line has them.

    Raises:
        InputError: a vertex without three coordinates.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        vertices = (line[2:] for line in file if line.startswith(("v ", "v\t")))
        first = next(vertices, None)
        if first is None:
            return np.empty((0, 3)), None
        columns = len(first.split())
        use = range(6) if columns in (6, 7) else range(3)
        table = parse_table(itertools.chain([first], vertices), f"{path}: vertex (from 0)", None, use)
    return np.ascontiguousarray(table[:, :3]), table[:, 3:] if table.shape[1] == 6 else None


def parse_table(lines: Iterable[str], where: str, rows: int | None, use: Sequence[int]) -> np.ndarray:
    """Return the columns ``use`` of lines of numbers as (rows, len(use)) float64.

    Args:
        lines: read up to ``rows`` of them, or all if that is None.
        where: begins the message of an error and is followed by the number of the row.

    Raises:
        InputError: a row has too few columns or something that is no number, or there are too few rows.
    """
    if rows == 0:
        return np.empty((0, len(use)))
    keep = _Remember(lines)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            table = np.loadtxt(keep, usecols=tuple(use), max_rows=rows, ndmin=2, comments=None)
    except ValueError as error:
        row, line = keep.culprit(use)
        raise InputError(f"{where} {row} is malformed: {line.strip()[:60]!r}") from error
    if rows is not None and len(table) < rows:
        raise InputError(f"{where} {len(table)}: cut off, expected {rows}")
    return table.reshape(-1, len(use))


class _Remember:
    """Iterates over lines and keeps the latest, to say which one could not be parsed.

    numpy names the row in some of its messages and not in others, counting from 0 or from 1.
    """

    def __init__(self, lines: Iterable[str]):
        self._lines = iter(lines)
        self._rows = 0
        self._recent: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if not line.strip():
                continue
            self._rows += 1
            self._recent.append(line)
            # numpy asks for blocks of lines before it parses them, so that a bad one may lie further back.
            if len(self._recent) > 200_000:
                del self._recent[:100_000]
            yield line

    def culprit(self, use: Sequence[int]) -> tuple[int, str]:
        """Return the number (from 0) and the text of the first kept line that is no row of numbers."""
        start = self._rows - len(self._recent)
        for row, line in enumerate(self._recent):
            words = line.split()
            if len(words) <= max(use) or not all(_is_number(words[i]) for i in use):
                return start + row, line
        return self._rows - 1, self._recent[-1] if self._recent else ""


def _table_lines(file: TextIO) -> Iterator[str]:
    for line in file:
        if "#" in line or "//" in line:
            line = line.partition("#")[0].partition("//")[0]
        line = line.replace(",", " ").replace(";", " ")
        if line.strip():
            yield line


def _is_header(line: str) -> bool:
    return not any(_is_number(word) for word in line.split())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
