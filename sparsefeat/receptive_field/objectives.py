"""What a receptive field is tuned for: functions of the features of some shapes, differentiable by them.

Features come as one tensor (views, n, C) per shape, n its key points. Labels that are known for all vertices of a
shape are looked up at its key points.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.checks import checked_positive, checked_seed
from sparsefeat.errors import InputError
from sparsefeat.losses import CYCLE_FORMS, point_info_nce
from sparsefeat.receptive_field.shapes import SurfaceShape


class Objective(abc.ABC):
    """What tuning minimises: one number, computed from the features of several shapes.

    Attributes:
        views: number of views of each shape that features are computed for, see :meth:`SurfaceShape.view`.
    """

    views = 1

    def keypoints(self, shape: int) -> np.ndarray | None:
        """Rows of the vertices of shape ``shape`` where features are wanted; None: any."""
        return None

    def prepare(self, shapes: Sequence[SurfaceShape]) -> None:
        """Called once, with all shapes, before the first value is asked for.

        Raises:
            InputError: what the objective was given does not fit the shapes.
        """
        self.shapes = list(shapes)

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Numbers of shapes that make a value on their own, ``count`` of them or few more, ascending."""
        return sorted(rng.permutation(len(self.shapes))[:count].tolist())

    @abc.abstractmethod
    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        """The value for the shapes of these numbers.

        Args:
            features: (views, n, C) of each of them.
            shapes: their numbers.
        """


class ProbeObjective(Objective):
    """Error of a linear probe on shapes that it was not fitted to: labels known, no head to be trained.

    Regularised least squares on one-hot labels has a closed form, so that the error on a held-out shape of the
    probe fitted to all others is a function of the features alone. Its gradient is that of the *best* probe at
    each scale: a probe that is trained along the way would hold the scale where it was trained, and an error
    on the shapes it was fitted to is smallest where there is most to overfit.

    Args:
        labels: per shape (N,) labels of its vertices, -1 where unknown; or one label per shape, for which the
            probe sees the mean feature of the shape.
        folds: groups of shapes, such as the person on each, that are held out together; None: each shape alone.
        ridge: weight of the regulariser against the mean variance of the features.

    Raises:
        InputError: fewer than two folds.
    """

    def __init__(
        self,
        labels: Sequence[np.ndarray | int],
        folds: Sequence[int] | None = None,
        ridge: float = 0.01,
    ):
        self.labels = [np.asarray(label) for label in labels]
        for number, label in enumerate(self.labels):
            if label.dtype.kind not in "iub":
                raise InputError(
                    f"labels of shape {number} are {label.dtype}, expected integers, -1 where unknown"
                )
        self.labels = [label.astype(np.int64) for label in self.labels]
        self.folds = list(range(len(labels))) if folds is None else list(folds)
        if len(self.folds) != len(self.labels):
            raise InputError(
                f"{len(self.folds)} folds for {len(self.labels)} shapes, expected one each"
            )
        if len(set(self.folds)) < 2:
            raise InputError(
                "a probe needs shapes of two folds, one to fit and one to hold out; with a single shape use "
                "RoundTripObjective or DistributionObjective"
            )
        self.ridge = ridge
        self.classes = 1 + max(int(label.max(initial=-1)) for label in self.labels)

    def prepare(self, shapes: Sequence[SurfaceShape]) -> None:
        super().prepare(shapes)
        _check_count("labels", len(self.labels), len(shapes))
        for number, (label, shape) in enumerate(zip(self.labels, shapes, strict=True)):
            if label.ndim and label.shape != (len(shape.vertices),):
                raise InputError(
                    f"labels of shape {number} have the shape {label.shape}, expected one for each of its "
                    f"{len(shape.vertices)} vertices, or one number"
                )
        self._labelled = [bool((self._own(k) >= 0).any()) for k in range(len(shapes))]
        labelled = {fold for fold, has in zip(self.folds, self._labelled, strict=True) if has}
        if len(labelled) < 2:
            raise InputError(
                f"{sum(self._labelled)} of {len(shapes)} shapes have labels at their key points, of "
                f"{len(labelled)} folds; a probe needs two folds, one to fit and one to hold out"
            )

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        order = [k for k in rng.permutation(len(self.shapes)).tolist() if self._labelled[k]]
        chosen = order[: max(count, 2)]
        if len({self.folds[k] for k in chosen}) == 1:
            # One fold can only be fitted to; there are two or more.
            chosen[-1] = next(k for k in order if self.folds[k] != self.folds[chosen[0]])
        return sorted(chosen)

    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        # All that least squares needs of a fold: with x = [features, 1], x^T x, x^T y and the number of rows. The
        # squared error of a weight W is then tr(W^T x^T x W) - 2 tr(W^T x^T y) + n, since rows of y have norm 1.
        products: dict[int, tuple[Tensor, Tensor, int]] = {}
        for feature, shape in zip(features, shapes, strict=True):
            x, y = self._rows(feature, shape)
            mine = (x.t() @ x, x.t() @ y, len(x))
            others = products.get(self.folds[shape])
            products[self.folds[shape]] = (
                mine if others is None else tuple(map(sum, zip(mine, others, strict=True)))
            )
        gram, moment, count = (sum(part) for part in zip(*products.values(), strict=True))
        # Taken about the mean, so that the penalty does not depend on where the origin of features is.
        shift = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        shift = torch.cat([shift[:-1], torch.cat([-gram[-1:, :-1] / count, shift[-1:, -1:]], 1)])
        variance = (shift.t() @ gram @ shift).diagonal()[:-1].mean()
        # Features that do not vary leave rounding alone: the penalty stays positive, and the probe is its intercept.
        square = gram.detach().diagonal()[:-1].mean()
        least = 1e4 * torch.finfo(gram.dtype).eps * torch.where(square > 0, square, 1)
        penalty = self.ridge * variance.clamp(min=least) / count * torch.eye(len(gram)).to(gram)
        error = gram.new_zeros(())
        for own_gram, own_moment, own in products.values():
            rest = count - own
            system = shift.t() @ (gram - own_gram) @ shift / rest + penalty
            weight = shift @ torch.linalg.solve(system, shift.t() @ (moment - own_moment) / rest)
            error = error + (weight * (own_gram @ weight - 2 * own_moment)).sum() + own
        return error / count

    def _own(self, shape: int) -> np.ndarray:
        """Labels of a shape where its features are: at its key points, or of the whole. Shape: (n,) or (1,)."""
        labels = self.labels[shape]
        return labels[None] if labels.ndim == 0 else labels[self.shapes[shape].keypoints]

    def _rows(self, feature: Tensor, shape: int) -> tuple[Tensor, Tensor]:
        """Labelled rows [features, 1] and one-hot labels of a shape."""
        label = np.tile(self._own(shape), len(feature))
        whole = self.labels[shape].ndim == 0
        feature = feature.mean(1) if whole else feature.flatten(0, 1)
        label = torch.from_numpy(label).to(feature.device)
        if bool((label < 0).any()):
            feature, label = feature[label >= 0], label[label >= 0]
        return F.pad(feature, (0, 1), value=1.0), F.one_hot(label, self.classes).to(feature.dtype)


class CorrespondenceObjective(Objective):
    """PointInfoNCE between shapes at known corresponding points.

    Args:
        landmarks: per shape (L,) vertices; landmark l is the same point on all of them.
        points: how many landmarks take part.
        temperature: of the softmax.
        seed: draws them.

    Raises:
        InputError: landmarks of fewer than two shapes, or not as many on each; fewer than 2 points; a temperature that is
            not positive.
    """

    def __init__(
        self,
        landmarks: Sequence[np.ndarray],
        points: int = 512,
        temperature: float = 0.07,
        seed: int = 0,
    ):
        counts = {len(rows) for rows in landmarks}
        if len(counts) != 1 or len(landmarks) < 2:
            raise InputError(
                f"expected as many landmarks on each of two or more shapes, got {sorted(counts)}"
            )
        checked_positive(temperature, "temperature")
        if points < 2:
            raise InputError(f"expected 2 points or more, got {points}")
        chosen = np.random.default_rng(checked_seed(seed)).permutation(counts.pop())[:points]
        self.rows = [np.asarray(rows, dtype=np.int64)[chosen] for rows in landmarks]
        self.temperature = temperature

    def keypoints(self, shape: int) -> np.ndarray | None:
        return self.rows[shape] if shape < len(self.rows) else None

    def prepare(self, shapes: Sequence[SurfaceShape]) -> None:
        super().prepare(shapes)
        _check_count("landmarks", len(self.rows), len(shapes))
        for number, (rows, shape) in enumerate(zip(self.rows, shapes, strict=True)):
            wrong = rows[(rows < 0) | (rows >= len(shape.vertices))]
            if len(wrong):
                raise InputError(
                    f"landmarks of shape {number}: {wrong[0]}, expected vertices from 0 to {len(shape.vertices) - 1}"
                )

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        return super().draw(max(count, 2), rng)  # a shape is compared with another

    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        # A ring of pairs: each shape with the next.
        pairs = zip(features, [*features[1:], features[0]], strict=True)
        losses = [point_info_nce(a[0], b[0], self.temperature) for a, b in pairs]
        return torch.stack(losses).mean()


class CycleObjective(Objective):
    """Cycle consistency between two re-sampled, rotated copies of each shape; no labels.

    Args:
        form: one of :data:`sparsefeat.losses.CYCLE_FORMS`.
        temperature: of the softmax.
        radius: two points closer than this are one place, as a share of the shape's extent.

    Raises:
        InputError: an unknown form, or a temperature or radius that is not positive.
    """

    views = 2

    def __init__(self, form: str = "anchored", temperature: float = 0.07, radius: float = 0.02):
        if form not in CYCLE_FORMS:
            raise InputError(f"form {form!r}, expected one of {', '.join(CYCLE_FORMS)}")
        checked_positive(temperature, "temperature")
        checked_positive(radius, "radius")
        self.form, self.temperature, self.radius = form, temperature, radius

    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        losses = []
        for feature, number in zip(features, shapes, strict=True):
            place = _places(self.shapes[number]).to(feature)
            loss = CYCLE_FORMS[self.form](
                feature[0], feature[1], place, place, self.radius, self.temperature
            )
            losses.append(loss)
        return torch.stack(losses).mean()


class RoundTripObjective(Objective):
    """Whether a walk to another shape and back ends where it began; no labels.

    A walker leaves point i of a shape for a point of the next shape, chosen by a softmax over the similarity of
    features, and returns by that of another copy of its own shape (turned, sampled anew). The value is minus the mean
    logarithm of the probability that it comes back to within ``radius`` of i. Features that see too little get lost
    between look-alikes; features that see too much, or that hold on to what is peculiar to one shape, find
    no way back. :class:`CycleObjective` never leaves a shape, and so says nothing of how shapes differ.

    With features that are trained, any consistent confusion is an optimum (Jabri et al., NeurIPS 2020, discuss
    it); one or two numbers, the voxel size and dilation, cannot arrange for one.

    Args:
        groups: walks stay among shapes of one group, such as a class; None: all are one. A shape that is alone in its
            group is walked to by its own other copy.
        radius: how close counts as back, as a share of the shape's extent.
        temperature: of the softmax.
        points: at most so many key points of each shape take part.
    """

    views = 2

    def __init__(
        self,
        groups: Sequence[int] | None = None,
        radius: float = 0.05,
        temperature: float = 0.07,
        points: int = 500,
    ):
        if not radius > 0 or not temperature > 0 or points < 2:
            raise InputError(
                f"expected a positive radius and temperature and 2 points or more, got {radius}, {temperature}, {points}"
            )
        self.groups = groups
        self.radius, self.temperature, self.points = radius, temperature, points

    def prepare(self, shapes: Sequence[SurfaceShape]) -> None:
        super().prepare(shapes)
        self._group = [0] * len(shapes) if self.groups is None else list(self.groups)
        _check_count("groups", len(self._group), len(shapes))
        self._near: dict[int, Tensor] = {}

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        order = rng.permutation(len(self.shapes)).tolist()
        chosen: list[int] = []
        for number in order:
            if len(chosen) < count and number not in chosen:
                # With someone to walk to, if there is anyone.
                others = [
                    k
                    for k in order
                    if self._group[k] == self._group[number] and k not in (number, *chosen)
                ]
                chosen += [number, *others[:1]]
        return sorted(chosen)

    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        members: dict[int, list[int]] = {}
        for place, number in enumerate(shapes):
            members.setdefault(self._group[number], []).append(place)
        losses = []
        for places in members.values():
            for here, there in zip(places, [*places[1:], places[0]], strict=True):
                first, second = self._some(features[here])
                near = self._neighbours(shapes[here], first)
                if there == here:
                    losses.append(self._walk(first, second, first, near))
                else:
                    losses.append(self._walk(first, self._some(features[there])[0], second, near))
        return torch.stack(losses).mean()

    def _walk(self, start: Tensor, other: Tensor, end: Tensor, near: Tensor) -> Tensor:
        """Shape: (n, C), (m, C), (n, C), sparse (n, n) -> ()."""
        out = (start @ other.t() / self.temperature).softmax(1)
        back = (other @ end.t() / self.temperature).softmax(1)
        closed = (out * torch.sparse.mm(near, back.t())).sum(1)
        return -closed.clamp(min=torch.finfo(closed.dtype).tiny).log().mean()

    def _some(self, rows: Tensor) -> Tensor:
        """At most ``points`` of the key points, evenly: they may be in the order of the surface. Shape: (..., n, C)."""
        count = rows.shape[-2]
        return (
            rows
            if count <= self.points
            else rows[..., torch.linspace(0, count - 1, self.points).long(), :]
        )

    def _neighbours(self, number: int, like: Tensor) -> Tensor:
        """Which key points of a shape are one place. Shape: sparse (n, n) of ones."""
        if number not in self._near:
            place = self._some(_places(self.shapes[number])).to(like)
            self._near[number] = (torch.cdist(place, place) < self.radius).to(like).to_sparse()
        return self._near[number]


class DistributionObjective(Objective):
    """Squared maximum mean discrepancy between the target's features and those of the source; no labels.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012, eq. 3 (unbiased), a sum of Gaussian kernels with
    bandwidths around the median distance of source features.

    Args:
        source: features of what the network was trained on, at its own voxel size. Shape: (M, C)
        points: at most so many of either take part.
        seed: draws them.

    Raises:
        InputError: fewer than two rows of features, or most of them equal.
    """

    BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __init__(self, source: np.ndarray | Tensor, points: int = 1024, seed: int = 0):
        source = torch.as_tensor(source).double()
        if source.ndim != 2 or len(source) < 2:
            raise InputError(
                f"source features have shape {tuple(source.shape)}, expected (M, C), M at least 2"
            )
        self.points, self.seed = points, checked_seed(seed)
        self.source = source[self._rows(len(source))]
        median = float(torch.pdist(self.source).square().median())
        if not 0 < median < math.inf:
            raise InputError(
                f"source features: the median distance of two of the {len(source)} rows is {math.sqrt(median):g}, expected "
                "rows that differ, without NaN"
            )
        self.scales = [median * factor for factor in self.BANDWIDTHS]

    def __call__(self, features: Sequence[Tensor], shapes: Sequence[int]) -> Tensor:
        target = torch.cat([feature.flatten(0, 1) for feature in features])
        if target.shape[1] != self.source.shape[1]:
            raise InputError(
                f"source features have {self.source.shape[1]} channels, those of the shapes {target.shape[1]}"
            )
        target = target[self._rows(len(target)).to(target.device)]
        source = self.source.to(target)
        return (
            self._mean(source, source, True)
            + self._mean(target, target, True)
            - 2 * self._mean(source, target, False)
        )

    def _rows(self, count: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(self.seed).permutation(count)[: self.points])

    def _mean(self, a: Tensor, b: Tensor, same: bool) -> Tensor:
        # Not cdist: its gradient at a distance of zero, which a point has to itself, is not finite.
        squared = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.t()).clamp(
            min=0
        )
        kernel = sum(torch.exp(-squared / scale) for scale in self.scales) / len(self.scales)
        if same:
            return (kernel.sum() - kernel.diagonal().sum()) / (len(a) * (len(a) - 1))
        return kernel.mean()


def _places(shape: SurfaceShape) -> Tensor:
    """Key points about their mean, over the extent of the shape. Shape: (n, 3) float64."""
    # Far from the origin, as in map coordinates, distances computed by products of matrices are wrong.
    points = shape.vertices[shape.keypoints]
    return torch.from_numpy((points - points.mean(0)) / shape.extent)


def _check_count(what: str, given: int, shapes: int) -> None:
    if given != shapes:
        raise InputError(f"{given} {what} for {shapes} shapes, expected one each")
