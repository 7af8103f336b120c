"""A plain folder of meshes, with or without classes, labels, correspondence and splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import (
    class_folders,
    list_meshes,
    mesh_folders,
    mesh_loader,
    numbered_lines,
)
from sparsefeat.data.shapes import Shape, ShapeData, ShapeDataset, split_per_class
from sparsefeat.errors import InputError
from sparsefeat.io import yaml12
from sparsefeat.io.shape_folder import INDIVIDUALS, PART_NAMES, SPLITS, TEMPLATES
from sparsefeat.io.text import read_text


def load_folder(
    root: str | os.PathLike, train_share: float = 0.8, seed: int = 0, merge_left_right: bool = False
) -> ShapeDataset:
    """Meshes of one's own.

    All but the meshes is optional::

        <name>.off                       a shape (or ply, obj, stl, glb, npz); its name is <name>
        <class>/<name>.off               or, with classes, <class>/<name>
        off/<name>.off                   or, without classes, beside labels/ and corres/
        <name>.vlabels.txt               one part a vertex, from 0 (-1: unknown), beside the mesh
        <name>.flabels.txt               or one a face
        labels/<name>.txt                or either: the number of lines says which
        corres/<name>.vts                1-based vertex of landmark l in line l, as in FAUST_r; landmarks
                                         are common to the shapes of one class
        templates.yaml                   "<anything>: [<class>, ...]": classes with landmarks in common
        part_names.txt                   name of part l in line l
        splits.yaml                      "train: [<name>, ...]", "test: [...]", any names of splits
        individuals.yaml                 "<who>: [<name>, ...]": shapes that are poses of one body

    ``labels`` and ``corres`` stand beside the meshes, in each class folder if there are such.

    Args:
        root: the folder.
        train_share: where there is no splits.yaml: share of the shapes (of each class) in "train", the
            others are "test". A class of one shape has it in "train".
        seed: decides which.
        merge_left_right: make one part "<name>" of "left <name>" and "right <name>": features that do not know a
            body from its mirror image cannot tell them apart.

    Raises:
        InputError: no mesh, meshes both here and in class folders, two label files for one shape, a name in
            splits.yaml or individuals.yaml that is no shape, a split without a shape, a shape in "train" and in
            "test", an empty line in part_names.txt, or no left and right part to merge.
    """
    root = open_folder(root, "meshes, or class folders of meshes")
    # (class, folder of the meshes, folder of labels/ and corres/)
    groups: list[tuple[str | None, Path, Path]]
    if (root / "off").is_dir() and list_meshes(root / "off"):
        groups = [(None, root / "off", root)]
    elif list_meshes(root):
        groups = [(None, root, root)]
        folders = [folder.name for folder in mesh_folders(root)]
        folders = [name for name in folders if name not in ("labels", "corres")]
        if folders:
            raise InputError(
                f"{root}: meshes both here and in {', '.join(folders)}, expected class folders or one "
                "folder of meshes, which may be off/"
            )
    else:
        folders = class_folders(root, "mesh here or in sub-folders (off, ply, obj, stl, glb, npz)")
        groups = [(folder.name, folder, folder) for folder in folders]
    names = _part_names(root / PART_NAMES)
    if merge_left_right and names is None:
        raise InputError(
            f"{root}: merge_left_right needs the names of the parts, there is no {PART_NAMES}"
        )
    template = _templates(root, [kind for kind, _, _ in groups if kind is not None])
    shapes: list[Shape] = []
    for label, (kind, folder, beside) in enumerate(groups):
        for mesh in list_meshes(folder):
            landmarks = beside / "corres" / f"{mesh.stem}.vts"
            loader = mesh_loader(
                mesh,
                **_labels(mesh, beside),
                landmarks=landmarks if landmarks.is_file() else None,
                parts=len(names) if names else None,
            )
            name = mesh.stem if kind is None else f"{kind}/{mesh.stem}"
            shapes.append(
                Shape(
                    name,
                    mesh,
                    loader,
                    None if kind is None else label,
                    template=template.get(kind, ""),
                )
            )
    shapes = _with_individuals(shapes, root)
    if merge_left_right:
        names, shapes = _without_sides(names, shapes, root / PART_NAMES)
    classes = None if groups[0][0] is None else tuple(kind for kind, _, _ in groups)
    if (root / SPLITS).is_file():
        splits = _rows(root / SPLITS, shapes)
        both = set(splits.get("train", ())) & set(splits.get("test", ()))
        if both:
            raise InputError(f"{root / SPLITS}: {shapes[min(both)].name} is in train and in test")
    else:
        if not isinstance(train_share, int | float) or not 0 < train_share < 1:
            raise InputError(f"train_share: got {train_share!r}, expected a share between 0 and 1")
        labels = [shape.label or 0 for shape in shapes]
        splits = split_per_class(
            labels,
            float(train_share),
            seed,
            str(root),
            classes or (root.name,),
            [shape.individual for shape in shapes],
        )
    return ShapeDataset(root.name, tuple(shapes), splits, part_names=names, class_names=classes)


def _part_names(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    names = numbered_lines(path, "the name of part")
    if not names:
        raise InputError(f"{path}: empty, expected one name a line")
    return tuple(names)


def _labels(mesh: Path, beside: Path) -> dict[str, Path]:
    """The label file of a mesh as an argument of `mesh_loader`; none or one."""
    candidates = {
        "vertex_labels": mesh.with_name(f"{mesh.stem}.vlabels.txt"),
        "face_labels": mesh.with_name(f"{mesh.stem}.flabels.txt"),
        "labels": beside / "labels" / f"{mesh.stem}.txt",
    }
    found = {key: path for key, path in candidates.items() if path.is_file()}
    if len(found) > 1:
        raise InputError(
            f"{mesh}: has {len(found)} label files: {', '.join(map(str, found.values()))}"
        )
    return found


def _rows(path: Path, shapes: Sequence[Shape]) -> dict[str, tuple[int, ...]]:
    """A file "key: [name of a shape, ...]" with the names as rows."""
    data, lines = yaml12.parse(read_text(path), str(path))
    if not isinstance(data, dict) or not all(
        isinstance(names, list) and names for names in data.values()
    ):
        raise InputError(f"{path}: expected '<key>: [<name of a shape>, ...]' and no empty list")
    rows = {shape.name: row for row, shape in enumerate(shapes)}
    result = {}
    for key, names in data.items():
        unknown = next((name for name in names if str(name) not in rows), None)
        if unknown is not None:
            raise InputError(f"{path}:{lines.get((key,), 1)}: {key}: there is no shape {unknown!r}")
        result[str(key)] = tuple(sorted({rows[str(name)] for name in names}))
    return result


def _templates(root: Path, classes: Sequence[str]) -> dict[str, str]:
    """Class -> template of its landmarks: the class itself, if templates.yaml says nothing else."""
    template = {kind: kind for kind in classes}
    path = root / TEMPLATES
    if path.is_file():
        data, _ = yaml12.parse(read_text(path), str(path))
        if not isinstance(data, dict) or not all(
            isinstance(members, list) for members in data.values()
        ):
            raise InputError(f"{path}: expected '<template>: [<class>, ...]'")
        for name, members in data.items():
            unknown = next((kind for kind in members if str(kind) not in template), None)
            if unknown is not None:
                raise InputError(f"{path}: {name}: there is no class {unknown!r}")
            template.update(dict.fromkeys(map(str, members), f"template {name}"))
    return template


def _without_sides(
    names: Sequence[str], shapes: Sequence[Shape], path: Path
) -> tuple[tuple[str, ...], list[Shape]]:
    """Part names and shapes with the left and right of a part made one."""
    plain = [re.sub(r"^(left|right) ", "", name, flags=re.IGNORECASE) for name in names]
    # Of names that differ in capitals alone the first is kept.
    first: dict[str, str] = {}
    plain = [first.setdefault(name.lower(), name) for name in plain]
    merged = tuple(dict.fromkeys(plain))
    if len(merged) == len(names):
        raise InputError(
            f"{path}: merge_left_right expects names such as 'left arm' and 'right arm', got {', '.join(names)}"
        )
    # The last entry is that of -1, unknown.
    rename = np.array([merged.index(name) for name in plain] + [-1])

    def merging(shape: Shape) -> Callable[[], ShapeData]:
        def load() -> ShapeData:
            data = shape.load()
            return replace(
                data,
                vertex_labels=None if data.vertex_labels is None else rename[data.vertex_labels],
                face_labels=None if data.face_labels is None else rename[data.face_labels],
            )

        return load

    return merged, [replace(shape, loader=merging(shape)) for shape in shapes]


def _with_individuals(shapes: list[Shape], root: Path) -> list[Shape]:
    path = root / INDIVIDUALS
    if not path.is_file():
        return shapes
    owner: dict[int, int] = {}
    for number, (who, rows) in enumerate(_rows(path, shapes).items()):
        for row in rows:
            if row in owner:
                raise InputError(
                    f"{path}: {shapes[row].name} is listed twice, the second time under {who}"
                )
            owner[row] = number
    return [replace(shape, individual=owner.get(row)) for row, shape in enumerate(shapes)]
