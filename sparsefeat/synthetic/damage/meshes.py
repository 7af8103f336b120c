"""What happens to meshes: a :class:`DamagedMesh` carries labels and correspondence along.

Lengths are in the unit of the vertices, unless a share of the height: the longest side of the bounding box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from sparsefeat.checks import checked_seed
from sparsefeat.errors import InputError
from sparsefeat.extras import import_extra
from sparsefeat.io.meshes import check_mesh
from sparsefeat.mesh.geodesic import geodesic_graph, surface_area
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.sampling import sample_surface
from sparsefeat.mesh.seams import sew
from sparsefeat.synthetic.damage.points import cut, one_view, sparse_cloud


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
        InputError: no such damage, what is no mesh or has no area, a seed below 0, or a mesh of which no face remains.
    """
    if kind not in DAMAGES:
        raise InputError(f"damage {kind!r}, expected one of {', '.join(DAMAGES)}")
    vertices, faces = check_mesh(vertices, faces, f"damage {kind}")
    if not surface_area(vertices, faces) > 0:
        raise InputError(f"damage {kind}: all faces are without area, expected a surface")
    rng = np.random.default_rng(checked_seed(seed))
    if kind == "bridges":
        return bridges(vertices, faces, rng, ends)
    left = DAMAGES[kind](vertices, faces, rng)
    if kind != "cloud" and not len(left.faces):
        raise InputError(
            f"damage {kind}: no face remains of a mesh of {len(vertices)} vertices and {len(faces)} faces"
        )
    return left


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
        samples.points, outwards * samples.normals, rng, count, noise * _height(vertices, faces)
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
    sewn = sew(vertices, faces)[1]
    corners = vertices[faces]
    extended = (corners != np.roll(corners, 1, axis=1)).any((1, 2))
    # Each end needs an edge that the bridge can be as wide as.
    usable = np.isin(np.arange(len(vertices)), faces[extended])
    added = []
    for pair in tip_ends(vertices, faces) if ends is None else ends:
        here, there = (end[usable[end]] for end in pair)
        if not len(here) or not len(there):
            continue
        distance, nearest = cKDTree(vertices[there]).query(vertices[here])
        first = here[distance.argmin()]
        around = here[
            np.argsort(((vertices[here] - vertices[first]) ** 2).sum(1), kind="stable")[: 4 * count]
        ]
        for a in rng.permutation(around)[:count]:
            b = there[nearest[np.flatnonzero(here == a)[0]]]
            beside = [_neighbour(rings, vertices, sewn[end]) for end in (a, b)]
            added += [(a, beside[0], b), (b, beside[1], beside[0])]
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

    Only its largest connected piece has ends.

    Args:
        tips: points that are farthest along the surface from the middle and from each other.
        apart: least distance along the surface between two ends, in roots of the area.
    """
    graph = geodesic_graph(vertices, faces)
    size = np.sqrt(surface_area(vertices, faces))
    piece = connected_components(graph, directed=False)[1]
    here = np.flatnonzero(piece == np.bincount(piece).argmax())
    middle = here[((vertices[here] - vertices[here].mean(0)) ** 2).sum(1).argmin()]
    nearest = dijkstra(graph, directed=False, indices=middle)
    nearest[np.isinf(nearest)] = 0  # of other pieces, and of vertices in no face, none is a tip
    found = []
    for _ in range(tips):
        tip = int(nearest.argmax())
        along = dijkstra(graph, directed=False, indices=tip)
        nearest = np.minimum(nearest, along)
        far = np.flatnonzero(np.isfinite(along) & (along > apart * size))
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
    edge = voxel * _height(vertices, faces)
    samples = sample_surface(vertices, faces, spacing=edge / 3, seed=rng).points
    points = np.concatenate([vertices[np.unique(faces)], samples]) / edge
    low = (
        np.floor(points.min(0)).astype(int) - 3 + rng.uniform(0, 1, 3)
    )  # the grid does not know the shape
    closed = _occupied(points, low)
    solid = scipy.ndimage.binary_fill_holes(closed)
    if solid.sum() == closed.sum():
        # A voxel that no sample fell into is a hole, through which all that is inside is outside.
        more = sample_surface(vertices, faces, spacing=edge / 6, seed=rng).points / edge
        solid = scipy.ndimage.binary_fill_holes(_occupied(np.concatenate([points, more]), low))
    corners, triangles = measure.marching_cubes(
        solid.astype(np.float32), 0.5, gradient_direction="ascent"
    )[:2]
    merged = (corners + 0.5 + low) * edge
    triangles = triangles.astype(np.int64)
    kept, place = _nearest(merged, vertices)
    return DamagedMesh(merged, triangles, outer_normals(merged, triangles)[1], kept, place)


def _occupied(points: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Which voxels around a corner have points, closed. Shape: (N, 3), (3,) -> (X, Y, Z) bool, three more on every side."""
    cells = np.floor(points - low).astype(int)
    occupied = np.zeros(cells.max(0) + 4, bool)
    occupied[tuple(cells.T)] = True
    return scipy.ndimage.binary_closing(occupied)


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
    near = near[(vertices[near] != vertices[row]).any(1)]  # not its double on a seam
    return int(near[((vertices[near] - vertices[row]) ** 2).sum(1).argmin()])


def _height(vertices: np.ndarray, faces: np.ndarray) -> float:
    """The longest edge of the surface's box: vertices in no face do not count."""
    return float(np.ptp(vertices[np.unique(faces)], axis=0).max())
