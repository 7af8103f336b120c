"""Two shapes in, a map out: for every vertex of one, a vertex of the other.

Descriptors give functional maps under two hypotheses, one that keeps orientation and one that reverses it: bodies
look like their mirror images to descriptors, but not to a map of outer surfaces. Each is refined by ZoomOut in both
directions, and judged at the end. :mod:`sparsefeat.match.consistent` gives further first maps, from distances along the
surfaces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import as_shape
from sparsefeat.extract.surfaces import SHAPE_SCALES
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
from sparsefeat.match.consistent import ConsistentMaps
from sparsefeat.match.map_confidence import map_confidence
from sparsefeat.match.shapes import (
    DescribedShape,
    describe_shape,
    shape_area,
    shape_extractor,
)
from sparsefeat.mesh.laplacian import LaplaceBasis, import_robust

EIGENPAIRS = 100
"""Of the refined map; fewer on shapes with few vertices."""

# Eigenpairs of first maps and weights of their operators. No one of them was best on all pairs of synthetic people
# whose proportions differ much; the refined map that is judged best is taken.
_STARTS = ((30, 0.25), (30, 2.0), (20, 0.25), (20, 2.0))
# Maps by distances that are refined, and eigenpairs of the whole that they begin with, for whole shapes and for parts.
# Of whole ones 15, 20, 30 and 60 were tried on 29 pairs of FAUST's first 80 shapes; 15 had the smallest errors.
_CONSISTENT = {False: (2, 15), True: (8, 60)}
# Weight of the descriptors' distance in the score. A body turned back to front keeps distances and orientation, and its
# descriptors differ by 0.04 to 0.07 more. From 3 to 8 the choices on those 29 pairs hardly change.
_DISTANCE = 5.0
# How far a part's map may go from where its samples were placed, in roots of the area of the whole.
_REACH = 0.2
_RIDGE = 0.02  # of the mean square of an eigenfunction
_STEP = 8  # eigenpairs that ZoomOut adds at a time
_SAMPLES = 1000  # vertices that ZoomOut works on
_FUNCTIONS = 10  # principal components of the descriptors, of which operators are made


@dataclass(frozen=True, eq=False)
class MapHypothesis:
    """A refined map that was considered.

    Attributes:
        name: ``"direct"``, ``"mirrored"``, ``"consistent"``, or ``"given"``.
        orientation: mean cosine, 1 where orientation is kept everywhere, -1 where it is reversed.
        distance: mean distance of the descriptors that are mapped to each other, 1 for unrelated ones.
        cycle: squared distance of the functional map there and back from the identity, an eigenpair on average.
        score: orientation minus five times the distance minus cycle, or of a part
            :meth:`sparsefeat.match.consistent.ConsistentMaps.score`; the highest is taken.
        forth, back: functional maps behind the maps from a to b and from b to a.
        near: of a part, rows of samples of the whole that its samples are mapped to, near which the map stays; None: it
            may go anywhere.
    """

    name: str
    orientation: float
    distance: float
    cycle: float
    score: float
    forth: Tensor
    back: Tensor
    near: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Which vertex is which.

    Attributes:
        vertices: (Na,) int64, rows of b for the vertices of a.
        confidence: (Na,) float64, probability that it is within 0.05 of the root of b's area of the right place,
            see :mod:`sparsefeat.match.map_confidence`. For a part in several pieces it is lower where another place of a
            piece would do as well, and 0 in pieces of fewer than 20 vertices or beyond the ten largest.
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
    scales: Sequence[float] | None = None,
    partial: bool = False,
    initial: Sequence[np.ndarray] = (),
    device: str | None = None,
    cache: str | os.PathLike | None = None,
) -> Correspondence:
    """Find which vertex of one shape is which of another; nothing is trained on shapes of their kind.

    Args:
        a, b: files; (vertices (N, 3), faces (F, 3)); points (N, 3) of clouds that cover their shapes from all sides; or
            anything with ``vertices`` and ``faces``. Any pose; any unit, if both are whole.
        extractor: of the learned features, or a checkpoint's name; None:
            ``"sparsefeat/creatures-oriented-v5"``.
        a_normals, b_normals: of clouds, to the outer side. None: fitted, and turned outwards by a guess.
        scales: factors on the voxel size, whose features stand side by side. None: those of
            :func:`sparsefeat.describe`, of parts without the coarsest, which a cut changes most.
        partial: the shape with the smaller area is a part of the other, in the same unit. Vertices of the whole that
            the part lacks are mapped too, with a low confidence.
        initial: further first maps to consider, (Na,) rows of b each.
        device: where a network that is loaded here runs; None: the CPU.
        cache: folder to keep Laplace bases in; None: none.

    Raises:
        InputError: shapes, files or options that cannot be used.
    """
    if len(initial):  # said before the shapes are described, which takes a minute
        initial = _checked_initial(initial, *(len(as_shape(shape)[0]) for shape in (a, b)))
    network = shape_extractor(extractor, device)
    return correspond_shapes(
        *describe_pair(
            a, b, network, a_normals, b_normals, scales=scales, partial=partial, cache=cache
        ),
        partial=partial,
        initial=initial,
    )


def describe_pair(
    a: Any,
    b: Any,
    extractor: FeatureExtractor,
    a_normals: np.ndarray | None = None,
    b_normals: np.ndarray | None = None,
    *,
    partial: bool = False,
    scales: Sequence[float] | None = None,
    cache: str | os.PathLike | None = None,
) -> tuple[DescribedShape, DescribedShape]:
    """Both shapes described for :func:`correspond_shapes`.

    Raises:
        InputError: see :func:`sparsefeat.match.shapes.describe_shape`.
    """
    if cache is None:  # it may have both bases
        import_robust("a map between shapes")
    if scales is None:
        scales = SHAPE_SCALES[:-1] if partial else SHAPE_SCALES
    whole = max(shape_area(*as_shape(shape)) for shape in (a, b)) if partial else None
    one, other = (
        describe_shape(
            shape,
            extractor,
            normals=normals,
            scales=scales,
            whole_area=whole,
            cache=cache,
            name=name,
        )
        for shape, normals, name in ((a, a_normals, "a"), (b, b_normals, "b"))
    )
    return one, other


def correspond_shapes(
    a: DescribedShape,
    b: DescribedShape,
    *,
    partial: bool = False,
    initial: Sequence[np.ndarray] = (),
    eigenpairs: int = EIGENPAIRS,
) -> Correspondence:
    """:func:`correspond` for shapes that :func:`describe_pair` described.

    Raises:
        InputError: features of different networks, or an initial map that is none.
    """
    channels = [[block.shape[1] for block in shape.blocks] for shape in (a, b)]
    if channels[0] != channels[1]:
        raise InputError(
            f"{a.name}, {b.name}: {channels[0]} and {channels[1]} channels, expected equal ones"
        )
    if partial and _own_area(a) > _own_area(b):
        if len(initial):
            raise InputError("initial: expected maps of the part, which a is to be")
        other = correspond_shapes(b, a, partial=True, eigenpairs=eigenpairs)
        return Correspondence(
            other.back_vertices, other.back_confidence, other.vertices, other.confidence,
            tuple(_turned(hypothesis) for hypothesis in other.hypotheses),
        )  # fmt: skip
    initial = _checked_initial(initial, len(a.vertices), len(b.vertices))
    pair = _Pair(a, b, eigenpairs, partial)
    ranked = [pair.refined(*first) for first in pair.first_maps(initial)]
    ranked.sort(key=lambda hypothesis: -hypothesis.score)
    ranked[0] = pair.polished(ranked[0])
    vertices, back_vertices = pair.points(ranked[0])
    confidence = map_confidence(map_predictors(a, b, ranked[0], vertices, back_vertices))
    turned = map_predictors(b, a, _turned(ranked[0]), back_vertices, vertices)
    back_confidence = map_confidence(turned)
    # Clouds have no rims, and distances between their points say less: doubts were fitted on meshes.
    if partial and a.faces is not None and b.faces is not None:
        certainty = pair.consistent.certainty(torch.from_numpy(vertices))
        confidence *= certainty
        back_confidence *= certainty[back_vertices]
    return Correspondence(vertices, confidence, back_vertices, back_confidence, tuple(ranked))


class _Pair:
    """Two shapes between which maps are refined and judged; if ``partial``, a is a part of b."""

    def __init__(self, a: DescribedShape, b: DescribedShape, eigenpairs: int, partial: bool):
        self.a, self.b, self.eigenpairs, self.partial = a, b, eigenpairs, partial
        self.features = a.features(b if partial else None), b.features()
        self.samples = [torch.from_numpy(spread_samples(s.vertices, _SAMPLES)) for s in (a, b)]
        most = [
            min(len(s.basis.eigenvalues), len(rows))
            for s, rows in zip((a, b), self.samples, strict=True)
        ]
        # By Weyl's law a part has as many eigenvalues below a bound as its share of the area.
        share = min(1.0, _own_area(a) / _own_area(b)) if partial else 1.0
        size_b = min(eigenpairs, most[1], int(most[0] / share))
        self.size = max(2, round(share * size_b)), size_b
        self.share = share
        self.consistent = ConsistentMaps(a, b, self.features)

    def first_maps(self, initial: Sequence[np.ndarray]) -> list[tuple[Any, ...]]:
        """What :meth:`refined` takes: names of hypotheses, and functional maps of b's functions to a and of a's to b."""
        a, b = self.a, self.b
        of_a, of_b = self.features
        made_a, made_b = common_functions(self.features, _FUNCTIONS)
        found: list[tuple[Any, ...]] = []
        # Cuts change what first maps of parts are made of; consistent ones are mostly better.
        starts = _STARTS[:1] if self.partial else _STARTS
        signed = [("direct", 1, *start) for start in starts]
        for name, sign, most, weight in [*signed, ("mirrored", -1, *_STARTS[0])]:
            options: dict[str, Any] = {
                "sign": sign, "multiplication": weight, "orientation": weight,
            }  # fmt: skip
            size = self.first_size(most)
            forth = commuting_functional_map(
                of_b, b.basis, of_a, a.basis, made_b, made_a, size, **options
            )
            back = forth.T  # of a part: to restrict functions of the whole is to extend those of the part, turned
            if not self.partial:
                back = commuting_functional_map(
                    of_a, a.basis, of_b, b.basis, made_a, made_b, size[::-1], **options
                )
            found.append((name, forth, back))
        most, pairs = _CONSISTENT[self.partial]
        size = self.first_size(pairs)
        of_part = a.basis.eigenvectors[self.consistent.here][:, : size[0]]
        # A piece without samples would leave its eigenfunctions open.
        ridge = _RIDGE * len(of_part) * torch.eye(size[0], dtype=of_part.dtype)
        for images, rows in self.consistent.maps(most):
            of_whole = b.basis.eigenvectors[rows][:, : size[1]]
            forth = torch.linalg.solve(of_part.T @ of_part + ridge, of_part.T @ of_whole)
            found.append(("consistent", forth, forth.T, images if self.partial else None))
        for rows in initial:
            size = self.first_size(_STARTS[0][0])
            forth = map_from_points(rows, b.basis.truncate(size[1]), a.basis.truncate(size[0]))
            found.append(("given", forth, forth.T))
        return found

    def first_size(self, most: int) -> tuple[int, int]:
        """Eigenpairs of a first map: of a and of b."""
        count = min(most, self.size[1])
        return max(2, round(self.share * count)), count

    def refined(
        self, name: str, forth: Tensor, back: Tensor, near: Tensor | None = None
    ) -> MapHypothesis:
        """ZoomOut in both directions, judged at the samples of a."""
        a, b = self.a.basis, self.b.basis
        samples_a, samples_b = self.samples
        allowed = self.allowed(near, samples_a, samples_b)
        forth = _zoomout(forth, b, a, self.size, samples_b, samples_a, allowed)
        back = (
            forth.T if self.partial else _zoomout(back, a, b, self.size[::-1], samples_a, samples_b)
        )
        every = self.images(forth, near)
        points = every[samples_a]
        agreement = orientation_agreement(forth, points, b, a, samples_a)
        apart = (self.features[0][samples_a] - self.features[1][points]).square().mean(1)
        # Unrelated rows of variance 1 a channel differ by 2 in the mean square.
        distance = float((apart / 2).sqrt().mean())
        there_and_back = forth @ back
        cycle = float((there_and_back - torch.eye(len(forth))).square().sum() / len(forth))
        orientation = float(agreement.mean())
        if self.partial:
            score = self.consistent.score_of(every)
        else:
            score = orientation - _DISTANCE * distance - cycle
        return MapHypothesis(name, orientation, distance, cycle, score, forth, back, near)

    def polished(self, hypothesis: MapHypothesis) -> MapHypothesis:
        """The second half of the refinement once more, to all vertices: samples leave maps a little inexact."""
        a, b = self.a.basis, self.b.basis
        half = [max(2, count // 2) for count in self.size]
        every_a, every_b = torch.arange(len(a)), torch.arange(len(b))
        start = hypothesis.forth[: half[0], : half[1]]
        allowed = self.allowed(hypothesis.near, self.samples[0], every_b)
        forth = _zoomout(start, b, a, self.size, every_b, self.samples[0], allowed)
        if self.partial:
            return replace(hypothesis, forth=forth, back=forth.T)
        start = hypothesis.back[: half[1], : half[0]]
        back = _zoomout(start, a, b, self.size[::-1], every_a, self.samples[1])
        return replace(hypothesis, forth=forth, back=back)

    def points(self, hypothesis: MapHypothesis) -> tuple[np.ndarray, np.ndarray]:
        """The point-wise maps, from a to b and from b to a."""
        forth = self.images(hypothesis.forth, hypothesis.near)
        return forth.numpy(), points_from_map(hypothesis.back, self.a.basis, self.b.basis).numpy()

    def allowed(self, near: Tensor | None, rows_a: Tensor, rows_b: Tensor) -> Tensor | None:
        """Which vertices of b are in reach of where the nearest samples of vertices of a are mapped to.

        Shape: (M,) rows of samples, (Ra,), (Rb,) -> (Ra, Rb) bool; vertices of pieces that were not placed may go anywhere.
        """
        if near is None:
            return None
        nearest = torch.from_numpy(self.consistent.nearest)[rows_a]
        allowed = self.consistent.whole[:, rows_b][near[nearest]] < _REACH
        allowed[(nearest < 0) | ~allowed.any(1)] = True
        return allowed

    def images(self, forth: Tensor, near: Tensor | None) -> Tensor:
        """The vertex of b for every vertex of a. Shape: (Na,)"""
        a, b = self.a.basis, self.b.basis
        found = points_from_map(forth, b, a)
        if near is None:
            return found
        rows, columns = forth.shape
        own, carried = a.truncate(rows).eigenvectors, b.truncate(columns).eigenvectors @ forth.T
        nearest = torch.from_numpy(self.consistent.nearest)
        for sample, image in enumerate(near.tolist()):
            group = (nearest == sample).nonzero()[:, 0]
            reached = (self.consistent.whole[image] < _REACH).nonzero()[:, 0]
            if len(group) and len(reached):
                found[group] = reached[torch.cdist(own[group], carried[reached]).argmin(1)]
        return found


def map_predictors(
    a: DescribedShape,
    b: DescribedShape,
    hypothesis: MapHypothesis,
    vertices: np.ndarray,
    back: np.ndarray,
) -> np.ndarray:
    """What the confidence of a map from a to b is made of, see :mod:`sparsefeat.match.map_confidence`.

    Shape: (Na,) rows of b, (Nb,) rows of a -> (Na, 4).
    """
    cycle = np.linalg.norm(a.unit[back[vertices]] - a.unit, axis=1)
    half = [max(2, count // 2) for count in hypothesis.forth.shape]
    coarse = points_from_map(hypothesis.forth[: half[0], : half[1]], b.basis, a.basis).numpy()
    levels = np.linalg.norm(b.unit[coarse] - b.unit[vertices], axis=1)
    rows = torch.from_numpy(vertices)
    agreement = orientation_agreement(hypothesis.forth, rows, b.basis, a.basis).numpy()
    mean = np.full_like(agreement, agreement.mean())
    return np.stack([cycle, levels, 1 - agreement, 1 - mean], 1)


def _checked_initial(initial: Sequence[np.ndarray], count_a: int, count_b: int) -> list[np.ndarray]:
    """The maps, if each has a row of b for every vertex of a."""
    maps = [as_array(points, "initial map") for points in initial]
    for rows in maps:
        if rows.shape != (count_a,) or not np.issubdtype(rows.dtype, np.integer):
            raise InputError(
                f"initial map: {rows.dtype} {rows.shape}, expected whole numbers ({count_a},)"
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < count_b:
            raise InputError(
                f"initial map: rows {rows.min()} to {rows.max()}, expected 0 to {count_b - 1}"
            )
    return maps


def _own_area(shape: DescribedShape) -> float:
    """Of the surface that there is, over that of the whole."""
    return float(shape.basis.area)


def _turned(hypothesis: MapHypothesis) -> MapHypothesis:
    return replace(hypothesis, forth=hypothesis.back, back=hypothesis.forth)


def _zoomout(
    matrix: Tensor,
    basis_a: LaplaceBasis,
    basis_b: LaplaceBasis,
    size: tuple[int, int],
    samples_a: Tensor,
    samples_b: Tensor,
    allowed: Tensor | None = None,
) -> Tensor:
    """The functional map by ZoomOut on samples."""
    part = replace(
        basis_b, eigenvectors=basis_b.eigenvectors[samples_b], mass=basis_b.mass[samples_b]
    )
    rows = samples_a, torch.arange(len(samples_b))
    return zoomout(matrix, basis_a, part, size, _STEP, rows, allowed)[0]


def _carry(values: np.ndarray, rows: np.ndarray, count: int, side: str) -> np.ndarray:
    values = np.asarray(values)
    if not values.ndim or len(values) != count:
        raise InputError(
            f"values {values.shape}, expected one for each of {count} vertices of {side}"
        )
    carried: np.ndarray = values[rows]
    return carried
