"""Reads PLY files (text, binary of either byte order): vertices, colours and faces, in the order of the file.

trimesh reads PLY too, but refuses files with no points, with lists on their vertices, with blank lines in
their header or bytes behind their faces, and takes ten times as long.
Format: Greg Turk, "The PLY Polygon File Format", 1994. Strips of triangles: Stanford's scanning repository.
"""

from __future__ import annotations

import codecs
import io
import os
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.ply_body import Rows, read_binary, read_text
from sparsefeat.io.ply_header import BYTE_ORDERS, Element, read_header, require_bytes
from sparsefeat.io.polygons import Geometry, strip_triangles

_NORMAL_NAMES = ("nx", "ny", "nz")
_COLOR_NAMES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_INDEX_NAMES = ("vertex_indices", "vertex_index")


def read(path: Path, faces: bool) -> Geometry:
    """Return the (N, 3) vertices, their colours, in the file's type, and normals, if any, and the polygons.

    In a text, numbers count and not lines: a vertex may go on in the next line. What follows the last element
    is skipped, as long as the lines then agree with the header.

    Raises:
        InputError: not a PLY file, a malformed header, or fewer bytes or numbers than the header promises.
    """
    with open(path, "rb") as opened:
        file = _without_marks(opened, path)
        form, elements = read_header(file, path)
        size = (
            os.fstat(file.fileno()).st_size
            if isinstance(file, io.BufferedReader)
            else len(file.getbuffer())
        )
        size -= file.tell()
        vertex = next((element for element in elements if element.name == "vertex"), None)
        if vertex is None:
            raise InputError(f"{path}: the header has no 'element vertex'")
        names = [p.name for p in vertex.properties if not p.count_kind]
        missing = [axis for axis in "xyz" if axis not in names]
        if missing:
            raise InputError(
                f"{path}: element vertex has no property {', '.join(missing)}; it has {str(names)[:200]}"
            )
        require_bytes(elements, size, form, path)
        if form == "ascii":
            found = read_text(text.plain_lines(file.read(), path), elements, faces, path)
        else:
            found = read_binary(file, elements, BYTE_ORDERS[form], faces, path)

    columns = found["vertex"].columns
    points = np.empty((vertex.rows, 3), dtype=np.float64)
    for axis, name in enumerate("xyz"):
        points[:, axis] = columns[name]
    named = next((c for c in _COLOR_NAMES if set(c) <= set(names)), ())
    kinds = {p.name: p.kind for p in vertex.properties}
    colors = [_as_kind(columns[name], kinds[name], f"{path}: {name}") for name in named]
    normals = None
    if all(name in names for name in _NORMAL_NAMES):
        normals = np.stack([columns[name] for name in _NORMAL_NAMES], axis=1).astype(np.float64)
    geometry = Geometry(points, np.stack(colors, axis=1) if colors else None, normals=normals)
    return geometry._replace(**_polygons(found, elements, vertex.rows, path)) if faces else geometry


def has_faces(path: Path) -> bool:
    """Whether the header promises faces or strips of triangles.

    Raises:
        InputError: not a PLY file, or a malformed header.
    """
    with open(path, "rb") as opened:
        _, elements = read_header(_without_marks(opened, path), path)
    return any(element.rows for element in elements if element.name in ("face", "tristrips"))


def _without_marks(file: io.BufferedReader, path: Path) -> io.BufferedReader | io.BytesIO:
    start = file.read(6)
    if text.wide_encoding(start):
        file.seek(0)
        return io.BytesIO(text.plain_lines(file.read(), path))
    file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
    return file


def _as_kind(column: np.ndarray, kind: str, where: str) -> np.ndarray:
    """A colour in the type that the header gives, which says what its range is."""
    if column.dtype.kind != "f" or kind[0] == "f":
        return column.astype(kind)
    limits = np.iinfo(kind)
    wrong = np.flatnonzero(~((column >= limits.min) & (column <= limits.max)))
    if len(wrong):
        raise InputError(
            f"{where}: {column[wrong[0]]:g} in row {wrong[0]}, expected {limits.min} to {limits.max}"
        )
    return column.astype(kind)


def _polygons(found: dict[str, Rows], elements: list[Element], vertices: int, path: Path) -> dict:
    corners, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    repairs: tuple[str, ...] = ()
    if "face" in found and any(element.rows for element in elements if element.name == "face"):
        indices, number = _index_list(found["face"], "face", path)
        few = np.flatnonzero(number < 3)
        if len(few):
            raise InputError(
                f"{path}: face {few[0]} has {number[few[0]]} corners, expected 3 or more"
            )
        corners.append(indices)
        counts.append(number)
    if "tristrips" in found and any(
        element.rows for element in elements if element.name == "tristrips"
    ):
        strips, number = _index_list(found["tristrips"], "tristrips", path)
        wrong = np.flatnonzero((strips < -1) | (strips >= vertices))
        if len(wrong):
            raise InputError(
                f"{path}: a strip of triangles names vertex {strips[wrong[0]]}, of {vertices}"
            )
        # A row ends its strip as -1 does.
        faces = strip_triangles(np.insert(strips, np.cumsum(number)[:-1], -1))
        corners.append(faces.reshape(-1))
        counts.append(np.full(len(faces), 3, dtype=np.int64))
        repairs = (f"strips of triangles cut into {len(faces)} triangles",)
    return {
        "corners": np.concatenate(corners),
        "counts": np.concatenate(counts),
        "repairs": repairs,
    }


def _index_list(rows: Rows, name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that faces or strips name, and how many each."""
    key = next((key for key in _INDEX_NAMES if key in rows.lists), None)
    if key is None and len(rows.lists) == 1:
        key = next(iter(rows.lists))
    if key is None:
        has = ", ".join([*rows.columns, *rows.lists])[:60]
        raise InputError(
            f"{path}: element {name} has no list vertex_indices; it has {has or 'nothing'}"
        )
    indices, counts = rows.lists[key]
    if indices.dtype.kind == "f":
        wrong = np.flatnonzero((indices != np.rint(indices)) | ~(np.abs(indices) < 2**53))
        if len(wrong):
            raise InputError(
                f"{path}: {name} names the vertex {indices[wrong[0]]:g}, expected a whole number"
            )
    return indices.astype(np.int64), counts
