"""First maps of a part to its whole: matches of descriptors whose distances along the surfaces agree.

A cut changes the eigenfunctions of a part, and where it falls into pieces they say nothing of each other, so that
functional maps need a start that does not come from them. Distances along the surface change less. With d the distance
of two points on the part and r that of each from the rim of its cut, their distance on the whole is at least
``min(d, r + r')``, since a shorter path would have to leave the part and to come back, and at most d. Matches that keep
each other's distances within these bounds support each other, by the second order measure of Chen et al., "SC2-PCR",
CVPR 2022, in place of straight distances; groups of them are grown over all samples of the part. That isometries of
parts are found by such bounds is from Bronstein, Bronstein, "Regularized Partial Matching of Rigid Shapes", ECCV 2008,
and Bronstein et al., "Partial Similarity of Objects, or How to Compare a Centaur to a Horse", IJCV 2009.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefeat.heads.functional_map import spread_samples
from sparsefeat.match.shapes import DescribedShape
from sparsefeat.mesh.geodesic import geodesic_graph

_SAMPLES = 150, 400
_CANDIDATES = 8  # samples of the whole that a sample of the part may match by its descriptors
_SEEDS = 20
_GROUP = 30  # candidates that a seed begins with
_LANDMARKS = 40
_STEPS = 5
_TOLERANCE = (
    0.03,
    0.12,
)  # roots of the area, and share of the distance: bodies differ in their proportions
_APART = 0.3  # weight of a bound from below alone, as between two pieces
_DESCRIPTORS = 0.5  # weight of the descriptors' distance beside that of the bounds, both up to 1
_FITS = 0.35  # cost of a sample that is a landmark of the next step
_NEIGHBOURS = 10
_NEAR = 0.1  # of a map, within which a candidate is no seed of another one
_DISTINCT = 0.05
_SCALES = 0.8, 1.25


class ConsistentMaps:
    """Finds maps of samples of a part (M) to samples of its whole (W), (M,) rows, and judges them.

    Args:
        part, whole: described in one unit.
        features: of both. Shape (Na, C), (Nb, C).

    Attributes:
        here, there: rows of the samples.
        low, up: (M, M) bounds of the distances on the whole; 0 and infinity where nothing is known.
        whole: (W, Nb) distances on the whole; ``between``: those of its samples.
        unlike: (M, Nb) distances of descriptors, 1 for unrelated ones.
        pieces: rows of the samples of each piece of the part, the largest piece first.
    """

    def __init__(
        self, part: DescribedShape, whole: DescribedShape, features: tuple[Tensor, Tensor]
    ):
        shapes = part, whole
        self.here, self.there = (
            spread_samples(shape.vertices, count)
            for shape, count in zip(shapes, _SAMPLES, strict=True)
        )
        graphs = [_graph(shape) for shape in shapes]
        of_part, of_whole = (
            dijkstra(graph, directed=False, indices=rows)
            for graph, rows in zip(graphs, (self.here, self.there), strict=True)
        )
        rim, away = _rim(part.faces), np.full(len(self.here), np.inf)
        if len(rim):
            away = dijkstra(graphs[0], directed=False, indices=rim, min_only=True)[self.here]
        up = of_part[:, self.here]
        low = np.minimum(up, away[:, None] + away)
        self.up = torch.from_numpy(up).float()
        self.low = torch.from_numpy(np.where(np.isfinite(low), low, 0)).float()
        # Pieces of the whole are farther apart than anything on one of them.
        finite = np.isfinite(of_whole)
        of_whole[~finite] = 2 * np.max(of_whole, where=finite, initial=1)
        self.whole = torch.from_numpy(of_whole).float()
        self.between = self.whole[:, self.there]
        size = np.sqrt(2 * features[0].shape[1])
        self.unlike = (torch.cdist(features[0][self.here], features[1]) / size).float()
        label = connected_components(graphs[0], directed=False)[1][self.here]
        pieces = [torch.from_numpy(np.flatnonzero(label == k)) for k in np.unique(label)]
        self.pieces = sorted(pieces, key=len, reverse=True)
        self.slopes = [
            _slopes(part, np.where(np.isfinite(of_part), of_part, 0), self.here),
            _slopes(whole, of_whole, self.there),
        ]

    def maps(self, most: int) -> list[np.ndarray]:
        """Distinct maps of the samples of the part to vertices of the whole, best first. Shape: (M,) each."""
        kept: list[Tensor] = []
        for images in sorted(self.grown(), key=self.score, reverse=True):
            if all(self.between[images, other].mean() > _DISTINCT for other in kept):
                kept.append(images)
        return [self.exact(images).numpy() for images in kept[:most]]

    def score_of(self, vertices: Tensor) -> float:
        """:meth:`score` of any map of the part's vertices. Shape: (Na,) rows of the whole."""
        return self.score(self.whole[:, vertices[torch.from_numpy(self.here)]].argmin(0))

    def grown(self) -> list[Tensor]:
        """Maps that grow from groups of matches which support each other."""
        unlike = self.unlike[:, self.there]
        match = unlike.topk(min(_CANDIDATES, len(self.there)), 1, largest=False).indices
        source = torch.arange(len(self.here)).repeat_interleave(match.shape[1])
        target = match.reshape(-1)
        first = self.compatible(source, target)
        second = first * (first @ first)
        free = torch.ones(len(source), dtype=torch.bool)
        found: list[Tensor] = []
        for seed in second.sum(1).argsort(descending=True, stable=True).tolist():
            if len(found) == _SEEDS:
                break
            if not free[seed]:
                continue
            group = second[seed].topk(min(_GROUP, len(source))).indices
            local = first[group][:, group]
            local = local * (local @ local)
            weights = torch.ones(len(group))
            for _ in range(10):
                weights = local @ weights
                weights = weights / weights.norm().clamp_min(1e-12)
            group = torch.cat([group[weights > 0.3 * weights.max()], torch.tensor([seed])])
            images = self.grow(source[group], target[group])
            free &= self.between[images[source], target] > _NEAR
            free[seed] = False
            found.append(images)
        return found

    def compatible(self, source: Tensor, target: Tensor) -> Tensor:
        """How well two matches keep their distance, 1 to 0. Shape: (K,), (K,) -> (K, K)."""
        low, up = self.low[source][:, source], self.up[source][:, source]
        apart = self.between[target][:, target]
        broken = (low - apart).clamp_min_(0) + (apart - up).clamp_min_(0)
        result = (1 - (broken / _tolerance(low, up)).square_()).clamp_min_(0)
        result = torch.where(torch.isfinite(up), result, _APART * result)
        result[source[:, None] == source] = 0
        return result

    def grow(self, source: Tensor, target: Tensor) -> Tensor:
        """A map of all samples that begins with a few matches. Shape: (K,), (K,) -> (M,)."""
        unlike = self.unlike[:, self.there]
        images: Tensor = unlike.argmin(1)
        images[source] = target
        trusted = source
        for step in range(_STEPS):
            cost = self.cost(images, self.between, _some(trusted, step))
            images = (cost + _DESCRIPTORS * unlike).argmin(1)
            fits = cost.gather(1, images[:, None])[:, 0]
            trusted = (fits < _FITS).nonzero()[:, 0]
            if len(trusted) < 10:
                trusted = fits.argsort()[:10]
        return images

    def cost(self, images: Tensor, whole: Tensor, landmarks: Tensor) -> Tensor:
        """What each image of each sample would break of the bounds to the landmarks, 0 to 1.

        Near landmarks weigh more. Shape: (M,), (W, V) distances, (L,) rows of M -> (M, V).
        """
        scale = self.scale(images, landmarks)
        low, up = scale * self.low[:, landmarks], scale * self.up[:, landmarks]
        joined = torch.isfinite(up)
        weight = torch.where(joined, 1.0, _APART) / (0.1 + torch.where(joined, up, low))
        weight = weight / weight.sum(1, keepdim=True)
        tolerance = _tolerance(low, up)
        cost = torch.zeros(len(low), whole.shape[1])
        for k, apart in enumerate(whole[images[landmarks]]):
            broken = (low[:, k, None] - apart).clamp_min_(0) + (apart - up[:, k, None]).clamp_min_(
                0
            )
            cost += weight[:, k, None] * (broken / tolerance[:, k, None]).square_().clamp_max_(1)
        return cost

    def scale(self, images: Tensor, landmarks: Tensor) -> float:
        """How much larger the whole is than what the part was cut from, by distances that no cut changes."""
        up, low = (bound[landmarks][:, landmarks] for bound in (self.up, self.low))
        apart = self.between[images[landmarks]][:, images[landmarks]]
        sure = (up == low) & (up > 0.15) & torch.isfinite(up)
        if sure.sum() < 20:
            return 1.0
        return float((apart[sure] / up[sure]).median().clamp(*_SCALES))

    def score(self, images: Tensor) -> float:
        """What maps are compared by: whether orientation is kept, less broken bounds and unlike descriptors.

        The weights were chosen on eight pairs of FAUST's first 80 shapes, whose sources were cut.
        """
        landmarks = _some(torch.arange(len(images)), _STEPS)
        cost = self.cost(images, self.between, landmarks).gather(1, images[:, None]).mean()
        unlike = self.unlike[:, self.there].gather(1, images[:, None]).mean()
        return float(self.orientation(images).mean() / 2 - cost - 3 * unlike)

    def orientation(self, images: Tensor) -> Tensor:
        """Cosines at the samples, 1 where orientation is kept, -1 where it is reversed, 0 where nothing says.

        ``<n, grad d x grad d'>`` of distances from two landmarks is compared with that from their images.
        """
        cosine = torch.zeros(len(images))
        for piece in self.pieces:
            some = piece[:: max(1, len(piece) // 8)]
            i, j = some[torch.triu_indices(len(some), len(some), 1)]
            turns = [
                x[rows[:, None], k] * y[rows[:, None], m]
                - x[rows[:, None], m] * y[rows[:, None], k]
                for (x, y), rows, k, m in (
                    (self.slopes[0], piece, i, j),
                    (self.slopes[1], images[piece], images[i], images[j]),
                )
            ]
            length = turns[0].norm(dim=1) * turns[1].norm(dim=1)
            cosine[piece] = (turns[0] * turns[1]).sum(1) / length.clamp_min(1e-12)
        return cosine

    def exact(self, images: Tensor) -> Tensor:
        """The map to samples of the whole as one to all its vertices. Shape: (M,) -> (M,) rows of the whole."""
        cost = self.cost(images, self.whole, _some(torch.arange(len(images)), _STEPS))
        rows: Tensor = (cost + _DESCRIPTORS * self.unlike).argmin(1)
        return rows


def _tolerance(low: Tensor, up: Tensor) -> Tensor:
    return _TOLERANCE[0] + _TOLERANCE[1] * torch.where(torch.isfinite(up), up, low)


def _some(rows: Tensor, step: int) -> Tensor:
    """Landmarks among rows, others at each step."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(step))
    return rows[order[:_LANDMARKS]]


def _slopes(
    shape: DescribedShape, distances: np.ndarray, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Derivatives at some rows of distances from them. Shape: (R, N), (R,) -> (R, R) twice, landmarks in columns."""
    columns = torch.from_numpy(distances.T).to(shape.basis.mass.dtype)
    x, y = (
        torch.sparse.mm(gradient, columns)[rows].float()
        for gradient in (shape.basis.gradient_x, shape.basis.gradient_y)
    )
    return x, y


def _graph(shape: DescribedShape) -> sp.csr_matrix:
    """Lengths of steps along the surface, in roots of the area; of a cloud between near points."""
    if shape.faces is not None:
        return geodesic_graph(shape.unit, shape.faces)
    points = shape.unit
    length, near = cKDTree(points).query(points, min(_NEIGHBOURS + 1, len(points)))
    start = np.repeat(np.arange(len(points)), near.shape[1])
    proper = start != near.ravel()
    steps = np.maximum(length.ravel()[proper], 1e-12), (start[proper], near.ravel()[proper])
    return sp.csr_matrix(steps, shape=(len(points), len(points)))


def _rim(faces: np.ndarray | None) -> np.ndarray:
    """Vertices of edges that one face alone has; a cloud does not say."""
    if faces is None:
        return np.zeros(0, dtype=np.int64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    found, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(found[count == 1])
