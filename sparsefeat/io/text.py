"""Text files: what their bytes say, and the numbers in them.

Every reader of text goes through here, so that byte-order marks, UTF-16 and carriage returns are understood
everywhere or nowhere.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import warnings
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError, opening

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FORTRAN = re.compile(rb"(?<=[0-9.])[dD](?=[-+]?[0-9])")
_START = 64  # bytes that show the encoding
_MAX_DIGITS = 18  # whole numbers of more digits do not fit into 64 bits


def read_text(path: str | os.PathLike) -> str:
    """The text of a file in UTF-8, UTF-16, or UTF-32 with a byte-order mark; marks are left out.

    UTF-16 without a mark is known by its first characters, which have to be ASCII.

    Raises:
        InputError: the file cannot be read, or is no such text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode(data, path)


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file, ended by any of LF, CR LF and CR; see :func:`read_text`."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 if text begins so: by its mark, or in UTF-16 by a NUL in every other byte; else None."""
    for mark, encoding in _MARKS[1:]:
        if data.startswith(mark):
            return encoding
    start = data[: min(len(data), _START) // 2 * 2]
    for encoding, letters, others in (
        ("utf-16-le", start[::2], start[1::2]),
        ("utf-16-be", start[1::2], start[::2]),
    ):
        if start and all(letters) and not any(others):
            return encoding
    return None


def decode(data: bytes, path: str | os.PathLike) -> str:
    """The text that ``data`` is; ``path`` begins the message where it is none."""
    encoding = wide_encoding(data) or "utf-8"
    if data and any(data == mark for mark, _ in _MARKS[1:]):
        raise InputError(f"{path}: not a text file, only a byte-order mark")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file in {encoding.upper()} (byte {error.start})"
        ) from error


def plain_lines(data: bytes, path: str | os.PathLike) -> bytes:
    """The bytes of a text file in any superset of ASCII, without a byte-order mark, each line ended by LF.

    What is not ASCII stays as it is: names and comments come in many encodings, and numbers do not.

    Raises:
        InputError: UTF-16 or UTF-32 that is damaged, or a NUL, which no text has.
    """
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    elif wide_encoding(data):
        data = decode(data, path).encode()
    if b"\0" in data:
        raise InputError(f"{path}: byte {data.index(0)} is NUL; expected text")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def read_plain_lines(path: str | os.PathLike) -> bytes:
    """:func:`plain_lines` of a file."""
    with opening(path):
        return plain_lines(Path(path).read_bytes(), path)


def number(word: bytes) -> float:
    """A decimal number, also with Fortran's exponent (``1.0D+00``); ValueError if it is none."""
    try:
        if b"_" not in word:
            return float(word)
    except ValueError:
        return float(_FORTRAN.sub(b"e", word, count=1))
    raise ValueError(word)


def is_number(word: bytes) -> bool:
    """Whether :func:`number` takes it."""
    try:
        number(word)
    except ValueError:
        return False
    return True


def whole(word: bytes | str) -> int | None:
    """A number of digits with or without a sign, or None; Python's int also takes ``1_0`` and other scripts."""
    digits = word[1:] if word[:1] in (b"+", b"-", "+", "-") else word
    return int(word) if digits.isdigit() and word.isascii() and len(digits) <= _MAX_DIGITS else None


def table(data: bytes, use: range | None = None) -> np.ndarray | None:
    """The numbers of lines that all have equally many; blank lines do not count. Shape: (rows, columns) float64.

    Args:
        data: of :func:`plain_lines`.
        use: only these columns, of lines that have at least these.

    Returns:
        None if a line has more or fewer numbers than the first, or something that is no number.
    """
    if not data or data.isspace():
        return np.empty((0, len(use or ())))
    for attempt in (data, None):
        if attempt is None:
            attempt = _FORTRAN.sub(b"e", data)
            if attempt == data:
                return None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")
                file = io.TextIOWrapper(io.BytesIO(attempt), "ascii", "replace")
                return np.loadtxt(file, ndmin=2, comments=None, usecols=use)
        except ValueError:
            continue
    return None


def numbers(words: list[bytes]) -> np.ndarray:
    """The numbers at the beginning of ``words``, up to the first that is none. Shape: (n,) float64."""
    try:
        values = np.array(list(map(float, words)), dtype=np.float64)
    except ValueError:
        return np.array([number(word) for word in words[: _first_word(words)]], dtype=np.float64)
    if any(b"_" in word for word in words):
        return values[: _first_word(words)]
    return values


def _first_word(words: list[bytes]) -> int:
    return next((place for place, word in enumerate(words) if not is_number(word)), len(words))


def head(data: bytes, lines: int) -> int:
    """The length of the first ``lines`` lines, as far as there are so many."""
    if lines == 0:
        return 0
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    return int(ends[lines - 1]) + 1 if lines <= len(ends) else len(data)


def word_line(data: bytes, index: int) -> tuple[int, str]:
    """The number (from 1) of the line that has word ``index`` (from 0) of ``data``, and its text."""
    for line, text in enumerate(data.split(b"\n"), 1):
        count = len(text.split())
        if index < count:
            return line, shown(text)
        index -= count
    return data.count(b"\n") + 1, ""


def line_at(data: bytes, position: int) -> tuple[int, str]:
    """The number (from 1) and the text of the line at a byte."""
    end = data.find(b"\n", position)
    start = data.rfind(b"\n", 0, position) + 1
    return data.count(b"\n", 0, position) + 1, shown(data[start : end if end >= 0 else len(data)])


def shown(text: bytes) -> str:
    """A line as messages quote it, without the quotes."""
    text = text.strip()
    return (
        text[:60].decode("utf-8", "replace")
        if len(text) <= 60
        else text[:57].decode("utf-8", "replace") + "..."
    )
