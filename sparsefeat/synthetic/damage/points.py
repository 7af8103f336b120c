"""What happens to points on a surface with unit normals to the outer side.

All functions take points and normals, Shape (N, 3) each, and a generator that everything random comes from. They return a
:class:`Damaged`, whose ``kept`` says which of the given points are left: labels are carried along by ``labels[kept]``.
Lengths are in the unit of the points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage

from sparsefeat.checks import checked_count
from sparsefeat.mesh.normals import fit_normals


class Damaged(NamedTuple):
    """What is left of a surface.

    Attributes:
        points: (M, 3) float64.
        normals: (M, 3) float64 unit vectors.
        kept: (M,) int64 rows of the given points, ascending.
    """

    points: np.ndarray
    normals: np.ndarray
    kept: np.ndarray


def cut(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, share: float) -> Damaged:
    """Keep the points on one side of a plane of random direction: ``share`` of them, at least one."""
    height = points @ _direction(rng)
    count = max(1, min(len(points), round(share * len(points))))
    return _keep(points, normals, np.sort(np.argsort(height, kind="stable")[:count]))


def one_view(
    points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, pixel: float
) -> Damaged:
    """Keep what a distant camera in a random direction sees.

    Args:
        pixel: edge of a pixel; should have a point or more where the surface faces the camera. Points deeper than
            two of them behind the first in their pixel are hidden.
    """
    if not len(points):
        return _keep(points, normals, np.arange(0))
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    across, depth = points @ axes[:2].T, points @ axes[2]
    cells = np.floor(across / pixel).astype(np.int64)
    cells -= cells.min(0)
    keys = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    first = np.full(keys.max() + 1, np.inf)
    np.minimum.at(first, keys, depth)
    # The camera is at -infinity of the depth.
    seen = (depth < first[keys] + 2 * pixel) & (normals @ axes[2] < -0.05)
    if not seen.any():
        seen[depth.argmin()] = True
    return _keep(points, normals, np.flatnonzero(seen))


def noise(
    points: np.ndarray,
    normals: np.ndarray,
    rng: np.random.Generator,
    deviation: float,
    tilt: float = 0.0,
) -> Damaged:
    """Move all points by Gaussian noise of ``deviation`` per axis, and tilt normals by ``tilt`` radians per axis."""
    moved = points + deviation * rng.normal(size=points.shape)
    return Damaged(
        moved, _unit(normals + tilt * rng.normal(size=normals.shape)), np.arange(len(points))
    )


def sparse_cloud(
    points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, count: int, deviation: float
) -> Damaged:
    """Keep ``count`` random points with noise, and fit their normals to their neighbours.

    The given normals say only which side is outside.

    Raises:
        InputError: a count that is no whole number of at least 0.
    """
    checked_count(count, "sparse_cloud: count", 0)
    kept = np.sort(rng.permutation(len(points))[:count])
    if not len(kept):
        return _keep(points, normals, kept)
    moved = points[kept] + deviation * rng.normal(size=(len(kept), 3))
    fitted = fit_normals(moved)
    side = np.where((fitted * normals[kept]).sum(1, keepdims=True) < 0, -1.0, 1.0)
    return Damaged(moved, side * fitted, kept)


def fuse(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, edge: float) -> Damaged:
    """Move all points to the surface that a coarse fusion of depth images leaves: what comes close is merged.

    Occupied voxels are closed, filled and blurred by half a voxel; points inside of what is merged are left out. The
    surface lies about half a voxel farther out, as that of :func:`sparsefeat.synthetic.damage.fusion` does.

    Args:
        edge: of a voxel; should have a point or more where the surface lies.
    """
    if not len(points):
        return Damaged(points, normals, np.arange(0))
    low = points.min(0) / edge - 4 - rng.uniform(0, 1, 3)  # the grid does not know the shape
    places = points / edge - low
    occupied = np.zeros(np.floor(places.max(0)).astype(int) + 5, bool)
    occupied[tuple(np.floor(places).astype(int).T)] = True
    closed = scipy.ndimage.binary_closing(occupied, np.ones((3, 3, 3)))
    solid = scipy.ndimage.binary_fill_holes(closed)
    inside = scipy.ndimage.gaussian_filter(solid.astype(float), 0.5 + rng.uniform(0, 0.5))
    slopes = np.stack(np.gradient(inside))

    def at(field: np.ndarray) -> np.ndarray:
        return scipy.ndimage.map_coordinates(field, places.T - 0.5, order=1, mode="nearest")

    for _ in range(3):
        slope = np.stack([at(part) for part in slopes], 1)
        steepness = (slope * slope).sum(1, keepdims=True)
        move = (0.5 - at(inside))[:, None] * slope / np.maximum(steepness, 1e-2)
        places = places + np.clip(move, -1, 1)
    slope = np.stack([at(part) for part in slopes], 1)
    there = (_length(slope) > 0.1) & (np.abs(at(inside) - 0.5) < 0.2)
    # Where a gap in the points kept the voxels from being filled, the other side of them may be nearer.
    kept = np.flatnonzero(there & ((slope * normals).sum(1) < 0))
    if not len(kept):  # nothing but blur
        return Damaged(points, normals, np.arange(len(points)))
    return Damaged((places[kept] + low) * edge, _unit(-slope[kept]), kept)


def bend(
    points: np.ndarray,
    normals: np.ndarray,
    rng: np.random.Generator,
    strain: float,
    size: float,
    waves: int = 6,
) -> Damaged:
    """Bend space smoothly: add a sum of plane waves of random direction, wavelength and displacement.

    Args:
        strain: root mean square of the displacement's derivative.
        size: of the shape; wavelengths are 0.7 to 3 times it.
    """
    waves_of = rng.normal(size=(waves, 3))
    waves_of *= (
        2
        * np.pi
        / (np.exp(rng.uniform(np.log(0.7), np.log(3), waves)) * size * _length(waves_of))[:, None]
    )
    # Of a wave of amplitude a and number w, the derivative's root mean square is a w / sqrt 2.
    amplitude = (
        _unit(rng.normal(size=(waves, 3)))
        * (strain * np.sqrt(2 / waves) / _length(waves_of))[:, None]
    )
    phase = points @ waves_of.T + rng.uniform(0, 2 * np.pi, waves)
    moved = points + np.sin(phase) @ amplitude
    # Normals go with the cofactors of the derivative; its columns are the images of the axes.
    slope = np.cos(phase)
    x, y, z = (np.eye(3)[axis] + (slope * waves_of[:, axis]) @ amplitude for axis in range(3))
    turned = (
        normals[:, :1] * np.cross(y, z)
        + normals[:, 1:2] * np.cross(z, x)
        + normals[:, 2:] * np.cross(x, y)
    )
    return Damaged(moved, _unit(turned), np.arange(len(points)))


def _keep(points: np.ndarray, normals: np.ndarray, kept: np.ndarray) -> Damaged:
    return Damaged(points[kept], normals[kept], kept)


def _direction(rng: np.random.Generator) -> np.ndarray:
    return _unit(rng.normal(size=(1, 3)))[0]


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(_length(vectors), 1e-12)[:, None]
