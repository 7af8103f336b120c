"""Points on the surface of a mesh, uniform by area."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sparsefeat.checks import checked_count, checked_positive, checked_seed
from sparsefeat.errors import InputError
from sparsefeat.io.meshes import check_mesh

_MAX_SAMPLES = 1 << 28


class SurfaceSamples(NamedTuple):
    """Points on a surface.

    Attributes:
        points: (S, 3) float64.
        faces: (S,) int64, the face that each lies on.
        barycentric: (S, 3) float64, weights of that face's corners, >= 0 and of sum 1: the same place
            of a deformed mesh, or a value there of a function on the vertices, is their weighted sum.
        normals: (S, 3) float64, unit normals of those faces.
    """

    points: np.ndarray
    faces: np.ndarray
    barycentric: np.ndarray
    normals: np.ndarray


def sample_surface(
    vertices: np.ndarray,
    faces: np.ndarray,
    count: int | None = None,
    *,
    spacing: float | None = None,
    seed: int | np.random.Generator = 0,
) -> SurfaceSamples:
    """Draw points independently and uniformly by area.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3). Those without area get no points.
        count: number of points.
        spacing: instead of ``count``: one point per ``spacing ** 2`` of area on average, rounded up, in the unit
            of the vertices. Independent points leave gaps: at one per voxel face, a voxel that the surface
            fills stays empty with probability 1/e; with half that spacing, with 1/e⁴ = 2 %.
        seed: number, or a generator to draw from.

    Raises:
        InputError: not a mesh, no area at all, neither or both of count and spacing, or a negative seed.
    """
    vertices, faces = check_mesh(vertices, faces)
    areas, normals = _areas(vertices, faces)
    total = float(areas.sum())
    if (count is None) == (spacing is None):
        raise InputError(f"count {count} and spacing {spacing}, expected one of them")
    if spacing is not None:
        number = _check_length(
            spacing, "spacing", total / checked_positive(spacing, "spacing") ** 2
        )
        count = math.ceil(number)
    if checked_count(count, "count", 0) > _MAX_SAMPLES:
        raise InputError(f"count {count!r}, expected a whole number from 0 to {_MAX_SAMPLES}")
    if not (total > 0 and math.isfinite(total)):
        raise InputError(f"the mesh has area {total:g}, expected a positive one")
    generator = seed if isinstance(seed, np.random.Generator) else checked_seed(seed)
    return _draw(vertices, faces, areas, normals, int(count), np.random.default_rng(generator))


def _draw(
    vertices: np.ndarray,
    faces: np.ndarray,
    areas: np.ndarray,
    normals: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> SurfaceSamples:
    cumulative = np.cumsum(areas)
    # Right of equal values, so that a face without area, whose interval is empty, is never drawn; a draw
    # that rounds up to the total would lie beyond the last face that has some.
    draws = np.minimum(rng.random(count) * cumulative[-1], np.nextafter(cumulative[-1], 0))
    chosen = np.searchsorted(cumulative, draws, side="right")
    u, v = rng.random((2, count))
    # The square folded over its diagonal is the triangle.
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    barycentric = np.stack([np.maximum(1 - u - v, 0), u, v], 1)
    points = np.einsum("sk,skd->sd", barycentric, vertices[faces[chosen]])
    return SurfaceSamples(points, chosen, barycentric, normals[chosen])


def _areas(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas (F,) and unit normals (F, 3), zeros where there is no area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    normals = np.divide(cross, length[:, None], out=np.zeros_like(cross), where=length[:, None] > 0)
    return length / 2, normals


def _check_length(value: float, what: str, points: float) -> float:
    if not points <= _MAX_SAMPLES:
        raise InputError(
            f"{what} {value:g} needs {points:.3g} points, expected at most {_MAX_SAMPLES:.3g}"
        )
    return points
