"""Normals of a surface, to its outer side."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

_NEIGHBOURS = 15
"""Of a point, itself included, that a normal is fitted to."""


def outer_normals(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray]:
    """Which way faces are wound, and unit normals of the vertices to the outer side.

    Outside is where the volume that the faces enclose, measured from their common centre, is positive: right for
    closed surfaces that are wound one way or the other, and a guess that at least does not depend on the pose for
    open ones.

    Shape: (N, 3), (F, 3) -> 1.0 or -1.0, by which normals of the faces have to be multiplied, and (N, 3) float64,
    zero where a vertex has no face.
    """
    corners = vertices[faces] - vertices[faces].mean((0, 1))
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = -1.0 if (normals * corners.mean(1)).sum() < 0 else 1.0
    total = np.zeros_like(vertices)
    for column in faces.T:
        np.add.at(total, column, outwards * normals)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return outwards, np.divide(total, length, out=np.zeros_like(total), where=length > 0)


def fit_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of the planes through each point's nearest neighbours, of either sign. (N, 3) -> (N, 3)."""
    _, rows = cKDTree(points).query(points, min(_NEIGHBOURS, len(points)))
    around = points[np.atleast_2d(rows.reshape(len(points), -1))]
    around = around - around.mean(1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))[1][:, :, 0]


def oriented_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of a cloud that covers a shape from all sides, to its outer side.

    Fitted normals are turned alike along a spanning tree of the neighbours whose normals differ least; of each
    connected piece, the point that is farthest from the cloud's centre then looks away from it. Where the cloud has
    holes, or two surfaces come close, whole parts may end up turned inwards. Source: Hoppe, DeRose, Duchamp, McDonald,
    Stuetzle, "Surface Reconstruction from Unorganized Points", SIGGRAPH 1992, section 3.3.

    Shape: (N, 3) -> (N, 3).
    """
    points = np.asarray(points, dtype=np.float64)
    normals = fit_normals(points)
    n = len(points)
    _, near = cKDTree(points).query(points, min(_NEIGHBOURS, n))
    near = near.reshape(n, -1)
    start, end = np.repeat(np.arange(n), near.shape[1]), near.ravel()
    # Not zero, which would count as no edge.
    cost = 1.001 - np.abs(np.einsum("ni,ni->n", normals[start], normals[end]))
    apart = start != end
    pairs = np.stack([np.minimum(start, end), np.maximum(start, end)], 1)[apart]
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    graph = sp.csr_matrix((cost[apart][first], (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    tree = minimum_spanning_tree(graph)
    count, piece = connected_components(tree, directed=False)
    from_centre = points - points.mean(0)
    far = np.einsum("ni,ni->n", from_centre, from_centre)
    for number in range(count):
        rows = np.flatnonzero(piece == number)
        root = rows[far[rows].argmax()]
        if normals[root] @ from_centre[root] < 0:
            normals[root] *= -1
        order, parent = breadth_first_order(tree, root, directed=False)
        for row in order[1:]:
            if normals[row] @ normals[parent[row]] < 0:
                normals[row] *= -1
    return normals
