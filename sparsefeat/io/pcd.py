"""Reads the points of PCD files: ascii, binary and binary_compressed.

Format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html
"""

from __future__ import annotations

import codecs
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import text
from sparsefeat.io.polygons import Geometry

_KEYWORDS = (
    "VERSION",
    "FIELDS",
    "SIZE",
    "TYPE",
    "COUNT",
    "WIDTH",
    "HEIGHT",
    "VIEWPOINT",
    "POINTS",
    "DATA",
)
_MAX_HEADER_BYTES = 1 << 20


def read(path: Path, faces: bool = False) -> Geometry:
    """Return the (N, 3) float64 points and their (N, 3) uint8 colours or None.

    Points that the sensor did not see stay in the result as NaN, so that rows keep their meaning in
    organised clouds.

    Raises:
        InputError: not a PCD file, a malformed header, or less data than the header promises.
    """
    with open(path, "rb") as file:
        data = file.read()
    header, position = _read_header(data, path)
    fields, rows = _fields(header, path)
    encoding = header["DATA"][0].lower()
    readers = {"ascii": _read_ascii, "binary": _read_binary, "binary_compressed": _read_compressed}
    if encoding not in readers:
        raise InputError(
            f"{path}: DATA {encoding[:40]!r}, expected ascii, binary or binary_compressed"
        )
    columns = readers[encoding](data, position, fields, rows, path)
    points = np.empty((rows, 3), dtype=np.float64)
    for axis, name in enumerate("xyz"):
        points[:, axis] = columns[name]
    return Geometry(points, _unpack_colors(columns))


class _Field(NamedTuple):
    name: str
    kind: np.dtype
    items: int

    @property
    def size(self) -> int:
        return self.kind.itemsize * self.items


def _read_header(data: bytes, path: Path) -> tuple[dict[str, list[str]], int]:
    header: dict[str, list[str]] = {}
    position = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    # After a lone CR, a LF is the first byte of binary data.
    place = data.find(b"\r", 0, _MAX_HEADER_BYTES)
    lone = place >= 0 and data[place + 1 : place + 2] != b"\n" and b"\n" not in data[:place]
    number = 0
    while "DATA" not in header:
        number += 1
        end = data.find(b"\r" if lone else b"\n", position, _MAX_HEADER_BYTES) + 1
        if position == len(data) or not end:
            # The line with DATA may be the last, where there are no points.
            end = (
                len(data)
                if data[position : position + 4] == b"DATA" and len(data) - position < 80
                else 0
            )
        if not end:
            raise InputError(f"{path}: the header ends in line {number} without a DATA line")
        line = data[position:end]
        position = end
        words = line.decode("ascii", errors="replace").split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0].upper()
        if keyword not in _KEYWORDS:
            raise InputError(
                f"{path}, line {number}: not a line of a PCD header: {text.shown(line)!r}"
            )
        if len(words) < 2:
            raise InputError(f"{path}, line {number}: {keyword} has no value")
        header[keyword] = words[1:]
    return header, position


def _fields(header: dict[str, list[str]], path: Path) -> tuple[list[_Field], int]:
    """Return what one point has, and the number of points."""
    missing = [keyword for keyword in ("FIELDS", "SIZE", "TYPE") if keyword not in header]
    if missing:
        raise InputError(f"{path}: the header has no {', '.join(missing)}")
    names = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(names))
    lengths = {keyword: len(header[keyword]) for keyword in ("SIZE", "TYPE")} | {
        "COUNT": len(counts)
    }
    for keyword, length in lengths.items():
        if length != len(names):
            raise InputError(f"{path}: {keyword} has {length} values for {len(names)} FIELDS")
    fields = []
    for name, size, kind, count in zip(names, header["SIZE"], header["TYPE"], counts, strict=True):
        where = f"{path}: field {name[:40]!r} has"
        if kind.upper() + size not in (
            "I1",
            "I2",
            "I4",
            "I8",
            "U1",
            "U2",
            "U4",
            "U8",
            "F2",
            "F4",
            "F8",
        ):
            raise InputError(
                f"{where} TYPE {kind[:9]} SIZE {size[:9]}, expected I, U or F of 1, 2, 4 or 8 bytes"
            )
        items = text.whole(count)
        if items is None or items < 0:
            raise InputError(f"{where} COUNT {count[:40]}, expected a whole number")
        fields.append(_Field(name, np.dtype(f"<{kind.lower()}{size}"), items))
    absent = [axis for axis in "xyz" if _find(fields, axis) is None]
    if absent:
        raise InputError(f"{path}: no field {', '.join(absent)}; it has {' '.join(names)[:200]}")
    return fields, _number_of_points(header, path)


def _find(fields: list[_Field], name: str) -> int | None:
    """The place of the first field of that name that has one value; padding is all called "_"."""
    return next((place for place, f in enumerate(fields) if f.name == name and f.items == 1), None)


def _number_of_points(header: dict[str, list[str]], path: Path) -> int:
    sizes = {}
    for keyword in ("WIDTH", "HEIGHT", "POINTS"):
        if keyword in header:
            size = text.whole(header[keyword][0])
            if size is None or size < 0:
                raise InputError(
                    f"{path}: {keyword} is {header[keyword][0][:40]!r}, expected a whole number"
                )
            sizes[keyword] = size
    if "WIDTH" not in sizes and "POINTS" not in sizes:
        raise InputError(f"{path}: the header has neither POINTS nor WIDTH")
    product = sizes["WIDTH"] * sizes.get("HEIGHT", 1) if "WIDTH" in sizes else sizes["POINTS"]
    if sizes.get("POINTS", product) != product:
        raise InputError(
            f"{path}: POINTS is {sizes['POINTS']}, expected WIDTH {sizes['WIDTH']} times HEIGHT {sizes.get('HEIGHT', 1)}"
        )
    return product


def _read_ascii(
    data: bytes, position: int, fields: list[_Field], rows: int, path: Path
) -> dict[str, np.ndarray]:
    body = text.plain_lines(data[position:], path)
    width = sum(field.items for field in fields)
    # A number and its separator are two bytes; the last may end the file.
    if rows * width > (len(body) + 1) // 2:
        there = len(body.split()) // width
        raise InputError(
            f"{path}: point (from 0) {there}: cut off, expected {rows} points of {width} numbers"
        )
    values = text.table(body[: text.head(body, rows)])
    if rows and (values is None or values.shape != (rows, width)):
        # Numbers count where all are there, whatever the lines.
        words = body.split()
        flat = text.numbers(words)
        row = len(flat) // width
        if len(flat) < min(len(words), rows * width):
            line, shown = text.word_line(body, len(flat))
            raise InputError(
                f"{path}, line {line} of the data: point (from 0) {row} is malformed: {shown!r}"
            )
        if row < rows:
            raise InputError(
                f"{path}: point (from 0) {row}: cut off, expected {rows} points of {width} numbers"
            )
        if len(words) > rows * width:
            raise InputError(
                f"{path}: {len(words)} numbers, expected {rows} points of {width}: a line is longer than a point"
            )
        values = flat.reshape(rows, width)
    columns, start = {}, 0
    for place, field in enumerate(fields):
        if place == _find(fields, field.name) and rows and values is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                column = values[:, start]
                if field.kind.kind in "iu" and field.kind.itemsize < 8:
                    # Colours have 32 bits, with or without a sign whatever TYPE says: only integers wrap.
                    column = column.astype(np.int64)
                columns[field.name] = column.astype(field.kind)
        start += field.items
    return columns if rows else {field.name: np.empty(0, field.kind) for field in fields}


def _read_binary(
    data: bytes, position: int, fields: list[_Field], rows: int, path: Path
) -> dict[str, np.ndarray]:
    size = sum(field.size for field in fields)
    present = len(data) - position
    if present < rows * size:
        raise InputError(
            f"{path}: cut off, {present // size} of {rows} points are there "
            f"({present} bytes, expected {rows * size})"
        )
    columns, offset = {}, position
    for place, field in enumerate(fields):
        if place == _find(fields, field.name):
            columns[field.name] = np.ndarray(
                (rows,), field.kind, data, min(offset, len(data)), (size,)
            )
        offset += field.size
    return columns


def _read_compressed(
    data: bytes, position: int, fields: list[_Field], rows: int, path: Path
) -> dict[str, np.ndarray]:
    if rows == 0 and not data[position : position + 8].strip(b"\0"):
        return {field.name: np.empty(0, field.kind) for field in fields}
    if len(data) - position < 8:
        raise InputError(f"{path}: cut off before the compressed data")
    packed_size, size = struct.unpack_from("<II", data, position)
    packed = data[position + 8 : position + 8 + packed_size]
    if len(packed) < packed_size:
        raise InputError(
            f"{path}: cut off, {len(packed)} of {packed_size} compressed bytes are there"
        )
    point = sum(field.size for field in fields)
    if size < rows * point:
        raise InputError(f"{path}: {size} bytes of data for {rows} points of {point} bytes")
    # Where nothing is gained, the block is stored as it is.
    raw = packed if packed_size == size else decompress_lzf(packed, size, str(path))
    # Compressed data is stored field by field, not point by point.
    columns, offset = {}, 0
    for place, field in enumerate(fields):
        if place == _find(fields, field.name):
            columns[field.name] = np.frombuffer(raw, field.kind, rows, min(offset, len(raw)))
        offset += rows * field.size
    return columns


def decompress_lzf(packed: bytes, size: int, where: str) -> bytes:
    """Return the ``size`` bytes that LibLZF compressed to ``packed``.

    A control byte below 32 is followed by one more literal bytes than it says. Any other begins a
    repetition: 3 bits of length (7: one more byte of it) and 13 bits of distance. (LibLZF, lzf_d.c)

    Raises:
        InputError: the data does not decompress to ``size`` bytes.
    """
    # Three bytes make 264 at most.
    if size > 88 * len(packed):
        raise InputError(
            f"{where}: the compressed data is damaged ({len(packed)} bytes cannot hold {size})"
        )
    out = bytearray()
    position, end = 0, len(packed)
    try:
        while position < end and len(out) <= size:
            control = packed[position]
            position += 1
            if control < 32:
                out += packed[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[position]
                position += 1
            distance = ((control & 31) << 8) + packed[position] + 1
            position += 1
            length += 2
            start = len(out) - distance
            if start < 0:
                raise InputError(
                    f"{where}: the compressed data is damaged (a repetition before its start)"
                )
            if distance >= length:
                out += out[start : start + length]
            else:
                # The repetition overlaps what it writes: a pattern of `distance` bytes, over and over.
                pattern = bytes(out[start:])
                out += (pattern * (length // distance + 1))[:length]
    except IndexError:
        raise InputError(
            f"{where}: the compressed data is damaged (it ends within a repetition)"
        ) from None
    if len(out) != size:
        raise InputError(
            f"{where}: the compressed data is damaged ({len(out)} bytes, expected {size})"
        )
    return bytes(out)


def _unpack_colors(columns: dict[str, np.ndarray]) -> np.ndarray | None:
    name = next((name for name in ("rgb", "rgba") if name in columns), None)
    if name is None or columns[name].dtype.itemsize != 4:
        return None
    # The three bytes 0x00RRGGBB, often under the disguise of a float.
    packed = np.ascontiguousarray(columns[name]).view(np.uint32)
    return np.stack([(packed >> shift & 0xFF).astype(np.uint8) for shift in (16, 8, 0)], axis=1)
