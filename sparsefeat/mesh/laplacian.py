"""The Laplace-Beltrami operator of a mesh or a point cloud, and its eigenbasis."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.checks import as_array, as_points, checked_count
from sparsefeat.errors import InputError
from sparsefeat.extras import import_extra
from sparsefeat.io.meshes import check_mesh
from sparsefeat.mesh.basis_cache import BasisCache
from sparsefeat.mesh.eigen import smallest_eigenpairs
from sparsefeat.mesh.gradient import gradient_operators
from sparsefeat.mesh.seams import sew

LaplacianKind = Literal["robust", "cotangent"]


@dataclass(frozen=True)
class LaplaceBasis:
    """Eigenfunctions of a surface's Laplacian, and what else an operator on it needs.

    Attributes:
        eigenvalues: ascending, in 1 / area. Shape (E,).
        eigenvectors: orthonormal under the mass. Shape (N, E).
        mass: the area that belongs to each vertex; zero for one that no face uses. Shape (N,).
        gradient_x, gradient_y: a function's gradient in the tangent plane of each vertex
            (:func:`~sparsefeat.mesh.gradient.gradient_operators`). Shape (N, N), sparse.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    mass: Tensor
    gradient_x: Tensor
    gradient_y: Tensor

    def __len__(self) -> int:
        """The number of vertices."""
        return len(self.mass)

    @property
    def area(self) -> Tensor:
        """The surface's area, a scalar."""
        return self.mass.sum()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LaplaceBasis:
        """The same basis on another device or in another floating-point type."""
        return LaplaceBasis(
            *(getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self))
        )

    def truncate(self, count: int) -> LaplaceBasis:
        """The first ``count`` eigenpairs.

        Raises:
            InputError: there are fewer, or the count is no whole number.
        """
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not whole or not 1 <= count <= len(self.eigenvalues):
            raise InputError(
                f"truncate: expected 1 to {len(self.eigenvalues)} eigenpairs, got {count!r}"
            )
        return replace(
            self,
            eigenvalues=self.eigenvalues[:count],
            eigenvectors=self.eigenvectors[:, :count],
        )

    def at(self, rows: Tensor) -> LaplaceBasis:
        """Some vertices alone, such as those that a map is wanted of; the gradients remain those of all. Shape: (S,)."""
        return replace(self, eigenvectors=self.eigenvectors[rows], mass=self.mass[rows])

    def at_unit_area(self) -> LaplaceBasis:
        """The basis of the same surface scaled to area 1: what is in units of length or area then is comparable."""
        length = self.area.sqrt()
        return LaplaceBasis(
            self.eigenvalues * self.area,
            self.eigenvectors * length,
            self.mass / self.area,
            self.gradient_x * length,
            self.gradient_y * length,
        )

    def project(self, functions: Tensor) -> Tensor:
        """Coefficients of functions on vertices, ``Phi^T M f``. Shape: (N, C) -> (E, C).

        Raises:
            InputError: another shape.
        """
        if functions.ndim < 2 or functions.shape[-2] != len(self.mass):
            raise InputError(
                f"project: functions {tuple(functions.shape)}, expected ({len(self.mass)}, C): a row for each vertex"
            )
        return self.eigenvectors.T @ (self.mass[:, None] * functions.to(self.mass.dtype))

    def reconstruct(self, coefficients: Tensor) -> Tensor:
        """Functions on vertices from their coefficients, ``Phi c``. Shape: (E, C) -> (N, C)."""
        return self.eigenvectors @ coefficients


def laplace_basis(
    vertices: np.ndarray | Tensor,
    faces: np.ndarray | Tensor | None,
    k: int = 128,
    cache: str | os.PathLike | None = None,
    kind: LaplacianKind = "robust",
) -> LaplaceBasis:
    """The first eigenfunctions of a surface's Laplacian; the same input gives the same bits.

    Of vertices at the same place the first one is used by the faces of all: a surface is one along its seams. A vertex
    that no face uses has no mass and takes part in nothing; it is given the values of the nearest vertex that does.

    Args:
        vertices: Shape (N, 3), any unit.
        faces: Shape (F, 3); None for a point cloud.
        k: eigenpairs E; a surface of fewer places has as many as these.
        cache: folder to keep results in, made if absent; files are named after the content of the mesh.
        kind: ``"robust"`` stands broken meshes (not manifold, needles, vertices of no area): Sharp and
            Crane, "A Laplacian for Nonmanifold Triangle Meshes", SGP 2020, the only one for clouds.
            ``"cotangent"`` is the textbook's (Pinkall and Polthier 1993) with a lumped barycentric mass,
            as in DiffusionNet's code. On a good mesh they hardly differ.

    Returns:
        The basis in float64 on the CPU.

    Raises:
        InputError: shapes that do not fit, indices out of range, values that are not finite, no area.
    """
    vertices, faces, k = _checked(vertices, faces, k, kind)
    store = None if cache is None else BasisCache(cache)
    key = () if store is None else (vertices, faces, k, kind)
    arrays = None if store is None else store.read(*key)
    if arrays is None:
        arrays = _compute(vertices, faces, k, kind)
        if store is not None:
            store.write(arrays, *key)
    values, vectors, mass, gradient_x, gradient_y = arrays
    return LaplaceBasis(
        torch.from_numpy(values),
        torch.from_numpy(vectors),
        torch.from_numpy(mass),
        sparse_tensor(gradient_x),
        sparse_tensor(gradient_y),
    )


def import_robust(purpose: str, instead: str = "") -> ModuleType:
    """The package that ``kind="robust"`` needs; what computes for minutes before its basis asks for it first.

    Raises:
        MissingExtraError: see :func:`sparsefeat.extras.import_extra`, which has the arguments.
    """
    return import_extra("robust_laplacian", purpose, instead)


def _checked(
    vertices: np.ndarray | Tensor, faces: np.ndarray | Tensor | None, k: int, kind: str
) -> tuple[np.ndarray, np.ndarray | None, int]:
    k = checked_count(k, "laplace_basis: k")
    if kind not in ("robust", "cotangent"):
        raise InputError(f"laplace_basis: unknown kind {kind!r}; there are robust, cotangent")
    if faces is not None:
        faces = as_array(faces, "laplace_basis: faces")
        if len(faces) == 0:
            raise InputError("laplace_basis: no faces; pass faces=None for a point cloud")
        vertices, faces = check_mesh(vertices, faces, "laplace_basis")
    elif kind != "robust":
        raise InputError("laplace_basis: a point cloud has no cotangents; use kind='robust'")
    else:
        vertices = as_points(vertices, "laplace_basis: vertices")
    if len(vertices) < 3:
        raise InputError(f"laplace_basis: {len(vertices)} vertices, expected 3 or more")
    return vertices, faces, k


def _compute(vertices: np.ndarray, faces: np.ndarray | None, k: int, kind: str) -> tuple:
    used = np.ones(len(vertices), bool)
    proper = None
    first = np.arange(len(vertices))
    if faces is not None:
        faces, first = sew(vertices, faces)
        a, b, c = faces.T
        proper = faces[(a != b) & (b != c) & (c != a)]
        if len(proper) == 0:
            raise InputError(
                "laplace_basis: the surface has no area: every face names a vertex or a place twice"
            )
        used[:] = False
        used[proper] = True
    stiffness, mass = _operators(vertices, proper, kind)
    if not (np.isfinite(stiffness.data).all() and np.isfinite(mass).all() and mass.sum() > 0):
        raise InputError("laplace_basis: the surface has no area, or its vertices coincide")
    inside = np.flatnonzero(used)
    # A vertex whose faces have no area must not make the mass singular.
    mass = np.where(used, np.maximum(mass, 1e-8 * mass[inside].mean()), 0.0)
    values, some = smallest_eigenpairs(
        stiffness[inside][:, inside], mass[inside], min(k, len(inside))
    )
    vectors = np.empty((len(vertices), len(values)))
    vectors[inside] = some
    if len(inside) < len(vertices):
        nearest = cKDTree(vertices[inside]).query(vertices[~used])[1]
        vectors[~used] = some[nearest]
    # A share of the area, so that gradients do not depend on the unit.
    regularization = 1e-5 * float(mass.sum())
    gradients = (
        matrix[first]
        for matrix in gradient_operators(vertices, faces, regularization=regularization)
    )
    return (values, vectors, mass, *gradients)


def _operators(
    vertices: np.ndarray, faces: np.ndarray | None, kind: str
) -> tuple[sp.csr_matrix, np.ndarray]:
    if kind == "cotangent":
        return _cotangent_laplacian(vertices, faces)
    robust_laplacian = import_robust(
        "laplace_basis", "laplace_basis(..., kind='cotangent') takes meshes without it"
    )
    try:
        if faces is None:
            neighbours = min(30, len(vertices) - 1)
            stiffness, mass = robust_laplacian.point_cloud_laplacian(
                vertices, n_neighbors=neighbours
            )
        else:
            stiffness, mass = robust_laplacian.mesh_laplacian(vertices, faces)
    except RuntimeError as error:
        raise InputError(
            f"laplace_basis: the {len(vertices)} vertices span no surface (they may lie on a line or at one place)"
        ) from error
    return sp.csr_matrix(stiffness), mass.diagonal()


def _cotangent_laplacian(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Stiffness and lumped mass of linear elements. Shape: (N, 3), (F, 3) -> (N, N), (N,)."""
    n, corners = len(vertices), vertices[faces]
    double_area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    height = np.maximum(double_area, 1e-10 * double_area.mean())
    matrix = sp.csr_matrix((n, n))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        dot = ((corners[:, j] - corners[:, i]) * (corners[:, k] - corners[:, i])).sum(1)
        weight = dot / height / 2  # half the cotangent of corner i, for the edge opposite to it
        matrix += sp.csr_matrix((weight, (faces[:, j], faces[:, k])), shape=(n, n))
    matrix = matrix + matrix.T
    mass = np.bincount(faces.ravel(), np.repeat(double_area / 6, 3), n)
    return sp.csr_matrix(sp.diags(np.asarray(matrix.sum(1)).ravel()) - matrix), mass


def sparse_tensor(matrix: sp.csr_matrix) -> Tensor:
    coo = matrix.tocoo()
    indices = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    # Rows are in order and columns within them, so that this is coalesced as it is.
    return torch.sparse_coo_tensor(
        indices, torch.from_numpy(coo.data), coo.shape, is_coalesced=True, check_invariants=False
    )
