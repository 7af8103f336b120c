"""SHREC'11: 30 classes of 20 non-rigid shapes each, for classification."""

from __future__ import annotations

import os
from pathlib import Path

from sparsefeat.checks import checked_count
from sparsefeat.data.layouts import contents, find_folder, open_folder
from sparsefeat.data.shape_files import class_folders, list_meshes, mesh_loader, require_files
from sparsefeat.data.shapes import Shape, ShapeDataset, split_per_class
from sparsefeat.errors import InputError
from sparsefeat.io.text import read_text, whole

_LISTS = ("categories.txt", "test.cla")


def load_shrec11(root: str | os.PathLike, train_per_class: int = 10, seed: int = 0) -> ShapeDataset:
    """SHREC'11 non-rigid (Lian et al., "Shape retrieval on non-rigid 3D watertight meshes", 2011).

    Args:
        root: as the contest gave it, ``raw/T<k>.off`` (or ``<k>.off``, in ``raw/`` or in the folder itself)
            with ``categories.txt`` or ``test.cla``; or as MeshCNN simplified it,
            ``<class>/{train,test}/T<k>.obj``, whose own split is not used.
        train_per_class: shapes of each class in "train"; the others are "test".
        seed: decides which; average over several.

    Returns:
        The shapes with their class.

    Raises:
        InputError: another layout, a malformed list, or a shape of the list is missing.
    """
    root = open_folder(
        root, f"T<k>.off with {' or '.join(_LISTS)}, or of <class>/{{train,test}}/T<k>.obj"
    )
    listed = [root / folder / name for folder in (".", "raw") for name in _LISTS]
    categories = next((path for path in listed if path.is_file()), None)
    names, found = _listed(root, categories) if categories else _class_folders(root)
    labels = [label for _, label in found]
    shapes = tuple(Shape(path.stem, path, mesh_loader(path), label) for path, label in found)
    count = checked_count(train_per_class, "train_per_class")
    splits = split_per_class(labels, count, seed, str(root), names)
    return ShapeDataset("shrec11", shapes, splits, class_names=tuple(names))


def _listed(root: Path, path: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Class names and (mesh, class) from a list in the format of the Princeton benchmark.

    ``PSB 1``, ``<classes> <shapes>``, then for each class ``<name> <parent> <count>`` and ``count`` numbers.
    """
    words = read_text(path).split()
    malformed = f"{path}: expected 'PSB 1', '<classes> <shapes>' and blocks '<name> <parent> <count>' with numbers"
    if len(words) < 4 or words[0] != "PSB" or (announced := whole(words[2])) is None:
        raise InputError(f"{malformed}; it begins with {' '.join(words[:4])!r}")
    names: list[str] = []
    members: list[tuple[str, int]] = []
    at = 4
    while at < len(words):
        count = words[at + 2] if at + 2 < len(words) else ""
        size = whole(count)
        numbers = words[at + 3 : at + 3 + size] if size is not None and size >= 0 else []
        if size is None or len(numbers) != size or not all(n.isdecimal() for n in numbers):
            raise InputError(f"{malformed}; the block of {words[at]!r} is not of that form")
        members += [(number, len(names)) for number in numbers]
        names.append(words[at])
        at += 3 + len(numbers)
    if len(names) != announced:
        raise InputError(f"{path}: {len(names)} classes, but it announces {words[2]}")
    for folder in (root / "raw", root):
        for pattern in ("T{}.off", "{}.off"):
            if (folder / pattern.format(members[0][0])).is_file():
                files = [(folder / pattern.format(number), label) for number, label in members]
                require_files((file for file, _ in files), root, f"shapes of {path.name}")
                return names, files
    number = members[0][0]
    raise InputError(f"{root}: no T{number}.off or {number}.off here or in raw/; {contents(root)}")


def _class_folders(root: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Class names and (mesh, class) from ``<class>/{train,test}/``, in ``raw/shrec_16/`` or nearer."""
    base = find_folder(root, ("raw/shrec_16", "shrec_16", "."))
    classes = sorted(path for path in base.iterdir() if (path / "train").is_dir())
    if not classes:
        raise InputError(
            f"{root}: no {' or '.join(_LISTS)}, and no class folders <class>/train/; {contents(root)}"
        )
    found = []
    for label, folder in enumerate(classes):
        files = [
            mesh
            for part in class_folders(folder, "meshes in train/ and test/")
            for mesh in list_meshes(part)
        ]
        found += [(mesh, label) for mesh in files]
    return [folder.name for folder in classes], found
