"""Faces of text formats, as polygons in the order of the file.

Not by trimesh: where corners of an obj differ in texture or normal it makes new vertices in a new order,
and it fails on some polygons of off files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError


def read_off_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces of an OFF file whose vertices have been read, so that its header is known to be good.

    Returns:
        corners, all faces one after the other, and the number of corners of each face; int64.

    Raises:
        InputError: a malformed or a missing face.
    """
    corners: list[int] = []
    counts: list[int] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = _lines(file)
        head = next(lines)[1].partition("OFF")[2].split()
        vertices, faces = (int(word) for word in (head or next(lines)[1].split())[:2])
        for _ in range(vertices):
            next(lines)
        for face in range(faces):
            number, line = next(lines, (0, ""))
            words = line.split()
            if not words:
                raise InputError(f"{path}: face {face} (from 0): cut off, expected {faces}")
            try:
                count = int(words[0])
                indices = [int(word) for word in words[1 : 1 + count]]
            except ValueError as error:
                raise InputError(f"{path}: line {number}: malformed face {line[:60]!r}") from error
            if count < 3 or len(indices) < count:
                raise InputError(f"{path}: line {number}: face {line[:60]!r}, expected 3 or more indices")
            corners += indices
            counts.append(count)
    return np.array(corners, dtype=np.int64), np.array(counts, dtype=np.int64)


def read_obj_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces (lines ``f``) of an OBJ file; see :func:`read_off_faces`.

    Raises:
        InputError: a malformed face.
    """
    corners: list[int] = []
    counts: list[int] = []
    seen = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in _lines(file):
            words = line.split()
            if words[0] == "v":
                seen += 1
            if words[0] != "f":
                continue
            try:
                indices = [int(word.partition("/")[0]) for word in words[1:]]
            except ValueError as error:
                raise InputError(f"{path}: line {number}: malformed face {line[:60]!r}") from error
            if len(indices) < 3 or 0 in indices:
                shown = line[:60]
                raise InputError(
                    f"{path}: line {number}: face {shown!r}, expected 3 or more indices from 1 on"
                )
            if min(indices) < -seen:
                raise InputError(
                    f"{path}: line {number}: face {line[:60]!r} counts back beyond {seen} vertices"
                )
            # A negative index counts back from the last vertex so far.
            corners += [i - 1 if i > 0 else seen + i for i in indices]
            counts.append(len(indices))
    return np.array(corners, dtype=np.int64), np.array(counts, dtype=np.int64)


def triangles(corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cut polygons into triangles around their first corners. Shape: (sum of counts,), (P,) -> (F, 3)"""
    first = np.repeat(np.cumsum(counts) - counts, counts - 2)
    before = np.repeat(np.cumsum(counts - 2) - (counts - 2), counts - 2)
    step = np.arange(len(first)) - before
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], 1)


def _lines(file) -> Iterator[tuple[int, str]]:
    """Numbers (from 1) and texts of lines with something in them, without comments, continued ones joined."""
    joined = ""
    for number, line in enumerate(file, 1):
        line = line.partition("#")[0].rstrip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        line, joined = (joined + line).strip(), ""
        if line:
            yield number, line
