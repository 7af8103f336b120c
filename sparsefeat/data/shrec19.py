"""SHREC'19 remeshed: 44 human shapes of many sources, with a ground-truth map for every pair."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import numpy as np

from sparsefeat.data.layouts import contents, find_folder, natural, open_folder
from sparsefeat.data.shape_files import find_meshes, mesh_loader, numbered, read_landmarks
from sparsefeat.data.shapes import Shape, ShapeDataset
from sparsefeat.errors import InputError

# It has holes; the field leaves it out.
SKIPPED = 40
_MAP = re.compile(r"(\d+)_(\d+)\.map")


def load_shrec19(root: str | os.PathLike) -> ShapeDataset:
    """SHREC'19_r (Melzi et al., "Matching humans with different connectivity", 2019), for testing only.

    Args:
        root: folder with ``off/<i>.off``, i from 1, and ``groundtruth/<a>_<b>.map`` (or in ``corres/``):
            one 1-based vertex of shape b for every vertex of shape a.

    Returns:
        The shapes but number 40, all in "test", with the listed maps as ``pairs``.

    Raises:
        InputError: another layout, or a map of a shape that is not there.
    """
    root = open_folder(root, "SHREC'19 shapes off/<i>.off with groundtruth/<a>_<b>.map")
    _, meshes = find_meshes(root, ("off", "."), "<i>.off", (".off", ".ply", ".obj"))
    shapes = tuple(
        Shape(mesh.stem, mesh, mesh_loader(mesh)) for mesh in meshes if mesh.stem != str(SKIPPED)
    )
    rows = numbered(shapes, r"(\d+)", (), root)
    folder = find_folder(root, ("groundtruth", "corres"))
    files = sorted(folder.glob("[!.]*.map"), key=lambda path: natural(path.name)) if folder else []
    if not files:
        raise InputError(
            f"{root}: no map groundtruth/<a>_<b>.map or corres/<a>_<b>.map; {contents(root)}"
        )
    maps = {}
    for file in files:
        match = _MAP.fullmatch(file.name)
        if not match:
            raise InputError(f"{file}: expected a name <a>_<b>.map with two numbers of shapes")
        a, b = int(match[1]), int(match[2])
        if SKIPPED in (a, b):
            continue
        absent = next((i for i in (a, b) if i not in rows), None)
        if absent is not None:
            raise InputError(f"{file}: there is no shape {absent}.off")
        maps[rows[a], rows[b]] = functools.partial(
            _read_map, file, shapes[rows[a]], shapes[rows[b]]
        )
    return ShapeDataset(
        "shrec19_r", shapes, {"test": tuple(range(len(shapes)))}, pairs=tuple(maps), maps=maps
    )


def _read_map(path: Path, source: Shape, target: Shape) -> np.ndarray:
    vertices = read_landmarks(path)
    counts = [len(shape.load().vertices) for shape in (source, target)]
    if len(vertices) != counts[0]:
        raise InputError(
            f"{path}: {len(vertices)} lines, but {source.path} has {counts[0]} vertices"
        )
    if vertices.max() >= counts[1]:
        raise InputError(
            f"{path}: vertex {vertices.max() + 1}, but {target.path} has {counts[1]} vertices"
        )
    return vertices
