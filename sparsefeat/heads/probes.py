"""Probes: how much of a label can be read off frozen features by simple means."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sparsefeat.checks import checked_count, checked_positive, checked_seed
from sparsefeat.errors import InputError
from sparsefeat.heads.fusion import LeftOut, Regression, leave_out, log_mixture, mixture_weights
from sparsefeat.heads.samples import Rows, as_list, stack_features, stack_labelled


class _Probe:
    """Checks what it is given and leaves the learning to :meth:`_learn`."""

    def __init__(self, max_samples: int | None):
        self.max_samples = (
            None if max_samples is None else checked_count(max_samples, "max_samples")
        )
        self._channels: int | None = None

    def _learn(self, x: np.ndarray, y: np.ndarray, of_shape: np.ndarray, seed: int) -> None:
        raise NotImplementedError

    def _probabilities(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def fit(
        self,
        features: Rows | Sequence[Rows],
        labels: Rows | Sequence[Rows],
        seed: int = 0,
        groups: Sequence[Hashable] | None = None,
    ):
        """Learn from labelled rows. A fit that fails leaves the probe as it was.

        Args:
            features: Shape (N, C), or one such per shape.
            labels: integers, -1 where unlabelled. Shape (N,), or one such per shape.
            seed: of the draw, where there are more than ``max_samples`` rows.
            groups: one value a shape; shapes of one value are copies of one, and left out together where shapes are
                left out to choose something. None: no two are. Shape (number of shapes,).

        Returns:
            The probe itself.

        Raises:
            InputError: shapes that do not fit, values that are not finite, fewer than two classes, groups of another
                number than the shapes.
        """
        name = type(self).__name__
        seed = checked_seed(seed)
        x, y, of_shape = stack_labelled(features, labels, name, self.max_samples, seed)
        if groups is not None:
            of_shape = _group_of_shape(groups, len(as_list(features, name)), name)[of_shape]
        classes = np.unique(y)
        if len(classes) < 2:
            raise InputError(f"{name}: every label is {y[0]}; expected two classes or more")
        with warnings.catch_warnings():
            # That it stopped early is known from its count of iterations: see LinearProbe.converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._learn(x, y, of_shape, seed)
        self._classes, self._channels = classes, x.shape[1]
        return self

    @property
    def classes(self) -> np.ndarray:
        """The labels that occurred, ascending. Shape (L,)."""
        self._check_fitted()
        return self._classes

    def predict(self, features: Rows) -> np.ndarray:
        """The label of each row. Shape: (N, C) -> (N,) int64."""
        return self.classes[self.probabilities(features).argmax(1)]

    def probabilities(self, features: Rows) -> np.ndarray:
        """How likely each of :attr:`classes` is. Shape: (N, C) -> (N, L), rows sum to 1."""
        x = self._checked(features)
        return self._probabilities(x) if len(x) else np.zeros((0, len(self._classes)))

    def score(self, features: Rows | Sequence[Rows], labels: Rows | Sequence[Rows]) -> float:
        """Share of the labelled rows that are predicted as labelled, pooled over shapes.

        Raises:
            InputError: shapes that do not fit, or no row with a label.
        """
        name = type(self).__name__
        shapes, marks = as_list(features, name), as_list(labels, f"{name}: labels")
        if len(shapes) != len(marks):
            raise InputError(f"{name}: labels of {len(marks)} for features of {len(shapes)} shapes")
        hits = total = 0
        for x, y in zip(shapes, marks, strict=True):
            if len(x) == len(y) and (y == -1).all():
                continue
            x, y, _ = stack_labelled(x, y, name)
            hits += int((self.predict(x) == y).sum())
            total += len(y)
        if not total:
            raise InputError(f"{name}: no row has a label")
        return hits / total

    def _check_fitted(self) -> None:
        if self._channels is None:
            raise InputError(f"{type(self).__name__}: call fit first")

    def _checked(self, features: Rows) -> np.ndarray:
        self._check_fitted()
        x = stack_features(features, type(self).__name__)
        if x.shape[1] != self._channels:
            raise InputError(
                f"{type(self).__name__}: fitted to {self._channels} channels, got {x.shape[1]}"
            )
        return x


def _group_of_shape(groups: Sequence[Hashable], shapes: int, name: str) -> np.ndarray:
    try:
        values = list(groups)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(values))}
    except TypeError as error:
        raise InputError(
            f"{name}: groups {groups!r}, expected one number or name for each shape"
        ) from error
    if len(values) != shapes:
        raise InputError(f"{name}: {len(values)} groups for {shapes} shapes")
    return np.array([numbers[group] for group in values])


def _checked_blocks(blocks: Sequence[int]) -> list[int]:
    try:
        widths = list(blocks)
    except TypeError:
        widths = []
    if not widths:
        raise InputError(f"LinearProbe: blocks {blocks!r}, expected channels of one block or more")
    return [checked_count(width, "LinearProbe: blocks: channels") for width in widths]


class LinearProbe(_Probe):
    """Multinomial logistic regression (L-BFGS) on standardised features, or one for each block of them.

    The strength is chosen by leaving labelled shapes out, in turn; where there is one shape only, parts of each class
    of it. Several blocks, such as learned features beside a signature, are read by a regression each, of a strength of
    its own; their answer is the mean of log-probabilities with weights that are chosen on the same left-out shapes
    (:mod:`sparsefeat.heads.fusion`). Plainly concatenated, a block of many channels would drown one of few.

    Args:
        strength: inverse of the L2 penalty (scikit-learn's C); None: chosen.
        max_iterations: of L-BFGS; where it stops early, :attr:`converged` says so.
        max_samples: learn from so many rows at most, drawn by the seed of :meth:`fit`; None for all.
        blocks: channels of each block, in order; None: one block.

    Attributes:
        strengths: of each block, once fitted.
        weights: of each block's log-probabilities, once fitted.
    """

    def __init__(
        self,
        strength: float | None = None,
        max_iterations: int = 300,
        max_samples: int | None = 50_000,
        blocks: Sequence[int] | None = None,
    ):
        super().__init__(max_samples)
        self.strength = (
            None if strength is None else checked_positive(strength, "LinearProbe: strength")
        )
        self.max_iterations = checked_count(max_iterations, "LinearProbe: max_iterations")
        self.blocks = None if blocks is None else _checked_blocks(blocks)
        self.strengths: list[float] = []
        self._left_out: LeftOut
        self._members: list[Regression]
        self.weights = np.ones(1)

    def _learn(self, x: np.ndarray, y: np.ndarray, of_shape: np.ndarray, seed: int) -> None:
        blocks = self._split(x)
        left_out = leave_out(blocks, y, of_shape, seed, self.strength)
        members = [
            Regression(strength, self.max_iterations).fit(block, y)
            for block, strength in zip(blocks, left_out.strengths, strict=True)
        ]
        self._left_out, self._members = left_out, members
        self._mix()

    def _mix(self) -> None:
        self.strengths = list(self._left_out.strengths)
        self.weights = mixture_weights(self._left_out)

    def only(self, blocks: Sequence[int]) -> LinearProbe:
        """The probe of some of the blocks, by number, from the same fit; the weights of their mixture are its own."""
        self._check_fitted()
        widths = self.blocks or [self._channels]
        for k in blocks:
            if checked_count(k, "LinearProbe: block", 0) >= len(widths):
                raise InputError(f"LinearProbe: block {k}, expected 0 to {len(widths) - 1}")
        other = LinearProbe(
            self.strength, self.max_iterations, self.max_samples, [widths[k] for k in blocks]
        )
        other._classes, other._channels = self._classes, sum(other.blocks)
        other._members = [self._members[k] for k in blocks]
        other._left_out = self._left_out.only(blocks)
        other._mix()
        return other

    def _probabilities(self, x: np.ndarray) -> np.ndarray:
        blocks = zip(self._members, self._split(x), strict=True)
        if len(self._members) == 1:
            return next(member.probabilities(block) for member, block in blocks)
        return np.exp(
            log_mixture([member.probabilities(block) for member, block in blocks], self.weights)
        )

    def _split(self, x: np.ndarray) -> list[np.ndarray]:
        if self.blocks is None:
            return [x]
        if sum(self.blocks) != x.shape[1]:
            raise InputError(
                f"LinearProbe: blocks of {self.blocks} channels for features of {x.shape[1]}"
            )
        return np.split(x, np.cumsum(self.blocks)[:-1], axis=1)

    @property
    def converged(self) -> bool:
        """Whether the regressions reached their tolerance."""
        self._check_fitted()
        return all(member.iterations < self.max_iterations for member in self._members)


class KNNProbe(_Probe):
    """Vote of the nearest training rows, weighted by inverse distance, on standardised features.

    Args:
        neighbours: that vote; all of them where there are fewer.
        max_samples: keep so many rows at most, drawn by the seed of :meth:`fit`; None for all.
    """

    def __init__(self, neighbours: int = 10, max_samples: int | None = 50_000):
        super().__init__(max_samples)
        self.neighbours = checked_count(neighbours, "KNNProbe: neighbours")

    def _learn(self, x: np.ndarray, y: np.ndarray, of_shape: np.ndarray, seed: int) -> None:
        scaler = StandardScaler().fit(x)
        model = KNeighborsClassifier(min(self.neighbours, len(x)), weights="distance")
        self._model = model.fit(scaler.transform(x), y)
        self._scaler = scaler

    def _probabilities(self, x: np.ndarray) -> np.ndarray:
        return self._model.predict_proba(self._scaler.transform(x))
