"""The tangential gradient of a function on vertices, as a pair of sparse matrices."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree


def gradient_operators(
    vertices: np.ndarray,
    faces: np.ndarray | None,
    neighbours: int = 30,
    regularization: float = 1e-5,
    normals: np.ndarray | None = None,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Least-squares gradient over the edges at each vertex, in two coordinates of its tangent plane.

    At vertex i, with edges e_ij in the tangent plane, the gradient is the g that minimises
    ``sum_j (g . e_ij - (f_j - f_i))^2 + regularization |g|^2``. Source: Sharp, Attaiki, Crane, Ovsjanikov,
    "DiffusionNet: Discretization Agnostic Learning on Surfaces", ACM Trans. Graph. 41(3), 2022, section
    3.4; the same function as the code published with it, whose per-vertex loop this replaces.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3), or None for a point cloud, whose edges go to the nearest points.
        neighbours: of a cloud's point.
        regularization: squared length, in the square of the vertices' unit: published weights expect
            shapes of about unit area or radius.
        normals: unit normals of a cloud, to one side. Shape (N, 3). None: fitted, of either side. A mesh has
            those of its faces.

    Returns:
        Two (N, N) matrices: along the tangent plane's x and along its y axis; zero in the rows of vertices
        without an edge. Axes are arbitrary, but counter-clockwise seen from where the normal points to.
    """
    if faces is None:
        tail, tip, fitted = _cloud(vertices, neighbours)
        normals = fitted if normals is None else normals
    else:
        tail, tip = _directed_edges(faces, len(vertices))
        normals = vertex_normals(vertices, faces)
    x_axis, y_axis = tangent_axes(normals)
    edge = vertices[tip] - vertices[tail]
    x, y = (edge * x_axis[tail]).sum(1), (edge * y_axis[tail]).sum(1)
    n = len(vertices)
    xx, xy, yy = (np.bincount(tail, weights=w, minlength=n) for w in (x * x, x * y, y * y))
    xx, yy = xx + regularization, yy + regularization
    determinant = xx * yy - xy * xy
    return tuple(
        _difference_matrix(tail, tip, weight, n)
        for weight in (
            (yy[tail] * x - xy[tail] * y) / determinant[tail],
            (xx[tail] * y - xy[tail] * x) / determinant[tail],
        )
    )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals: the mean of the unit normals of a vertex's faces. Shape: (N, 3), (F, 3) -> (N, 3).

    A vertex without a face of positive area gets the z axis.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    normal = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(normal[:, i], 3), len(vertices)) for i in range(3)], 1
    )
    total[~total.any(1)] = (0.0, 0.0, 1.0)
    return _unit(total)


def tangent_axes(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across each unit normal, right-handed with it. Shape: (N, 3) -> (N, 3), (N, 3)."""
    near_x = np.abs(normals[:, :1]) >= 0.9
    across = np.where(near_x, np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    x = _unit(across - normals * (across * normals).sum(1, keepdims=True))
    return x, np.cross(normals, x)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _directed_edges(faces: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    keys = np.unique(np.concatenate([start * n + end, end * n + start]))
    tail, tip = keys // n, keys % n
    return tail[tail != tip], tip[tail != tip]


def _cloud(points: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = min(neighbours, len(points) - 1)
    near = cKDTree(points).query(points, count + 1)[1].reshape(len(points), -1)
    # A point is its own neighbour, but among coinciding points not always the first.
    itself = near == np.arange(len(points))[:, None]
    itself[~itself.any(1), -1] = True
    near = near[~itself].reshape(len(points), count)
    offset = points[near] - points[:, None]
    _, axes = np.linalg.eigh(offset.transpose(0, 2, 1) @ offset)
    return np.repeat(np.arange(len(points)), count), near.ravel(), axes[:, :, 0]


def _difference_matrix(
    tail: np.ndarray, tip: np.ndarray, weight: np.ndarray, n: int
) -> sp.csr_matrix:
    """The matrix of ``f -> sum_j weight_ij (f_j - f_i)``."""
    matrix = sp.coo_matrix((weight, (tail, tip)), shape=(n, n)).tocsr()
    matrix = (matrix - sp.diags(np.bincount(tail, weight, n))).tocsr()
    matrix.sort_indices()
    return matrix
