"""The values of a PLY file, text or binary, by element and property."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.ply_header import Element

_STRUCT = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}


@dataclass
class Rows:
    """An element's values by property: columns (rows,), and of lists all items and their counts."""

    columns: dict[str, np.ndarray]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    end: int  # where the element ends


def read_text(body: bytes, elements: list[Element], faces: bool, path: Path) -> dict[str, Rows]:
    """The elements of a text, or without ``faces`` at least the vertices.

    Raises:
        InputError: fewer numbers than the header promises, or lines that do not agree with it.
    """
    found: dict[str, Rows] = {}
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
            found["vertex"] = Rows(columns, {}, 0)
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


def _row_at(data: bytes, position: int, element: Element, path: Path) -> int:
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


def read_binary(
    file: BinaryIO, elements: list[Element], order: str, faces: bool, path: Path
) -> dict[str, Rows]:
    """The elements that are needed of a binary file: the vertices, and with ``faces`` faces and strips.

    Raises:
        InputError: fewer bytes than the header promises.
    """
    found: dict[str, Rows] = {}
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


def _read_rows(data: bytes, position: int, element: Element, order: str, path: Path) -> Rows:
    """The values of an element that begins at ``position``."""
    if not element.rows:
        empty = np.empty(0)
        single = {p.name: empty for p in element.properties if not p.count_kind}
        lists = {
            p.name: (empty, empty.astype(np.int64)) for p in element.properties if p.count_kind
        }
        return Rows(single, lists, position)
    return _equal_rows(data, position, element, order) or _walk_rows(
        data, position, element, order, path
    )


def _equal_rows(data: bytes, position: int, element: Element, order: str) -> Rows | None:
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
    return Rows(columns, lists, position + element.rows * size)


def _walk_rows(data: bytes, position: int, element: Element, order: str, path: Path) -> Rows:
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
    return Rows(columns, lists, position)


def _gather(data: bytes, starts: np.ndarray, kind: np.dtype) -> np.ndarray:
    """The values that begin at these bytes."""
    single = np.frombuffer(data, np.uint8)
    out = np.empty((len(starts), kind.itemsize), np.uint8)
    for byte in range(kind.itemsize):
        out[:, byte] = single[starts + byte]
    return out.reshape(-1).view(kind)
