"""The template of a family: a body in rest pose, its triangulations, and its way into other bodies.

Every shape of a family is the image of the template's surface under one map that depends on the shape's
body and pose only, not on the triangulation. So a point of the template is the same point of the body on
all shapes, exactly, however differently they are triangulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components

from sparsefeat.errors import InputError
from sparsefeat.extras import import_extra
from sparsefeat.synthetic.creatures.body import Body
from sparsefeat.synthetic.creatures.cones import Cones, body_field, onto_surface

# Cones that a point of the surface feels; what others add is less than 1e-4 of a blend.
_FELT = 14
# Beyond so many blends a cone adds less than 1 % of what is left at the surface.
_REACH = 5.0
_SMOOTHING = 12
# Grids that are tried: now and then one misses a tip or bridges a gap.
_GRIDS = 10


@dataclass(frozen=True, eq=False)
class Triangulation:
    """A closed mesh of a template's surface. Shapes: vertices (N, 3), faces (F, 3)."""

    vertices: np.ndarray
    faces: np.ndarray


class Template:
    """A family's body in rest pose, limbs apart.

    Args:
        body: of template proportions. Small parts (hands, heads) may be too large here, so that a grid of
            one spacing resolves them; the map into other bodies takes care of it.
        softness: width of the border over which one bone's hold on the skin becomes another's, in blends.
        handles: take triangulations with handles, or of several components.
    """

    def __init__(self, body: Body, softness: float = 1.6, handles: bool = False):
        self.body = body
        self._accepted = _is_closed if handles else _is_sphere
        self._softness = softness
        self._near = body.neighbours().astype(float)
        # Vertices go with the inverse square of the spacing; calibrated by one coarse triangulation.
        self._coarse = float(np.median(body.cones.radius)) * 0.4
        vertices, _ = self._contour(self._coarse, np.eye(3), np.zeros(3))
        self._count = len(vertices)

    def triangulate(self, vertices: int, seed: np.random.SeedSequence) -> Triangulation:
        """A triangulation of its own: marching cubes on a grid turned and shifted at random, evened out.

        Args:
            vertices: about how many; within a few percent.
            seed: decides the grid.

        Raises:
            InputError: so few vertices do not resolve the body: the mesh is not one closed surface without
                handles.
        """
        rng = np.random.default_rng(seed)
        spacing = self._coarse * np.sqrt(self._count / vertices)
        for _ in range(_GRIDS):
            rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            rotation *= np.sign(np.linalg.det(rotation))
            points, faces = self._contour(spacing, rotation, rng.random(3))
            if self._accepted(len(points), faces):
                return Triangulation(self._evened(points, faces), faces)
            spacing *= 0.98
        raise InputError(
            f"{vertices} vertices do not resolve this creature (a grid of {spacing:.3g}); ask for more"
        )

    def weights(self, points: np.ndarray) -> np.ndarray:
        """How much each cone holds the template's skin at ``points``; rows sum to 1. (N, 3) -> (N, P)."""
        cones = self.body.cones
        exponent = -cones.distance(points) / (self._softness * cones.blend)
        weights = np.exp(exponent - exponent.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)

    def parts(self, points: np.ndarray) -> np.ndarray:
        """Part of the body at points of the template's surface. (N, 3) -> (N,) int64."""
        held = np.zeros((len(points), len(self.body.parts)))
        weights = self.weights(points)
        for part in range(held.shape[1]):
            held[:, part] = weights[:, self.body.cone_part == part].sum(1)
        return held.argmax(1)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Unit normals of the template's surface at points on it. (N, 3) -> (N, 3)."""
        cones = self.body.cones
        _, gradient = body_field(cones, points, _largest(-cones.distance(points) / cones.blend))
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)

    def carry(
        self,
        points: np.ndarray,
        cones: Cones,
        relief: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Points of the template's surface to the same points of another body's surface.

        First with the cones that hold each point, then along the gradient of the posed body's field onto its
        surface. A point feels only the cones near its own along the skeleton, so that a hand on a knee does
        not grow into it.

        Args:
            points: Shape (N, 3).
            cones: of the other body, in its pose; the same number in the same order.
            relief: heights over its skin at points of the template, in lengths of the template; (N, 3) -> (N,).

        Returns:
            Shape (N, 3).
        """
        weights = self.weights(points)
        matrix, offset = self._maps(cones)
        moved = (
            np.einsum("np,pij,nj->ni", weights, matrix, points, optimize=True) + weights @ offset
        )
        share = np.clip(weights @ self._near, 0, 1)
        near = _largest(np.log(np.maximum(share, 1e-30)) - cones.distance(moved) / cones.blend)
        share = np.take_along_axis(share, near, 1)
        moved = onto_surface(
            cones, moved, 8, near, share, limit=0.5 * float(np.median(cones.radius))
        )
        if relief is None:
            return moved
        _, gradient = body_field(cones, moved, near, share)
        outwards = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)
        unit = float(np.median(cones.radius.mean(1) / self.body.cones.radius.mean(1)))
        return moved + unit * relief(points)[:, None] * outwards

    def _maps(self, cones: Cones) -> tuple[np.ndarray, np.ndarray]:
        """The affine map of each cone of the template onto its like: (P, 3, 3), (P, 3)."""
        mine = self.body.cones
        around = cones.radius.sum(1) / mine.radius.sum(1)
        scale = np.stack(
            [
                around * cones.stretch[:, 0] / mine.stretch[:, 0],
                around * cones.stretch[:, 1] / mine.stretch[:, 1],
                np.where(mine.length > 1e-6, cones.length / np.maximum(mine.length, 1e-9), around),
            ],
            1,
        )
        matrix = np.einsum("pai,pa,paj->pij", cones.axes, scale, mine.axes)
        return matrix, cones.origin - np.einsum("pij,pj->pi", matrix, mine.origin)

    def _contour(self, spacing: float, rotation: np.ndarray, shift: np.ndarray):
        """Marching cubes on a grid turned by ``rotation`` and shifted by ``shift`` cells."""
        marching_cubes = import_extra("skimage.measure", "making creatures").marching_cubes

        count = len(self.body.cones)
        cones = self.body.cones.moved(np.tile(rotation, (count, 1, 1)), np.zeros((count, 3)))
        reach = cones.radius.max(1) * cones.stretch.max(1) + _REACH * cones.blend
        ends = np.stack([cones.origin, cones.origin + cones.length[:, None] * cones.axes[:, 2]])
        low, high = ends.min(0) - reach[:, None], ends.max(0) + reach[:, None]
        corner = low.min(0) - (1 + shift) * spacing
        shape = np.ceil((high.max(0) - corner) / spacing).astype(int) + 2
        total = np.zeros(shape)
        for p in range(count):
            first = np.floor((low[p] - corner) / spacing).astype(int)
            last = np.ceil((high[p] - corner) / spacing).astype(int) + 1
            axes = [corner[i] + spacing * np.arange(first[i], last[i]) for i in range(3)]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
            one = cones.only(p)
            box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            value = np.exp(-one.distance(grid)[:, 0] / one.blend[0])
            total[box] += value.reshape(total[box].shape)
        # The logarithm is close to a distance, in which the surface lies well between two grid points.
        level = -np.log(np.maximum(total, np.exp(-_REACH)))
        vertices, faces, _, _ = marching_cubes(level, 0.0, spacing=(spacing,) * 3)
        vertices = (vertices.astype(np.float64) + corner) @ rotation
        # Faces of skimage turn so that normals point to larger values, outwards here.
        return vertices, faces.astype(np.int64)

    def _evened(self, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Vertices moved along the surface towards the middle of their neighbours: no slivers are left."""
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        graph = coo_matrix(
            (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(points),) * 2
        ).tocsr()
        graph = ((graph + graph.T) > 0).astype(float)
        mean = diags(1 / np.asarray(graph.sum(1)).ravel()) @ graph
        cones = self.body.cones
        near = _largest(-cones.distance(points) / cones.blend)
        for _ in range(_SMOOTHING):
            value, gradient = body_field(cones, points, near)
            slope = np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)
            normal = gradient / slope
            step = mean @ points - points
            step -= (step * normal).sum(1, keepdims=True) * normal
            points = points + 0.6 * step - value[:, None] / slope * normal
        return onto_surface(cones, points, 4, near)


def _largest(values: np.ndarray) -> np.ndarray:
    """Columns of the largest `_FELT` values of each row, in order of columns. (N, P) -> (N, K)."""
    if values.shape[1] <= _FELT:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.sort(np.argpartition(values, -_FELT, axis=1)[:, -_FELT:], axis=1)


def _is_closed(count: int, faces: np.ndarray) -> bool:
    """Whether every edge of a mesh has two faces, and every vertex one."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return (
        bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())
        and len(np.unique(faces)) == count
    )


def _is_sphere(count: int, faces: np.ndarray) -> bool:
    """Whether a mesh is one closed surface without handles."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    distinct, uses = np.unique(edges, axis=0, return_counts=True)
    if not (uses == 2).all() or len(np.unique(faces)) != count:
        return False
    graph = coo_matrix((np.ones(len(distinct)), distinct.T), shape=(count, count))
    return (
        connected_components(graph, directed=False)[0] == 1
        and count - len(distinct) + len(faces) == 2
    )
