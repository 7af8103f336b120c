"""Reads points from text tables, as scanners, spreadsheets and programs of all languages write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.polygons import Geometry

_COMMENT = re.compile(rb"(?<!\.)#[^\n]*|//[^\n]*")  # "1.#IND" is no comment, but how some write NaN
_QUOTED = re.compile(rb"([\"'])([^\"'\n]*)\1")
_DECIMAL_COMMA = re.compile(rb"[-+]?[0-9]*,[0-9]+(?:[eEdD][-+]?[0-9]+)?")
_BLANKS_SEPARATE = re.compile(rb"[^\s,;][ \t]+[^\s,;]")
# What cannot be where a comma is the decimal sign: none or two in a number, or one beside a point.
_NO_DECIMAL_COMMA = re.compile(rb",(?![0-9])|,[^\s;,]*,|\.[^\s;,.]*,|,[^\s;,.]*\.")
_MAYBE_DECIMAL_COMMA = re.compile(rb"(?<![0-9.])[0-9]+,[0-9]+(?![0-9.])")
_EMPTY_COLUMN = re.compile(rb"^[ \t]*[,;]|,[ \t]*,|;[ \t]*;", re.MULTILINE)
_COLORS = (("r", "g", "b"), ("red", "green", "blue"))


def read(path: Path, faces: bool = False) -> Geometry:
    """Return the (N, 3) points of a table with at least three columns, and (N, 3) uint8 colours or None.

    Columns are separated by blanks, commas or semicolons; where blanks or semicolons separate, a comma is the
    decimal sign. A line of column names may come first, and then says which columns are x, y and z; so may one
    with the number of points. ``#`` and ``//`` begin comments. Without names, columns 4 to 6 are colours if all
    their values are whole numbers from 0 to 255 (and not all 0 or 1, as axis-aligned normals are).

    Raises:
        InputError: no number, fewer than three columns, a line that differs from the first, fewer lines than
            promised, or commas that could mean either.
    """
    data = text.read_plain_lines(path)
    if b"#" in data or b"//" in data:
        data = _COMMENT.sub(b"", data)
    if b'"' in data or b"'" in data:
        data = _QUOTED.sub(lambda quoted: _unquoted(quoted[2]), data)
    names, promised, start = _head(data)
    body, line = data[start:], data.count(b"\n", 0, start)
    if not body.strip():
        if promised == 0:
            return Geometry(np.empty((0, 3)))
        missing = (
            "no number in it"
            if promised is None
            else f"cut off, {promised} points promised and none there"
        )
        raise InputError(f"{path}: {missing}, expected lines 'x y z'")
    body = _blanks_and_points(body, line, path)

    columns = len(body.lstrip().partition(b"\n")[0].split())
    if columns < 3:
        number, shown = text.word_line(body, 0)
        raise InputError(
            f"{path}, line {line + number}: {columns} columns in {shown!r}, expected at least 3"
        )
    table = text.table(body)
    if table is None and columns > 6:  # words behind the numbers, such as the name of a class
        table = text.table(body, range(6)) if _all_have(body, columns) else None
    if table is None:
        raise InputError(_first_difference(body, columns, line, path))
    if promised is not None and len(table) < promised:
        raise InputError(f"{path}: cut off, {len(table)} of {promised} points are there")

    place = {name: column for column, name in enumerate(names)} if len(names) == columns else {}
    axes = [place[axis] for axis in "xyz"] if {*"xyz"} <= place.keys() else [0, 1, 2]
    named = next((c for c in _COLORS if set(c) <= place.keys()), None)
    if max(axes) >= table.shape[1] or (named and max(place[c] for c in named) >= table.shape[1]):
        raise InputError(f"{path}: x, y, z or colours stand behind columns that are no numbers")
    extra = table[:, [place[c] for c in named]] if named else table[:, 3:6]
    colors = None
    if axes == [0, 1, 2] or named:
        colors = _as_bytes(extra)
    return Geometry(np.ascontiguousarray(table[:, axes]), colors)


def _head(data: bytes) -> tuple[list[str], int | None, int]:
    """Names of columns, the number of points if it comes first, and where the table begins."""
    names: list[str] = []
    promised = None
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        words = re.split(rb"[\s,;]+", data[start:end].strip(b" \t\n,;"))
        count = text.whole(words[0]) if len(words) == 1 else None
        if count is not None and count >= 0 and promised is None:
            promised = count
        elif any(map(text.is_number, words)):
            break
        elif words != [b""]:
            names = [word.decode("utf-8", "replace").lower() for word in words]
        start = end
    return names, promised, start


def _unquoted(inner: bytes) -> bytes:
    inner = inner.strip()
    if _DECIMAL_COMMA.fullmatch(inner):
        return inner.replace(b",", b".")
    return b"?" if b"," in inner and re.search(rb"[0-9]", inner) else inner


def _blanks_and_points(body: bytes, line: int, path: Path) -> bytes:
    """The table with blanks between its columns and points as decimal signs."""
    if b"," not in body and b";" not in body:
        return body
    body = re.sub(rb"[,;][ \t]*$", b"", body, flags=re.MULTILINE)
    decimal = b"," in body and (b";" in body or _BLANKS_SEPARATE.search(body))
    odd = None
    if decimal:
        odd = _NO_DECIMAL_COMMA.search(body)
    elif re.search(rb",[ \t]", body):  # commas with blanks separate, and what are those without?
        odd = _MAYBE_DECIMAL_COMMA.search(body)
    if odd:
        number, shown = text.line_at(body, odd.start())
        raise InputError(
            f"{path}, line {line + number}: {shown!r} has commas beside other separators, expected each to be "
            "the decimal sign of a number, or commas alone between the columns"
        )
    if decimal:
        body = body.replace(b",", b".")
    empty = _EMPTY_COLUMN.search(body)
    if empty:
        number, shown = text.line_at(body, empty.start())
        raise InputError(f"{path}, line {line + number}: an empty column in {shown!r}")
    return body.replace(b",", b" ").replace(b";", b" ")


def _all_have(body: bytes, columns: int) -> bool:
    return all(len(words) in (0, columns) for words in map(bytes.split, body.split(b"\n")))


def _first_difference(body: bytes, columns: int, line: int, path: Path) -> str:
    row = 0
    for number, shown in enumerate(body.split(b"\n"), line + 1):
        words = shown.split()
        if words and (len(words) != columns or not all(map(text.is_number, words))):
            return f"{path}, line {number}: row {row} is malformed: {text.shown(shown)!r}, expected {columns} numbers"
        row += bool(words)
    return f"{path}: not a table of numbers"


def _as_bytes(extra: np.ndarray) -> np.ndarray | None:
    if extra.shape[1] != 3 or not len(extra):
        return None
    with np.errstate(invalid="ignore"):
        whole = (
            np.array_equal(extra, np.rint(extra)) and extra.min() >= 0 and 1 < extra.max() <= 255
        )
    return extra.astype(np.uint8) if whole else None
