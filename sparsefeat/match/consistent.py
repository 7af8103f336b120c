"""First maps of a shape, or of a part to its whole: matches of descriptors whose distances along the surfaces agree.

A cut changes the eigenfunctions of a part, and where it falls into pieces they say nothing of each other, so that
functional maps need a start that does not come from them. Eigenfunctions of whole bodies in unlike poses may differ, too.
Distances along the surface change less. With d the distance
of two points on the part and r that of each from the rim of its cut, their distance on the whole is at least
``min(d, r + r')``, since a shorter path would have to leave the part and to come back, and at most d. It is also at
least their straight distance, which is known between pieces, too. Matches that keep each other's distances within these
bounds support each other, by the second order measure of Chen et al., "SC2-PCR", CVPR 2022, in place of straight
distances. Groups of them are grown over each connected piece of the part, in several ways; the maps of all pieces are
chosen together, so that no bound between two pieces is broken. That isometries of parts are found by such bounds is
from Bronstein, Bronstein, "Regularized Partial Matching of Rigid Shapes", ECCV 2008, and Bronstein et al., "Partial
Similarity of Objects, or How to Compare a Centaur to a Horse", IJCV 2009.
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
from sparsefeat.mesh.seams import sew

_SAMPLES = 150, 400
_PIECE_SAMPLES = 40  # of a small piece, whose share would be too few to grow a map
_PIECE_VERTICES = 20  # fewer say nothing about their place
_PIECES = 10  # that are placed, the largest ones
_CANDIDATES = 6  # samples of the whole that a sample of the part may match by its descriptors
_SPREAD = 0.08  # distance between them: a left and a right one, not two neighbours
_SEEDS = 20
_GROUP = 30  # candidates that a seed begins with
_PLACES = 12  # maps of one piece that are kept
_BEAM = 100  # combinations of them
_LANDMARKS = 40
_STEPS = 5
_TOLERANCE = (
    0.03,
    0.12,
)  # roots of the area, and share of the distance: bodies differ in their proportions
_DESCRIPTORS = 0.5  # weight of the descriptors' distance beside that of the bounds, both up to 1
_FITS = 0.35  # cost of a sample that is a landmark of the next step
_NEIGHBOURS = 10
_NEAR = 0.1  # of a map, within which a candidate is no seed of another one
_DISTINCT = 0.05
_SCALES = 0.8, 1.25
_WEIGHTS = (
    0.5,
    1.0,
    3.0,
    1.0,
)  # of orientation, broken bounds, unlike descriptors, and bounds between pieces
_ELSEWHERE = 0.15  # between images that are not of the same place
_MARGIN = 0.1  # of scores, a unit of the log odds of the better place


class ConsistentMaps:
    """Finds maps of samples of a part (M) to samples of its whole (W), (M,) rows, and judges them.

    Args:
        part, whole: described in one unit; the part may be a whole shape as well.
        features: of both. Shape (Na, C), (Nb, C).

    Attributes:
        here, there: rows of the samples.
        low, up: (M, M) bounds of the distances on the whole; up is infinite between pieces.
        whole: (W, Nb) distances on the whole; ``between``: those of its samples.
        unlike: (M, Nb) distances of descriptors, 1 for unrelated ones.
        pieces: rows of the samples of each piece of the part that is placed, the largest piece first.
        nearest: (Na,) the sample of the same piece that is nearest to each vertex; -1 in pieces that are not placed.
    """

    def __init__(
        self, part: DescribedShape, whole: DescribedShape, features: tuple[Tensor, Tensor]
    ):
        graphs = [_graph(shape) for shape in (part, whole)]
        pieces = _pieces(graphs[0])
        samples = [
            rows[spread_samples(part.vertices[rows], _sample_count(len(rows), len(part.vertices)))]
            for rows in pieces
        ]
        self.here = np.concatenate(samples)
        self.there = spread_samples(whole.vertices, _SAMPLES[1])
        ends = np.cumsum([len(rows) for rows in samples])
        self.pieces = [
            torch.arange(end - len(rows), end) for rows, end in zip(samples, ends, strict=True)
        ]
        self.nearest = np.full(len(part.vertices), -1)
        for rows, chosen, piece in zip(pieces, samples, self.pieces, strict=True):
            near = cKDTree(part.vertices[chosen]).query(part.vertices[rows])[1]
            self.nearest[rows] = piece.numpy()[near]
        of_part, of_whole = (
            dijkstra(graph, directed=False, indices=rows)
            for graph, rows in zip(graphs, (self.here, self.there), strict=True)
        )
        rim, away = _rim(part), np.full(len(self.here), np.inf)
        if len(rim):
            away = dijkstra(graphs[0], directed=False, indices=rim, min_only=True)[self.here]
        up = of_part[:, self.here]
        low = np.minimum(up, away[:, None] + away)
        low[~np.isfinite(low)] = 0
        points = part.unit[self.here]
        low = np.maximum(low, np.linalg.norm(points[:, None] - points, axis=2))
        self.up, self.low = torch.from_numpy(up).float(), torch.from_numpy(low).float()
        # Pieces of the whole are farther apart than anything on one of them.
        finite = np.isfinite(of_whole)
        of_whole[~finite] = 2 * np.max(of_whole, where=finite, initial=1)
        self.whole = torch.from_numpy(of_whole).float()
        self.between = self.whole[:, self.there]
        size = np.sqrt(2 * features[0].shape[1])
        self.unlike = (torch.cdist(features[0][self.here], features[1]) / size).float()
        self.slopes = [
            _slopes(part, np.where(np.isfinite(of_part), of_part, 0), self.here),
            _slopes(whole, of_whole, self.there),
        ]
        self.found = self.together()

    def maps(self, most: int) -> list[tuple[Tensor, np.ndarray]]:
        """Distinct maps of the samples of the part, best first: to samples and to vertices of the whole. Shape: (M,) each."""
        return [(images, self.exact(images).numpy()) for _, images in self.found[:most]]

    def score_of(self, vertices: Tensor) -> float:
        """:meth:`score` of any map of the part's vertices. Shape: (Na,) rows of the whole."""
        return self.score(self.images_of(vertices))

    def images_of(self, vertices: Tensor) -> Tensor:
        """The nearest samples to the images of the part's samples. Shape: (Na,) rows of the whole -> (M,)."""
        return self.whole[:, vertices[torch.from_numpy(self.here)]].argmin(0)

    def certainty(self, vertices: Tensor) -> np.ndarray:
        """How likely the place of each vertex is by all maps that were found, which lead there or elsewhere.

        The best of those that lead elsewhere is compared; a piece that could be in two places has 0.5, one that was
        not placed 0. Shape: (Na,) rows of the whole -> (Na,).
        """
        images = self.images_of(vertices)
        scores = torch.tensor([score for score, _ in self.found])
        apart = torch.stack([self.between[images, other] for _, other in self.found])
        there = torch.where(apart <= _ELSEWHERE, scores[:, None], -torch.inf).amax(0)
        there = there.clamp_min(self.score(images))
        elsewhere = torch.where(apart > _ELSEWHERE, scores[:, None], -torch.inf).amax(0)
        margin = there - elsewhere  # infinite where all maps lead to the same place
        for piece in self.pieces:
            margin[piece] *= len(self.here) / len(piece)
        certain = torch.sigmoid(margin / _MARGIN).numpy()
        return np.where(self.nearest < 0, 0.0, certain[self.nearest])

    def together(self) -> list[tuple[float, Tensor]]:
        """Scores and maps of all pieces, each of which is placed in several ways for itself first; best first."""
        places: list[list[Tensor]] = []
        found: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for k, piece in enumerate(self.pieces):
            places.append(self.placements(piece))
            own = [self.piece_score(piece, images) for images in places[k]]
            clashes = [
                [[self.clash(other, x, piece, y) for y in places[k]] for x in places[m]]
                for m, other in enumerate(self.pieces[:k])
            ]
            grown = [
                (score + own[j] - sum(clashes[m][i][j] for m, i in enumerate(chosen)), (*chosen, j))
                for score, chosen in found
                for j in range(len(own))
            ]
            found = []
            seen: set[tuple[int, int]] = set()
            for score, chosen in sorted(grown, reverse=True):
                # The best of each place of each piece stays, so that it is known what speaks against it.
                if len(found) < _BEAM or not seen.issuperset(enumerate(chosen)):
                    found.append((score, chosen))
                    seen.update(enumerate(chosen))
        return [
            (score, torch.cat([places[k][j] for k, j in enumerate(chosen)]))
            for score, chosen in found
        ]

    def score(self, images: Tensor) -> float:
        """What maps are compared by: whether orientation is kept, less broken bounds and unlike descriptors.

        The weights were chosen on pairs of FAUST's first 80 shapes, whose sources were cut.
        """
        total = 0.0
        for k, piece in enumerate(self.pieces):
            total += self.piece_score(piece, images[piece])
            for other in self.pieces[:k]:
                total -= self.clash(other, images[other], piece, images[piece])
        return total

    def piece_score(self, piece: Tensor, images: Tensor) -> float:
        """What the images (P,) of a piece add to :meth:`score`."""
        landmarks = _some(torch.arange(len(piece)), _STEPS)
        cost = self.cost(piece, images, self.between, landmarks).gather(1, images[:, None])
        unlike = self.unlike[piece, self.there[images.numpy()]]
        terms = self.orientation(piece, images).sum(), -cost.sum(), -unlike.sum()
        total = sum(weight * term for weight, term in zip(_WEIGHTS, terms, strict=False))
        return float(total) / len(self.here)

    def clash(self, one: Tensor, images: Tensor, other: Tensor, others: Tensor) -> float:
        """What two pieces take from :meth:`score` as they come too close to each other. Shape: (P,), (Q,) images."""
        some = _some(torch.arange(len(one)), _STEPS)
        low = self.scale(images[some], one[some]) * self.low[one][:, other]
        broken = (low - self.between[images][:, others]).clamp_min_(0)
        broken = (broken / _tolerance(low, low)).square_().clamp_max_(1)
        return _WEIGHTS[3] * float(broken.mean()) * (len(one) + len(other)) / len(self.here)

    def placements(self, piece: Tensor) -> list[Tensor]:
        """Distinct maps of a piece's samples, best first, that grow from groups of matches which support each other."""
        unlike = self.unlike[piece][:, self.there]
        match = self.candidates(unlike)
        source = torch.arange(len(piece)).repeat_interleave(match.shape[1])
        target = match.reshape(-1)
        first = self.compatible(piece[source], target)
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
            weights = first.new_ones(len(group))
            for _ in range(10):
                weights = local @ weights
                weights = weights / weights.norm().clamp_min(1e-12)
            group = torch.cat([group[weights > 0.3 * weights.max()], torch.tensor([seed])])
            images = self.grow(piece, source[group], target[group])
            free &= self.between[images[source], target] > _NEAR
            free[seed] = False
            found.append(images)
        kept: list[Tensor] = []
        for images in sorted(found, key=lambda each: self.piece_score(piece, each), reverse=True):
            if all(self.between[images, other].mean() > _DISTINCT for other in kept):
                kept.append(images)
        return kept[:_PLACES]

    def candidates(self, unlike: Tensor) -> Tensor:
        """Most like samples of the whole that are not near each other. Shape: (P, W) -> (P, K)."""
        left, found = unlike.clone(), []
        for _ in range(_CANDIDATES):
            found.append(left.argmin(1))
            left[self.between[found[-1]] < _SPREAD] = torch.inf
        return torch.stack(found, 1)

    def compatible(self, source: Tensor, target: Tensor) -> Tensor:
        """How well two matches keep their distance, 1 to 0. Shape: (K,), (K,) -> (K, K)."""
        low, up = self.low[source][:, source], self.up[source][:, source]
        apart = self.between[target][:, target]
        broken = (low - apart).clamp_min_(0) + (apart - up).clamp_min_(0)
        result = (1 - (broken / _tolerance(low, up)).square_()).clamp_min_(0)
        result[source[:, None] == source] = 0
        return result

    def grow(self, piece: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """A map of a piece's samples (P,) that begins with a few matches. Shape: (K,), (K,) -> (P,)."""
        unlike = self.unlike[piece][:, self.there]
        images: Tensor = unlike.argmin(1)
        images[source] = target
        trusted = source
        for step in range(_STEPS):
            cost = self.cost(piece, images, self.between, _some(trusted, step))
            images = (cost + _DESCRIPTORS * unlike).argmin(1)
            fits = cost.gather(1, images[:, None])[:, 0]
            trusted = (fits < _FITS).nonzero()[:, 0]
            if len(trusted) < 10:
                trusted = fits.argsort()[:10]
        return images

    def cost(self, piece: Tensor, images: Tensor, whole: Tensor, landmarks: Tensor) -> Tensor:
        """What each image of each sample of a piece (P,) would break of the bounds to the landmarks, 0 to 1.

        Near landmarks weigh more. Shape: (P,), (W, V) distances, (L,) rows of P -> (P, V).
        """
        scale = self.scale(images[landmarks], piece[landmarks])
        low, up = (scale * bound[piece][:, piece[landmarks]] for bound in (self.low, self.up))
        weight = 1 / (0.1 + up)
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
        apart = self.between[images][:, images]
        sure = (up <= low) & (up > 0.15) & torch.isfinite(up)
        if sure.sum() < 20:
            return 1.0
        return float((apart[sure] / up[sure]).median().clamp(*_SCALES))

    def orientation(self, piece: Tensor, images: Tensor) -> Tensor:
        """Cosines at a piece's samples (P,), 1 where orientation is kept, -1 where it is reversed, 0 where nothing says.

        ``<n, grad d x grad d'>`` of distances from two landmarks is compared with that from their images.
        """
        some = torch.arange(len(piece))[:: max(1, len(piece) // 8)]
        i, j = some[torch.triu_indices(len(some), len(some), 1)]
        turns = [
            x[rows[:, None], k] * y[rows[:, None], m] - x[rows[:, None], m] * y[rows[:, None], k]
            for (x, y), rows, k, m in (
                (self.slopes[0], piece, piece[i], piece[j]),
                (self.slopes[1], images, images[i], images[j]),
            )
        ]
        length = turns[0].norm(dim=1) * turns[1].norm(dim=1)
        cosine: Tensor = (turns[0] * turns[1]).sum(1) / length.clamp_min(1e-12)
        return cosine

    def exact(self, images: Tensor) -> Tensor:
        """The map to samples of the whole as one to all its vertices. Shape: (M,) -> (M,) rows of the whole."""
        rows = torch.zeros_like(images)
        for piece in self.pieces:
            cost = self.cost(
                piece, images[piece], self.whole, _some(torch.arange(len(piece)), _STEPS)
            )
            rows[piece] = (cost + _DESCRIPTORS * self.unlike[piece]).argmin(1)
        return rows


def _pieces(graph: sp.csr_matrix) -> list[np.ndarray]:
    """Rows of the connected pieces that are placed, the largest first."""
    label = connected_components(graph, directed=False)[1]
    count = np.bincount(label)
    order = np.argsort(-count, kind="stable")[:_PIECES]
    return [
        np.flatnonzero(label == k)
        for place, k in enumerate(order)
        if place == 0 or count[k] >= _PIECE_VERTICES
    ]


def _sample_count(piece: int, part: int) -> int:
    """Samples of a piece by its and its part's vertices."""
    return max(_PIECE_SAMPLES, round(_SAMPLES[0] * piece / part))


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


def _rim(shape: DescribedShape) -> np.ndarray:
    """Vertices of edges that one face alone has; a cloud does not say."""
    if shape.faces is None:
        return np.zeros(0, dtype=np.int64)
    faces = sew(shape.vertices, shape.faces)[0]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    found, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(found[count == 1])
