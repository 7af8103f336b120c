"""Reads OFF files. Format: http://www.geomview.org/docs/html/OFF.html"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.polygons import Geometry

_KEYWORD = re.compile(rb"\s*((?:ST)?(?:CN|NC|C|N)?OFF)(?![A-Za-z_])(?:[ \t]*(BINARY)\b)?")


def read(path: Path, faces: bool) -> Geometry:
    """Return the vertices of an OFF file (OFF, COFF, NOFF, CNOFF ...: coordinates come first), and its faces.

    Numbers count, not lines, except that a line ends the colour of a face. Where each vertex has its own line, its
    colour is read and other columns are skipped.

    Raises:
        InputError: not an OFF file, fewer vertices or faces than it promises, or a malformed one.
    """
    data = text.read_plain_lines(path)
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    keyword = _KEYWORD.match(data)
    if not keyword:
        raise InputError(f"{path}: not an OFF file, it begins with {text.shown(data[:80])!r}")
    if keyword[2]:
        raise InputError(f"{path}: a binary OFF file, expected one in text")
    (rows, polygons), position = _counts(data, keyword.end(), path)
    body = data[position:]
    # A number and its separator are two bytes; the last one may end the file.
    if 3 * rows + 4 * polygons > (len(body) + 1) // 2:
        row = min(rows, len(body.split()) // 3)
        raise InputError(
            f"{path}: vertex (from 0) {row}: cut off, expected {rows} and {polygons} faces, {len(body)} bytes follow"
        )
    if not rows:
        return Geometry(np.empty((0, 3)))
    width = 3 + sum(size for mark, size in ((b"ST", 2), (b"C", 4), (b"N", 3)) if mark in keyword[1])

    end = text.head(body, rows) if body[:1].strip() else text.head(body, rows + 1)
    points = text.table(body[:end])
    if (
        points is not None and len(points) == rows and points.shape[1] >= 3
    ):  # each vertex on its own line
        certain = points.shape[1] == width
        start = 6 if b"N" in keyword[1] else 3
        colors = points[:, start : start + 3] if b"C" in keyword[1] else None
        if colors is not None and (colors.shape[1] < 3 or colors.min() < 0 or colors.max() > 255):
            colors = None
        points = np.ascontiguousarray(points[:, :3])
        if certain and not faces:
            return Geometry(points, colors)
        try:
            return Geometry(points, colors, *_faces(data, position + end, rows, polygons, path))
        except InputError:
            if certain:
                raise
    words = body.split(None, rows * width)
    values = text.numbers(words[: rows * width])
    row = len(values) // width
    if len(values) < min(len(words), rows * width):
        line, shown = text.word_line(data, len(data[:position].split()) + len(values))
        raise InputError(f"{path}, line {line}: vertex (from 0) {row} is malformed: {shown!r}")
    if row < rows:
        raise InputError(f"{path}: vertex (from 0) {row}: cut off, expected {rows}")
    rest = len(words[-1]) if len(words) > rows * width else 0
    corners, counts = _faces(data, len(data) - rest, rows, polygons, path)
    return Geometry(np.ascontiguousarray(values.reshape(rows, width)[:, :3]), None, corners, counts)


def _counts(data: bytes, position: int, path: Path) -> tuple[tuple[int, int], int]:
    """The numbers of vertices and faces, and where what follows them begins."""
    found: list[int] = []
    end = position
    for word in re.finditer(rb"\S+", data[position : position + 4096]):
        begin = position + word.start()
        # The number of edges may be left out, and then the first vertex begins on a line of its own.
        new_line = len(found) == 2 and b"\n" in data[end:begin]
        if new_line and len(data[begin : begin + 4096].partition(b"\n")[0].split()) > 1:
            break
        value = text.whole(word[0])
        if value is None or value < 0:
            line, shown = text.line_at(data, begin)
            raise InputError(
                f"{path}, line {line}: the numbers of vertices and faces are missing or malformed: {shown!r}"
            )
        found.append(value)
        end = position + word.end()
        if len(found) == 3:
            break
    if len(found) < 2:
        raise InputError(
            f"{path}: the numbers of vertices and faces are missing or malformed: {found}"
        )
    return (found[0], found[1]), end


def _faces(
    data: bytes, position: int, rows: int, faces: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of all faces one after the other, and their numbers; from ``position`` on."""
    if not faces:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    rest = data[position:]
    same = text.table(rest)
    if same is not None and same.size:
        # Nearly always equally many numbers a line: triangles, perhaps with a colour.
        count = int(same[0, 0]) if 3 <= same[0, 0] < same.size else 0
        if count and len(same) == faces and count < same.shape[1] and (same[:, 0] == count).all():
            return _whole(same[:, 1 : 1 + count], rows, path), np.full(faces, count, dtype=np.int64)
    try:
        return _faces_by_line(data, position, faces, path)
    except InputError:
        # Several on a line, where no colours can be.
        values = text.numbers(rest.split())
        starts: list[int] = []
        place = 0
        while place < len(values) and len(starts) < faces and values[place] >= 3:
            starts.append(place)
            place += 1 + int(min(values[place], len(values)))
        if len(starts) < faces or place != len(values):
            raise
    counts = values[starts].astype(np.int64)
    return _whole(np.delete(values, starts), rows, path), counts


def _faces_by_line(
    data: bytes, position: int, faces: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    corners: list[int] = []
    counts: list[int] = []
    before = data.count(b"\n", 0, position)
    lines = (
        (number, line)
        for number, line in enumerate(data[position:].split(b"\n"), before + 1)
        if line.strip()
    )
    for face in range(faces):
        number, line = next(lines, (0, b""))
        if not line:
            raise InputError(f"{path}: face {face} (from 0): cut off, expected {faces}")
        words = line.split()
        count = text.whole(words[0])
        while count is not None and len(words) <= count:
            more = next(lines, None)
            if more is None:
                break
            words += more[1].split()
        given = words[1 : 1 + (count or 0)]
        indices = [index for index in map(text.whole, given) if index is not None]
        if count is None or len(indices) < len(given):
            raise InputError(f"{path}: line {number}: malformed face {text.shown(line)!r}")
        if count < 3 or len(indices) < count:
            raise InputError(
                f"{path}: line {number}: face {text.shown(line)!r}, expected 3 or more indices"
            )
        corners += indices
        counts.append(count)
    return np.array(corners, dtype=np.int64), np.array(counts, dtype=np.int64)


def _whole(values: np.ndarray, rows: int, path: Path) -> np.ndarray:
    values = np.ascontiguousarray(values).reshape(-1)
    wrong = np.flatnonzero((values != np.rint(values)) | ~(np.abs(values) < 2**53))
    if len(wrong):
        raise InputError(
            f"{path}: a face has the corner {values[wrong[0]]:g}, expected 0 to {rows - 1}"
        )
    return values.astype(np.int64)
