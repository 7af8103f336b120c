"""The header of a PLY file: which elements follow, how many of each, and of which properties."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
"""Of the formats, as numpy writes them."""
_MAX_HEADER_BYTES = 1 << 20


@dataclass
class Property:
    """One value, or one list of values, of each row of an element."""

    name: str
    kind: str  # numpy type of the value, or of the list's items
    count_kind: str | None = None  # numpy type of a list's length; None for a single value


@dataclass
class Element:
    """Rows of one kind, such as vertices or faces."""

    name: str
    rows: int
    properties: list[Property] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        return any(p.count_kind for p in self.properties)

    @property
    def least_bytes(self) -> int:
        """The bytes of one row if all its lists were empty."""
        return sum(np.dtype(p.count_kind or p.kind).itemsize for p in self.properties)

    def as_doubles(self) -> Element:
        """The same where every value and every length is a double, as numbers of a text are."""
        return replace(
            self,
            properties=[
                replace(p, kind="f8", count_kind=p.count_kind and "f8") for p in self.properties
            ],
        )


def read_header(file: BinaryIO, path: Path) -> tuple[str, list[Element]]:
    """The format and the elements; the file then stands at its first value.

    Raises:
        InputError: not a PLY file, or a line that does not belong into a header.
    """
    start = file.tell()
    data = file.read(_MAX_HEADER_BYTES)
    first = data[:16].replace(b"\r", b"\n").partition(b"\n")[0].strip()
    if first != b"ply":
        raise InputError(f"{path}: not a PLY file, its first line is not 'ply'")
    # The first line shows how lines end; after a lone CR, a LF is the first byte of binary data.
    place = data.find(b"\r")
    end = b"\r" if 0 <= place < 16 and data[place + 1 : place + 2] != b"\n" else b"\n"
    form: str | None = None
    elements: list[Element] = []
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
                if name not in BYTE_ORDERS:
                    known = ", ".join(BYTE_ORDERS)
                    raise InputError(
                        f"{where}: unknown format {name[:40]!r}, expected one of {known}"
                    )
                form = name
            case ["element", name, rows] if (count := text.whole(rows)) is not None and count >= 0:
                if name in (element.name for element in elements):
                    raise InputError(f"{where}: element {name[:40]} is there twice")
                elements.append(Element(name, count))
            case ["property", "list", length, kind, name] if (
                elements and kind in _TYPES and _TYPES.get(length, "f")[0] in "iu"
            ):
                elements[-1].properties.append(Property(name, _TYPES[kind], _TYPES[length]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(Property(name, _TYPES[kind]))
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


def require_bytes(elements: list[Element], size: int, form: str, path: Path) -> None:
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
