"""Functional maps: correspondence as a small matrix between Laplace bases.

A map T from the vertices of shape b to those of shape a carries functions the other way; C (Eb, Ea) is
that map in the two bases: ``C = Phi_b^T M_b Pi Phi_a``, where row i of Pi picks the vertex T(i). Source:
Ovsjanikov et al., "Functional Maps: A Flexible Representation of Maps Between Shapes", SIGGRAPH 2012.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.match.nearest import nearest_neighbours
from sparsefeat.mesh.laplacian import LaplaceBasis

MaskKind = Literal["laplacian", "resolvent"]


def commutativity_mask(
    eigenvalues_a: Tensor, eigenvalues_b: Tensor, kind: MaskKind = "laplacian", gamma: float = 0.5
) -> Tensor:
    """How much each entry of C costs for not commuting with the Laplacians.

    ``"laplacian"``: ``(lambda_a - lambda_b)^2``, of the dimension 1 / area^2; Ovsjanikov et al. 2012,
    section 5.2. ``"resolvent"``: the squared distance of the complex resolvents of the eigenvalues over
    their largest one, to the power gamma; without dimension, and it bounds the cost of high frequencies:
    Ren, Panine, Wonka, Ovsjanikov, "Structured Regularization of Functional Map Computations", SGP 2019.

    Args:
        eigenvalues_a, eigenvalues_b: Shape (..., Ea), (..., Eb).
        kind: see above.
        gamma: of the resolvent.

    Returns:
        (..., Eb, Ea).

    Raises:
        InputError: an unknown kind.
    """
    a, b = eigenvalues_a[..., None, :], eigenvalues_b[..., :, None]
    if kind == "laplacian":
        return (a - b).square()
    if kind != "resolvent":
        raise InputError(
            f"commutativity_mask: unknown kind {kind!r}; there are laplacian, resolvent"
        )
    largest = torch.maximum(a.amax(-1, keepdim=True), b.amax(-2, keepdim=True))
    a, b = (a / largest).clamp(min=0) ** gamma, (b / largest).clamp(min=0) ** gamma
    below_a, below_b = a.square() + 1, b.square() + 1
    return (b / below_b - a / below_a).square() + (1 / below_b - 1 / below_a).square()


def solve_functional_map(
    coefficients_a: Tensor, coefficients_b: Tensor, mask: Tensor, weight: float
) -> Tensor:
    """The C that minimises ``|C A - B|^2 + weight sum_ij mask_ij C_ij^2``; differentiable in A and B.

    Its rows are independent: ``(A A^T + weight diag(mask_i)) c_i = A b_i``, one batch of systems.

    Args:
        coefficients_a, coefficients_b: A and B, the same C functions in both bases. Shape (..., Ea, C),
            (..., Eb, C).
        mask: not negative. Shape (..., Eb, Ea).
        weight: of the mask.

    Returns:
        (..., Eb, Ea).

    Raises:
        InputError: shapes that do not fit, a negative weight.
    """
    rows, columns = coefficients_b.shape[-2], coefficients_a.shape[-2]
    if coefficients_a.shape[-1] != coefficients_b.shape[-1] or mask.shape[-2:] != (rows, columns):
        raise InputError(
            f"solve_functional_map: A {tuple(coefficients_a.shape)}, B {tuple(coefficients_b.shape)} and "
            f"mask {tuple(mask.shape)} do not fit; expected (Ea, C), (Eb, C), (Eb, Ea)"
        )
    if weight < 0:
        raise InputError(f"solve_functional_map: expected a weight of at least 0, got {weight}")
    transposed = coefficients_a.transpose(-1, -2)
    gram = coefficients_a @ transposed
    system = gram[..., None, :, :] + weight * torch.diag_embed(mask)
    right = coefficients_b @ transposed
    return torch.linalg.solve(system, right[..., None])[..., 0]


def functional_map(
    features_a: Tensor,
    basis_a: LaplaceBasis,
    features_b: Tensor,
    basis_b: LaplaceBasis,
    size: int = 30,
    weight: float = 1e-3,
    mask: MaskKind = "laplacian",
) -> Tensor:
    """The functional map from a to b that carries the features of one to those of the other.

    Args:
        features_a, features_b: Shape (Na, C), (Nb, C).
        basis_a, basis_b: ``size`` eigenpairs or more; of shapes of about unit area, for the weight to mean
            what it does elsewhere.
        size: eigenpairs of both that are used, E.
        weight: of the commutativity with the Laplacians.
        mask: see :func:`commutativity_mask`.

    Returns:
        (E, E), differentiable in the features.

    Raises:
        InputError: shapes that do not fit, fewer eigenpairs than ``size``.
    """
    a, b = basis_a.truncate(size), basis_b.truncate(size)
    penalty = commutativity_mask(a.eigenvalues, b.eigenvalues, mask)
    return solve_functional_map(a.project(features_a), b.project(features_b), penalty, weight)


def map_from_points(
    points: Tensor | np.ndarray, basis_a: LaplaceBasis, basis_b: LaplaceBasis
) -> Tensor:
    """The functional map of a point-wise one. Shape: (Nb,) rows of a -> (Eb, Ea)."""
    rows = torch.as_tensor(points, device=basis_a.mass.device)
    if rows.shape != (len(basis_b),):
        raise InputError(
            f"map_from_points: expected ({len(basis_b)},) rows of a, got {tuple(rows.shape)}"
        )
    return basis_b.project(basis_a.eigenvectors[rows])


def points_from_map(matrix: Tensor, basis_a: LaplaceBasis, basis_b: LaplaceBasis) -> Tensor:
    """For each vertex of b, the vertex of a whose carried delta function is nearest to its own.

    Nearest among the rows of ``Phi_a C^T`` to a row of ``Phi_b``.

    Args:
        matrix: C. Shape (Eb, Ea), each at most what the bases have.

    Returns:
        (Nb,) int64 rows of a.
    """
    rows, columns = matrix.shape
    carried = basis_a.truncate(columns).eigenvectors @ matrix.T
    found = nearest_neighbours(basis_b.truncate(rows).eigenvectors, carried)
    return torch.from_numpy(found).to(matrix.device)


def zoomout(
    start: Tensor | np.ndarray,
    basis_a: LaplaceBasis,
    basis_b: LaplaceBasis,
    size: int = 100,
    step: int = 5,
    samples: tuple[Tensor | np.ndarray, Tensor | np.ndarray] | None = None,
) -> tuple[Tensor, Tensor]:
    """Refine a map by turning it into a point-wise one and back, with ``step`` more eigenpairs each time.

    Source: Melzi, Ren, Rodola, Sharma, Wonka, Ovsjanikov, "ZoomOut: Spectral Upsampling for Efficient Shape
    Correspondence", SIGGRAPH Asia 2019; with samples its section 5.4, "Sub-sampling".

    Args:
        start: a functional map, Shape (E, E); or a point-wise one, (Nb,) rows of a, to which 20 eigenpairs
            are fitted first.
        basis_a, basis_b: ``size`` eigenpairs or more.
        size: eigenpairs at the end.
        step: eigenpairs added at a time.
        samples: rows of a and of b, evenly spread, more than ``size`` each: the maps in between are of these
            alone, which is several times faster. None: of all vertices.

    Returns:
        The functional map (size, size) and the point-wise one (Nb,), rows of a.

    Raises:
        InputError: shapes that do not fit, fewer eigenpairs or samples than ``size``, a start larger than
            ``size``.
    """
    start = torch.as_tensor(start, device=basis_a.mass.device)
    a, b = basis_a.truncate(size), basis_b.truncate(size)
    if start.ndim == 1:
        first = min(20, size)
        start = map_from_points(start, a.truncate(first), b.truncate(first))
    if start.ndim != 2 or start.shape[0] != start.shape[1] or start.shape[0] > size or step < 1:
        raise InputError(
            f"zoomout: expected a square map of at most {size} eigenpairs and a positive step, got "
            f"{tuple(start.shape)} and {step}"
        )
    counts = [*range(len(start), size, step), size]
    matrix = start
    if samples is None:
        for count in counts[1:]:
            points = points_from_map(matrix, a, b)
            matrix = map_from_points(points, a.truncate(count), b.truncate(count))
        return matrix, points_from_map(matrix, a, b)
    of_a, of_b = (
        basis.eigenvectors[torch.as_tensor(rows, device=basis.mass.device)]
        for basis, rows in zip((a, b), samples, strict=True)
    )
    if min(len(of_a), len(of_b)) < size:
        raise InputError(
            f"zoomout: {len(of_a)} and {len(of_b)} samples, expected at least {size} of both"
        )
    for count in counts[1:]:
        before = len(matrix)
        found = nearest_neighbours(of_b[:, :before], of_a[:, :before] @ matrix.T)
        matrix = torch.linalg.lstsq(of_b[:, :count], of_a[found][:, :count]).solution
    return matrix, points_from_map(matrix, a, b)


def spread_samples(vertices: np.ndarray, count: int) -> np.ndarray:
    """Rows of points that lie far from each other: the farthest of all others each time, by straight lines.

    Shape: (N, 3) -> (count,) int64, ascending; all rows where there are fewer. Source: Eldar, Lindenbaum,
    Porat, Zeevi, "The Farthest Point Strategy for Progressive Image Sampling", IEEE TIP 1997.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if len(vertices) <= count:
        return np.arange(len(vertices))
    nearest = np.full(len(vertices), np.inf)
    chosen, row = [], 0
    for _ in range(count):
        chosen.append(row)
        nearest = np.minimum(nearest, ((vertices - vertices[row]) ** 2).sum(1))
        row = int(nearest.argmax())
    return np.array(sorted(set(chosen)), dtype=np.int64)
