"""Two shapes in, a map out: for every vertex of one, a vertex of the other.

Descriptors give functional maps under two hypotheses, one that keeps orientation and one that reverses it: bodies
look like their mirror images to descriptors, but not to a map of outer surfaces. Each is refined by ZoomOut in both
directions, and judged at the end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import SHAPE_SCALES
from sparsefeat.heads.commuting_map import (
    common_functions,
    commuting_functional_map,
    orientation_agreement,
)
from sparsefeat.heads.functional_map import (
    map_from_points,
    points_from_map,
    spread_samples,
    zoomout,
)
from sparsefeat.match.map_confidence import map_confidence
from sparsefeat.match.shapes import DescribedShape, describe_shape, shape_extractor
from sparsefeat.mesh.laplacian import LaplaceBasis

EIGENPAIRS = 100
"""Of the refined map; fewer on shapes with few vertices."""

_SIZE = 30  # eigenpairs of the first map
_STEP = 8  # eigenpairs that ZoomOut adds at a time
_SAMPLES = 1000  # vertices that ZoomOut works on
_FUNCTIONS = 10  # principal components of the descriptors, of which operators are made


@dataclass(frozen=True, eq=False)
class MapHypothesis:
    """A refined map that was considered.

    Attributes:
        name: ``"direct"``, ``"mirrored"``, or ``"given"``.
        orientation: mean cosine, 1 where orientation is kept everywhere, -1 where it is reversed.
        distance: mean distance of the descriptors that are mapped to each other, 1 for unrelated ones.
        score: orientation minus distance; the highest is taken.
        forth, back: functional maps behind the maps from a to b and from b to a.
    """

    name: str
    orientation: float
    distance: float
    forth: Tensor
    back: Tensor

    @property
    def score(self) -> float:
        """What hypotheses are compared by."""
        return self.orientation - self.distance


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Which vertex is which.

    Attributes:
        vertices: (Na,) int64, rows of b for the vertices of a.
        confidence: (Na,) float64, probability that it is within 0.05 of the root of b's area of the right place,
            see :mod:`sparsefeat.match.map_confidence`.
        back_vertices, back_confidence: the same from b to a. Shape (Nb,).
        hypotheses: all that were compared, best first.
    """

    vertices: np.ndarray
    confidence: np.ndarray
    back_vertices: np.ndarray
    back_confidence: np.ndarray
    hypotheses: tuple[MapHypothesis, ...]

    def carry(self, values: np.ndarray) -> np.ndarray:
        """Labels, colours or anything else of the vertices of b, for the vertices of a. (Nb, ...) -> (Na, ...)."""
        return _carry(values, self.vertices, len(self.back_vertices), "b")

    def carry_back(self, values: np.ndarray) -> np.ndarray:
        """Those of the vertices of a, for the vertices of b. Shape: (Na, ...) -> (Nb, ...)."""
        return _carry(values, self.back_vertices, len(self.vertices), "a")


def correspond(
    a: Any,
    b: Any,
    extractor: FeatureExtractor | str | os.PathLike | None = None,
    *,
    a_normals: np.ndarray | None = None,
    b_normals: np.ndarray | None = None,
    scales: Sequence[float] = SHAPE_SCALES,
    initial: Sequence[np.ndarray] = (),
    device: str | None = None,
    cache: str | os.PathLike | None = None,
) -> Correspondence:
    """Find which vertex of one shape is which of another; nothing is trained on shapes of their kind.

    Args:
        a, b: files; (vertices (N, 3), faces (F, 3)); points (N, 3) of clouds that cover their shapes from all sides; or
            anything with ``vertices`` and ``faces``. Any unit and pose; whole shapes.
        extractor: of the learned features, or a checkpoint's name; None: the released creatures checkpoint.
        a_normals, b_normals: of clouds, to the outer side. None: fitted, and turned outwards by a guess.
        scales: factors on the voxel size, whose features stand side by side.
        initial: further first maps to consider, (Na,) rows of b each.
        device: where a network that is loaded here runs; None: the CPU.
        cache: folder to keep Laplace bases in; None: none.

    Raises:
        InputError: shapes, files or options that cannot be used.
    """
    network = shape_extractor(extractor, device)
    described = [
        describe_shape(shape, network, normals=normals, scales=scales, cache=cache, name=name)
        for shape, normals, name in ((a, a_normals, "a"), (b, b_normals, "b"))
    ]
    return correspond_shapes(*described, initial=initial)


def correspond_shapes(
    a: DescribedShape,
    b: DescribedShape,
    *,
    initial: Sequence[np.ndarray] = (),
    eigenpairs: int = EIGENPAIRS,
) -> Correspondence:
    """:func:`correspond` for shapes that are described already.

    Raises:
        InputError: features of different networks, or an initial map that is none.
    """
    if a.features.shape[1] != b.features.shape[1]:
        raise InputError(
            f"{a.name}, {b.name}: {a.features.shape[1]} and {b.features.shape[1]} channels, expected equal ones"
        )
    pair = _Pair(a, b, eigenpairs)
    found = [pair.refined(name, *first) for name, first in pair.first_maps(initial)]
    found.sort(key=lambda hypothesis: -hypothesis.score)
    vertices, back_vertices = pair.points(found[0])
    return Correspondence(
        vertices,
        pair.confidence(found[0], vertices, back_vertices),
        back_vertices,
        pair.turned().confidence(_turned(found[0]), back_vertices, vertices),
        tuple(found),
    )


class _Pair:
    """Two shapes between which maps are refined and judged."""

    def __init__(self, a: DescribedShape, b: DescribedShape, eigenpairs: int):
        self.a, self.b, self.eigenpairs = a, b, eigenpairs
        self.samples = [torch.from_numpy(spread_samples(s.vertices, _SAMPLES)) for s in (a, b)]
        most = [len(s.basis.eigenvalues) for s in (a, b)] + [len(rows) for rows in self.samples]
        self.size = min(eigenpairs, *most)
        self.start = min(_SIZE, self.size)

    def turned(self) -> _Pair:
        """From b to a."""
        return _Pair(self.b, self.a, self.eigenpairs)

    def first_maps(
        self, initial: Sequence[np.ndarray]
    ) -> list[tuple[str, tuple[Tensor, Tensor]]]:
        """Names of hypotheses, and functional maps of b's functions to a and of a's to b."""
        a, b = self.a, self.b
        functions = common_functions([a.features, b.features], _FUNCTIONS)
        of_a = a.features, a.basis, functions[0]
        of_b = b.features, b.basis, functions[1]
        found = []
        for name, sign in (("direct", 1), ("mirrored", -1)):
            forth, back = (
                commuting_functional_map(
                    there[0], there[1], here[0], here[1], there[2], here[2], self.start, sign=sign
                )
                for here, there in ((of_a, of_b), (of_b, of_a))
            )
            found.append((name, (forth, back)))
        for points in initial:
            rows = np.asarray(points)
            if rows.shape != (len(a.vertices),) or not np.issubdtype(rows.dtype, np.integer):
                raise InputError(
                    f"initial map: {rows.dtype} {rows.shape}, expected whole numbers ({len(a.vertices)},)"
                )
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(b.vertices):
                raise InputError(
                    f"initial map: rows {rows.min()} to {rows.max()}, expected 0 to {len(b.vertices) - 1}"
                )
            forth = map_from_points(
                rows, b.basis.truncate(self.start), a.basis.truncate(self.start)
            )
            found.append(("given", (forth, forth.T)))
        return found

    def refined(self, name: str, forth: Tensor, back: Tensor) -> MapHypothesis:
        """ZoomOut in both directions, judged at the samples of a."""
        a, b = self.a.basis, self.b.basis
        samples_a, samples_b = self.samples
        forth, points = _zoomout(forth, b, a, self.size, samples_b, samples_a)
        back, _ = _zoomout(back, a, b, self.size, samples_a, samples_b)
        agreement = orientation_agreement(forth, points, b, a, samples_a)
        apart = (self.a.features[samples_a] - self.b.features[points]).square().mean(1)
        # Unrelated rows of variance 1 a channel differ by 2 in the mean square.
        distance = float((apart / 2).sqrt().mean())
        return MapHypothesis(name, float(agreement.mean()), distance, forth, back)

    def points(self, hypothesis: MapHypothesis) -> tuple[np.ndarray, np.ndarray]:
        """The point-wise maps, from a to b and from b to a."""
        a, b = self.a.basis, self.b.basis
        return (
            points_from_map(hypothesis.forth, b, a).numpy(),
            points_from_map(hypothesis.back, a, b).numpy(),
        )

    def confidence(
        self, hypothesis: MapHypothesis, vertices: np.ndarray, back: np.ndarray
    ) -> np.ndarray:
        """Of the map from a to b. Shape: (Na,)."""
        return map_confidence(self.predictors(hypothesis, vertices, back))

    def predictors(
        self, hypothesis: MapHypothesis, vertices: np.ndarray, back: np.ndarray
    ) -> np.ndarray:
        """What confidence is made of, see :mod:`sparsefeat.match.map_confidence`. Shape: (Na, 4)."""
        a, b = self.a, self.b
        cycle = np.linalg.norm(a.unit[back[vertices]] - a.unit, axis=1)
        half = max(2, self.size // 2)
        coarse = points_from_map(hypothesis.forth[:half, :half], b.basis, a.basis).numpy()
        levels = np.linalg.norm(b.unit[coarse] - b.unit[vertices], axis=1)
        agreement = orientation_agreement(
            hypothesis.forth, torch.from_numpy(vertices), b.basis, a.basis
        )
        mean = agreement.mean().expand_as(agreement)
        return np.stack([cycle, levels, 1 - agreement.numpy(), 1 - mean.numpy()], 1)


def _turned(hypothesis: MapHypothesis) -> MapHypothesis:
    return replace(hypothesis, forth=hypothesis.back, back=hypothesis.forth)


def _zoomout(
    matrix: Tensor,
    basis_a: LaplaceBasis,
    basis_b: LaplaceBasis,
    size: int,
    samples_a: Tensor,
    samples_b: Tensor,
) -> tuple[Tensor, Tensor]:
    """ZoomOut on samples: the functional map, and for each sample of b a vertex of a."""
    part = replace(
        basis_b, eigenvectors=basis_b.eigenvectors[samples_b], mass=basis_b.mass[samples_b]
    )
    rows = samples_a, torch.arange(len(samples_b))
    return zoomout(matrix, basis_a, part, size, _STEP, rows)


def _carry(values: np.ndarray, rows: np.ndarray, count: int, side: str) -> np.ndarray:
    values = np.asarray(values)
    if not values.ndim or len(values) != count:
        raise InputError(f"values {values.shape}, expected one for each of {count} vertices of {side}")
    carried: np.ndarray = values[rows]
    return carried
