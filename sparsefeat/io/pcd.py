"""Reads the points of PCD files: ascii, binary and binary_compressed.

Format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html
"""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import plaintext

_KEYWORDS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the (N, 3) float64 points and their (N, 3) uint8 colours or None.

    Points that the sensor did not see stay in the result as NaN, so that rows keep their meaning in
    organised clouds.

    Raises:
        InputError: not a PCD file, a malformed header, or less data than the header promises.
    """
    with open(path, "rb") as file:
        header = _read_header(file, path)
        dtype, rows = _layout(header, path)
        encoding = header["DATA"][0].lower()
        if encoding == "ascii":
            table = _read_ascii(file, dtype, rows, path)
        elif encoding == "binary":
            table = _read_binary(file, dtype, rows, path)
        elif encoding == "binary_compressed":
            table = _read_compressed(file, dtype, rows, path)
        else:
            raise InputError(f"{path}: DATA {encoding!r}, expected ascii, binary or binary_compressed")

    points = np.empty((rows, 3), dtype=np.float64)
    for axis, name in enumerate("xyz"):
        points[:, axis] = table[name]
    return points, _unpack_colors(table)


def _read_header(file: BinaryIO, path: Path) -> dict[str, list[str]]:
    header: dict[str, list[str]] = {}
    number = 0
    while "DATA" not in header:
        number += 1
        line = file.readline(1 << 16)
        if not line:
            raise InputError(f"{path}: the header ends in line {number} without a DATA line")
        words = line.decode("ascii", errors="replace").split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0].upper()
        if keyword not in _KEYWORDS:
            raise InputError(f"{path}, line {number}: not a line of a PCD header: {' '.join(words)[:60]!r}")
        if len(words) < 2:
            raise InputError(f"{path}, line {number}: {keyword} has no value")
        header[keyword] = words[1:]
    return header


def _layout(header: dict[str, list[str]], path: Path) -> tuple[np.dtype, int]:
    """Return the type of one point and the number of points."""
    missing = [keyword for keyword in ("FIELDS", "SIZE", "TYPE") if keyword not in header]
    if missing:
        raise InputError(f"{path}: the header has no {', '.join(missing)}")
    names = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(names))
    lengths = {keyword: len(header[keyword]) for keyword in ("SIZE", "TYPE")} | {"COUNT": len(counts)}
    for keyword, length in lengths.items():
        if length != len(names):
            raise InputError(f"{path}: {keyword} has {length} values for {len(names)} FIELDS")
    fields = []
    for index, (name, size, kind, count) in enumerate(zip(names, header["SIZE"], header["TYPE"], counts)):
        where = f"{path}: field {name!r} has"
        if kind.upper() + size not in ("I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8", "F2", "F4", "F8"):
            raise InputError(f"{where} TYPE {kind} SIZE {size}, expected I, U or F of 1, 2, 4 or 8 bytes")
        if not count.isdigit():
            raise InputError(f"{where} COUNT {count}, expected a whole number")
        scalar = np.dtype(f"<{kind.lower()}{size}")
        # Padding fields are all called "_"; names must differ in a numpy type.
        unique = name if name != "_" and name not in names[:index] else f"_{index}"
        fields.append((unique, scalar) if count == "1" else (unique, scalar, (int(count),)))
    dtype = np.dtype(fields)
    absent = [axis for axis in "xyz" if axis not in names or dtype[axis].shape]
    if absent:
        raise InputError(f"{path}: no field {', '.join(absent)}; it has {' '.join(names)}")
    return dtype, _number_of_points(header, path)


def _number_of_points(header: dict[str, list[str]], path: Path) -> int:
    sizes = {}
    for keyword in ("WIDTH", "HEIGHT", "POINTS"):
        if keyword in header:
            if not header[keyword][0].isdigit():
                raise InputError(f"{path}: {keyword} is {header[keyword][0]!r}, expected a whole number")
            sizes[keyword] = int(header[keyword][0])
    if "POINTS" in sizes:
        return sizes["POINTS"]
    if "WIDTH" not in sizes:
        raise InputError(f"{path}: the header has neither POINTS nor WIDTH")
    return sizes["WIDTH"] * sizes.get("HEIGHT", 1)


def _read_ascii(file: BinaryIO, dtype: np.dtype, rows: int, path: Path) -> np.ndarray:
    widths = [int(np.prod(dtype[name].shape, dtype=int)) for name in dtype.names]
    starts = dict(zip(dtype.names, itertools.accumulate([0, *widths])))
    scalars = [name for name in dtype.names if not dtype[name].shape]
    wanted = [name for name in ("x", "y", "z", "rgb", "rgba") if name in scalars]
    lines = io.TextIOWrapper(file, "ascii", "replace")
    values = plaintext.parse_table(lines, f"{path}: point (from 0)", rows, [starts[name] for name in wanted])
    table = np.empty(rows, dtype=[(name, dtype[name]) for name in wanted])
    with np.errstate(invalid="ignore"):
        for name, column in zip(wanted, values.T, strict=True):
            table[name] = column
    return table


def _read_binary(file: BinaryIO, dtype: np.dtype, rows: int, path: Path) -> np.ndarray:
    start = file.tell()
    present = file.seek(0, io.SEEK_END) - start
    if present < rows * dtype.itemsize:
        raise InputError(
            f"{path}: cut off, {present // dtype.itemsize} of {rows} points are there "
            f"({present} bytes, expected {rows * dtype.itemsize})"
        )
    file.seek(start)
    return np.fromfile(file, dtype, rows)


def _read_compressed(file: BinaryIO, dtype: np.dtype, rows: int, path: Path) -> np.ndarray:
    sizes = file.read(8)
    if rows == 0 and not sizes.strip(b"\0"):
        return np.empty(0, dtype)
    if len(sizes) < 8:
        raise InputError(f"{path}: cut off before the compressed data")
    packed_size, size = struct.unpack("<II", sizes)
    packed = file.read(packed_size)
    if len(packed) < packed_size:
        raise InputError(f"{path}: cut off, {len(packed)} of {packed_size} compressed bytes are there")
    if size < rows * dtype.itemsize:
        raise InputError(f"{path}: {size} bytes of data for {rows} points of {dtype.itemsize} bytes")
    data = decompress_lzf(packed, size, str(path))
    # Compressed data is stored field by field, not point by point.
    table, position = np.empty(rows, dtype), 0
    for name in dtype.names:
        field = dtype[name]
        values = np.frombuffer(data, field.base, rows * int(np.prod(field.shape, dtype=int)), position)
        table[name] = values.reshape(rows, *field.shape)
        position += rows * field.itemsize
    return table


def decompress_lzf(packed: bytes, size: int, where: str) -> bytes:
    """Return the ``size`` bytes that LibLZF compressed to ``packed``.

    A control byte below 32 is followed by one more literal bytes than it says. Any other begins a
    repetition: 3 bits of length (7: one more byte of it) and 13 bits of distance. (LibLZF, lzf_d.c)

    Raises:
        InputError: the data does not decompress to ``size`` bytes.
    """
    out = bytearray()
    position, end = 0, len(packed)
    try:
        while position < end:
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
                raise InputError(f"{where}: the compressed data is damaged (a repetition before its start)")
            if distance >= length:
                out += out[start : start + length]
            else:
                # The repetition overlaps what it writes: a pattern of `distance` bytes, over and over.
                pattern = bytes(out[start:])
                out += (pattern * (length // distance + 1))[:length]
    except IndexError:
        raise InputError(f"{where}: the compressed data is damaged (it ends within a repetition)") from None
    if len(out) != size:
        raise InputError(f"{where}: the compressed data is damaged ({len(out)} bytes, expected {size})")
    return bytes(out)


def _unpack_colors(table: np.ndarray) -> np.ndarray | None:
    name = next((name for name in ("rgb", "rgba") if name in (table.dtype.names or ())), None)
    if name is None or table.dtype[name].itemsize != 4:
        return None
    # The three bytes 0x00RRGGBB, often under the disguise of a float.
    packed = np.ascontiguousarray(table[name]).view(np.uint32)
    return np.stack([(packed >> shift & 0xFF).astype(np.uint8) for shift in (16, 8, 0)], axis=1)
