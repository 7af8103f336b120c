"""One creature from a seed: body, pose, triangulation, labels and landmarks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.checks import checked_count
from sparsefeat.errors import InputError
from sparsefeat.synthetic.creatures.body import Body, turn
from sparsefeat.synthetic.creatures.cones import Cones
from sparsefeat.synthetic.creatures.families import PART_NAMES, find_family, landmarks, template
from sparsefeat.synthetic.creatures.relief import random_relief
from sparsefeat.synthetic.creatures.template import Triangulation

# Poses are drawn again until limbs run into each other by less than this share of a typical limb's radius.
_OVERLAP = 0.25
_DRAWS = 12
_YAW_DEG = 25.0
# Vertex counts differ by up to this share, so that no two shapes are sampled alike.
_COUNT_SPREAD = 0.15


@dataclass(frozen=True, eq=False)
class Creature:
    """A posed creature.

    Attributes:
        vertices: (N, 3) float64, metres, z up, standing or lying on z = 0.
        faces: (F, 3) int64, a closed surface without handles, counter-clockwise from outside.
        parts: (N,) int64, part of each vertex, a row of ``PART_NAMES``.
        template: (N, 3) float64, the point of the family's template that each vertex is the image of.
        landmarks: (L,) int64, vertex nearest to each landmark of the family, on the template.
        landmark_places: (L, 3) float64, where the landmarks themselves are on this creature.
        family, kind, pose: names.
    """

    vertices: np.ndarray
    faces: np.ndarray
    parts: np.ndarray
    template: np.ndarray
    landmarks: np.ndarray
    landmark_places: np.ndarray
    family: str
    kind: str
    pose: str


def make_creature(
    family: str,
    kind: str,
    pose: str,
    individual: np.random.SeedSequence,
    occasion: np.random.SeedSequence,
    vertices: int = 5000,
    landmark_count: int = 3000,
    triangulation: int | None = None,
) -> Creature:
    """Make one creature.

    Args:
        family: see `find_family`.
        kind: one of its classes.
        pose: one of the class's poses.
        individual: decides the body; the same one gives the same individual in another pose.
        occasion: decides how the pose is taken, and the triangulation.
        vertices: about how many.
        landmark_count: about how many landmarks; the same for shapes that are to correspond.
        triangulation: number of one that shapes share, which makes them several times faster; ``landmark_places`` are
            then those of the vertices. None: one of its own.

    Raises:
        InputError: an unknown family, class or pose, too few vertices to resolve the creature, or a seed or number of
            another type.
    """
    for name, value, least in (
        ("vertices", vertices, 1),
        ("landmark_count", landmark_count, 1),
        ("triangulation", 0 if triangulation is None else triangulation, 0),
    ):
        checked_count(value, name, least)
    for seed in (individual, occasion):
        if not isinstance(seed, np.random.SeedSequence):
            raise InputError(
                f"{type(seed).__name__} {seed!r}, expected a numpy.random.SeedSequence"
            )
    surface = template(family)
    group = find_family(family)
    if kind not in group.classes:
        raise InputError(
            f"{family}: unknown class {kind!r}, expected one of {', '.join(group.classes)}"
        )
    if pose not in group.classes[kind]:
        raise InputError(
            f"{kind}: unknown pose {pose!r}, expected one of {', '.join(group.classes[kind])}"
        )
    # Spawning counts up in a sequence, and that of the caller shall stay as it is.
    moves, grid = np.random.SeedSequence(occasion.entropy, spawn_key=occasion.spawn_key).spawn(2)
    rng = np.random.default_rng(moves)
    who = np.random.default_rng(individual)
    cones = _posed(group.body(kind, who), pose, group.pose, rng)
    wanted = round(vertices * np.exp(rng.uniform(-_COUNT_SPREAD, _COUNT_SPREAD)))
    if triangulation is None:
        mesh = surface.triangulate(wanted, grid)
    else:
        mesh = _shared(family, vertices, triangulation)
    known = _labelled if triangulation is None else _labelled_once
    parts, rows = known(family, mesh, landmark_count)
    places, _, _ = landmarks(family, landmark_count)
    points = np.concatenate([mesh.vertices, places]) if triangulation is None else mesh.vertices
    relief = random_relief(surface.body, who) if group.relief else None
    carried = surface.carry(points, cones, relief)
    carried = carried @ turn(z=rng.uniform(-_YAW_DEG, _YAW_DEG)).T
    count = len(mesh.vertices)
    carried -= [*carried[:count, :2].mean(0), carried[:count, 2].min()]
    return Creature(
        carried[:count],
        mesh.faces,
        parts,
        mesh.vertices,
        rows,
        carried[count:] if triangulation is None else carried[rows],
        family,
        kind,
        pose,
    )


@functools.lru_cache(64)
def _shared(family: str, vertices: int, number: int) -> Triangulation:
    return template(family).triangulate(vertices, np.random.SeedSequence([1, number]))


def _labelled(
    family: str, mesh: Triangulation, landmark_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Part of each vertex of a triangulation (N,), and the vertices of the landmarks (L,)."""
    surface = template(family)
    places, normals, _ = landmarks(family, landmark_count)
    rename = np.array([PART_NAMES.index(name) for name in surface.body.parts])
    rows = _nearest(places, normals, mesh.vertices, surface.normals(mesh.vertices))
    return rename[surface.parts(mesh.vertices)], rows


_labelled_once = functools.lru_cache(64)(_labelled)


def _posed(body: Body, pose: str, make_pose, rng: np.random.Generator) -> Cones:
    """The body in a pose in which its limbs do not run into each other, or the best of several draws."""
    limit = _OVERLAP * float(np.median(body.cones.radius))
    best: tuple[float, Cones] | None = None
    for _ in range(_DRAWS):
        cones = body.posed(make_pose(pose, rng))
        overlap = body.overlap(cones)
        if best is None or overlap < best[0]:
            best = overlap, cones
        if overlap < limit:
            break
    return best[1]


def _nearest(
    places: np.ndarray, normals: np.ndarray, vertices: np.ndarray, outwards: np.ndarray
) -> np.ndarray:
    """The vertex nearest to each place among those on the same side of a thin part."""
    distance, rows = cKDTree(vertices).query(places, 8)
    facing = np.einsum("lki,li->lk", outwards[rows], normals) > 0.2
    choice = np.where(facing, distance, np.inf).argmin(1)
    return rows[np.arange(len(rows)), choice]
