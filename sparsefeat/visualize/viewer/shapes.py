"""What a user calls a shape or a scan, as vertices, faces and colours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io.arrays import Npz
from sparsefeat.io.meshes import MESH_SUFFIXES, check_mesh, has_faces, read_mesh
from sparsefeat.io.objects import object_arrays
from sparsefeat.io.pointcloud import POINT_SUFFIXES, read_points

_EXPECTED = "a path, points (N, 3), (vertices, faces), a Mesh, a PointCloud, or an object of trimesh or Open3D"


@dataclass
class Shape:
    """One input of the page.

    Attributes:
        name: shown, any text.
        vertices: (N, 3) float64; rows of a cloud may be NaN, those of a mesh are finite.
        faces: (F, 3) int64, or None for a cloud.
        colors: (N, 3) uint8, or None.
        features: (N, C) found in the file, or None.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray | None = None
    colors: np.ndarray | None = None
    features: np.ndarray | None = None


def as_shapes(given: Any, names: Sequence[str] | None = None) -> list[Shape]:
    """One shape or several.

    Args:
        given: one shape, or a list of shapes. A tuple of points (N, 3) and whole numbers (F, 3) is one mesh; any
            other tuple is several shapes.
        names: one per shape; default: names of files, or numbers.

    Raises:
        InputError: nothing is given, or something that is neither a cloud nor a mesh.
    """
    several = isinstance(given, (list, tuple)) and not _is_pair(given) and not _is_rows(given)
    items = list(given) if several else [given]
    if not items:
        raise InputError("view: no shape given, expected at least one")
    shapes = [_as_shape(item, k) for k, item in enumerate(items)]
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        if len(names) != len(shapes):
            raise InputError(f"view: {len(shapes)} shapes but {len(names)} names")
        for shape, name in zip(shapes, names, strict=True):
            shape.name = str(name)
    return shapes


def as_array(values: Any) -> np.ndarray:
    """Numbers of any library as a numpy array."""
    if hasattr(values, "detach"):  # a tensor, wherever it is
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
        values = values.numpy()
    return np.asarray(values)


def _is_pair(given: Any) -> bool:
    """Whether this is (vertices, faces): the second one counts, so it has whole numbers."""
    if (
        not isinstance(given, tuple)
        or len(given) != 2
        or any(isinstance(x, (str, os.PathLike)) for x in given)
    ):
        return False
    try:
        points, faces = (as_array(x) for x in given)
    except ValueError:
        return False
    if any(a.ndim != 2 or a.shape[1] != 3 for a in (points, faces)):
        return False
    return faces.dtype.kind in "iu" and points.dtype.kind == "f"


def _is_rows(given: Any) -> bool:
    """Whether this is a list of points rather than of shapes."""
    first = given[0] if len(given) else None
    return (
        isinstance(first, (list, tuple))
        and len(first) == 3
        and all(isinstance(x, (int, float)) for x in first)
    )


def _as_shape(given: Any, index: int) -> Shape:
    name = f"shape {index}"
    if isinstance(given, Shape):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _read(Path(given))
    path = getattr(given, "path", None)
    name = Path(path).name if isinstance(path, (str, os.PathLike)) else name
    if isinstance(given, (list, tuple)) and not _is_rows(given):
        if not _is_pair(given):
            raise InputError(f"view: {name}: expected {_EXPECTED}")
        return _checked(name, *given, None)
    arrays = object_arrays(given)
    if arrays is not None:
        return _checked(name, arrays.points, arrays.faces, arrays.colors)
    if (
        not hasattr(given, "__array__")
        and not hasattr(given, "detach")
        and not isinstance(given, (list, tuple))
    ):
        raise InputError(f"view: {name}: {type(given).__name__}, expected {_EXPECTED}")
    return _checked(name, given, None, None)


def _checked(name: str, points: Any, faces: Any, colors: Any) -> Shape:
    points = as_array(points)
    if faces is not None and as_array(faces).size:
        return Shape(
            name,
            *check_mesh(points, as_array(faces), f"view: {name}"),
            _as_colors(colors, len(points)),
        )
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise InputError(f"view: {name}: {points.shape} of {points.dtype}, expected points (N, 3)")
    points = points.astype(np.float64)
    if not np.isfinite(points).all(1).any():
        raise InputError(f"view: {name}: no finite point among {len(points)}")
    return Shape(name, points, None, _as_colors(colors, len(points)))


def _as_colors(colors: Any, count: int) -> np.ndarray | None:
    if colors is None:
        return None
    colors = as_array(colors)
    if colors.ndim != 2 or len(colors) != count or colors.shape[1] not in (3, 4):
        return None  # Open3D's empty colours, or colours of faces
    colors = colors[:, :3]
    return (
        colors
        if colors.dtype == np.uint8
        else np.rint(np.clip(np.nan_to_num(colors), 0, 1) * 255).astype(np.uint8)
    )


def _read(path: Path) -> Shape:
    suffix = path.suffix.lower()
    if suffix not in {*MESH_SUFFIXES, *POINT_SUFFIXES}:
        known = ", ".join(sorted({*MESH_SUFFIXES, *POINT_SUFFIXES}))
        raise InputError(f"{path}: unknown suffix {path.suffix!r}, expected one of {known}")
    if has_faces(path):
        mesh = read_mesh(path)
        count = len(mesh.vertices)
        colors = read_points(path).colors if suffix in POINT_SUFFIXES else None
        if colors is not None and len(colors) != count:
            colors = None  # of the points that an npz holds beside the mesh
        return Shape(path.name, mesh.vertices, mesh.faces, colors, _own_features(path, count))
    # Rows are those of the file, as matches and labels count them.
    cloud = read_points(path, keep_invalid=True)
    if not np.isfinite(cloud.points).all(1).any():
        raise InputError(f"{path}: no points, expected a cloud or a mesh")
    return Shape(path.name, cloud.points, None, cloud.colors, _own_features(path, len(cloud)))


def _own_features(path: Path, count: int) -> np.ndarray | None:
    """The features that tools/extract.py writes beside the points."""
    if path.suffix.lower() != ".npz":
        return None
    with Npz(path) as archive:
        if "features" not in archive:
            return None
        features = archive["features"]
    return features if features.shape[:-1] == (count,) else None
