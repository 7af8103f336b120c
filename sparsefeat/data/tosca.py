"""TOSCA: animals and people, several poses of each; remeshed, in the layout of FAUST_r."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import read_pairs, remeshed_shapes
from sparsefeat.data.shapes import ShapeDataset
from sparsefeat.errors import InputError


def load_tosca(root: str | os.PathLike) -> ShapeDataset:
    """TOSCA remeshed (Bronstein et al., "Numerical geometry of non-rigid shapes", 2008), for testing only.

    Args:
        root: folder with ``vtx_5k/<class><k>.off`` (or ``off/``, or the meshes themselves) and
            ``corres/<name>.vts``; ``test_pairs.txt`` is used if it is there.

    Returns:
        Shapes with their class (cat, centaur, david, ...), all in "test". Correspondence holds within a
        class. Without a list, ``pairs`` are all unordered pairs within a class.

    Raises:
        InputError: another layout, or a name that is not a class and a number.
    """
    root = open_folder(root, "remeshed TOSCA shapes <class><k>.off with corres/<name>.vts")

    def kind(name: str) -> str:
        match = re.fullmatch(r"([a-z]+)\d+", name)
        if not match:
            raise InputError(
                f"{root}: shape {name!r}: expected a name <class><k>, as cat0 or michael12"
            )
        return match[1]

    shapes = remeshed_shapes(root, ("vtx_5k", "off", "."), "<class><k>.off", template=kind)
    names = tuple(sorted({shape.template for shape in shapes}))
    shapes = tuple(replace(shape, label=names.index(shape.template)) for shape in shapes)
    listed = root / "test_pairs.txt"
    if listed.is_file():
        pairs = read_pairs(listed, [shape.name for shape in shapes])
    else:
        every = itertools.combinations(range(len(shapes)), 2)
        pairs = tuple((i, j) for i, j in every if shapes[i].label == shapes[j].label)
    return ShapeDataset(
        "tosca", shapes, {"test": tuple(range(len(shapes)))}, class_names=names, pairs=pairs
    )
