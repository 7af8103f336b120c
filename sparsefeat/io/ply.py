"""Reads the vertices of PLY files (ASCII, binary of either byte order).

trimesh reads PLY too, but refuses files with no points, with faces of different sizes or with lists on
their vertices, and takes ten times as long, since it wants the faces as well.
Format: Greg Turk, "The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import plaintext

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_MAX_HEADER_BYTES = 1 << 20


@dataclass
class _Property:
    name: str
    kind: str  # numpy type of the value, or of the list's items
    count_kind: str | None = None  # numpy type of a list's length; None for a single value


@dataclass
class _Element:
    name: str
    rows: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        return any(p.count_kind for p in self.properties)

    def dtype(self, order: str) -> np.dtype:
        return np.dtype([(p.name, order + p.kind) for p in self.properties])

    def least_bytes(self) -> int:
        """The bytes of one row if all its lists were empty."""
        return sum(np.dtype(p.count_kind or p.kind).itemsize for p in self.properties)


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the (N, 3) float64 vertices and their (N, 3) colours, in the file's type, or None.

    Raises:
        InputError: not a PLY file, a malformed header, or fewer bytes or lines than the header promises.
    """
    with open(path, "rb") as file:
        form, elements = _read_header(file, path)
        position = next((i for i, element in enumerate(elements) if element.name == "vertex"), None)
        if position is None:
            raise InputError(f"{path}: the header has no 'element vertex'")
        before, vertex, after = elements[:position], elements[position], elements[position + 1 :]
        names = [p.name for p in vertex.properties if not p.count_kind]
        missing = [axis for axis in "xyz" if axis not in names]
        if missing:
            raise InputError(f"{path}: element vertex has no property {', '.join(missing)}; it has {names}")
        wanted = ["x", "y", "z", *next((c for c in _COLOR_NAMES if set(c) <= set(names)), ())]
        if form == "ascii":
            columns = _ascii_columns(file, before, vertex, wanted, path)
        else:
            columns = _binary_columns(file, _BYTE_ORDERS[form], before, vertex, after, wanted, path)

    points = np.empty((vertex.rows, 3), dtype=np.float64)
    for axis, column in enumerate(columns[:3]):
        points[:, axis] = column
    return points, np.stack(columns[3:], axis=1) if len(columns) > 3 else None


def _read_header(file: BinaryIO, path: Path) -> tuple[str, list[_Element]]:
    if file.readline(16).strip() != b"ply":
        raise InputError(f"{path}: not a PLY file, its first line is not 'ply'")
    form, elements = None, []
    for line_number in itertools.count(2):
        line = file.readline(_MAX_HEADER_BYTES)
        if not line.endswith(b"\n") and line.strip() != b"end_header":
            raise InputError(f"{path}: the header is cut off in line {line_number}, expected 'end_header'")
        words = line.decode("ascii", errors="replace").split()
        where = f"{path}, line {line_number}"
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, *_]:
                if name not in _BYTE_ORDERS:
                    known = ", ".join(_BYTE_ORDERS)
                    raise InputError(f"{where}: unknown format {name!r}, expected one of {known}")
                form = name
            case ["element", name, rows] if rows.isdigit():
                elements.append(_Element(name, int(rows)))
            case ["property", "list", count, kind, name] if elements and {count, kind} <= _TYPES.keys():
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
            case ["end_header"]:
                break
            case _:
                text = " ".join(words)[:60]
                raise InputError(f"{where}: not a line of a PLY header: {text!r}")
    if form is None:
        raise InputError(f"{path}: the header has no 'format' line")
    return form, elements


def _ascii_columns(
    file: BinaryIO, before: list[_Element], vertex: _Element, wanted: list[str], path: Path
) -> list[np.ndarray]:
    skip = sum(element.rows for element in before)
    for _ in range(skip):
        file.readline()
    if vertex.has_list:
        return _ascii_columns_with_lists(file, vertex, wanted, path)
    use = [[p.name for p in vertex.properties].index(name) for name in wanted]
    where = f"{path}: vertex (from 0, after the header)"
    table = plaintext.parse_table(io.TextIOWrapper(file, "ascii", "replace"), where, vertex.rows, use)
    kinds = {p.name: p.kind for p in vertex.properties}
    # Coordinates keep the digits of the text; colours need their type, which says what their range is.
    return [
        column if name in ("x", "y", "z") else column.astype(kinds[name])
        for name, column in zip(wanted, table.T, strict=True)
    ]


def _ascii_columns_with_lists(
    file: BinaryIO, vertex: _Element, wanted: list[str], path: Path
) -> list[np.ndarray]:
    values = {name: [] for name in wanted}
    for row in range(vertex.rows):
        words = iter(file.readline().split())
        try:
            for p in vertex.properties:
                if p.count_kind:
                    for _ in range(int(next(words))):
                        next(words)
                    continue
                word = next(words)
                if p.name in values:
                    values[p.name].append(float(word))
        except (StopIteration, ValueError) as error:
            raise InputError(f"{path}: vertex {row} of {vertex.rows} is cut off or malformed") from error
    return [np.array(values[name], dtype=_kind(vertex, name)) for name in wanted]


def _binary_columns(
    file: BinaryIO,
    order: str,
    before: list[_Element],
    vertex: _Element,
    after: list[_Element],
    wanted: list[str],
    path: Path,
) -> list[np.ndarray]:
    # Both need a walk through every row, since a list's length is only known when it is reached.
    if vertex.has_list or any(element.has_list for element in before):
        columns, left = _walk_rows(file.read(), order, before, vertex, wanted, path)
    else:
        file.seek(sum(element.rows * element.least_bytes() for element in before), io.SEEK_CUR)
        dtype = vertex.dtype(order)
        start = file.tell()
        present = max(0, file.seek(0, io.SEEK_END) - start)
        if present < vertex.rows * dtype.itemsize:
            raise InputError(
                f"{path}: cut off, {present // dtype.itemsize} of {vertex.rows} vertices are there "
                f"({present} bytes, expected {vertex.rows * dtype.itemsize})"
            )
        file.seek(start)
        table = np.fromfile(file, dtype, vertex.rows)
        columns = [table[name] for name in wanted]
        left = present - vertex.rows * dtype.itemsize
    # The faces are not read, yet a file without room for them was cut off on its way here.
    if left < sum(element.rows * element.least_bytes() for element in after):
        names = ", ".join(element.name for element in after)
        raise InputError(f"{path}: cut off after the vertices, {left} bytes are left for {names}")
    return columns


def _walk_rows(
    data: bytes, order: str, before: list[_Element], vertex: _Element, wanted: list[str], path: Path
) -> tuple[list[np.ndarray], int]:
    """Return the wanted vertex columns and how many bytes are left after the vertices."""
    least = sum(element.rows * element.least_bytes() for element in (*before, vertex))
    if least > len(data):
        raise InputError(f"{path}: cut off, {len(data)} bytes after the header, expected at least {least}")
    columns = {name: np.empty(vertex.rows, _kind(vertex, name)) for name in wanted}
    position = 0
    for element in (*before, vertex):
        kinds = [
            (p.name, np.dtype(order + p.kind), np.dtype(order + p.count_kind) if p.count_kind else None)
            for p in element.properties
        ]
        for row in range(element.rows):
            for name, kind, count_kind in kinds:
                first = count_kind or kind
                if position + first.itemsize > len(data):
                    raise InputError(f"{path}: cut off in {element.name} {row} of {element.rows}")
                value = np.frombuffer(data, first, 1, position)[0]
                position += first.itemsize
                if count_kind:
                    if value < 0:
                        raise InputError(f"{path}: {element.name} {row} has a list of {value} items")
                    position += int(value) * kind.itemsize
                elif element is vertex and name in columns:
                    columns[name][row] = value
    if position > len(data):
        raise InputError(f"{path}: cut off in the last vertex")
    return [columns[name] for name in wanted], len(data) - position


def _kind(vertex: _Element, name: str) -> str:
    return next(p.kind for p in vertex.properties if p.name == name)
