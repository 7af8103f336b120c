"""Probes: how much of a label can be read off frozen features by simple means."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sparsefeat.errors import InputError
from sparsefeat.heads.samples import Rows, as_list, stack_features, stack_labelled


class _Probe:
    """Standardised features, then a classifier of scikit-learn."""

    def __init__(self, max_samples: int | None):
        if max_samples is not None and max_samples < 1:
            raise InputError(f"max_samples: expected at least 1, got {max_samples}")
        self.max_samples = max_samples
        self._scaler: StandardScaler | None = None

    def _classifier(self, samples: int):
        raise NotImplementedError

    def fit(self, features: Rows | Sequence[Rows], labels: Rows | Sequence[Rows], seed: int = 0):
        """Learn from labelled rows.

        Args:
            features: Shape (N, C), or one such per shape.
            labels: integers, -1 where unlabelled. Shape (N,), or one such per shape.
            seed: of the draw, where there are more than ``max_samples`` rows.

        Returns:
            The probe itself.

        Raises:
            InputError: shapes that do not fit, values that are not finite, fewer than two classes.
        """
        name = type(self).__name__
        x, y = stack_labelled(features, labels, name, self.max_samples, seed)
        if len(np.unique(y)) < 2:
            raise InputError(f"{name}: every label is {y[0]}; expected two classes or more")
        self._scaler = StandardScaler().fit(x)
        self._model = self._classifier(len(x))
        with warnings.catch_warnings():
            # That it stopped early is known from its count of iterations: see LinearProbe.converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._scaler.transform(x), y)
        return self

    @property
    def classes(self) -> np.ndarray:
        """The labels that occurred, ascending. Shape (L,)."""
        return self._fitted().classes_

    def predict(self, features: Rows) -> np.ndarray:
        """The label of each row. Shape: (N, C) -> (N,) int64."""
        return self._fitted().predict(self._scaled(features))

    def probabilities(self, features: Rows) -> np.ndarray:
        """How likely each of :attr:`classes` is. Shape: (N, C) -> (N, L), rows sum to 1."""
        return self._fitted().predict_proba(self._scaled(features))

    def score(self, features: Rows | Sequence[Rows], labels: Rows | Sequence[Rows]) -> float:
        """Share of the labelled rows that are predicted as labelled, pooled over shapes."""
        hits = total = 0
        for x, y in zip(as_list(features), as_list(labels), strict=True):
            x, y = stack_labelled(x, y, type(self).__name__)
            hits += int((self.predict(x) == y).sum())
            total += len(y)
        return hits / total

    def _fitted(self):
        if self._scaler is None:
            raise InputError(f"{type(self).__name__}: call fit first")
        return self._model

    def _scaled(self, features: Rows) -> np.ndarray:
        self._fitted()
        x = stack_features(features, type(self).__name__)
        if x.shape[1] != self._scaler.n_features_in_:
            raise InputError(
                f"{type(self).__name__}: fitted to {self._scaler.n_features_in_} channels, got {x.shape[1]}"
            )
        return self._scaler.transform(x)


class LinearProbe(_Probe):
    """Multinomial logistic regression (L-BFGS) on standardised features.

    Args:
        strength: inverse of the L2 penalty (scikit-learn's C).
        max_iterations: of L-BFGS; where it stops early, :attr:`converged` says so.
        max_samples: learn from so many rows at most, drawn by the seed of :meth:`fit`; None for all.
    """

    def __init__(self, strength: float = 1.0, max_iterations: int = 300, max_samples: int | None = 50_000):
        super().__init__(max_samples)
        if not strength > 0 or max_iterations < 1:
            raise InputError(f"LinearProbe: expected positive values, got {strength}, {max_iterations}")
        self.strength = strength
        self.max_iterations = max_iterations

    def _classifier(self, samples: int) -> LogisticRegression:
        return LogisticRegression(C=self.strength, max_iter=self.max_iterations)

    @property
    def converged(self) -> bool:
        """Whether the regression reached its tolerance."""
        return bool(np.all(self._fitted().n_iter_ < self.max_iterations))


class KNNProbe(_Probe):
    """Vote of the nearest training rows, weighted by inverse distance, on standardised features.

    Args:
        neighbours: that vote; all of them where there are fewer.
        max_samples: keep so many rows at most, drawn by the seed of :meth:`fit`; None for all.
    """

    def __init__(self, neighbours: int = 10, max_samples: int | None = 50_000):
        super().__init__(max_samples)
        if neighbours < 1:
            raise InputError(f"KNNProbe: expected at least 1 neighbour, got {neighbours}")
        self.neighbours = neighbours

    def _classifier(self, samples: int) -> KNeighborsClassifier:
        return KNeighborsClassifier(min(self.neighbours, samples), weights="distance")
