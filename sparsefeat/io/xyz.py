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
_UNIT = re.compile(rb"\[[^\]\n]*\]|\([^)\n]*\)")
_COLORS = (("r", "g", "b"), ("red", "green", "blue"), ("rf", "gf", "bf"))


def read(path: Path, faces: bool = False) -> Geometry:
    """Return the (N, 3) points of a table with at least three columns, and (N, 3) colours or None.

    Columns are separated by blanks, commas or semicolons; where blanks or semicolons separate, a comma is the
    decimal sign. A line of column names may come first, and then says which columns are x, y, z and colours
    (with units in brackets, if any); so may one with the number of points. ``#`` and ``//`` begin comments; one
    right before the table is a line of names if x, y and z are among as many words as there are columns.

    Without names, columns 4 to 6 are colours if all their values are whole numbers from 0 to 255 (and not all
    0 or 1, as axis-aligned normals are), unless column 7 has such numbers too: 5 to 7 may then be the colours.

    Raises:
        InputError: no number, fewer than three columns, a line that differs from the first, fewer lines than
            promised, commas that could mean either, or x, y and z among more or fewer names than columns.
    """
    data = text.read_plain_lines(path)
    names, comment, promised, start = _head(data)
    body, line = _plain(data[start:]), data.count(b"\n", 0, start)
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
    if table is None and columns > 6 and _all_have(body, columns):
        # Words behind the numbers, such as the name of a class.
        table = text.table(body, range(7))
        table = text.table(body, range(6)) if table is None else table
    if table is None:
        raise InputError(_first_difference(body, columns, line, path))
    if promised is not None and len(table) < promised:
        raise InputError(f"{path}: cut off, {len(table)} of {promised} points are there")

    place = _places(names, columns)
    if not place and {b"x", b"y", b"z"} <= {*_words(names)}:
        raise InputError(
            f"{path}: the names {text.shown(names)!r} are {len(_words(names))}, and there are {columns} columns"
        )
    noted = _places(comment, columns)
    if {*"xyz"} <= noted.keys():
        place = noted
    axes = [place[axis] for axis in "xyz"] if {*"xyz"} <= place.keys() else [0, 1, 2]
    named = next((c for c in _COLORS if set(c) <= place.keys()), None)
    if max(axes) >= table.shape[1] or (named and max(place[c] for c in named) >= table.shape[1]):
        raise InputError(f"{path}: x, y, z or colours stand behind columns that are no numbers")
    colors = None
    if named:
        colors = table[:, [place[c] for c in named]]
    elif not place and not _are_bytes(table[:, 6:7]) and _are_bytes(table[:, 3:6]):
        colors = table[:, 3:6].astype(np.uint8) if table[:, 3:6].max() > 1 else None
    return Geometry(np.ascontiguousarray(table[:, axes]), colors)


def _head(data: bytes) -> tuple[bytes, bytes, int | None, int]:
    """The line of names, the comment right before the table, the number of points, and where the table begins."""
    names = comment = b""
    promised = None
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        line = data[start:end].strip(b" \n")  # a tab may stand behind a name that is empty
        plain = _plain(line)
        words = _words(plain)
        count = text.whole(words[0]) if len(words) == 1 else None
        if count is not None and count >= 0 and promised is None:
            promised = count
        elif any(map(text.is_number, words)):
            break
        elif words:
            names, comment = plain, b""
        elif line.strip():
            # "# columns: x y z" says what the words are.
            comment = _unquoted_all(line.lstrip(b"#/")).rpartition(b":")[2]
        start = end
    return names, comment, promised, start


def _words(line: bytes) -> list[bytes]:
    """The words of a line, whatever separates them, in lower case and without units."""
    return [word.lower() for word in re.split(rb"[\s,;]+", _UNIT.sub(b"", line)) if word]


def _places(line: bytes, columns: int) -> dict[str, int]:
    """The column of each name, if a separator cuts the line into as many names as there are columns; else none."""
    line = _UNIT.sub(b"", line).rstrip(b" \t,;").lower()
    for names in (*(line.split(separator) for separator in (b";", b"\t", b",")), _words(line)):
        if len(names) == columns:
            return {
                name.strip().decode("utf-8", "replace"): column for column, name in enumerate(names)
            }
    return {}


def _plain(lines: bytes) -> bytes:
    """Without comments and quotes."""
    if b"#" in lines or b"//" in lines:
        lines = _COMMENT.sub(b"", lines)
    return _unquoted_all(lines)


def _unquoted_all(lines: bytes) -> bytes:
    if b'"' in lines or b"'" in lines:
        lines = _QUOTED.sub(lambda quoted: _unquoted(quoted[2]), lines)
    return lines


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


def _are_bytes(values: np.ndarray) -> bool:
    """Whether there are numbers, all of them whole and from 0 to 255."""
    with np.errstate(invalid="ignore"):
        return bool(
            values.size
            and np.array_equal(values, np.rint(values))
            and values.min() >= 0
            and values.max() <= 255
        )
