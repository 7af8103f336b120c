"""Reads PLY files (text, binary of either byte order): vertices, colours and faces, in the order of the file.

trimesh reads PLY too, but refuses files with no points, with lists on their vertices, with blank lines in
their header or bytes behind their faces, and takes ten times as long.
Format: Greg Turk, "The PLY Polygon File Format", 1994. Strips of triangles: Stanford's scanning repository.
"""

from __future__ import annotations

import codecs
import io
import os
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.polygons import Geometry, strip_triangles

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_NORMAL_NAMES = ("nx", "ny", "nz")
_COLOR_NAMES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_INDEX_NAMES = ("vertex_indices", "vertex_index")
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

    @property
    def least_bytes(self) -> int:
        """The bytes of one row if all its lists were empty."""
        return sum(np.dtype(p.count_kind or p.kind).itemsize for p in self.properties)

    def as_doubles(self) -> _Element:
        """The same where every value and every length is a double, as numbers of a text are."""
        return replace(
            self,
            properties=[
                replace(p, kind="f8", count_kind=p.count_kind and "f8") for p in self.properties
            ],
        )


@dataclass
class _Rows:
    """An element's values by property: columns (rows,), and of lists all items and their counts."""

    columns: dict[str, np.ndarray]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    end: int  # where the element ends


def read(path: Path, faces: bool) -> Geometry:
    """Return the (N, 3) vertices, their colours, in the file's type, and normals, if any, and the polygons.

    In a text, numbers count and not lines: a vertex may go on in the next line. What follows the last element
    is skipped, as long as the lines then agree with the header.

    Raises:
        InputError: not a PLY file, a malformed header, or fewer bytes or numbers than the header promises.
    """
    with open(path, "rb") as opened:
        file = _without_marks(opened, path)
        form, elements = _read_header(file, path)
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
        _require_bytes(elements, size, form, path)
        if form == "ascii":
            found = _read_text(text.plain_lines(file.read(), path), elements, faces, path)
        else:
            found = _read_binary(file, size, elements, _BYTE_ORDERS[form], faces, path)

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


def _without_marks(file: io.BufferedReader, path: Path) -> io.BufferedReader | io.BytesIO:
    start = file.read(6)
    if text.wide_encoding(start):
        file.seek(0)
        return io.BytesIO(text.plain_lines(file.read(), path))
    file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
    return file


def _read_header(file: BinaryIO, path: Path) -> tuple[str, list[_Element]]:
    start = file.tell()
    data = file.read(_MAX_HEADER_BYTES)
    first = data[:16].replace(b"\r", b"\n").partition(b"\n")[0].strip()
    if first != b"ply":
        raise InputError(f"{path}: not a PLY file, its first line is not 'ply'")
    # The first line shows how lines end; after a lone CR, a LF is the first byte of binary data.
    place = data.find(b"\r")
    end = b"\r" if 0 <= place < 16 and data[place + 1 : place + 2] != b"\n" else b"\n"
    form: str | None = None
    elements: list[_Element] = []
    position, number = data.find(end) + 1 or len(data), 1
    while True:
        number += 1
        place = data.find(end, position)
        line = data[position : place if place >= 0 else len(data)].strip()
        if place < 0 and line != b"end_header":
            raise InputError(
                f"{path}: the header is cut off in line {number}, expected 'end_header'"
            )
        position = place + 1 if place >= 0 else len(data)
        words = line.decode("ascii", errors="replace").split()
        where = f"{path}, line {number}"
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, *_]:
                if name not in _BYTE_ORDERS:
                    known = ", ".join(_BYTE_ORDERS)
                    raise InputError(
                        f"{where}: unknown format {name[:40]!r}, expected one of {known}"
                    )
                form = name
            case ["element", name, rows] if (count := text.whole(rows)) is not None and count >= 0:
                if name in (element.name for element in elements):
                    raise InputError(f"{where}: element {name[:40]} is there twice")
                elements.append(_Element(name, count))
            case ["property", "list", length, kind, name] if (
                elements and kind in _TYPES and _TYPES.get(length, "f")[0] in "iu"
            ):
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[length]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
            case ["end_header"]:
                break
            case _:
                raise InputError(f"{where}: not a line of a PLY header: {text.shown(line)!r}")
    if form is None:
        raise InputError(f"{path}: the header has no 'format' line")
    for element in elements:
        names = [p.name for p in element.properties]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: element {element.name} has the property {twice[:40]} twice")
    file.seek(start + position)
    return form, elements


def _require_bytes(elements: list[_Element], size: int, form: str, path: Path) -> None:
    """Refuse a header that promises more than the file can hold, before anything is made for it."""
    left, vertices_seen = size, False
    for element in elements:
        # A number of a text and its separator are two bytes; the last number may end the file.
        row = 2 * len(element.properties) if form == "ascii" else element.least_bytes
        needed = element.rows * row - (form == "ascii" and element is elements[-1])
        if needed > left and vertices_seen:
            raise InputError(
                f"{path}: cut off after the vertices, {left} bytes are left for {element.name}"
            )
        if needed > left:
            raise InputError(
                f"{path}: cut off, {left // row} of {element.rows} {_plural(element.name)} are there at most (element "
                f"{element.name} has {element.rows} rows of {len(element.properties)} values; {left} bytes are left)"
            )
        vertices_seen |= element.name == "vertex"
        left -= needed


def _plural(name: str) -> str:
    return "vertices" if name == "vertex" else f"{name}s"


# --- text ---


def _read_text(body: bytes, elements: list[_Element], faces: bool, path: Path) -> dict[str, _Rows]:
    found: dict[str, _Rows] = {}
    elements = [e.as_doubles() for e in elements if (e.rows and e.properties) or e.name == "vertex"]
    whole, done = body, 0
    if elements[0].name == "vertex" and not elements[0].has_list:
        # Nearly every file: a line for each vertex, which numpy reads fast.
        vertex = elements[0]
        end = text.head(body, vertex.rows)
        table = text.table(body[:end])
        if vertex.rows == 0 or (
            table is not None and table.shape == (vertex.rows, len(vertex.properties))
        ):
            columns = {
                p.name: np.empty(0) if table is None or not vertex.rows else table[:, i]
                for i, p in enumerate(vertex.properties)
            }
            found["vertex"] = _Rows(columns, {}, 0)
            if not faces:
                return found
            elements, body, done = elements[1:], body[end:], vertex.rows * len(vertex.properties)
    table = text.table(body)
    words = body.split() if table is None else []
    values = text.numbers(words) if table is None else table.reshape(-1)
    data, position, widths = values.tobytes(), 0, []
    for element in elements:
        try:
            rows = _read_rows(data, position, element, "=", path)
        except InputError:
            if table is None and len(values) < len(words):
                line, shown = text.word_line(whole, done + len(values))
                row = _row_at(data, position, element, path)
                raise InputError(
                    f"{path}, line {line} after the header: {element.name} {row} is malformed: {shown!r}"
                ) from None
            raise
        found[element.name], position = rows, rows.end
        items = sum(counts for _, counts in rows.lists.values())
        widths.append(np.full(element.rows, len(element.properties)) + items)
    total = len(words) if table is None else len(values)
    if position // 8 < total:
        # More than the header promises: fine behind the last line, but not if lines are longer than rows.
        lines = (words for words in map(bytes.split, body.split(b"\n")) if words)
        for row, (line_words, width) in enumerate(zip(lines, np.concatenate([*widths, []]))):
            if len(line_words) != width:
                raise InputError(
                    f"{path}: line {row + 1} of the data has {len(line_words)} values, "
                    f"the header promises {width:g}, and {total - position // 8} are left over"
                )
    return found


def _row_at(data: bytes, position: int, element: _Element, path: Path) -> int:
    """The row that ends too early: the first that cannot be read."""
    low, high = 0, element.rows
    while low + 1 < high:
        middle = (low + high) // 2
        try:
            _read_rows(data, position, replace(element, rows=middle), "=", path)
            low = middle
        except InputError:
            high = middle
    return low


# --- binary ---


def _read_binary(
    file: BinaryIO, size: int, elements: list[_Element], order: str, faces: bool, path: Path
) -> dict[str, _Rows]:
    found: dict[str, _Rows] = {}
    for place, element in enumerate(elements):
        needed = element.name == "vertex" or (faces and element.name in ("face", "tristrips"))
        if element.has_list:
            # The length of a list is only known where it is reached, so the rest has to be there.
            data, position = file.read(), 0
            for rest in elements[place:]:
                found[rest.name] = _read_rows(data, position, rest, order, path)
                position = found[rest.name].end
                if "vertex" in found and not faces:
                    break
            return found
        bytes_ = element.rows * element.least_bytes
        if needed:
            found[element.name] = _read_rows(file.read(bytes_), 0, element, order, path)
            if not faces:
                return found
        else:
            file.seek(bytes_, io.SEEK_CUR)
    return found


def _read_rows(data: bytes, position: int, element: _Element, order: str, path: Path) -> _Rows:
    """The values of an element that begins at ``position``."""
    if not element.rows:
        empty = np.empty(0)
        single = {p.name: empty for p in element.properties if not p.count_kind}
        lists = {
            p.name: (empty, empty.astype(np.int64)) for p in element.properties if p.count_kind
        }
        return _Rows(single, lists, position)
    return _equal_rows(data, position, element, order) or _walk_rows(
        data, position, element, order, path
    )


def _equal_rows(data: bytes, position: int, element: _Element, order: str) -> _Rows | None:
    """Rows whose lists are all as long as those of the first: nearly always, and read without a loop."""
    places: list[tuple[int, np.dtype, np.dtype | None, int]] = []
    size = 0
    for p in element.properties:
        kind = np.dtype(order + p.kind)
        count_kind = np.dtype(order + p.count_kind) if p.count_kind else None
        start, count = size, 1
        if count_kind is not None:
            if position + size + count_kind.itemsize > len(data):
                return None
            first = np.frombuffer(data, count_kind, 1, position + size)[0]
            if not 0 <= first <= len(data) or first != int(first):
                return None
            count = int(first)
            size += count_kind.itemsize
        places.append((start, kind, count_kind, count))
        size += count * kind.itemsize
    if position + element.rows * size > len(data):
        return None

    def column(offset: int, kind: np.dtype, count: int | None = None) -> np.ndarray:
        shape = (element.rows,) if count is None else (element.rows, count)
        strides = (size,) if count is None else (size, kind.itemsize)
        return np.ndarray(shape, kind, data, position + offset, strides)

    columns, lists = {}, {}
    for p, (offset, kind, count_kind, count) in zip(element.properties, places, strict=True):
        if count_kind is None:
            columns[p.name] = column(offset, kind)
        else:
            if not (column(offset, count_kind) == count).all():
                return None
            items = (
                column(offset + count_kind.itemsize, kind, count)
                if count
                else np.empty((element.rows, 0), kind)
            )
            lists[p.name] = (items.reshape(-1), np.full(element.rows, count, dtype=np.int64))
    return _Rows(columns, lists, position + element.rows * size)


def _walk_rows(data: bytes, position: int, element: _Element, order: str, path: Path) -> _Rows:
    """Rows of different lengths, one after the other."""
    order = {"": "=", "=": "="}.get(order, order)
    readers = [
        (p, struct.Struct(order + _STRUCT[p.count_kind or p.kind]), np.dtype(order + p.kind))
        for p in element.properties
    ]
    places: dict[str, list[int]] = {p.name: [] for p in element.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in element.properties if p.count_kind}
    for row in range(element.rows):
        for p, reader, kind in readers:
            if position + reader.size > len(data):
                raise InputError(f"{path}: cut off in {element.name} {row} of {element.rows}")
            if not p.count_kind:
                places[p.name].append(position)
                position += reader.size
                continue
            count = reader.unpack_from(data, position)[0]
            if not 0 <= count <= len(data) or count != int(count):
                raise InputError(
                    f"{path}: {element.name} {row} of {element.rows} has a list of {count:g} items"
                )
            position += reader.size
            places[p.name].append(position)
            counts[p.name].append(int(count))
            position += int(count) * kind.itemsize
        if position > len(data):
            raise InputError(f"{path}: cut off in {element.name} {row} of {element.rows}")
    columns, lists = {}, {}
    for p, _, kind in readers:
        starts = np.array(places[p.name], dtype=np.int64)
        if p.count_kind:
            number = np.array(counts[p.name], dtype=np.int64)
            item = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
            lists[p.name] = (
                _gather(data, np.repeat(starts, number) + item * kind.itemsize, kind),
                number,
            )
        else:
            columns[p.name] = _gather(data, starts, kind)
    return _Rows(columns, lists, position)


_STRUCT = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}


def _gather(data: bytes, starts: np.ndarray, kind: np.dtype) -> np.ndarray:
    """The values that begin at these bytes."""
    single = np.frombuffer(data, np.uint8)
    out = np.empty((len(starts), kind.itemsize), np.uint8)
    for byte in range(kind.itemsize):
        out[:, byte] = single[starts + byte]
    return out.reshape(-1).view(kind)


# --- what the values mean ---


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


def _polygons(found: dict[str, _Rows], elements: list[_Element], vertices: int, path: Path) -> dict:
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


def _index_list(rows: _Rows, name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
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
