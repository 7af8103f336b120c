"""How strong a regression should be, and how much each block of features counts: chosen on labelled shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

PENALTIES = (0.3, 0.03, 3e-3, 3e-4)
"""Tried, of the mean loss over rows; strongest first, so that each fit starts from the one before."""

_FOLDS = 3  # left out in turn, at most
_PARTS = 3  # of a single shape
_ROWS = 1500  # learned from and scored on, in each fold
_ITERATIONS = 40  # of a fit that only chooses
_DEFAULT = 1e-3  # penalty where nothing can be left out
_DOUBT = 0.05  # probability that a member errs whatever it says
_MARGIN = 0.02  # accuracy that a simpler mixture has to gain over the fitted one: about its error with few shapes


class LeftOut(NamedTuple):
    """What was predicted of rows that took no part in learning.

    Attributes:
        strengths: of each block's regression (scikit-learn's C, for all rows), the best on these rows.
        logs: log-probabilities by block, row and class. Shape (B, R, L); R is 0 where nothing could be left out.
        truth: the rows' class. Shape (R,).
    """

    strengths: list[float]
    logs: np.ndarray
    truth: np.ndarray

    def only(self, blocks: Sequence[int]) -> LeftOut:
        """Of some of the blocks."""
        return LeftOut([self.strengths[k] for k in blocks], self.logs[list(blocks)], self.truth)


class Regression:
    """Multinomial logistic regression on standardised features.

    Args:
        strength: scikit-learn's C.
        max_iterations: of L-BFGS.
    """

    def __init__(self, strength: float, max_iterations: int):
        self._scaler = StandardScaler()
        self._model = LogisticRegression(C=strength, max_iter=max_iterations)

    def fit(self, x: np.ndarray, y: np.ndarray) -> Regression:
        """Learn. Shape: (N, C), (N,)."""
        self._model.fit(self._scaler.fit_transform(x), y)
        return self

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Of the classes that occurred, ascending. Shape: (N, C) -> (N, L)."""
        return self._model.predict_proba(self._scaler.transform(x))

    @property
    def iterations(self) -> int:
        """Taken by L-BFGS."""
        return int(np.max(self._model.n_iter_))


def leave_out(
    blocks: Sequence[np.ndarray],
    y: np.ndarray,
    of_shape: np.ndarray,
    seed: int,
    strength: float | None = None,
) -> LeftOut:
    """Choose the strength of each block by what it predicts of shapes that are left out.

    Args:
        blocks: features of each block. Shape (N, C_b).
        y: labels. Shape (N,).
        of_shape: which shape each row is of. Shape (N,).
        seed: of draws of rows, where there are more than it takes to choose.
        strength: scikit-learn's C for all blocks; None: chosen.
    """
    count = len(blocks)
    nothing = np.zeros((count, 0, len(np.unique(y)))), np.zeros(0, np.int64)
    if strength is not None and count == 1:
        return LeftOut([strength], *nothing)
    # Penalties are of the mean over rows; scikit-learn's strength is of their sum.
    tried = PENALTIES if strength is None else (1 / (strength * len(y)),)
    found = _predict_left_out(blocks, y, of_shape, np.random.default_rng(seed), tried)
    if found is None:
        return LeftOut([strength or 1 / (_DEFAULT * len(y))] * count, *nothing)
    logs, truth = found  # (B, penalties, R, L), (R,)
    best = (-logs[:, :, np.arange(len(truth)), truth].mean(2)).argmin(1)
    return LeftOut([1 / (tried[k] * len(y)) for k in best], logs[np.arange(count), best], truth)


def log_mixture(probabilities: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Logarithm of the normalised product of the members' probabilities to the power of their weights.

    Each member is believed up to a remaining doubt, so that one that is certain and wrong does not overrule the others.

    Shape: B times (N, L), (B,) -> (N, L).
    """
    return _mixed(np.stack([_doubted(p) for p in probabilities]), weights)


def _mixed(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = np.tensordot(weights, logs, 1)
    return total - logsumexp(total, axis=1, keepdims=True)


def _doubted(probabilities: np.ndarray) -> np.ndarray:
    return np.log((1 - _DOUBT) * probabilities + _DOUBT / probabilities.shape[1])


def mixture_weights(left_out: LeftOut) -> np.ndarray:
    """Weights of least loss on what was left out; a simpler mixture where that is more accurate. Shape (B,)."""
    members, truth = left_out.logs, left_out.truth
    count = len(members)
    even = np.full(count, 1 / count)
    if count == 1 or not len(truth):
        return even
    rows = np.arange(len(truth))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = _mixed(members, weights)
        expected = (np.exp(mixed) * members).sum(2) - members[:, rows, truth]
        # A pull towards even weights decides what the left-out rows leave open.
        value = -mixed[rows, truth].mean() + 0.01 * ((weights - even) ** 2).sum()
        return value, expected.mean(1) + 0.02 * (weights - even)

    fitted = minimize(loss, even, jac=True, method="L-BFGS-B", bounds=[(0, 3)] * count).x
    candidates = [fitted if fitted.any() else even, even, *np.eye(count)]
    accuracy = [(_mixed(members, weights).argmax(1) == truth).mean() for weights in candidates]
    accuracy[0] += _MARGIN
    return candidates[int(np.argmax(accuracy))]


def _predict_left_out(
    blocks: Sequence[np.ndarray],
    y: np.ndarray,
    of_shape: np.ndarray,
    rng: np.random.Generator,
    penalties: Sequence[float],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-probabilities of rows that took no part in learning, and their true columns; None where there are none.

    Returns:
        Shape (B, penalties, rows, L) and (rows,).
    """
    classes = np.unique(y)
    fold = _folds(blocks[0], y, of_shape)
    logs, truth = [], []
    for k in range(fold.max() + 1):
        learned = _drawn(np.flatnonzero(fold != k), rng)
        known = np.unique(y[learned])
        asked = _drawn(np.flatnonzero((fold == k) & np.isin(y, known)), rng)
        if len(known) < 2 or not len(asked):
            continue
        columns = np.searchsorted(classes, known)
        here = np.full(
            (len(blocks), len(penalties), len(asked), len(classes)), np.log(_DOUBT / len(classes))
        )
        for b, block in enumerate(blocks):
            scaler = StandardScaler().fit(block[learned])
            x, z = scaler.transform(block[learned]), scaler.transform(block[asked])
            model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
            for p, penalty in enumerate(penalties):
                model.set_params(C=1 / (penalty * len(learned)))
                here[b, p][:, columns] = _doubted(model.fit(x, y[learned]).predict_proba(z))
        logs.append(here)
        truth.append(np.searchsorted(classes, y[asked]))
    return (np.concatenate(logs, 2), np.concatenate(truth)) if logs else None


def _folds(x: np.ndarray, y: np.ndarray, of_shape: np.ndarray) -> np.ndarray:
    """Which fold each row is in. Shape (N,).

    Shapes are left out whole. Of a single shape, each class is cut in parts along the direction in which its features
    vary most: rows that are alike do not stand on both sides.
    """
    shapes, first, row = np.unique(of_shape, return_index=True, return_inverse=True)
    if len(shapes) > 1:
        # In turn among shapes of one class, so that another of it is left to learn from.
        place = np.empty(len(shapes), np.int64)
        place[np.argsort(y[first], kind="stable")] = np.arange(len(shapes)) % min(
            _FOLDS, len(shapes)
        )
        return place[row]
    fold = np.zeros(len(y), np.int64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        centred = x[rows] - x[rows].mean(0)
        axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        fold[rows[np.argsort(centred @ axis, kind="stable")]] = (
            np.arange(len(rows)) * _PARTS // len(rows)
        )
    return fold


def _drawn(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(rows, _ROWS, replace=False)) if len(rows) > _ROWS else rows
