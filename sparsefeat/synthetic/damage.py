"""What happens to shapes outside of data sets: they are cut, seen from one side, scanned, merged, noisy, bent.

Meshes: :func:`damage_mesh` takes a mesh, the name of a damage (:data:`DAMAGES`) and a seed; the function of each name
is here, too. They return a :class:`DamagedMesh`, which carries labels and correspondence along.

Points: :func:`cut`, :func:`one_view`, :func:`noise`, :func:`sparse_cloud`, :func:`fuse` and :func:`bend` take points on a
surface with unit normals to the outer side, Shape (N, 3) each, and a generator that everything random comes from. They return
a :class:`Damaged`, whose ``kept`` says which of the given points are left: labels are carried along by ``labels[kept]``.

Lengths are in the unit of the points, unless a share of the height: the longest side of the bounding box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from sparsefeat.errors import InputError
from sparsefeat.extras import import_extra
from sparsefeat.mesh.geodesic import geodesic_graph, surface_area
from sparsefeat.mesh.normals import fit_normals, outer_normals
from sparsefeat.mesh.sampling import sample_surface


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
    """
    kept = np.sort(rng.permutation(len(points))[:count])
    moved = points[kept] + deviation * rng.normal(size=(len(kept), 3))
    fitted = fit_normals(moved)
    side = np.where((fitted * normals[kept]).sum(1, keepdims=True) < 0, -1.0, 1.0)
    return Damaged(moved, side * fitted, kept)


def fuse(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, edge: float) -> Damaged:
    """Move all points to the surface that a coarse fusion of depth images leaves: what comes close is merged.

    Occupied voxels are closed, filled and blurred by half a voxel; points inside of what is merged are left out. The
    surface lies about half a voxel farther out, as that of :func:`fusion` does.

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


class DamagedMesh(NamedTuple):
    """What became of a mesh of N vertices.

    Attributes:
        vertices: (M, 3) float64.
        faces: (G, 3) int64; none for a cloud.
        normals: (M, 3) float64 unit normals of the vertices to the outer side; of a cloud fitted, of a mesh those of
            the whole surface where it is known.
        kept: (M,) int64, the given vertex that each vertex is, or the nearest one: ``labels[kept]`` are its labels.
        place: (N,) int64, the row here of each given vertex, or the nearest one; -1 where it is lost:
            ``place[landmarks]`` are its landmarks.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    kept: np.ndarray
    place: np.ndarray


Ends = Sequence[tuple[np.ndarray, np.ndarray]]


def damage_mesh(
    kind: str, vertices: np.ndarray, faces: np.ndarray, seed: int = 0, ends: Ends | None = None
) -> DamagedMesh:
    """Damage a mesh as :data:`DAMAGES` names it, with the settings that the functions have by default.

    Args:
        kind: one of :data:`DAMAGES`.
        vertices: Shape (N, 3).
        faces: Shape (F, 3).
        seed: the same seed gives the same damage.
        ends: for ``"bridges"``, see there.

    Raises:
        InputError: no such damage, or a mesh that it cannot be done to.
    """
    if kind not in DAMAGES:
        raise InputError(f"damage {kind!r}, expected one of {', '.join(DAMAGES)}")
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    if not len(faces):
        raise InputError(
            f"damage {kind}: expected a mesh, got {len(vertices)} points without faces"
        )
    rng = np.random.default_rng(seed)
    if kind == "bridges":
        return bridges(vertices, faces, rng, ends)
    return DAMAGES[kind](vertices, faces, rng)


def cut_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    rng: np.random.Generator,
    shares: tuple[float, float] = (0.5, 0.6),
) -> DamagedMesh:
    """Keep the vertices on one side of a plane of random direction: a share of them, uniform between ``shares``."""
    normals = outer_normals(vertices, faces)[1]
    return _restricted(
        vertices, faces, normals, cut(vertices, normals, rng, rng.uniform(*shares)).kept
    )


def view_mesh(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator, pixel: float = 0.012
) -> DamagedMesh:
    """Keep the vertices that a distant camera in a random direction sees.

    Args:
        pixel: edge of a pixel, in roots of the area.
    """
    outwards, normals = outer_normals(vertices, faces)
    edge = pixel * np.sqrt(surface_area(vertices, faces))
    # Four points to a pixel that the surface faces: what is hidden by a large triangle is hidden.
    samples = sample_surface(vertices, faces, spacing=edge / 2, seed=rng)
    points = np.concatenate([vertices, samples.points])
    seen = one_view(points, np.concatenate([normals, outwards * samples.normals]), rng, edge).kept
    return _restricted(vertices, faces, normals, seen[seen < len(vertices)])


def cloud(
    vertices: np.ndarray,
    faces: np.ndarray,
    rng: np.random.Generator,
    count: int = 3000,
    noise: float = 0.005,
) -> DamagedMesh:
    """Scan the surface: random points, uniform by area, with noise, and normals fitted to them.

    Args:
        count: number of points.
        noise: deviation per axis, a share of the height.
    """
    outwards = outer_normals(vertices, faces)[0]
    samples = sample_surface(vertices, faces, count, seed=rng)
    scan = sparse_cloud(
        samples.points, outwards * samples.normals, rng, count, noise * _height(vertices)
    )
    kept, place = _nearest(samples.points[scan.kept], vertices)
    return DamagedMesh(scan.points, np.zeros((0, 3), np.int64), scan.normals, kept, place)


def bridges(
    vertices: np.ndarray,
    faces: np.ndarray,
    rng: np.random.Generator,
    ends: Ends | None = None,
    count: int = 4,
) -> DamagedMesh:
    """Stick parts of a mesh together by pairs of thin faces, as scans do where a hand touches the body.

    Args:
        ends: pairs of vertex sets, rows (A,) and (B,) each, to be joined where they are nearest to each other, such as
            :func:`part_ends` makes. None: the tips of the shape and what is near to them but far along the surface.
        count: pairs of faces between two ends.
    """
    rings = sp.csr_matrix(geodesic_graph(vertices, faces) > 0)
    added = []
    for here, there in tip_ends(vertices, faces) if ends is None else ends:
        distance, nearest = cKDTree(vertices[there]).query(vertices[here])
        first = here[distance.argmin()]
        around = here[
            np.argsort(((vertices[here] - vertices[first]) ** 2).sum(1), kind="stable")[: 4 * count]
        ]
        for a in rng.permutation(around)[:count]:
            b = there[nearest[np.flatnonzero(here == a)[0]]]
            pair = [_neighbour(rings, vertices, end) for end in (a, b)]
            added += [(a, pair[0], b), (b, pair[1], pair[0])]
    rows = np.arange(len(vertices))
    normals = outer_normals(vertices, faces)[1]
    extra = np.array(added, dtype=np.int64).reshape(-1, 3)
    return DamagedMesh(vertices.copy(), np.concatenate([faces, extra]), normals, rows, rows.copy())


def part_ends(
    faces: np.ndarray, labels: np.ndarray, parts: Sequence[int], others: Sequence[int]
) -> Ends:
    """Ends of bridges from each connected piece of some parts to what else there is of others.

    Args:
        faces: Shape (F, 3).
        labels: part of each vertex. Shape (N,).
        parts, others: labels; equal ones join the pieces of one kind with each other, as a left leg with a right one.
    """
    inside = np.isin(labels, parts)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    edges = edges[inside[edges].all(1)]
    graph = sp.coo_matrix(
        (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(labels), len(labels))
    )
    piece = connected_components(graph, directed=False)[1]
    names, sizes = np.unique(piece[inside], return_counts=True)
    found, done = [], np.zeros(len(labels), bool)
    for name in names[sizes > 0.05 * inside.sum()]:  # what a few stray labels make is no part
        here = inside & (piece == name)
        done |= here  # pieces of one kind are joined once
        there = np.isin(labels, others) & ~(done if set(parts) & set(others) else here)
        if there.any():
            found.append((np.flatnonzero(here), np.flatnonzero(there)))
    return found


def tip_ends(vertices: np.ndarray, faces: np.ndarray, tips: int = 5, apart: float = 0.6) -> Ends:
    """Ends of bridges from the tips of a shape to the nearest place that is far along the surface.

    Args:
        tips: points that are farthest along the surface from the middle and from each other.
        apart: least distance along the surface between two ends, in roots of the area.
    """
    graph = geodesic_graph(vertices, faces)
    size = np.sqrt(surface_area(vertices, faces))
    middle = int(((vertices - vertices.mean(0)) ** 2).sum(1).argmin())
    nearest = _reachable(dijkstra(graph, directed=False, indices=middle))
    found = []
    for _ in range(tips):
        tip = int(nearest.argmax())
        along = _reachable(dijkstra(graph, directed=False, indices=tip))
        nearest = np.minimum(nearest, along)
        far = np.flatnonzero(along > apart * size)
        if len(far):
            found.append((np.flatnonzero(along < 0.1 * size), far))
    return found


def fusion(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator, voxel: float = 0.022
) -> DamagedMesh:
    """The surface that a coarse fusion of depth images leaves: what comes close is merged (needs scikit-image).

    Occupied voxels are closed, filled and meshed by marching cubes.

    Args:
        voxel: edge of a voxel, a share of the height.
    """
    measure = import_extra("skimage.measure", "fused shapes")
    edge = voxel * _height(vertices)
    samples = sample_surface(vertices, faces, spacing=edge / 3, seed=rng).points
    points = np.concatenate([vertices, samples]) / edge
    low = (
        np.floor(points.min(0)).astype(int) - 3 + rng.uniform(0, 1, 3)
    )  # the grid does not know the shape
    cells = np.floor(points - low).astype(int)
    occupied = np.zeros(cells.max(0) + 4, bool)
    occupied[tuple(cells.T)] = True
    solid = scipy.ndimage.binary_fill_holes(scipy.ndimage.binary_closing(occupied))
    corners, triangles = measure.marching_cubes(solid.astype(np.float32), 0.5)[:2]
    merged = (corners + 0.5 + low) * edge
    triangles = triangles.astype(np.int64)
    kept, place = _nearest(merged, vertices)
    return DamagedMesh(merged, triangles, outer_normals(merged, triangles)[1], kept, place)


def remesh(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator, count: int = 1000
) -> DamagedMesh:
    """Another triangulation: the dual of the geodesic Voronoi cells of ``count`` vertices, spread evenly."""
    if len(vertices) <= count:
        rows = np.arange(len(vertices))
        return DamagedMesh(
            vertices.copy(), faces.copy(), outer_normals(vertices, faces)[1], rows, rows.copy()
        )
    used = np.unique(faces)
    seeds = [int(rng.choice(used))]
    nearest = np.full(len(vertices), -1.0)
    nearest[used] = np.inf  # vertices without faces are no places of the surface
    for _ in range(count - 1):
        nearest = np.minimum(nearest, ((vertices - vertices[seeds[-1]]) ** 2).sum(1))
        seeds.append(int(nearest.argmax()))
    chosen = np.array(sorted(set(seeds)))
    graph = geodesic_graph(vertices, faces)
    owner = dijkstra(
        graph, directed=False, indices=chosen, min_only=True, return_predecessors=True
    )[2]
    row = np.full(len(vertices) + 1, -1)  # the last one for vertices that nothing reaches
    row[chosen] = np.arange(len(chosen))
    place = row[np.where(owner < 0, len(vertices), owner)]
    triangles = place[faces]
    distinct = (triangles != np.roll(triangles, 1, 1)).all(1) & (triangles >= 0).all(1)
    triangles = triangles[distinct]
    first = np.unique(np.sort(triangles, 1), axis=0, return_index=True)[1]
    triangles = triangles[np.sort(first)]
    moved = vertices[chosen]
    return DamagedMesh(moved, triangles, outer_normals(moved, triangles)[1], chosen, place)


DAMAGES: dict[str, Callable[..., DamagedMesh]] = {
    "cut": cut_mesh,
    "one_view": view_mesh,
    "cloud": cloud,
    "bridges": bridges,
    "fusion": fusion,
    "remeshed": remesh,
}
"""What :func:`damage_mesh` does, by name."""


def _restricted(
    vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, kept: np.ndarray
) -> DamagedMesh:
    """The faces between the kept vertices, and the vertices that have such a face."""
    left = np.zeros(len(vertices), bool)
    left[kept] = True
    faces = faces[left[faces].all(1)]
    kept = np.unique(faces) if len(faces) else kept
    place = np.full(len(vertices), -1)
    place[kept] = np.arange(len(kept))
    return DamagedMesh(vertices[kept], place[faces], normals[kept], kept, place)


def _nearest(points: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vertex of each point, and the nearest point of each vertex."""
    return cKDTree(vertices).query(points)[1], cKDTree(points).query(vertices)[1]


def _neighbour(rings: sp.csr_matrix, vertices: np.ndarray, row: int) -> int:
    near = rings.indices[rings.indptr[row] : rings.indptr[row + 1]]
    return int(near[((vertices[near] - vertices[row]) ** 2).sum(1).argmin()])


def _reachable(distances: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(distances), distances, 0.0)


def _height(vertices: np.ndarray) -> float:
    return float(np.ptp(vertices, axis=0).max())


def _keep(points: np.ndarray, normals: np.ndarray, kept: np.ndarray) -> Damaged:
    return Damaged(points[kept], normals[kept], kept)


def _direction(rng: np.random.Generator) -> np.ndarray:
    return _unit(rng.normal(size=(1, 3)))[0]


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(_length(vectors), 1e-12)[:, None]
