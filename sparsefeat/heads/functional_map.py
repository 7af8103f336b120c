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

from sparsefeat.checks import as_points, checked_count
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

    Its rows are independent: ``(A A^T + weight diag(mask_i)) c_i = A b_i``, one batch of systems. C is arbitrary
    where a system is singular but for rounding, as with constant functions and a mask of zeros.

    Args:
        coefficients_a, coefficients_b: A and B, the same C functions in both bases. Shape (..., Ea, C),
            (..., Eb, C).
        mask: not negative. Shape (..., Eb, Ea).
        weight: of the mask.

    Returns:
        (..., Eb, Ea).

    Raises:
        InputError: shapes that do not fit, a negative weight, functions that leave C undetermined.
    """
    rows, columns = coefficients_b.shape[-2], coefficients_a.shape[-2]
    if coefficients_a.shape[-1] != coefficients_b.shape[-1] or mask.shape[-2:] != (rows, columns):
        raise InputError(
            f"solve_functional_map: A {tuple(coefficients_a.shape)}, B {tuple(coefficients_b.shape)} and "
            f"mask {tuple(mask.shape)} do not fit; expected (Ea, C), (Eb, C), (Eb, Ea)"
        )
    if not weight >= 0:
        raise InputError(f"solve_functional_map: expected a weight of at least 0, got {weight}")
    if weight == 0 and coefficients_a.shape[-1] < columns:
        raise InputError(
            f"solve_functional_map: {coefficients_a.shape[-1]} functions and a weight of 0 leave the map undetermined, "
            f"expected {columns} functions or more, or a positive weight"
        )
    transposed = coefficients_a.transpose(-1, -2)
    gram = coefficients_a @ transposed
    system = gram[..., None, :, :] + weight * torch.diag_embed(mask)
    right = coefficients_b @ transposed
    return solved(system, right[..., None])[..., 0]


def solved(system: Tensor, right: Tensor) -> Tensor:
    """The solution of linear systems of which a functional map is made. Shape: (..., E, E), (..., E, K) -> (..., E, K).

    Raises:
        InputError: a system is singular.
    """
    try:
        return torch.linalg.solve(system, right)
    except torch.linalg.LinAlgError as error:
        raise InputError(
            "functional map: the features leave it undetermined (a singular system), expected features that vary and are "
            "not all zero"
        ) from error


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
        InputError: shapes that do not fit, features that are not finite, fewer eigenpairs than ``size``, features that
            leave C undetermined, see :func:`solve_functional_map`.
    """
    for name, features in (("a", features_a), ("b", features_b)):
        finite = torch.isfinite(features).reshape(len(features), -1).all(1)
        if not finite.all():
            raise InputError(
                f"functional_map: features of {name} are not finite (row {int(finite.int().argmin())})"
            )
    a, b = basis_a.truncate(size), basis_b.truncate(size)
    penalty = commutativity_mask(a.eigenvalues, b.eigenvalues, mask)
    return solve_functional_map(a.project(features_a), b.project(features_b), penalty, weight)


def map_from_points(
    points: Tensor | np.ndarray, basis_a: LaplaceBasis, basis_b: LaplaceBasis
) -> Tensor:
    """The functional map of a point-wise one. Shape: (Nb,) rows of a -> (Eb, Ea).

    Raises:
        InputError: another number of rows than b has vertices, or one that is no vertex of a.
    """
    rows = torch.as_tensor(points, device=basis_a.mass.device)
    if rows.shape != (len(basis_b),):
        raise InputError(
            f"map_from_points: expected ({len(basis_b)},) rows of a, got {tuple(rows.shape)}"
        )
    return basis_b.project(basis_a.eigenvectors[_rows_of_a(rows, len(basis_a), "map_from_points")])


def _rows_of_a(rows: Tensor, count: int, name: str, shape: str = "a") -> Tensor:
    """The rows as int64, if they are some of ``count``."""
    whole = not (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool)
    wrong = rows[(rows < 0) | (rows >= count)] if whole else rows
    if not whole or len(wrong):
        raise InputError(
            f"{name}: {int(wrong[0]) if whole else rows.dtype} among the rows of {shape}, expected whole numbers from 0 "
            f"to {count - 1}"
        )
    # Narrower types would be taken as masks.
    return rows.long()


def points_from_map(matrix: Tensor, basis_a: LaplaceBasis, basis_b: LaplaceBasis) -> Tensor:
    """For each vertex of b, the vertex of a whose carried delta function is nearest to its own.

    Nearest among the rows of ``Phi_a C^T`` to a row of ``Phi_b``.

    Args:
        matrix: C. Shape (Eb, Ea), each at most what the bases have.

    Returns:
        (Nb,) int64 rows of a.
    """
    rows, columns = matrix.shape
    carried = basis_a.truncate(columns).eigenvectors @ matrix.T.to(basis_a.eigenvectors.dtype)
    found = nearest_neighbours(basis_b.truncate(rows).eigenvectors, carried)
    return torch.from_numpy(found).to(matrix.device)


def zoomout(
    start: Tensor | np.ndarray,
    basis_a: LaplaceBasis,
    basis_b: LaplaceBasis,
    size: int | tuple[int, int] = 100,
    step: int = 5,
    samples: tuple[Tensor | np.ndarray, Tensor | np.ndarray] | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Refine a map by turning it into a point-wise one and back, with ``step`` more eigenpairs each time.

    Source: Melzi, Ren, Rodola, Sharma, Wonka, Ovsjanikov, "ZoomOut: Spectral Upsampling for Efficient Shape
    Correspondence", SIGGRAPH Asia 2019; with samples its section 5.4, "Sub-sampling".

    Args:
        start: a functional map; or a point-wise one, (Nb,) rows of a, to which 20 eigenpairs are fitted first.
        basis_a, basis_b: ``size`` eigenpairs or more.
        size: eigenpairs at the end, (Eb, Ea) or one number for both: of b as a part of a the smaller number has
            to be about as much smaller as its area.
        step: eigenpairs added at a time, to the larger number.
        samples: rows of a and of b, evenly spread, as many as eigenpairs or more: the maps in between are of
            these alone, which is several times faster. None: of all vertices.
        allowed: which sample of a each sample of b may be mapped to on the way; None: any. Shape (Sb, Sa) bool, at least
            one in a row.

    Returns:
        The functional map (Eb, Ea) and the point-wise one (Nb,), rows of a.

    Raises:
        InputError: shapes that do not fit, fewer eigenpairs or samples than ``size``, samples that are no vertices, a
            start larger than ``size``.
    """
    start = torch.as_tensor(start, device=basis_a.mass.device)
    step = checked_count(step, "zoomout: step")
    square = not isinstance(size, tuple | list)
    rows, columns = (size, size) if square else size
    a, b = basis_a.truncate(columns), basis_b.truncate(rows)
    if start.ndim == 1:
        first = min(20 / max(rows, columns), 1.0)
        less = [max(1, round(first * count)) for count in (columns, rows)]
        start = map_from_points(start, a.truncate(less[0]), b.truncate(less[1]))
    if (
        start.ndim != 2
        or start.shape[0] > rows
        or start.shape[1] > columns
        or (square and start.shape[0] != start.shape[1])
    ):
        raise InputError(
            f"zoomout: expected a map of at most {rows} x {columns} eigenpairs, square if these are equal, got "
            f"{tuple(start.shape)}"
        )
    some_a = some_b = slice(None)
    if samples is not None:
        some_a, some_b = (
            _rows_of_a(
                torch.as_tensor(part, device=a.mass.device), len(basis), "zoomout: samples", shape
            )
            for part, basis, shape in zip(samples, (a, b), "ab", strict=True)
        )
        if len(some_a) < columns or len(some_b) < rows:
            raise InputError(
                f"zoomout: {len(some_a)} and {len(some_b)} samples, expected at least {columns} and {rows}"
            )
    of_a, of_b = a.eigenvectors[some_a], b.eigenvectors[some_b]
    if allowed is not None and (
        allowed.shape != (len(of_b), len(of_a)) or allowed.dtype != torch.bool
    ):
        raise InputError(
            f"zoomout: allowed {tuple(allowed.shape)} of {allowed.dtype}, expected ({len(of_b)}, {len(of_a)}) bool"
        )
    matrix = start.to(of_a.dtype)
    for count_b, count_a in _growing(tuple(start.shape), (rows, columns), step):
        before_b, before_a = matrix.shape
        points = _nearest(of_b[:, :before_b], of_a[:, :before_a] @ matrix.T, allowed)
        if samples is None:
            matrix = map_from_points(points, a.truncate(count_a), b.truncate(count_b))
        else:
            matrix = torch.linalg.lstsq(of_b[:, :count_b], of_a[points][:, :count_a]).solution
    return matrix, points_from_map(matrix, a, b)


def _nearest(queries: Tensor, references: Tensor, allowed: Tensor | None) -> np.ndarray | Tensor:
    """Row of the nearest reference that each query is allowed. Shape: (Q, C), (R, C), (Q, R) -> (Q,)."""
    if allowed is None:
        return nearest_neighbours(queries, references)
    apart = torch.cdist(queries, references).masked_fill_(~allowed, torch.inf)
    return apart.argmin(1)


def _growing(start: tuple[int, ...], end: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """Sizes after the start, up to the end: the dimension that grows most grows by ``step``."""
    most = max(last - first for first, last in zip(start, end))
    sizes = [
        tuple(first + round(done / most * (last - first)) for first, last in zip(start, end))
        for done in range(step, most, step)
    ]
    return [*sizes, end] if most else []


def spread_samples(vertices: np.ndarray, count: int) -> np.ndarray:
    """Rows of points that lie far from each other: the farthest of all others each time, by straight lines.

    Where points repeat, places that are taken already fill up the count. Shape: (N, 3) -> (count,) int64, ascending; all
    rows where there are fewer. Source: Eldar, Lindenbaum,
    Porat, Zeevi, "The Farthest Point Strategy for Progressive Image Sampling", IEEE TIP 1997.

    Raises:
        InputError: vertices that are not finite or of another shape, or a count below 1.
    """
    vertices = as_points(vertices, "spread_samples: vertices")
    if len(vertices) <= checked_count(count, "spread_samples: count"):
        return np.arange(len(vertices))
    nearest = np.full(len(vertices), np.inf)
    chosen, row = [], 0
    for _ in range(count):
        chosen.append(row)
        nearest = np.minimum(nearest, ((vertices - vertices[row]) ** 2).sum(1))
        nearest[row] = -1.0  # never again, even where all places are taken
        row = int(nearest.argmax())
    return np.array(sorted(chosen), dtype=np.int64)
