"""Which side of a surface is outside, where only points are known.

The outer side is the one that is seen. A fitted normal n of a point p is turned to a viewpoint v from which p is seen,
so all depends on the viewpoints: those given; around a closed shape, all directions; and for a scan, places that see as
much of it as possible, since its sensor saw all of it. From behind a wall, little is seen of what stands before it.

For a scan two shares say how well a place explains it:

``support(v) = mean over points of free(p, v) * min(|cos| / 0.5, 1)``, cos between n and the line from p to v, and free
if no other surface lies on this line (cells that points occupy, see :mod:`sparsefeat.mesh.visibility`);

``filled(v) = share of lines from v past the points, a few cells beside them, that meet a surface``: gaps in a scan are
shadows of what stands before them, and a sensor does not see its own shadows.

Places are compared by ``support * filled ** 2``. Each viewpoint votes for the sides that it sees; the votes spread along the surface with the sign of the product of neighbours' normals,
as in Hoppe et al., "Surface Reconstruction from Unorganized Points", SIGGRAPH 1992, but as a mean over all neighbours in
place of a spanning tree, so that a single wrong edge turns nothing over. That the side with the freer sight is outside is
how Takayama et al., "A Simple Method for Correcting Facet Orientations in Polygon Meshes Based on Ray-Casting", JCGT 2014,
orient patches of meshes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.stats import qmc

from sparsefeat.checks import as_array, as_points, checked_seed
from sparsefeat.errors import InputError
from sparsefeat.mesh.normals import fit_normals
from sparsefeat.mesh.visibility import FreeSpace, surface_spacing

ENOUGH_SHARE = 0.7
"""Share of the best place's quality from which a viewpoint is believed."""
LEAST_SHARE = 0.5
"""Share below which it is not."""
LIKENESS = 0.9
"""Between the two it is believed if so much of the estimated sides is as seen from there, or all but so much is the other
way round: an estimate may be wrong as a whole, but a wrong viewpoint turns over a part. The three were chosen on every
second fragment of redkitchen and home_md."""
ENOUGH_SUPPORT = 0.75
"""A viewpoint with more support is believed without looking for a better one."""
FEW_POINTS = 100
"""Clouds of fewer points say too little for a viewpoint to be judged."""

_POINTS = 4000
"""Points at which the side is decided; others take it from the nearest of these."""
_RAYS = 250
"""Points at which viewpoints are compared."""
_CANDIDATES = 64
_NEAR = 20
"""Places tried around the best one, and around the best that sees the other side of most of what both see."""
_VOTERS = 6
_VOTES = 1000
"""Points that are voted on; the others are reached along the surface."""
_DIRECTIONS = 40
_MAJORITY = 0.3
_CELL = 1.2
"""Edge of the cells, in spacings of the points."""
_BESIDE = 4
"""Cells beside a point at which a gap is looked for."""
_FAR = 20
_SLAB = 1.5
"""Cells around a surface within which it does not hide its own points."""
_GRAZING = 0.5
"""Cosine between normal and line of sight from which a vote counts in full."""
_DOUBT = 0.04
"""A viewpoint of so much less support than the best one has 1/e of its vote."""
_POOLED = 16
"""Points that decide together which of several viewpoints sees one of them best."""
_NEIGHBOURS = 10
_SPREAD = 3.0
_ROUNDS = 60


@dataclass(frozen=True)
class ViewpointCheck:
    """How well a viewpoint explains a cloud.

    Attributes:
        support: share of the surface that it could have seen, from 0 to 1.
        quality: ``support * filled ** 2``, see above.
        best: the best quality that was found for any place.
        agreement: share of the estimated sides, weighted by certainty, that is as seen from there; 1 where the quality
            decides alone.
    """

    support: float
    quality: float
    best: float
    agreement: float

    @property
    def credible(self) -> bool:
        """Whether the points can have been seen from there."""
        if self.support >= ENOUGH_SUPPORT or self.quality >= ENOUGH_SHARE * self.best:
            return True
        alike = max(self.agreement, 1 - self.agreement) >= LIKENESS
        return alike and self.quality >= LEAST_SHARE * self.best


def estimate_normals(
    points: np.ndarray,
    viewpoint: np.ndarray | None = None,
    *,
    closed: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Normals of a cloud to the outer side of its surface, as well as that can be known.

    Args:
        points: Shape (N, 3).
        viewpoint: where the points were seen from, (3,), or several such places, (K, 3): a point's normal faces the one
            that sees it best. None: estimated.
        closed: without a viewpoint: the points cover a shape from all sides, and outside is around it. False: they are
            a scan, and outside is where its sensor may have been: a room is seen from within.
        seed: of the choice of points and places.

    Returns:
        (N, 3) float64. Where the side is estimated, a vector is as long as its side is certain, from 0 to 1.

    Raises:
        InputError: points or viewpoints of another shape.
    """
    points, seed = as_points(points, "points"), checked_seed(seed)
    if len(points) < 3:
        return np.zeros(points.shape)  # no surface
    fitted = fit_normals(points)
    if viewpoint is not None:
        places = as_viewpoints(viewpoint)
        seen_from = places[best_viewpoint(points, places, fitted)]
        side = np.einsum("ni,ni->n", seen_from - points, fitted)
        return np.where(side[:, None] < 0, -1.0, 1.0) * fitted
    chosen = _spread_rows(points, _POINTS, seed)
    cloud = _Cloud(points, chosen, fitted[chosen], seed)
    if closed:
        # Through gaps the inside is seen too: a clear majority is as good as all.
        sides = (cloud.along_surface(*cloud.votes_around()) / _MAJORITY).clip(-1, 1)
    else:
        sides = cloud.along_surface(*cloud.votes_of_best())
    certain = sides[:, None] * cloud.normals
    if len(chosen) == len(points):
        return certain
    nearest = cKDTree(cloud.points).query(points)[1]
    return fitted * np.einsum("ni,ni->n", fitted, certain[nearest])[:, None].clip(-1, 1)


def check_viewpoint(points: np.ndarray, viewpoint: np.ndarray, seed: int = 0) -> ViewpointCheck:
    """How much of a cloud one or several viewpoints could have seen, and what the best place could have.

    Args:
        points: Shape (N, 3).
        viewpoint: Shape (3,) or (K, 3).
        seed: as in :func:`estimate_normals`.

    Raises:
        InputError: points or viewpoints of another shape.
    """
    points, places, seed = as_points(points, "points"), as_viewpoints(viewpoint), checked_seed(seed)
    if len(points) < FEW_POINTS:
        return ViewpointCheck(1.0, 1.0, 1.0, 1.0)
    chosen = _spread_rows(points, _POINTS, seed)
    cloud = _Cloud(points, chosen, fit_normals(points[chosen]), seed)
    support = float(np.abs(cloud.votes(places, cloud.compared)).max(0).mean())
    if support >= ENOUGH_SUPPORT:
        return ViewpointCheck(support, support, support, 1.0)
    quality = support * float(cloud.filled(places).max()) ** 2
    best = max(quality, float(cloud.best[1].max()))
    if not LEAST_SHARE * best <= quality < ENOUGH_SHARE * best:
        return ViewpointCheck(support, quality, best, 1.0)  # the sides decide nothing
    sides = cloud.along_surface(*cloud.votes_of_best())
    seen_from = places[best_viewpoint(cloud.points, places, cloud.normals)]
    same = np.einsum("ni,ni->n", seen_from - cloud.points, cloud.normals) * sides > 0
    certain = np.abs(sides)
    agreement = float(certain[same].sum() / max(certain.sum(), 1e-12))
    return ViewpointCheck(support, quality, best, agreement)


def best_viewpoint(
    points: np.ndarray, viewpoints: np.ndarray, normals: np.ndarray | None = None
) -> np.ndarray:
    """Which of several viewpoints sees each point best: it is not hidden, and the surface faces it most.

    Args:
        points: Shape (N, 3).
        viewpoints: Shape (K, 3).
        normals: of either sign. Shape (N, 3); None: fitted.

    Returns:
        Shape (N,), rows of ``viewpoints``.
    """
    if len(viewpoints) == 1 or not len(points):
        return np.zeros(len(points), dtype=np.int64)
    every = np.arange(len(points))
    cloud = _Cloud(points, every, fit_normals(points) if normals is None else normals, 0)
    best, score = np.zeros(len(points), dtype=np.int64), np.full(len(points), -np.inf)
    # Some lines of sight slip between the points of a surface: what hides a point is asked of those around it, too.
    around = cKDTree(points).query(points, min(_POOLED, len(points)))[1].reshape(len(points), -1)
    for row, place in enumerate(viewpoints):
        free, cosine = cloud.seen(place[None], every)
        found = free[0].astype(np.float64)[around].mean(1) + np.abs(cosine[0])
        better = found > score
        best[better], score[better] = row, found[better]
    return best


def as_viewpoints(viewpoint: Any, what: str = "viewpoint") -> np.ndarray:
    """One viewpoint or several, one by one. Shape: (3,) or (K, 3) -> (K, 3) float64.

    Args:
        viewpoint: numbers, an array or a tensor.
        what: begins the message.

    Raises:
        InputError: another shape, or what is not a finite number.
    """
    try:
        places = as_array(viewpoint, what).astype(np.float64)
    except (TypeError, ValueError):
        places = np.empty(0)
    if places.shape == (3,):
        places = places[None]
    if places.ndim != 2 or places.shape[1] != 3 or not len(places) or not np.isfinite(places).all():
        given = places.tolist() if places.size else viewpoint
        raise InputError(f"{what} {given!r}, expected three finite numbers, or rows of them")
    return places


class _Cloud:
    """Points spread over a surface, with normals of either sign.

    Args:
        every: all points, which hide. Shape: (N, 3).
        chosen: rows of those that are looked at. Shape: (M,).
        normals: fitted ones of these. Shape: (M, 3).
        seed: of what is random.
    """

    def __init__(self, every: np.ndarray, chosen: np.ndarray, normals: np.ndarray, seed: int):
        self.points, self.normals, self.seed = every[chosen], normals, seed
        # Cells fine enough for the points, but not for more than the chosen ones can tell.
        spacing = max(surface_spacing(every), surface_spacing(self.points) / 2)
        self.space = FreeSpace(every, _CELL * spacing, margin=_BESIDE + 1)
        self.order = np.random.default_rng(seed).permutation(len(chosen))
        self.compared = self.order[:_RAYS]

    def seen(self, places: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which points each place sees, and cosines of the lines with their normals. Shape: (K, 3), (R,) -> (K, R)."""
        points, normals = self.points[rows], self.normals[rows]
        line = places[:, None] - points[None]
        line /= np.linalg.norm(line, axis=2, keepdims=True).clip(1e-12)
        cosine = np.einsum("kri,ri->kr", line, normals)
        skip = np.minimum(_SLAB / np.abs(cosine).clip(0.05), 8.0).ravel()
        start = np.broadcast_to(points[None], line.shape).reshape(-1, 3)
        free = self.space.sees(start, np.repeat(places, len(rows), axis=0), skip)
        return free.reshape(cosine.shape), cosine

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Places that explain a scan well, from either side, and how well. Shape: (K, 3), (K,)."""
        low, high = np.quantile(self.points, [0.01, 0.99], axis=0)
        size = float(np.linalg.norm(high - low)) / 2
        spread = 2 * qmc.Halton(3, seed=self.seed).random(_CANDIDATES) - 1
        places = (low + high) / 2 + spread * ((high - low) / 2 + size / 2)
        votes, quality = self._explained(places)
        first = int(quality.argmax())
        other = quality * (votes @ votes[first] < 0)
        steps = 0.15 * size * np.random.default_rng(self.seed).normal(size=(_NEAR + 1, 3))
        steps[0] = 0
        near = places[first] + steps
        # A flat piece looks the same from both sides: then both are tried alike.
        middle = self.points.mean(0)
        across = np.linalg.svd(self.points[self.compared] - middle, full_matrices=False)[2][2]
        beyond = near - 2 * ((near - middle) @ across)[:, None] * across
        if other.max() > 0:
            beyond = np.concatenate([beyond, places[other.argmax()] + steps[: _NEAR // 2]])
        sides = []
        for tried in (near, beyond):
            quality = self._explained(tried)[1]
            rows = np.argsort(-quality, kind="stable")[:_VOTERS]
            sides.append((tried[rows], quality[rows]))
        return np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])

    def votes_of_best(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of signs and of weights, of the places that see most of a scan. Shape: (M,), (M,)."""
        places, quality = self.best
        return self._sums(places, np.exp((quality - quality.max()) / _DOUBT))

    def votes_around(self) -> tuple[np.ndarray, np.ndarray]:
        """The same, of directions all around a shape."""
        low, high = self.points.min(0), self.points.max(0)
        # Fibonacci's lattice is even on the sphere.
        number = np.arange(_DIRECTIONS)
        height = 1 - (2 * number + 1) / _DIRECTIONS
        angle = number * np.pi * (3 - 5**0.5)
        ring = np.sqrt(1 - height**2)
        sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)
        places = (low + high) / 2 + 3 * float(np.linalg.norm(high - low)) * sphere
        return self._sums(places, np.ones(_DIRECTIONS))

    def _explained(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Votes (K, R) of the points that places are compared at, and how well each explains them (K,)."""
        votes = self.votes(places, self.compared)
        return votes, np.abs(votes).mean(1) * self.filled(places) ** 2

    def filled(self, places: np.ndarray) -> np.ndarray:
        """Share of lines from a place past the points that meet a surface. Shape: (K, 3) -> (K,)."""
        points = self.points[self.compared]
        line = points[None] - places[:, None]
        line /= np.linalg.norm(line, axis=2, keepdims=True).clip(1e-12)
        beside = np.random.default_rng(self.seed).normal(size=points.shape)[None]
        beside = beside - np.einsum("kri,kri->kr", beside, line)[..., None] * line
        beside *= (
            _BESIDE * self.space.cell / np.linalg.norm(beside, axis=2, keepdims=True).clip(1e-12)
        )
        start = (points + beside).reshape(-1, 3)
        back = np.repeat(places, len(points), axis=0)
        none = np.zeros(len(start))
        free = self.space.sees(start, back, none)
        rows = np.flatnonzero(free)
        beyond = start[rows] + _FAR * (start[rows] - back[rows])
        free[rows] = self.space.sees(start[rows], beyond, none[rows])
        return 1 - free.reshape(len(places), -1).mean(1)

    def votes(self, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """From -1 to 1, the sign of the side that each place sees; 0: it sees none. Shape: (K, 3), (R,) -> (K, R)."""
        free, cosine = self.seen(places, rows)
        votes: np.ndarray = free * _weight(cosine) * np.sign(cosine)
        return votes

    def _sums(self, places: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[:_VOTES]
        votes = self.votes(places, rows) * (weights / weights.sum())[:, None]
        sums = np.zeros((2, len(self.points)))
        sums[:, rows] = votes.sum(0), np.abs(votes).sum(0)
        return sums[0], sums[1]

    def along_surface(self, signs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Signs from -1 to 1, of the votes and of what the neighbours have. Shape: (M,), (M,) -> (M,)."""
        count = min(_NEIGHBOURS + 1, len(self.points))
        if count < 2:
            return np.sign(signs)
        distance, near = cKDTree(self.points).query(self.points, count)
        start, end = np.repeat(np.arange(len(near)), count - 1), near[:, 1:].ravel()
        line = (self.points[end] - self.points[start]) / distance[:, 1:].ravel()[:, None].clip(
            1e-12
        )
        product = np.einsum("ei,ei->e", self.normals[start], self.normals[end])
        # A neighbour off the tangent plane may lie on another sheet of the surface.
        off = np.abs(np.einsum("ei,ei->e", self.normals[start], line))
        strength = (2 * np.abs(product) - 1).clip(0) * (1 - 2 * off).clip(0)
        graph = sp.csr_matrix((strength * np.sign(product), (start, end)), shape=(len(near),) * 2)
        graph = (graph + graph.T) / 2
        degree = np.asarray(abs(graph).sum(1)).ravel()
        scale = _SPREAD / max(degree.mean(), 1e-12)
        total = (weights + scale * degree).clip(1e-12)
        state = signs / weights.clip(1e-12)
        for _ in range(_ROUNDS):
            state = (signs + scale * (graph @ state)) / total
        return state


def _weight(cosine: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(cosine) / _GRAZING, 1)


def _spread_rows(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most about ``count`` rows of points that are spread evenly over the surface, ascending."""
    if len(points) <= count:
        return np.arange(len(points))
    # Repeated points have no spacing.
    edge = surface_spacing(points) or float(np.ptp(points, axis=0).max()) / count
    rows = np.arange(len(points))
    while True:
        cells = np.floor((points - points.min(0)) / max(edge, 1e-12)).astype(np.int64)
        extent = cells.max(0) + 1
        keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
        rows = np.unique(keys, return_index=True)[1]
        if len(rows) <= 1.2 * count:
            break
        edge *= max(1.1, float(np.sqrt(len(rows) / (1.1 * count))))
    if len(rows) > count:
        rows = np.random.default_rng(seed).choice(rows, count, replace=False)
    return np.sort(rows)
