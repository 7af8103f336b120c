"""Reads OBJ files: vertices (``v``) and faces (``f``). Format: Wavefront's "Object Files (.obj)", appendix B1."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.polygons import Geometry

_ELEMENT = re.compile(rb"^[ \t]*[vf][ \t\\][^\\\n]*(?:\\(?:[ \t]*\n|.)[^\\\n]*)+", re.MULTILINE)
_GOES_ON = re.compile(rb"\\[ \t]*\n")
_VERTEX = re.compile(rb"^[ \t]*v(?!\S)(.*)", re.MULTILINE)
_FACE = re.compile(rb"^[ \t]*f(?!\S)(.*)", re.MULTILINE)
_CORNER = re.compile(rb"([-+]?[0-9]{1,18})(?:/[-+0-9]*){0,2}")


def read(path: Path, faces: bool) -> Geometry:
    """Return the (N, 3) vertices of an OBJ file, their colours if each has some, and its faces.

    Raises:
        InputError: no vertex, a vertex without three coordinates, or a malformed face.
    """
    data = text.read_plain_lines(path)
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    if b"\\" in data:
        # A vertical tab is blank and no line: lines go on, and their numbers can still be counted.
        # Of other lines, such as mtllib C:\models\, a backslash may be a part.
        data = _ELEMENT.sub(lambda element: _GOES_ON.sub(b"\v", element[0]), data)
    lines = _VERTEX.findall(data)
    if not lines:
        raise InputError(f"{path}: no vertices, expected lines 'v x y z'")
    values = text.table(b"\n".join(lines))
    if values is None or values.shape[1] < 3 or len(values) < len(lines):
        values = _mixed_vertices(data, path)
    # x y z r g b, or with an opacity behind. What is below 0 is no colour: some write normals there.
    colors = values[:, 3:6] if values.shape[1] in (6, 7) else None
    if colors is not None and colors.min() < 0:
        colors = None
    points = np.ascontiguousarray(values[:, :3])
    if not faces:
        return Geometry(points, colors)
    return Geometry(points, colors, *_faces(data, path))


def _mixed_vertices(data: bytes, path: Path) -> np.ndarray:
    """The coordinates of vertices of which some have colours and some not."""
    rows: list[list[float]] = []
    for vertex in _VERTEX.finditer(data):
        words = vertex[1].split()
        try:
            values = [text.number(word) for word in words]
        except ValueError:
            values = []
        if len(values) < 3:
            raise InputError(
                f"{_place(data, vertex.start(), path)}: vertex (from 0) {len(rows)} is malformed: "
                f"{text.shown(vertex[1])!r}, expected 3 or more numbers"
            )
        rows.append(values[:3])
    return np.array(rows, dtype=np.float64)


def _faces(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = _FACE.findall(data)
    joined = b"\n".join(lines)
    if b"/" in joined:
        joined = re.sub(rb"(?<=[0-9])/[-+0-9]*(?:/[-+0-9]*)?(?=\s|$)", b"", joined)
    same = text.table(joined)
    if (
        same is not None
        and len(same) == len(lines) > 0
        and same.shape[1] >= 3
        and same.min() >= 1
        and same.max() < 2**53
    ):
        corners = same.astype(np.int64)
        if np.array_equal(corners, same):
            return corners.reshape(-1) - 1, np.full(len(corners), corners.shape[1], dtype=np.int64)
    vertices = np.array([vertex.start() for vertex in _VERTEX.finditer(data)])
    found: list[int] = []
    counts: list[int] = []
    for face in _FACE.finditer(data):
        words = face[1].split()
        matches = [match for match in map(_CORNER.fullmatch, words) if match]
        line = text.shown(face[0])
        if len(matches) < len(words):
            raise InputError(f"{_place(data, face.start(), path)}: malformed face {line!r}")
        indices = [int(match[1]) for match in matches]
        if len(indices) < 3 or 0 in indices:
            where = _place(data, face.start(), path)
            raise InputError(f"{where}: face {line!r}, expected 3 or more indices from 1 on")
        if min(indices) < 0:
            # Counts back from the last vertex so far.
            seen = int(np.searchsorted(vertices, face.start()))
            if min(indices) < -seen:
                where = _place(data, face.start(), path)
                raise InputError(f"{where}: face {line!r} counts back beyond {seen} vertices")
            indices = [index if index > 0 else seen + index + 1 for index in indices]
        found += indices
        counts.append(len(indices))
    return np.array(found, dtype=np.int64) - 1, np.array(counts, dtype=np.int64)


def _place(data: bytes, position: int, path: Path) -> str:
    line = 1 + data.count(b"\n", 0, position) + data.count(b"\v", 0, position)
    return f"{path}: line {line}"
