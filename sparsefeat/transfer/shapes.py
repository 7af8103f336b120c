"""Shapes as an experiment sees them: read once, scaled, and turned where that is asked for."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.data.shapes import Shape, ShapeData, ShapeDataset
from sparsefeat.errors import InputError
from sparsefeat.heads import LaplaceBasis, laplace_basis
from sparsefeat.mesh.geodesic import surface_area, surface_vertices
from sparsefeat.synthetic.damage import Ends, damage_mesh

SIGNATURE_EIGENPAIRS = 128

T = TypeVar("T")


@dataclass(eq=False)
class LoadedShape:
    """A shape in memory.

    Attributes:
        shape: where it comes from.
        data: its mesh, scaled, and its labels.
        cache: folder of Laplace bases, or None.
        normals: of the vertices, where they do not follow from faces: of clouds. Shape (N, 3), or None.
        whole_area: of the shape that this is left of; None: of its own faces.
        original: name of the shape that this is a damaged copy of; None: it is none.
    """

    shape: Shape
    data: ShapeData
    cache: Path | None = None
    bases: dict[int, LaplaceBasis] = field(default_factory=dict)
    normals: np.ndarray | None = None
    whole_area: float | None = None
    original: str | None = None

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def vertices(self) -> np.ndarray:
        return self.data.vertices

    @property
    def faces(self) -> np.ndarray:
        return self.data.faces

    @property
    def surface(self) -> np.ndarray | None:
        """The faces, or None of a cloud."""
        return self.data.faces if len(self.data.faces) else None

    @cached_property
    def area(self) -> float:
        """Of the whole shape."""
        return self.whole_area or surface_area(self.vertices, self.faces)

    @property
    def labels(self) -> np.ndarray:
        """Labels of the vertices, or of the faces where the data set has those. Raises InputError without any."""
        labels = (
            self.data.vertex_labels
            if self.data.vertex_labels is not None
            else self.data.face_labels
        )
        if labels is None:
            raise InputError(f"{self.name}: it has no part labels, which segmentation needs")
        return labels

    @property
    def labels_faces(self) -> bool:
        """Whether the labels are those of faces."""
        return self.data.vertex_labels is None

    @cached_property
    def turned(self) -> LoadedShape:
        """The same shape under a random rotation, which its name decides."""
        turn = Rotation.random(
            random_state=np.random.default_rng(zlib.crc32(self.name.encode()))
        ).as_matrix()
        data = replace(self.data, vertices=self.data.vertices @ turn.T)
        # A basis does not feel a rotation; it is shared rather than computed again.
        normals = None if self.normals is None else self.normals @ turn.T
        return LoadedShape(
            self.shape, data, self.cache, self.bases, normals, self.whole_area, self.original
        )

    def basis(self, k: int) -> LaplaceBasis:
        """The first k eigenpairs, computed once."""
        # All that ask for fewer share one computation, and one file.
        most = max(k, SIGNATURE_EIGENPAIRS)
        if most not in self.bases:
            self.bases[most] = laplace_basis(self.vertices, self.surface, most, cache=self.cache)
        return self.bases[most].truncate(min(k, len(self.bases[most].eigenvalues)))


def damaged(shape: LoadedShape, kind: str, seed: int = 0, ends: Ends | None = None) -> LoadedShape:
    """A damaged copy of a shape; labels of vertices, and landmarks if none is lost, are carried along.

    Args:
        shape: a mesh.
        kind: see :data:`sparsefeat.synthetic.damage.DAMAGES`.
        seed: of the damage, together with the shape's name.
        ends: of bridges, see :func:`sparsefeat.synthetic.damage.bridges`.

    Raises:
        InputError: no such damage, or labels are of faces.
    """
    data = shape.data
    if data.face_labels is not None:
        raise InputError(f"{shape.name}: damages carry labels of vertices; it has labels of faces")
    number = zlib.crc32(f"{shape.name} {kind} {seed}".encode())
    left = damage_mesh(kind, shape.vertices, shape.faces, number, ends)
    landmarks = None if data.correspondence is None else left.place[data.correspondence]
    if landmarks is not None and (landmarks < 0).any():
        landmarks = None
    labels = None if data.vertex_labels is None else data.vertex_labels[left.kept]
    return LoadedShape(
        replace(shape.shape, name=f"{shape.name} {kind} {seed}"),
        ShapeData(left.vertices, left.faces, labels, correspondence=landmarks),
        shape.cache,
        normals=None if len(left.faces) else left.normals,
        whole_area=shape.area,
        original=shape.name,
    )


class ShapeStore:
    """Reads each shape of a data set once.

    Args:
        dataset: the shapes.
        normalize: ``"area"`` and ``"radius"`` centre and scale each to unit area, or to fit a unit sphere.
        cache: folder of Laplace bases, or None.
    """

    def __init__(self, dataset: ShapeDataset, normalize: str, cache: Path | None):
        self.dataset, self.normalize, self.cache = dataset, normalize, cache
        self._loaded: dict[str, LoadedShape] = {}

    def __call__(self, shape: Shape) -> LoadedShape:
        if shape.name not in self._loaded:
            data = shape.load()
            self._loaded[shape.name] = LoadedShape(shape, _scaled(data, self.normalize), self.cache)
        return self._loaded[shape.name]

    def median_extent(self, shapes: Sequence[Shape], count: int = 16) -> float:
        """Median diagonal of the bounding boxes of up to ``count`` of the shapes, in their unit as loaded."""
        some = shapes[:: max(1, len(shapes) // count)][:count]
        surfaces = [_surface(self(shape).data) for shape in some]
        return float(np.median([np.linalg.norm(np.ptp(surface, axis=0)) for surface in surfaces]))


def drawn(items: Sequence[T], most: int | None, seed: int) -> list[T]:
    """Random ones of a list, at most so many, in the order of the list; None: all."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:most]
    return [items[k] for k in sorted(chosen)]


def check_apart(train: Sequence[Shape], test: Sequence[Shape]) -> None:
    """Refuse labels, or landmarks, of shapes that are scored on.

    Raises:
        InputError: a shape is in both splits.
    """
    names = {shape.name for shape in test}
    shared = [shape.name for shape in train if shape.name in names]
    if shared:
        raise InputError(
            f"data.train and data.test share {len(shared)} shapes, such as {shared[0]}; expected other shapes to learn "
            "from than to score on"
        )


def check_landmarks(shapes: Sequence[LoadedShape], what: str) -> None:
    """Refuse shapes whose landmarks are not the same points.

    Args:
        shapes: that something is learned from.
        what: begins the message.

    Raises:
        InputError: a shape has no landmarks, or two have those of different templates.
    """
    for shape in shapes:
        if shape.data.correspondence is None:
            raise InputError(f"{what}: {shape.name} has no landmarks to learn from")
        if shape.shape.template != shapes[0].shape.template:
            raise InputError(
                f"{what}: the landmarks of {shapes[0].name} and {shape.name} do not correspond; expected training shapes "
                "of one template"
            )


def _scaled(data: ShapeData, how: str) -> ShapeData:
    if how == "none":
        return data
    surface = _surface(data)
    centre = (surface.min(0) + surface.max(0)) / 2
    vertices = data.vertices - centre
    size = (
        np.sqrt(surface_area(vertices, data.faces))
        if how == "area"
        else np.linalg.norm(surface - centre, axis=1).max()
    )
    if not size > 0:
        raise InputError(f"a shape has {how} {size:g}, expected a positive one to scale by")
    return replace(data, vertices=vertices / size)


def _surface(data: ShapeData) -> np.ndarray:
    """Places of the vertices that lie on the surface. Shape: (M, 3)."""
    return data.vertices[surface_vertices(data.vertices, data.faces)]
