"""Reads STL files, in text and binary. Format: 3D Systems, "StereoLithography Interface Specification", 1989."""

from __future__ import annotations

import codecs
import re
import struct
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError, opening
from sparsefeat.io import text

_HEADER = 84  # bytes: 80 of anything, then the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_FACET = (
    b"facet normal . . . outer loop vertex . . . vertex . . . vertex . . . endloop endfacet".split()
)
_CORNERS = [place for place, word in enumerate(_FACET) if word == b"."][3:]


def read(path: Path) -> np.ndarray:
    """Return the corners of all triangles of all solids. Shape: (F, 3, 3) float64

    Raises:
        InputError: empty, cut off, or neither form of STL.
    """
    with opening(path):
        data = path.read_bytes()
    if not data.strip():
        raise InputError(f"{path}: the file is empty, expected an stl mesh")
    # Binary headers may begin with "solid" too: their size decides.
    promised = struct.unpack_from("<I", data, 80)[0] if len(data) >= _HEADER else None
    if promised is not None and len(data) == _HEADER + promised * _TRIANGLE.itemsize:
        return _binary(data, path)
    if text.wide_encoding(data):
        data = text.plain_lines(data, path)
    start = data[:4096].removeprefix(codecs.BOM_UTF8).lstrip()[:5].lower()
    if start == b"solid" and b"\0" not in data:
        return _ascii(text.plain_lines(data, path), path)
    return _binary(data, path)


def _binary(data: bytes, path: Path) -> np.ndarray:
    if len(data) < _HEADER:
        raise InputError(
            f"{path}: cut off, {len(data)} bytes, expected {_HEADER} before the triangles of an stl"
        )
    solids: list[np.ndarray] = []
    position = 0
    while not solids or len(data) - position >= _HEADER:
        count = struct.unpack_from("<I", data, position + 80)[0]
        size = count * _TRIANGLE.itemsize
        present = len(data) - position - _HEADER
        if size > present:
            if solids:  # bytes behind the triangles that are no further solid
                break
            raise InputError(
                f"{path}: cut off, {count} triangles promised, {present} bytes are there, expected {size}"
            )
        solids.append(np.frombuffer(data, _TRIANGLE, count, position + _HEADER)["corners"])
        position += _HEADER + size
        if count == 0:
            break
    return np.concatenate(solids).astype(np.float64)


def _ascii(data: bytes, path: Path) -> np.ndarray:
    # Names may be anything, in any encoding, and end with their line.
    solids = len(re.findall(rb"^[ \t]*solid\b", data, re.MULTILINE | re.IGNORECASE))
    ends = len(re.findall(rb"^[ \t]*endsolid\b", data, re.MULTILINE | re.IGNORECASE))
    named = re.sub(rb"^[ \t]*(?:end)?solid\b[^\n]*", b"", data, flags=re.MULTILINE | re.IGNORECASE)
    words = named.lower().split()
    size = len(_FACET)
    if ends < solids or (not words and not solids):
        raise InputError(
            f"{path}: cut off in the text after {len(words) // size} triangles, no 'endsolid'"
        )
    odd = [
        (next(row for row, word in enumerate(column) if word != expected) * size + place, expected)
        for place, expected in enumerate(_FACET)
        if expected != b"." and set(column := words[place::size]) - {expected}
    ]
    if odd or len(words) % size:
        place, expected = min(odd, default=(len(words), _FACET[len(words) % size]))
        line, shown = text.word_line(named, place)
        raise InputError(
            f"{path}, line {line}: triangle {place // size} (from 0): {shown!r}, expected {expected.decode()!r}"
        )
    corners = [text.numbers(words[place::size]) for place in _CORNERS]
    for place, values in zip(_CORNERS, corners, strict=True):
        if len(values) < len(words) // size:
            line, shown = text.word_line(named, len(values) * size + place)
            raise InputError(
                f"{path}, line {line}: {shown!r}, expected the three numbers of a vertex"
            )
    return np.stack(corners, axis=1).reshape(-1, 3, 3)
