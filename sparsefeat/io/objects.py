"""Clouds and meshes that users hold in objects: of this package, of trimesh, or of Open3D."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ObjectArrays(NamedTuple):
    """What an object holds, as it holds it: nothing is checked or converted.

    Attributes:
        points: the points, or the vertices. Shape (N, 3).
        faces: of a mesh. Shape (F, 3). None for a cloud.
        colors: of the points, or None.
        normals: of a cloud's points, as the object has them; None for a mesh, whose faces say more. Shape (N, 3).
    """

    points: Any
    faces: Any
    colors: Any
    normals: Any


_NAMES = (
    ("vertices", "faces", None),  # Mesh, trimesh
    ("vertices", "triangles", "vertex_colors"),  # Open3D
    ("points", None, "colors"),  # PointCloud, Open3D
    ("vertices", None, "colors"),  # trimesh's cloud
)
"""Attributes for points, faces and colours, in the order in which they are looked for."""


def object_arrays(given: Any) -> ObjectArrays | None:
    """The arrays of an object that is a cloud or a mesh; None if it is neither.

    Objects are known by their attributes, so that neither trimesh nor Open3D is imported. A mesh without faces is a
    cloud.
    """
    for points, faces, colors in _NAMES:
        if hasattr(given, points) and (faces is None or hasattr(given, faces)):
            cells = getattr(given, faces) if faces else None
            if cells is not None and not len(cells):
                cells = None
            return ObjectArrays(
                getattr(given, points),
                cells,
                getattr(given, colors, None) if colors else _trimesh_colors(given),
                _normals(given) if cells is None else None,
            )
    return None


def _trimesh_colors(given: Any) -> Any:
    visual: Any = getattr(given, "visual", None)
    return visual.vertex_colors if getattr(visual, "kind", None) == "vertex" else None


def _normals(given: Any) -> np.ndarray | None:
    normals = getattr(given, "normals", None)
    if normals is None or not len(normals):  # Open3D's cloud without normals has an empty array
        return None
    return np.asarray(normals)
