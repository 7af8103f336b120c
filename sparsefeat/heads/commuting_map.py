"""Functional maps that commute with operators made of descriptors, and whether a map keeps orientation.

Spectral descriptors, and features of pairs of points, are the same for a body and its mirror image, so that
descriptors alone leave open which hand is which. The side that normals point to tells: a map of outer surfaces
keeps it, and the map that swaps left and right does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.heads.functional_map import commutativity_mask, solved
from sparsefeat.mesh.laplacian import LaplaceBasis


def multiplication_operator(function: Tensor, basis: LaplaceBasis) -> Tensor:
    """``h -> f h`` in the basis: ``Phi^T M diag(f) Phi``; Nogneng, Ovsjanikov, Eurographics 2017. (N,) -> (E, E)."""
    return basis.project(function[:, None] * basis.eigenvectors)


def orientation_operator(function: Tensor, basis: LaplaceBasis) -> Tensor:
    """``h -> <n, grad f x grad h>`` in the basis; its sign is that of the side that normals n point to.

    Source: Ren, Poulenard, Wonka, Ovsjanikov, "Continuous and Orientation-preserving Correspondences via
    Functional Maps", SIGGRAPH Asia 2018, section 4. Shape: (N,) -> (E, E).
    """
    x, y = _gradient(function[:, None], basis)
    across_x, across_y = _gradient(basis.eigenvectors, basis)
    return basis.project(x * across_y - y * across_x)


def commuting_functional_map(
    features_a: Tensor,
    basis_a: LaplaceBasis,
    features_b: Tensor,
    basis_b: LaplaceBasis,
    functions_a: Tensor,
    functions_b: Tensor,
    size: int | tuple[int, int] = 30,
    weight: float = 1e-3,
    multiplication: float = 0.25,
    orientation: float = 0.25,
    sign: int = 1,
) -> Tensor:
    """The functional map from a to b that preserves descriptors and commutes with what is made of functions.

    It minimises ``|C A - B|^2 + weight sum mask C^2`` as :func:`functional_map` does, plus for each function f
    ``multiplication |C M_f - M_f C|^2 + orientation |C O_f - sign O_f C|^2`` with the operators above, each
    scaled to the norm of an orthogonal matrix.

    Restriction to a part commutes with all of them but at the cut, and the mask follows the eigenvalues: with
    both shapes in one unit, the map of a part is the slanted one of Rodola, Cosmo, Bronstein, Torsello, Cremers,
    "Partial Functional Correspondence", Computer Graphics Forum 2017.

    Args:
        features_a, features_b: descriptors. Shape (Na, C), (Nb, C).
        basis_a, basis_b: of shapes at unit area, or of a part in the unit of the whole; ``size`` eigenpairs or more.
            Functions are smoothed by all eigenpairs that there are.
        functions_a, functions_b: of which operators are made, corresponding. Shape (Na, P), (Nb, P).
        size: eigenpairs of the map, (Eb, Ea) or one number for both.
        weight, multiplication, orientation: see above.
        sign: 1 for a map that keeps orientation, -1 for one that reverses it.

    Returns:
        (Eb, Ea).

    Raises:
        InputError: another sign, functions that do not fit, or descriptors and functions that leave C undetermined.
    """
    if sign not in (1, -1):
        raise InputError(f"commuting_functional_map: sign {sign}, expected 1 or -1")
    if functions_a.shape[1:] != functions_b.shape[1:]:
        raise InputError(
            f"commuting_functional_map: functions {tuple(functions_a.shape)} and "
            f"{tuple(functions_b.shape)}, expected as many columns"
        )
    rows, columns = (size, size) if isinstance(size, int) else size
    a, b = basis_a.truncate(columns), basis_b.truncate(rows)
    smooth_a = basis_a.reconstruct(basis_a.project(functions_a))
    smooth_b = basis_b.reconstruct(basis_b.project(functions_b))
    coefficients_a, coefficients_b = a.project(features_a), b.project(features_b)
    one_a, one_b = (torch.eye(n, dtype=a.mass.dtype, device=a.mass.device) for n in (columns, rows))
    # C row by row is the vector of unknowns: C X is (1 (x) X^T) c, Y C is (Y (x) 1) c.
    mask = commutativity_mask(a.eigenvalues, b.eigenvalues)
    system = torch.kron(one_b, coefficients_a @ coefficients_a.T)
    system += weight * torch.diag(mask.reshape(-1))
    for make, strength, side in (
        (multiplication_operator, multiplication, 1),
        (orientation_operator, orientation, sign),
    ):
        for k in range(functions_a.shape[1] if strength else 0):
            x, y = make(smooth_a[:, k], a), side * make(smooth_b[:, k], b)
            norm = (x.square().sum() / columns + y.square().sum() / rows) / 2
            mixed = torch.kron(y, x)
            square = torch.kron(one_b, x @ x.T) + torch.kron(y.T @ y, one_a)
            system += strength / norm.clamp(min=1e-30) * (square - mixed - mixed.T)
    right = (coefficients_b @ coefficients_a.T).reshape(-1)
    return solved(system, right[:, None]).reshape(rows, columns)


def orientation_agreement(
    matrix: Tensor,
    points: Tensor,
    basis_a: LaplaceBasis,
    basis_b: LaplaceBasis,
    rows: Tensor | None = None,
    functions: int = 7,
) -> Tensor:
    """Whether a map from b to a keeps orientation, at vertices of b: cosines, 1 where it does, -1 where it turns.

    For all pairs of the first eigenfunctions of a, ``<n, grad f x grad g>`` at the image of a vertex is compared
    with that of the functions that C carries to b: of a smooth map the two are proportional, by its Jacobian
    determinant.

    Args:
        matrix: C_ab. Shape (Eb, Ea).
        points: the point-wise map, rows of a. Shape (R,).
        basis_a, basis_b: with the eigenpairs of C, or more.
        rows: vertices of b that ``points`` are the images of. Shape (R,). None: all.
        functions: how many, without the constant.

    Returns:
        (R,).
    """
    functions = min(functions, matrix.shape[1] - 1)
    carried = basis_b.truncate(len(matrix)).reconstruct(matrix[:, 1 : functions + 1])
    here = _jacobians(carried, basis_b)
    there = _jacobians(basis_a.eigenvectors[:, 1 : functions + 1], basis_a)[points]
    here = here if rows is None else here[rows]
    length = here.norm(dim=1) * there.norm(dim=1)
    return (here * there).sum(1) / length.clamp(min=1e-30)


def common_functions(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Principal components of the features of several shapes together, of unit deviation; 0 beyond their rank.

    Shape: (N, C) each -> (N, count) each.
    """
    rows = torch.cat(list(features))
    mean = rows.mean(0)
    vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))[1].flip(1)[:, :count]
    vectors = F.pad(vectors, (0, count - vectors.shape[1]))
    found = [(each - mean) @ vectors for each in features]
    spread = torch.cat(found).std(0)
    # What is left beyond the rank is rounding.
    rounding = 100 * torch.finfo(spread.dtype).eps
    spread = torch.where(spread > rounding * spread.amax(), spread, torch.inf)
    return [each / spread for each in found]


def _gradient(functions: Tensor, basis: LaplaceBasis) -> tuple[Tensor, Tensor]:
    return (
        torch.sparse.mm(basis.gradient_x, functions),
        torch.sparse.mm(basis.gradient_y, functions),
    )


def _jacobians(functions: Tensor, basis: LaplaceBasis) -> Tensor:
    """``<n, grad f x grad g>`` of all pairs. Shape: (N, K) -> (N, K (K - 1) / 2)."""
    x, y = _gradient(functions, basis)
    i, j = torch.triu_indices(functions.shape[1], functions.shape[1], 1)
    return x[:, i] * y[:, j] - x[:, j] * y[:, i]
