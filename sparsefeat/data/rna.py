"""RNA molecules: surfaces whose vertices carry their place in an alignment of the sequences."""

from __future__ import annotations

import os

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import mesh_loader, read_names, require_files
from sparsefeat.data.shapes import Shape, ShapeDataset
from sparsefeat.errors import InputError

# The files have -1 to 258; -1, a nucleotide outside the alignment, is a class of its own.
PARTS = 260


def load_rna(root: str | os.PathLike) -> ShapeDataset:
    """RNA surface segmentation (Poulenard et al., "Effective rotation-invariant point CNN", 3DV 2019).

    Args:
        root: folder with ``off/<id>.off``, ``labels/<id>.txt`` (one of -1 to 258 a vertex; 1 is added) and
            ``train.txt`` and ``test.txt``, one file name a line.

    Returns:
        The shapes of both lists, with 260 vertex labels.

    Raises:
        InputError: another layout, a file of a list is missing, or a shape is in both lists.
    """
    root = open_folder(root, "off/<id>.off, labels/<id>.txt, train.txt and test.txt")
    require_files((root / "train.txt", root / "test.txt"), root, "lists")
    lists = {
        split: [name.removesuffix(".off") for name in read_names(root / f"{split}.txt")]
        for split in ("train", "test")
    }
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise InputError(f"{root}: {sorted(both)[0]} is in train.txt and in test.txt")
    names = list(dict.fromkeys(lists["train"] + lists["test"]))
    require_files(
        (root / "off" / f"{name}.off" for name in names), root, "meshes of train.txt and test.txt"
    )
    require_files((root / "labels" / f"{name}.txt" for name in names), root, "label files")
    shapes = []
    for name in names:
        mesh, labels = root / "off" / f"{name}.off", root / "labels" / f"{name}.txt"
        loader = mesh_loader(mesh, vertex_labels=labels, label_offset=1, parts=PARTS)
        shapes.append(Shape(name, mesh, loader))
    rows = {name: row for row, name in enumerate(names)}
    splits = {split: tuple(rows[name] for name in dict.fromkeys(lists[split])) for split in lists}
    return ShapeDataset("rna", tuple(shapes), splits, part_count=PARTS)
