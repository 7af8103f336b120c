"""Pairs of deforming shapes with known correspondence as training samples.

Two poses, or two individuals of a family, are sampled, damaged, turned and voxelised each on its own; which voxels
show the same point of the body is known from landmarks. Shapes are scaled so that the voxel size drawn for a pair
becomes that of the network: batches, network and loop are those of fragment pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from sparsefeat.data.shapes import Shape, load_dataset
from sparsefeat.errors import InputError
from sparsefeat.extract.surfaces import SAMPLES_PER_VOXEL_EDGE
from sparsefeat.io.meshes import read_mesh
from sparsefeat.mesh.geodesic import surface_area
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.sampling import sample_surface
from sparsefeat.models.voxel_cloud import VoxelCloud, voxelize
from sparsefeat.pretrain.augment import random_rotation
from sparsefeat.pretrain.pairs import PairDataset, PairSample
from sparsefeat.pretrain.sampling import PairRequest
from sparsefeat.synthetic import damage
from sparsefeat.synthetic.creatures import make_creature
from sparsefeat.synthetic.creatures.families import FAMILIES, VARIED, find_family, landmarks

_VIEW_PIXEL = 0.75
"""Edge of a camera's pixel over the voxel size; there are four surface points to a voxel's face."""
_FRESH_VERTICES, _FRESH_LANDMARKS, _FRESH_TRIANGULATIONS = 3000, 2500, 12
"""Of creatures that are made for a pair; triangulations are kept, since they take most of the time."""
_MIDDLE = 0.03
"""Distance from the plane of symmetry, in extents of the template, below which a landmark is on neither side."""
_SYMMETRIC = 0.02
"""Mean distance of a template from its mirror image, in extents, of one that has sides."""
_CLOUD_NOISE = 0.004
"""Deviation of a sparse cloud's points, in roots of the area: about 0.3 % of a person's height."""
_SHARES = (0.4, 0.2, 0.1, 0.15, 0.15)
"""Of the damages: cuts, views, sparse clouds, merged ones, noise. Whole bodies teach that the longest limbs are legs; only
cut ones teach to doubt it."""
_FUSED = (0.015, 0.04)
"""Voxels that merge a surface, in roots of the area: 1.2 to 3 % of a person's height."""


@dataclass
class ShapesConfig:
    """Deforming shapes to train on. Lengths are in roots of a shape's area, so that all have one size."""

    roots: list[str] = field(
        default_factory=list
    )  # folders with corres/, such as make_data.py creatures writes
    name: str = "folder"  # their layout, see load_dataset
    options: dict[str, Any] = field(default_factory=dict)  # of the loader
    validation_roots: list[str] | None = (
        None  # null: the split "test" of roots, which then train on "train"
    )
    voxels: tuple[float, float] = (0.016, 0.075)  # voxel size of a pair, log-uniform
    same_individual: float = (
        0.25  # share of pairs of two poses of one individual, where there are such
    )
    dropout: float = 0.3  # a share uniform between 0 and this of the surface points is left out
    jitter: float = 0.1  # voxels; deviation of the points, uniform up to this
    bent: float = 0.5  # share of shapes that are bent smoothly,
    strain: float = 0.25  # by a strain uniform up to this
    damaged: float = (
        0.4  # share of shapes that are cut, seen from one side, sparse, merged or noisy
    )
    rooms: float = 0.0  # share of pairs that are fragments of data.root instead
    fresh: float = (
        0.0  # share of pairs of creatures that are made for them: individuals that are seen once
    )
    fresh_families: list[str] = field(
        default_factory=lambda: ["figure", "beast"]
    )  # of make_data.py creatures

    def __post_init__(self) -> None:
        low, high = self.voxels
        if not 0 < low <= high < 1:
            raise InputError(
                f"voxels is [{low}, {high}], expected two shares of the root of the area, smaller first"
            )
        unknown = next(
            (name for name in self.fresh_families if name not in FAMILIES | VARIED), None
        )
        if unknown is not None or not self.fresh_families:
            known = ", ".join(FAMILIES | VARIED)
            raise InputError(f"fresh_families has {unknown or 'none'!r}, expected some of {known}")
        for name in ("same_individual", "bent", "damaged", "rooms", "fresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a share from 0 to 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}, expected a share from 0 to below 1")
        if not 0 <= self.jitter or not 0 <= self.strain:
            raise InputError(
                f"jitter and strain are {self.jitter} and {self.strain}, expected 0 or more"
            )

    def plain(self) -> ShapesConfig:
        """The same shapes neither bent nor damaged, whole: for validation."""
        return ShapesConfig(self.roots, self.name, self.options, voxels=self.voxels, dropout=0.0, jitter=0.0, bent=0.0,
                            damaged=0.0)  # fmt: skip


class LoadedShape(NamedTuple):
    """A shape in memory, centred and of area 1.

    Attributes:
        vertices: (N, 3) float32.
        faces: (F, 3) int32.
        normals: (N, 3) float32, of the vertices, to the outer side.
        outwards: 1.0 or -1.0, see :func:`sparsefeat.mesh.normals.outer_normals`.
        landmarks: (L,) int32 vertices.
        group, individual: shapes of one group correspond by landmarks.
        sides: (L,) int8, of the landmarks: 1 left, -1 right, 0 neither or not known.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    outwards: float
    landmarks: np.ndarray
    group: str
    individual: tuple
    sides: np.ndarray


def load_shapes(config: ShapesConfig, split: str | None) -> list[LoadedShape]:
    """Read shapes with correspondence.

    Args:
        config: which folders.
        split: of each; None: all of them.

    Raises:
        InputError: a folder is not as expected, or has a shape without correspondence or surface.
    """
    loaded = []
    for root in config.roots:
        dataset = load_dataset(config.name, root, **config.options)
        sides: dict[str, np.ndarray | None] = {}
        for shape in dataset.subset(split or "all"):
            if shape.template not in sides:
                sides[shape.template] = _template_sides(root, shape.template)
            loaded.append(_loaded(shape, root, sides[shape.template]))
    return loaded


def _template_sides(root: str, template: str) -> np.ndarray | None:
    """Sides of a template's landmarks, from ``templates/<name>/template.off``; None where there is no such mesh."""
    path = Path(root) / "templates" / template.removeprefix("template ") / "template.off"
    return sides_of(read_mesh(path).vertices) if path.is_file() else None


def sides_of(places: np.ndarray) -> np.ndarray:
    """Left (1) and right (-1) by the sign of x, on a template that is its own mirror image; 0 near the middle.

    Args:
        places: of landmarks on the template, which faces -y with z up. Shape: (L, 3)

    Returns:
        Shape (L,) int8; zeros for a template that is not symmetric in x.
    """
    extent = np.ptp(places, axis=0).max()
    off = cKDTree(places).query(places * (-1, 1, 1))[0].mean()
    far = (np.abs(places[:, 0]) > _MIDDLE * extent) & (off < _SYMMETRIC * extent)
    return (np.sign(places[:, 0]) * far).astype(np.int8)


def _loaded(shape: Shape, root: str, sides: np.ndarray | None) -> LoadedShape:
    data = shape.load()
    if data.correspondence is None or not len(data.correspondence):
        raise InputError(
            f"{root}: {shape.name} has no correspondence; expected corres/<name>.vts beside the meshes"
        )
    if not len(data.faces) or not surface_area(data.vertices, data.faces) > 0:
        raise InputError(f"{root}: {shape.name} has no surface")
    who = (root, shape.label, shape.individual if shape.individual is not None else shape.name)
    if sides is not None and len(sides) != len(data.correspondence):
        raise InputError(
            f"{root}: {shape.name} has {len(data.correspondence)} landmarks, its template has {len(sides)} vertices"
        )
    return _of_area_one(
        data.vertices, data.faces, data.correspondence, f"{root} {shape.template}", who, sides
    )


def _of_area_one(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, group: str, individual: tuple,
    sides: np.ndarray | None,
) -> LoadedShape:  # fmt: skip
    vertices = (vertices - vertices.mean(0)) / np.sqrt(surface_area(vertices, faces))
    outwards, normals = outer_normals(vertices, faces)
    return LoadedShape(
        vertices.astype(np.float32), faces.astype(np.int32), normals.astype(np.float32), outwards,
        points.astype(np.int32), group, individual,
        np.zeros(len(points), np.int8) if sides is None else sides,
    )  # fmt: skip


def fresh_pair(config: ShapesConfig, rng: np.random.Generator) -> tuple[LoadedShape, LoadedShape]:
    """Two creatures of one family that nobody has seen, or one in two poses."""
    family = config.fresh_families[int(rng.integers(len(config.fresh_families)))]
    kinds = list(find_family(family).classes.items())
    same = rng.random() < config.same_individual
    made = []
    for nth in range(2):
        if nth == 0 or not same:
            kind, poses = kinds[int(rng.integers(len(kinds)))]
            who = int(rng.integers(1 << 62))
        pose, occasion = poses[int(rng.integers(len(poses)))], int(rng.integers(1 << 62))
        creature = make_creature(
            family, kind, pose, np.random.SeedSequence(who), np.random.SeedSequence(occasion), _FRESH_VERTICES,
            _FRESH_LANDMARKS, triangulation=int(rng.integers(_FRESH_TRIANGULATIONS)),
        )  # fmt: skip
        made.append(
            _of_area_one(
                creature.vertices,
                creature.faces,
                creature.landmarks,
                family,
                (who,),
                _sides(family),
            )
        )
    return made[0], made[1]


@functools.lru_cache(16)
def _sides(family: str) -> np.ndarray:
    return sides_of(landmarks(family, _FRESH_LANDMARKS)[0])


class SurfaceCloud(NamedTuple):
    """Points sampled from a shape, and where its landmarks are among them.

    Attributes:
        points: (N, 3) float64, in voxels.
        normals: (N, 3) float64.
        landmarks: (L,) int64 rows of the points, -1 where one is lost.
    """

    points: np.ndarray
    normals: np.ndarray
    landmarks: np.ndarray


def surface_cloud(
    shape: LoadedShape,
    voxel: float,
    config: ShapesConfig,
    rng: np.random.Generator,
    max_angle_deg: float = 180.0,
) -> SurfaceCloud:
    """Sample, bend, damage, thin out, turn and shift a shape.

    Args:
        shape: of area 1.
        voxel: its voxel size, in roots of the area.
        config: how much happens.
        rng: the only source of randomness.
        max_angle_deg: of the rotation.
    """
    vertices = shape.vertices.astype(np.float64)
    samples = sample_surface(
        vertices, shape.faces, spacing=voxel / SAMPLES_PER_VOXEL_EDGE, seed=rng
    )
    points = np.concatenate([vertices, samples.points])
    normals = np.concatenate([shape.normals, shape.outwards * samples.normals])
    kept = np.arange(len(points))
    for change in _changes(voxel, config, rng):
        points, normals, rows = change(points, normals)
        kept = kept[rows]
    turn = random_rotation(rng, max_angle_deg)
    points = points @ turn.T / voxel + rng.uniform(-8, 8, 3)
    row = np.full(len(vertices) + len(samples.points), -1)
    row[kept] = np.arange(len(kept))
    return SurfaceCloud(points, normals @ turn.T, row[shape.landmarks])


def _changes(voxel: float, config: ShapesConfig, rng: np.random.Generator) -> list:
    """What happens to a shape, in order, as functions of points and normals."""
    changes = []
    if rng.random() < config.bent:
        strain = rng.uniform(0, config.strain)
        changes.append(lambda p, n: damage.bend(p, n, rng, strain, 1.0))
    if rng.random() < config.damaged:
        kind = rng.choice(5, p=_SHARES)
        if kind == 0:
            changes.append(lambda p, n: damage.cut(p, n, rng, rng.uniform(0.35, 0.95)))
        elif kind == 1:
            changes.append(lambda p, n: damage.one_view(p, n, rng, _VIEW_PIXEL * voxel))
        elif kind == 2:
            changes.append(
                lambda p, n: damage.sparse_cloud(p, n, rng, 3000, rng.uniform(0, _CLOUD_NOISE))
            )
        elif kind == 3:
            edge = max(rng.uniform(*_FUSED), 1.5 * voxel / SAMPLES_PER_VOXEL_EDGE)
            changes.append(lambda p, n: damage.fuse(p, n, rng, edge))
        else:
            changes.append(
                lambda p, n: damage.noise(
                    p, n, rng, rng.uniform(0, 0.3) * voxel, rng.uniform(0, 0.3)
                )
            )
    if config.dropout > 0:
        changes.append(lambda p, n: _thinned(p, n, rng, rng.uniform(0, config.dropout)))
    if config.jitter > 0:
        changes.append(lambda p, n: damage.noise(p, n, rng, rng.uniform(0, config.jitter) * voxel))
    return changes


def _thinned(
    points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, share: float
) -> damage.Damaged:
    kept = np.flatnonzero(rng.random(len(points)) >= share)
    return damage.Damaged(points[kept], normals[kept], kept)


class ShapePairDataset(Dataset):
    """Samples made on request: request ``k`` pairs shape k with another of its group.

    Args:
        shapes: to make pairs of; those that are alone in their group pair with themselves.
        config: see there.
        voxel_size: of the network, metres: samples are scaled to it.
        fragments: pairs of fragments for the share ``config.rooms`` of the requests.

    Raises:
        InputError: no shapes, or shapes of a group differ in their number of landmarks.
    """

    def __init__(
        self, shapes: Sequence[LoadedShape], config: ShapesConfig, voxel_size: float,
        fragments: PairDataset | None = None,
    ):  # fmt: skip
        if not shapes:
            raise InputError(
                "data.shapes: no shapes to train on; expected folders with meshes and corres/ in roots"
            )
        self.shapes, self.config, self.voxel_size, self.fragments = (
            list(shapes),
            config,
            voxel_size,
            fragments,
        )
        self.groups: dict[str, list[int]] = {}
        for row, shape in enumerate(self.shapes):
            first = self.shapes[self.groups.setdefault(shape.group, [row])[0]]
            if self.groups[shape.group] != [row]:
                self.groups[shape.group].append(row)
            if len(shape.landmarks) != len(first.landmarks):
                raise InputError(
                    f"data.shapes: {shape.individual} has {len(shape.landmarks)} landmarks, another of its group "
                    f"{len(first.landmarks)}"
                )

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, request: PairRequest) -> PairSample:
        """Make a sample; the same request always gives the same bits."""
        rng = np.random.default_rng(request.seed)
        if self.fragments is not None and rng.random() < self.config.rooms:
            pair = int(rng.integers(len(self.fragments)))
            return self.fragments[PairRequest(pair, request.seed, request.max_angle_deg)]
        low, high = np.log(self.config.voxels)
        voxel = float(np.exp(rng.uniform(low, high)))
        if self.config.fresh > 0 and rng.random() < self.config.fresh:
            shapes = fresh_pair(self.config, rng)
        else:
            shapes = self.shapes[request.pair], self.shapes[self._partner(request.pair, rng)]
        clouds = [
            surface_cloud(shape, voxel, self.config, rng, request.max_angle_deg) for shape in shapes
        ]
        source, target = map(self._voxelized, clouds)
        both = (clouds[0].landmarks >= 0) & (clouds[1].landmarks >= 0)
        matches = torch.stack(
            [
                voxels.inverse[torch.from_numpy(cloud.landmarks[both])]
                for voxels, cloud in zip((source, target), clouds, strict=True)
            ],
            1,
        )
        source, target = (
            replace(voxels, inverse=voxels.inverse[:0]) for voxels in (source, target)
        )
        matches, row = torch.unique(matches, dim=0, return_inverse=True)
        # A voxel that holds landmarks of both sides is on neither.
        total = torch.zeros(len(matches)).index_add(
            0, row, torch.from_numpy(shapes[0].sides[both]).float()
        )
        return PairSample(
            source,
            target,
            matches,
            torch.eye(4, dtype=torch.float64),
            request,
            deformed=True,
            sides=total.sign().to(torch.int8),
        )

    def _voxelized(self, cloud: SurfaceCloud) -> VoxelCloud:
        """Mean points and normals of occupied voxels, at the network's voxel size."""
        voxels = voxelize(
            torch.from_numpy(cloud.points * self.voxel_size),
            self.voxel_size,
            normals=torch.from_numpy(cloud.normals),
        )
        return replace(voxels, points=voxels.points.float())

    def _partner(self, row: int, rng: np.random.Generator) -> int:
        shape = self.shapes[row]
        group = [other for other in self.groups[shape.group] if other != row]
        same = [other for other in group if self.shapes[other].individual == shape.individual]
        others = [other for other in group if self.shapes[other].individual != shape.individual]
        chosen = same if rng.random() < self.config.same_individual else others
        chosen = chosen or same or others or [row]
        return chosen[int(rng.integers(len(chosen)))]
