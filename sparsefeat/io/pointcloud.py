"""Point clouds from files: one function for every format, and a PLY writer.

Only the points (and their colours and normals, if any) are taken: of a mesh its vertices, as they are and in their
order, neither merged nor triangulated, so that row i of the result is vertex i of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io import obj, off, pcd, ply, xyz
from sparsefeat.io.arrays import Npz, read_npy
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.polygons import Geometry

# The names under which points and colours are looked for in an npz, in this order. "pcd" and "color"
# are those of FCGF's 3DMatch files, "arr_0" what numpy.savez gives to an array without a name.
POINT_KEYS = ("pcd", "points", "xyz", "pos", "coords", "vertices", "verts", "arr_0")
COLOR_KEYS = ("color", "colors", "rgb")
NORMAL_KEYS = ("normals", "normal")


@dataclass(frozen=True)
class PointCloud:
    """Points of one file.

    Attributes:
        points: (N, 3) float64, in the file's unit.
        colors: (N, 3) uint8, or None if the file has none.
        path: the file.
        normals: (N, 3) float64 as the file (ply, npz) has them, of any length and side; None if it has none, or some
            that are no finite numbers.
        rows: (N,) int64, the file's row of each point, if ``drop_invalid`` left some out; else None.
    """

    points: np.ndarray
    colors: np.ndarray | None
    path: Path
    rows: np.ndarray | None = None
    normals: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)


def read_points(
    path: str | os.PathLike, drop_invalid: bool = False, keep_invalid: bool = False
) -> PointCloud:
    """Read the points of a file: ply, pcd, npz, npy, xyz, txt, off or obj.

    Args:
        path: the file; its suffix (in any case) says how it is read.
        drop_invalid: leave out points with a NaN or infinite coordinate, as organised pcd files have
            them where the sensor saw nothing, instead of refusing the file.
        keep_invalid: keep them, so that rows are those of the file.

    Returns:
        PointCloud with (N, 3) float64 points; N may be 0.

    Raises:
        InputError: the file is missing, a folder, of an unknown kind, cut off before its last point,
            malformed, or has invalid coordinates; the message names the file, and the row or line
            where there is one. Faces are not read: a mesh that is cut off within them gives its points.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file ({_supported()})")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}, expected one of {_supported()}")
    try:
        geometry = reader(path, False)
        points, colors, normals = geometry.points, geometry.colors, geometry.normals
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise InputError(
            f"{path}: its {path.stat().st_size} bytes do not fit into memory as points"
        ) from error
    if colors is not None:
        colors = _as_uint8(colors, points, path)

    rows = None
    valid = np.isfinite(points).all(axis=1)
    if not valid.all() and not keep_invalid:
        bad = len(points) - int(valid.sum())
        if not drop_invalid:
            raise InputError(
                f"{path}: {bad} of {len(points)} points have a NaN or infinite coordinate, first in row "
                f"{int(np.argmin(valid))} (from 0); drop_invalid=True leaves them out"
            )
        rows = np.flatnonzero(valid)
        points, colors = points[rows], None if colors is None else colors[rows]
        normals = None if normals is None else normals[rows]
    if normals is not None and not np.isfinite(normals).all():
        normals = None
    return PointCloud(points, colors, path, rows, normals)


def compact(points: np.ndarray) -> np.ndarray:
    """As float32 where its numbers are less than 1e-4 apart, for metres within 1 km of the origin; else as float64."""
    largest = np.abs(points).max(initial=0.0)
    short = np.spacing(np.float32(largest)) < 1e-4
    return points.astype(np.float32 if short else np.float64)


def write_ply(
    path: str | os.PathLike, points: np.ndarray, colors: np.ndarray | None = None
) -> None:
    """Write points as binary PLY; the file appears complete or not at all.

    Coordinates are written as float if that loses nothing, else as double.

    Args:
        path: the file; its folder must exist.
        points: (N, 3) numbers.
        colors: (N, 3) uint8, or floats in [0, 1].

    Raises:
        InputError: a shape or a value range is not as above, or the file cannot be created.
    """
    points = np.asarray(points)
    _require_rows_of_three(points, f"{path}: points")
    if points.dtype != np.float32:
        points = points.astype(np.float64)
        with np.errstate(over="ignore"):
            single = points.astype(np.float32)
        same = single == points
        if same.all() or np.isnan(points[~same]).all():
            points = single
    fields = [(axis, points.dtype.newbyteorder("<")) for axis in "xyz"]
    if colors is not None:
        colors = np.asarray(colors)
        if colors.shape != points.shape:
            raise InputError(
                f"{path}: colors {colors.shape}, expected as many as points: {points.shape}"
            )
        colors = _as_uint8(colors, points, path)
        fields += [(name, np.dtype("u1")) for name in ("red", "green", "blue")]

    table = np.empty(len(points), dtype=fields)
    columns = [*points.T, *(() if colors is None else colors.T)]
    for (name, _), column in zip(fields, columns, strict=True):
        table[name] = column
    names = {"f4": "float", "f8": "double", "u1": "uchar"}
    properties = "".join(f"property {names[kind.str[1:]]} {name}\n" for name, kind in fields)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(header.encode("ascii"))
        file.write(table.tobytes())


def _read_npz(path: Path, faces: bool) -> Geometry:
    with Npz(path) as archive:
        points = archive.first(POINT_KEYS, "no points; ")
        key = next(key for key in POINT_KEYS if key in archive)
        points = _as_points(points, f"{path}: {key!r}")
        color_key = next((key for key in COLOR_KEYS if key in archive), None)
        colors = None if color_key is None else archive[color_key]
        normal_key = next((key for key in NORMAL_KEYS if key in archive), None)
        normals = None if normal_key is None else archive[normal_key]
    # FCGF's files may hold an empty or a one-channel colour array; that is no colour.
    if colors is not None and colors.shape != points.shape:
        colors = None
    if normals is not None and (normals.shape != points.shape or normals.dtype.kind not in "fiu"):
        raise InputError(
            f"{path}: {normal_key!r} has shape {normals.shape} of {normals.dtype}, expected numbers {points.shape}"
        )
    normals = None if normals is None else normals.astype(np.float64)
    return Geometry(points, colors, normals=normals)


def _read_npy(path: Path, faces: bool) -> Geometry:
    array = read_npy(path)
    if array.ndim == 2 and array.shape[1] > 3:
        raise InputError(
            f"{path}: array has shape {array.shape}, expected (N, 3); an npz may hold points, colors and normals, (N, 3) each"
        )
    return Geometry(_as_points(array, f"{path}: array"))


def _as_points(array: np.ndarray, where: str) -> np.ndarray:
    _require_rows_of_three(array, where)
    return np.ascontiguousarray(array, dtype=np.float64)


def _require_rows_of_three(array: np.ndarray, where: str) -> None:
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{where} has shape {array.shape}, expected (N, 3)")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{where} has dtype {array.dtype}, expected numbers")


def _as_uint8(colors: np.ndarray, points: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Colours as (N, 3) uint8: floats from [0, 1], 16-bit by their high byte, 8-bit as they are, also in 16-bit fields."""
    if colors.dtype == np.uint8:
        return colors
    if colors.dtype == np.uint16:
        # Some writers put 0..255 into 16-bit fields; a whole cloud of such high bytes is black.
        return (colors >> (8 if colors.max(initial=0) > 255 else 0)).astype(np.uint8)
    if colors.dtype.kind == "f":
        if not len(colors):
            return colors.astype(np.uint8)
        low, high = float(np.nanmin(colors)), float(np.nanmax(colors))
        if low < 0 or high > 255:
            raise InputError(
                f"{path}: colors from {low:g} to {high:g}, expected 0 to 1 (or 0 to 255)"
            )
        # Some writers put 0..255 into float fields; a whole cloud of [0, 1] values in that scale is black.
        # Interpolated ones may exceed 1 by rounding.
        scale = 255.0 if high <= 1.001 else 1.0
        scaled: np.ndarray = np.rint(np.nan_to_num(colors) * scale).clip(0, 255).astype(np.uint8)
        return scaled
    if colors.dtype.kind in "iu":
        if len(colors) and (colors.min() < 0 or colors.max() > 255):
            raise InputError(
                f"{path}: colors from {colors.min()} to {colors.max()}, expected 0 to 255"
            )
        return colors.astype(np.uint8)
    raise InputError(
        f"{path}: colors have dtype {colors.dtype}, expected uint8 or floats in [0, 1]"
    )


def _supported() -> str:
    return ", ".join(POINT_SUFFIXES)


_READERS: dict[str, Callable[[Path, bool], Geometry]] = {
    ".ply": ply.read,
    ".pcd": pcd.read,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".xyz": xyz.read,
    ".txt": xyz.read,
    ".off": off.read,
    ".obj": obj.read,
}

POINT_SUFFIXES = tuple(_READERS)
"""The suffixes that :func:`read_points` knows, in lower case."""
