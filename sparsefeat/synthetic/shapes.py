"""Triangle meshes of simple bodies: the vocabulary that furniture is spelled in.

Every function returns a `Mesh` in metres, z up. Surfaces need not be closed or free of intersections:
they are only ever seen by a ray caster, which stops at the first hit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Mesh(NamedTuple):
    """Vertices (V,3) float64 in metres, faces (F,3) int64, material (F,) int8: see `depth_noise.FAINTEST`."""

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray

    @staticmethod
    def of(vertices: np.ndarray, faces: np.ndarray, material: int = 0) -> Mesh:
        faces = np.asarray(faces, np.int64).reshape(-1, 3)
        return Mesh(
            np.asarray(vertices, np.float64).reshape(-1, 3),
            faces,
            np.full(len(faces), material, np.int8),
        )

    def moved(self, offset) -> Mesh:
        return self._replace(vertices=self.vertices + np.asarray(offset, np.float64))

    def scaled(self, factor) -> Mesh:
        return self._replace(vertices=self.vertices * np.asarray(factor, np.float64))

    def turned(self, angle: float, axis: int = 2) -> Mesh:
        """Rotated by ``angle`` radians about a coordinate axis through the origin."""
        return self._replace(vertices=self.vertices @ axis_rotation(angle, axis).T)

    def of_material(self, material: int) -> Mesh:
        return self._replace(material=np.full(len(self.faces), material, np.int8))


def axis_rotation(angle: float, axis: int) -> np.ndarray:
    """Rotation matrix (3,3) by ``angle`` radians about coordinate axis 0, 1 or 2."""
    rotation = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    c, s = np.cos(angle), np.sin(angle)
    rotation[a, a], rotation[a, b], rotation[b, a], rotation[b, b] = c, -s, s, c
    return rotation


def join(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of all the given ones (an empty mesh for none)."""
    meshes = list(meshes)
    if not meshes:
        return Mesh.of(np.zeros((0, 3)), np.zeros((0, 3)))
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)]),
        np.concatenate([m.material for m in meshes]),
    )


def lattice(points: np.ndarray, wrap_u: bool = False, wrap_v: bool = False) -> Mesh:
    """Mesh of a parametric surface sampled as ``points`` (U,V,3), optionally closed along u or v."""
    nu, nv = points.shape[:2]
    u = np.arange(nu if wrap_u else nu - 1)
    v = np.arange(nv if wrap_v else nv - 1)
    u, v = (a.ravel() for a in np.meshgrid(u, v, indexing="ij"))
    a, b = u * nv + v, ((u + 1) % nu) * nv + v
    c, d = ((u + 1) % nu) * nv + (v + 1) % nv, u * nv + (v + 1) % nv
    return Mesh.of(points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
)


def box(size, center=(0, 0, 0)) -> Mesh:
    """Axis-aligned box of the given ``size`` (3,) about ``center`` (3,)."""
    return Mesh.of(_CORNERS * np.asarray(size, float) + np.asarray(center, float), _BOX_FACES)


def slab(x0, x1, y0, y1, z0, z1) -> Mesh:
    """Axis-aligned box between two corners."""
    return box((x1 - x0, y1 - y0, z1 - z0), ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2))


def tapered_box(size, top_scale, shift=(0, 0), center=(0, 0, 0)) -> Mesh:
    """Box whose upper face is scaled by ``top_scale`` and shifted by ``shift`` (2,)."""
    corners = _CORNERS.copy()
    upper = corners[:, 2] > 0
    corners[upper, :2] *= top_scale
    corners = corners * np.asarray(size, float)
    corners[upper, :2] += np.asarray(shift, float)
    return Mesh.of(corners + np.asarray(center, float), _BOX_FACES)


def _cube_sphere(n: int) -> Mesh:
    """Surface of the cube [-1,1]^3, ``n`` cells along an edge."""
    t = np.linspace(-1, 1, n + 1)
    u, v = np.meshgrid(t, t, indexing="ij")
    sides = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            side = np.empty((n + 1, n + 1, 3))
            side[..., axis], side[..., (axis + 1) % 3], side[..., (axis + 2) % 3] = sign, u, v
            sides.append(lattice(side))
    return join(sides)


def rounded_box(size, radius: float, center=(0, 0, 0), n: int = 6) -> Mesh:
    """Box with edges rounded to ``radius``: mattresses, upholstery, bags."""
    half = np.asarray(size, float) / 2
    radius = min(radius, half.min())
    cube = _cube_sphere(n)
    # Cells are crowded towards the edges, where the curvature is.
    spread = np.sign(cube.vertices) * np.abs(cube.vertices) ** 0.6
    outer = spread * half
    inner = np.clip(outer, -(half - radius), half - radius)
    away = outer - inner
    length = np.linalg.norm(away, axis=1, keepdims=True)
    points = inner + away * (radius / np.maximum(length, 1e-9))
    return cube._replace(
        vertices=np.where(length > 1e-9, points, outer) + np.asarray(center, float)
    )


def cushion(size, center=(0, 0, 0), n: int = 8, power: float = 2.6) -> Mesh:
    """Pillow: thick in the middle, thin at the rim, corners drawn out."""
    x, y = np.meshgrid(np.linspace(-1, 1, n + 1), np.linspace(-1, 1, n + 1), indexing="ij")
    thick = ((1 - np.abs(x) ** power) * (1 - np.abs(y) ** power)) ** 0.5
    pinch = 1 - 0.07 * (1 - x**2) * np.abs(y) ** 4, 1 - 0.07 * (1 - y**2) * np.abs(x) ** 4
    upper = np.stack([x * pinch[1], y * pinch[0], thick], -1)
    lower = upper * [1, 1, -1]
    both = join([lattice(upper), lattice(lower)])
    return both.scaled(np.asarray(size, float) / 2).moved(center)


def ellipsoid(size, center=(0, 0, 0), n: int = 5) -> Mesh:
    """Ellipsoid with the given full axes (3,)."""
    cube = _cube_sphere(n)
    unit = cube.vertices / np.linalg.norm(cube.vertices, axis=1, keepdims=True)
    return cube._replace(vertices=unit * np.asarray(size, float) / 2 + np.asarray(center, float))


def lathe(profile, segments: int = 20, center=(0, 0, 0), sweep: float = 2 * np.pi) -> Mesh:
    """Surface of revolution about z of a ``profile`` (P,2) of (radius, height)."""
    profile = np.asarray(profile, float)
    closed = sweep >= 2 * np.pi - 1e-6
    angle = np.linspace(0, sweep, segments, endpoint=not closed)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.empty((segments, len(profile), 3))
    points[..., :2] = ring[:, None] * profile[None, :, :1]
    points[..., 2] = profile[:, 1]
    return lattice(points, wrap_u=closed).moved(center)


def cylinder(
    radius: float, height: float, center=(0, 0, 0), segments: int = 16, top: float | None = None
) -> Mesh:
    """Capped upright cylinder about ``center``, or a cone frustum with upper radius ``top``."""
    top = radius if top is None else top
    h = height / 2
    return lathe([(0, -h), (radius, -h), (top, h), (0, h)], segments, center)


def tube(path, radius, sides: int = 8, closed: bool = False) -> Mesh:
    """Tube of ``radius`` (a number or (P,)) along ``path`` (P,3): cables, handles, pipes, legs."""
    path = np.asarray(path, float)
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.cross(
        tangent[0], [0.31, 0.17, 0.93] if abs(tangent[0, 2]) < 0.8 else [0.93, 0.31, 0.17]
    )
    sides_along = np.empty_like(path)
    for k, t in enumerate(tangent):  # parallel transport, so that the tube does not twist
        side = side - t * (side @ t)
        side = side / max(np.sqrt(side @ side), 1e-9)
        sides_along[k] = side
    frames = np.stack([sides_along, np.cross(tangent, sides_along)], 1)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    radius = np.broadcast_to(np.asarray(radius, float), (len(path),))
    ring = (
        np.cos(angle)[None, :, None] * frames[:, None, 0]
        + np.sin(angle)[None, :, None] * frames[:, None, 1]
    )
    return lattice(path[:, None] + ring * radius[:, None, None], wrap_u=closed, wrap_v=True)


def rod(start, end, radius: float, sides: int = 8, end_radius: float | None = None) -> Mesh:
    """Straight round bar between two points, open at its ends."""
    return tube([start, end], [radius, radius if end_radius is None else end_radius], sides)


def torus(
    radius: float, thickness: float, center=(0, 0, 0), segments: int = 24, sides: int = 8
) -> Mesh:
    """Ring about z; ``thickness`` is the radius of its tube."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(segments)], -1)
    return tube(path, thickness, sides, closed=True).moved(center)


def capsule(start, end, radius: float, sides: int = 10) -> Mesh:
    """Round bar with hemispherical ends."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / max(np.linalg.norm(end - start), 1e-9)
    angle = np.linspace(np.pi / 2, 0.15, 4)
    caps = np.sin(angle) * radius
    along = np.concatenate([start - caps[:, None] * axis, end + caps[::-1, None] * axis])
    widths = np.concatenate([np.cos(angle), np.cos(angle)[::-1]]) * radius
    return tube(along, np.maximum(widths, 1e-4), sides)


def prism(outline, height: float, center=(0, 0, 0)) -> Mesh:
    """Upright prism over ``outline`` (P,2), a polygon that its own centroid sees entirely."""
    outline = np.asarray(outline, float)
    n = len(outline)
    ring = np.concatenate([outline, outline.mean(0, keepdims=True)])
    lower, upper = np.c_[ring, np.full(n + 1, -height / 2)], np.c_[ring, np.full(n + 1, height / 2)]
    k, following = np.arange(n), (np.arange(n) + 1) % n
    fan = np.stack([k, following, np.full(n, n)], 1)
    m = n + 1
    walls = np.concatenate(
        [np.stack([k, following, following + m], 1), np.stack([k, following + m, k + m], 1)]
    )
    return Mesh.of(np.concatenate([lower, upper]), np.concatenate([fan, fan + m, walls])).moved(
        center
    )


def curve(points, samples: int = 16) -> np.ndarray:
    """Smooth path (samples,3) through a few control points (Catmull-Rom)."""
    points = np.asarray(points, float)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, len(points) - 1, samples)
    k = np.minimum(t.astype(int), len(points) - 2)
    f = (t - k)[:, None]
    a, b, c, d = padded[k], padded[k + 1], padded[k + 2], padded[k + 3]
    return 0.5 * (
        2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3
    )


class SmoothNoise:
    """A smooth random field of one value per point: a sum of plane waves of random direction and phase.

    Args:
        rng: source of randomness.
        scale: typical wavelength in metres.
        waves: number of plane waves.
    """

    def __init__(self, rng: np.random.Generator, scale: float, waves: int = 12):
        direction = rng.normal(size=(waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.frequency = direction * (2 * np.pi / (scale * rng.uniform(0.6, 1.8, (waves, 1))))
        self.phase = rng.uniform(0, 2 * np.pi, waves)
        self.gain = np.sqrt(2 / waves)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (...,) at ``points`` (...,3), with mean 0 and standard deviation about 1."""
        return self.gain * np.sin(points @ self.frequency.T + self.phase).sum(-1)


def wobble(mesh: Mesh, rng: np.random.Generator, amplitude: float, scale: float) -> Mesh:
    """The mesh with every vertex moved by a smooth random vector field: nothing in a home is exact."""
    shift = np.stack([SmoothNoise(rng, scale)(mesh.vertices) for _ in range(3)], -1)
    return mesh._replace(vertices=mesh.vertices + amplitude * shift)


def sheet(
    width: float, depth: float, rng: np.random.Generator, height: float, scale: float, n: int = 20
) -> Mesh:
    """Horizontal cloth about the origin with random folds of ``height`` and wavelength ``scale``."""
    nx, ny = max(4, int(n * width / max(width, depth))), max(4, int(n * depth / max(width, depth)))
    x, y = np.meshgrid(
        np.linspace(-0.5, 0.5, nx) * width, np.linspace(-0.5, 0.5, ny) * depth, indexing="ij"
    )
    points = np.stack([x, y, np.zeros_like(x)], -1)
    points[..., 2] = height * (
        1 + 0.6 * SmoothNoise(rng, scale)(points) + 0.25 * SmoothNoise(rng, scale / 2.5)(points)
    )
    return lattice(points)


def drape(
    width: float, height: float, rng: np.random.Generator, fold: float, wavelength: float
) -> Mesh:
    """Hanging curtain in the xz plane from z = 0 down, with irregular vertical folds of depth ``fold``."""
    columns = int(np.clip(width / wavelength * 8, 12, 90))
    x = np.linspace(-0.5, 0.5, columns) * width
    rows = np.linspace(0, 1, 8)
    phase = np.cumsum(rng.uniform(0.6, 1.5, columns)) * 2 * np.pi * (x[1] - x[0]) / wavelength
    drift = rng.uniform(-1.2, 1.2, 3)
    y = (
        fold
        * (0.5 + 0.7 * rows[None])
        * np.sin(phase[:, None] + drift[0] * rows[None] + drift[1] * np.sin(3 * rows[None]))
    )
    gathered = x[:, None] * (1 - 0.12 * drift[2] * np.sin(np.pi * rows[None]))
    z = np.broadcast_to(-height * rows[None], y.shape)
    return lattice(np.stack([gathered, y, z], -1))
