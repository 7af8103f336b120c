"""The smallest eigenpairs of a Laplacian, counted so that none is missing."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.sparse.csgraph import connected_components

_DENSE_BELOW = (
    600  # rows up to which a dense solver is faster than a factorisation and Lanczos steps
)
_SEARCHES = 3  # in vain, before a count of missing pairs is taken for a rounding error
_EXTRA = (
    16  # pairs computed beyond those asked for, among which the count is checked at the widest gap
)


def smallest_eigenpairs(
    stiffness: sp.spmatrix, mass: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve ``L phi = lambda M phi`` for the smallest eigenvalues of a positive semi-definite L.

    Each connected component is solved on its own: its constant is then an eigenvector by itself, whichever
    other components there are. A component's spectrum comes from shift-inverted Lanczos steps; these can
    overlook copies of a repeated eigenvalue (on a sphere, with customary tolerances, they do), so that
    their number is compared with the number of eigenvalues below a threshold, which is the number of
    negative pivots of ``L - threshold M`` (Sylvester's law of inertia), and missing ones are looked for.
    Where rounding spoils the count, so that repeated searches find nothing, the searches are believed.

    Args:
        stiffness: L. Shape: (N, N), symmetric, without unit.
        mass: the diagonal of M, positive. Shape: (N,), area.
        count: how many; N at most.

    Returns:
        Eigenvalues (count,), ascending, in 1 / area, and eigenvectors (N, count), orthonormal under M. The
        first entry of a vector that is as large as any is positive.
    """
    stiffness = sp.csr_matrix(stiffness)
    n = stiffness.shape[0]
    number, component = connected_components(stiffness, directed=False)
    rows = [np.flatnonzero(component == c) for c in range(number)] if number > 1 else [np.arange(n)]
    # Weyl: a component's share of the small eigenvalues is about its share of the area.
    share = [mass[r].sum() / mass.sum() for r in rows]
    wanted = [
        min(len(r), count, int(1.1 * count * s) + 8) for r, s in zip(rows, share, strict=True)
    ]
    parts = [_component(stiffness, mass, r, w) for r, w in zip(rows, wanted, strict=True)]
    while True:
        values = np.concatenate([v for v, _ in parts])
        owner = np.repeat(np.arange(number), [len(v) for v, _ in parts])
        order = np.argsort(values, kind="stable")[:count]
        # A component may have used up what was computed of it, and then its next value might come first.
        used = np.bincount(owner[order], minlength=number)
        short = [c for c in range(number) if used[c] == wanted[c] < min(len(rows[c]), count)]
        if not short:
            break
        for c in short:
            wanted[c] = min(len(rows[c]), count, 2 * wanted[c])
            parts[c] = _component(stiffness, mass, rows[c], wanted[c])
    vectors = np.zeros((n, len(order)))
    column = np.arange(len(values)) - np.repeat(
        np.cumsum([0] + [len(v) for v, _ in parts[:-1]]), [len(v) for v, _ in parts]
    )
    for k, i in enumerate(order):
        vectors[rows[owner[i]], k] = parts[owner[i]][1][:, column[i]]
    return np.maximum(values[order], 0.0), _fix_signs(vectors)


def _component(stiffness: sp.csr_matrix, mass: np.ndarray, rows: np.ndarray, count: int):
    """The ``count`` smallest eigenpairs of one connected component."""
    if len(rows) < stiffness.shape[0]:
        stiffness, mass = stiffness[rows][:, rows], mass[rows]
    n, root = len(rows), np.sqrt(mass)
    most = min(n, count + _EXTRA)
    if n <= _DENSE_BELOW or 3 * most >= n:
        scaled = stiffness.toarray() / root[:, None] / root
        values, vectors = scipy.linalg.eigh((scaled + scaled.T) / 2, subset_by_index=[0, count - 1])
        return values, vectors / root[:, None]
    # In y = sqrt(M) phi the problem is an ordinary one, which saves the products with M. A negative shift
    # of a hundredth of 1 / area lies below every eigenvalue and keeps the factorised matrix definite.
    shift = -0.01 / mass.sum()
    solve = _factorise(stiffness, mass, shift).solve
    values, vectors = _lanczos(lambda x: root * solve(root * x), n, most, 0)
    values = 1 / values + shift
    searches = in_vain = 0
    while True:
        order = np.argsort(values, kind="stable")
        values, vectors = values[order], vectors[:, order]
        gap = count + int(
            np.argmax(np.diff(values[count - 1 : most]))
        )  # so many lie below the widest gap
        threshold = (values[gap - 1] + values[gap]) / 2
        missing = _number_below(stiffness, mass, threshold) - gap
        if missing <= 0 or in_vain == _SEARCHES:
            return values[:count], vectors[:, :count] / root[:, None]
        searches += 1
        # Steps in what is orthogonal to all that is known can only find what was overlooked.
        known, gain = vectors, 1 / (values - shift)
        more, found = _lanczos(
            lambda x, known=known, gain=gain: (
                root * solve(root * x) - known @ (gain * (known.T @ x))
            ),
            n,
            min(missing + 4, most),
            searches,
        )
        more = 1 / more + shift
        in_vain = 0 if (more < threshold).any() else in_vain + 1
        values, vectors = np.concatenate([values, more]), np.concatenate([vectors, found], 1)


def _lanczos(operator, n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    start = np.random.default_rng(seed).standard_normal(n)
    matrix = sla.LinearOperator((n, n), matvec=operator, dtype=np.float64)
    return sla.eigsh(
        matrix, k=count, which="LA", tol=1e-9, ncv=min(n, max(2 * count, 32)), v0=start
    )


def _factorise(stiffness: sp.csr_matrix, mass: np.ndarray, shift: float) -> sla.SuperLU:
    # scipy's default ordering is for unsymmetric matrices and costs three times as much here.
    return sla.splu(
        sp.csc_matrix(stiffness - shift * sp.diags(mass)),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _number_below(stiffness: sp.csr_matrix, mass: np.ndarray, threshold: float) -> int:
    """How many eigenvalues lie below a threshold; 0 if a vanishing pivot prevents the count."""
    factors = _factorise(stiffness, mass, threshold)
    if not np.array_equal(factors.perm_r, factors.perm_c):
        return 0
    return int(np.count_nonzero(factors.U.diagonal() < 0))


def _fix_signs(vectors: np.ndarray) -> np.ndarray:
    magnitude = np.abs(vectors)
    first = np.argmax(magnitude >= (1 - 1e-6) * magnitude.max(0), axis=0)
    return vectors * np.where(vectors[first, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
