"""Correspondence: maps between shapes from their features, and how far off they are along the surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sparsefeat.data.shapes import ShapeDataset
from sparsefeat.errors import InputError
from sparsefeat.heads import LandmarkMetric, functional_map, points_from_map, zoomout
from sparsefeat.match.nearest import nearest_neighbours
from sparsefeat.mesh.geodesic import correspondence_error, geodesic_distances
from sparsefeat.transfer.config import CorrespondenceConfig
from sparsefeat.transfer.features import FeatureSource
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, check_landmarks, drawn

MAPS = ("nearest", "functional")


@dataclass
class MapScore:
    """Errors of one kind of map.

    Attributes:
        method: of the features.
        map: ``"nearest"`` in feature space, or ``"functional"`` (and refined, as configured).
        rotated: whether every target was turned at random.
        error: mean geodesic error, in hundredths of the square root of the target's area.
        errors: of every point and pair.
        first: the map of the first pair, for the picture.
    """

    method: str
    map: str
    rotated: bool
    error: float
    errors: np.ndarray = field(repr=False)
    first: np.ndarray = field(repr=False)


def choose_pairs(
    dataset: ShapeDataset, split: str, count: int | None, seed: int
) -> list[tuple[int, int]]:
    """Pairs of test shapes: those that the data set lists, else all ordered ones whose correspondence is known.

    Args:
        dataset: the shapes.
        split: whose shapes.
        count: draw so many; None: all.
        seed: of the draw.

    Raises:
        InputError: there are none.
    """
    rows = set(dataset.rows(split))
    if dataset.maps:
        pairs = [pair for pair in dataset.maps if rows.issuperset(pair)]
    elif dataset.pairs is not None:
        pairs = [pair for pair in dataset.pairs if rows.issuperset(pair)]
    else:
        templates = {row: dataset.shapes[row].template for row in rows}
        pairs = [
            (a, b)
            for a in sorted(rows)
            for b in sorted(rows)
            if a != b and templates[a] == templates[b]
        ]
    if not pairs:
        raise InputError(
            f"data set {dataset.name}: split {split} has no pair with a known correspondence"
        )
    return drawn(pairs, count, seed)


def landmark_metric(features: FeatureSource, shapes: Sequence[LoadedShape]) -> LandmarkMetric:
    """A linear metric on features, learned from the landmarks of training shapes.

    Raises:
        InputError: a shape has no landmarks, or two have those of different templates.
    """
    check_landmarks(shapes, "correspondence.metric")
    return LandmarkMetric().fit([features(shape)[shape.data.correspondence] for shape in shapes])


class MapErrors:
    """Errors of maps to shapes; distances along a shape from the same true points are computed once."""

    def __init__(self) -> None:
        self._distances: dict[tuple[str, bytes], np.ndarray] = {}

    def __call__(self, target: LoadedShape, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
        """See :func:`sparsefeat.mesh.geodesic.correspondence_error`. Shape: rows (L,), (L,) -> (L,)."""
        vertices, faces = target.vertices, target.faces
        key = (target.name, true.tobytes())
        if key not in self._distances:
            distances = geodesic_distances(vertices, faces, true)
            self._distances[key] = distances.astype(np.float32)
        return correspondence_error(vertices, faces, predicted, true, self._distances[key])


class MapScorer:
    """Scores maps from sources to targets.

    Args:
        dataset: where the true correspondences are.
        store: of its shapes.
        pairs: (source, target) rows.
        config: how maps are made.

    Raises:
        InputError: the correspondence of the first pair is not known.
    """

    def __init__(
        self,
        dataset: ShapeDataset,
        store: ShapeStore,
        pairs: Sequence[tuple[int, int]],
        config: CorrespondenceConfig,
    ):
        self.dataset, self.store, self.pairs, self.config = dataset, store, list(pairs), config
        self._error = MapErrors()
        self._landmarks(*self.pairs[0])

    def __call__(
        self,
        features: FeatureSource,
        rotated: bool,
        kinds: Sequence[str] = MAPS,
        metric: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> list[MapScore]:
        """Errors of these features' maps of these kinds, in this order; of what a metric makes of them, if given."""
        metric = metric or (lambda values: values)
        errors: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        first: dict[str, np.ndarray] = {}
        for source, target in self.pairs:
            a, b = self.store(self.dataset.shapes[source]), self.store(self.dataset.shapes[target])
            here, there = self._landmarks(source, target)
            values = metric(features(a)), metric(features(b, rotated))
            for kind in kinds:
                mapped = self._map(kind, *values, a, b)
                first.setdefault(kind, mapped)
                errors[kind].append(self._error(b, mapped[here], there))
        scores = []
        for kind in kinds:
            every = np.concatenate(errors[kind])
            scores.append(
                MapScore(features.method, kind, rotated, float(every.mean()), every, first[kind])
            )
        return scores

    def _map(
        self,
        kind: str,
        features_a: np.ndarray,
        features_b: np.ndarray,
        a: LoadedShape,
        b: LoadedShape,
    ) -> np.ndarray:
        """For every vertex of a, a vertex of b."""
        if kind == "nearest":
            return nearest_neighbours(features_a, features_b)
        size, refined = self.config.eigenpairs, self.config.zoomout
        basis_a, basis_b = (shape.basis(max(size, refined)) for shape in (a, b))
        # The functional map goes from b to a, so that its point-wise map leads from a to b.
        matrix = functional_map(
            _as_functions(features_b), basis_b, _as_functions(features_a), basis_a, size
        )
        if refined:
            points = zoomout(matrix, basis_b, basis_a, refined)[1]
        else:
            points = points_from_map(matrix, basis_b, basis_a)
        return points.numpy()

    def _landmarks(self, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        here, there = self.dataset.corresponding(source, target)
        # The same landmarks in every pair, so that distances on a target serve all maps to it.
        chosen = drawn(range(len(here)), self.config.points, 0)
        return here[chosen], there[chosen]


def _as_functions(features: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(np.ascontiguousarray(features)).double()
    return (values - values.mean(0)) / values.std(0).clamp(min=1e-12)
