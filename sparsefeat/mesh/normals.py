"""Normals of a surface, to its outer side."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sparsefeat.mesh.seams import sew

CLEARLY_NEGATIVE = 0.01
"""Volume in cubes of the root of the area below which the winding of a mesh with holes is not believed; a ball has 0.094."""

_NEIGHBOURS = 15
"""Of a point, itself included, that a normal is fitted to."""


def outer_normals(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray]:
    """Which way faces are wound, and unit normals of the vertices to the outer side.

    Outside is where the volume that the faces enclose is positive, see :func:`enclosed_volume`. A mesh with holes keeps
    the winding that it has unless this volume is clearly negative: a shallow piece encloses next to nothing, and nearly
    all meshes are wound outwards.

    Shape: (N, 3), (F, 3) -> 1.0 or -1.0, by which normals of the faces have to be multiplied, and (N, 3) float64,
    zero where a vertex has no face, or faces of both sides. Vertices at the same place have the same normal.
    """
    vertices = np.asarray(vertices, np.float64)
    faces, first = sew(vertices, faces)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    volume, closed = enclosed_volume(vertices, faces)
    areas = np.linalg.norm(normals, axis=1)
    area = float(areas.sum()) / 2
    outwards = -1.0 if volume < (0.0 if closed else -CLEARLY_NEGATIVE * area**1.5) else 1.0
    total = np.zeros_like(vertices)
    for column in faces.T:
        np.add.at(total, column, outwards * normals)
    length = np.linalg.norm(total, axis=1)
    # The faces of a sheet that is written twice, once for each side, cancel but for rounding.
    sides = np.bincount(faces.ravel(), np.repeat(areas, 3), len(vertices))
    known = length > 1e-9 * sides
    total = np.divide(total, length[:, None], out=np.zeros_like(total), where=known[:, None])
    return outwards, total[first]


def enclosed_volume(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, bool]:
    """The signed volume within a mesh, and whether it is closed; positive if faces are wound outwards.

    Each hole is closed by triangles from its border to the border's own middle. The sum of tetrahedra from any one point
    to all triangles is then the same for every such point. Source: Zhang and Chen, "Efficient Feature Extraction for
    2D/3D Objects in Mesh Representation", ICIP 2001, for closed meshes.

    Shape: (N, 3), (F, 3) -> cubes of the unit.
    """
    if not len(faces):
        return 0.0, True
    faces = faces.astype(np.int64)
    origin = vertices[faces].mean((0, 1))
    a, b, c = (vertices[column] - origin for column in faces.T)
    volume = float(np.einsum("fi,fi->", a, np.cross(b, c))) / 6
    # How often an edge is there one way more than the other: the border of the mesh, with its direction.
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    turned = np.where(edges[:, 0] < edges[:, 1], 1, -1)
    keys = edges.min(1) * len(vertices) + edges.max(1)
    keys, place = np.unique(keys, return_inverse=True)
    surplus = np.bincount(place.ravel(), turned, len(keys)).astype(np.int64)
    border = np.flatnonzero(surplus)
    if not len(border):
        return volume, True
    start, end = keys[border] // len(vertices), keys[border] % len(vertices)
    graph = sp.coo_matrix((np.ones(len(border)), (start, end)), shape=(len(vertices),) * 2)
    hole = connected_components(graph, directed=False)[1][start]
    first, second = vertices[start] - origin, vertices[end] - origin
    weight = np.linalg.norm(second - first, axis=1) + 1e-300
    middle = np.stack(
        [np.bincount(hole, weight * axis) for axis in ((first + second) / 2).T], 1
    ) / np.bincount(hole, weight)[:, None].clip(1e-300)
    # A cap meets the border against the direction of the faces.
    caps = np.einsum("ei,ei->e", middle[hole], np.cross(second, first))
    return volume + float((surplus[border] * caps).sum()) / 6, False


def fit_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of the planes through each point's nearest neighbours, of either sign. (N, 3) -> (N, 3)."""
    _, rows = cKDTree(points).query(points, min(_NEIGHBOURS, len(points)))
    around = points[np.atleast_2d(rows.reshape(len(points), -1))]
    around = around - around.mean(1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))[1][:, :, 0]
