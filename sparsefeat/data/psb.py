"""Princeton segmentation benchmark: watertight shapes of everyday classes, here for classification."""

from __future__ import annotations

import os
from pathlib import Path

from sparsefeat.checks import checked_count
from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import class_folders, list_meshes, mesh_loader
from sparsefeat.data.shapes import Shape, ShapeDataset, split_per_class

# The benchmark numbers its shapes: twenty of each class in this order. Of "spring" there is none.
_CLASSES = (
    "human cup glasses airplane ant chair octopus table teddy hand plier fish bird spring armadillo bust "
    "mech bearing vase fourleg"
).split()


def load_psb(root: str | os.PathLike, train_per_class: int = 5, seed: int = 0) -> ShapeDataset:
    """Shapes of the Princeton benchmark (Chen et al., "A benchmark for 3D mesh segmentation", 2009).

    Args:
        root: folder with ``<class>/<k>.off``, or ``<k>.off`` of all classes (in ``data/off/``, ``off/`` or
            the folder itself), numbered as the benchmark does: 1-20 are people, 21-40 cups, and so on.
        train_per_class: shapes of each class in "train"; the others are "test".
        seed: decides which; average over several.

    Returns:
        The shapes with their class.

    Raises:
        InputError: another layout, or a class with too few shapes.
    """
    root = open_folder(root, "class folders <class>/<k>.off, or of <k>.off")
    numbered = [path for place in ("data/off", "off", ".") for path in _numbered(root / place)]
    if numbered:
        found = [(path, _CLASSES[(int(path.stem) - 1) // 20]) for path in numbered]
    else:
        folders = class_folders(root, "class folders <class>/<k>.off and no <k>.off")
        found = [(path, folder.name) for folder in folders for path in list_meshes(folder)]
    names = sorted({name for _, name in found})
    shapes = tuple(
        Shape(f"{name}/{path.stem}", path, mesh_loader(path), names.index(name))
        for path, name in found
    )
    count = checked_count(train_per_class, "train_per_class")
    splits = split_per_class([s.label for s in shapes], count, seed, str(root), names)
    return ShapeDataset("psb", shapes, splits, class_names=tuple(names))


def _numbered(folder: Path) -> list[Path]:
    """The meshes of a folder whose names are numbers of the benchmark."""
    if not folder.is_dir():
        return []
    return [
        p
        for p in list_meshes(folder)
        if p.stem.isdecimal() and 1 <= int(p.stem) <= 20 * len(_CLASSES)
    ]
