"""SMAL remeshed: four-legged animals of eight species in correspondence."""

from __future__ import annotations

import os
import re

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import remeshed_shapes
from sparsefeat.data.shapes import ShapeDataset
from sparsefeat.errors import InputError

TRAIN_SPECIES = ("cow", "dog", "fox", "lion", "wolf")
TEST_SPECIES = ("cougar", "hippo", "horse")
SPECIES = tuple(sorted(TRAIN_SPECIES + TEST_SPECIES))


def load_smal(root: str | os.PathLike) -> ShapeDataset:
    """SMAL_r (Donati et al., "Deep orientation-aware functional maps", 2022): test on species never seen.

    Args:
        root: folder with ``off/<species>_<...>.off`` (or the meshes themselves) and ``corres/<name>.vts``.

    Returns:
        Shapes with their species as class: train cow, dog, fox, lion, wolf; test cougar, hippo, horse.

    Raises:
        InputError: another layout, a species that is unknown, or a split without a shape.
    """
    root = open_folder(root, "remeshed SMAL shapes off/<species>_<...>.off with corres/<name>.vts")

    def label(name: str) -> int:
        species = re.match(r"[a-z]*", name.lower())[0]
        if species not in SPECIES:
            raise InputError(
                f"{root}: {name}: no species {species!r}, expected one of {', '.join(SPECIES)}"
            )
        return SPECIES.index(species)

    shapes = tuple(
        remeshed_shapes(root, ("off", "vtx_5k", "."), "<species>_<...>.off", label=label)
    )
    splits = {
        split: tuple(row for row, shape in enumerate(shapes) if SPECIES[shape.label] in names)
        for split, names in (("train", TRAIN_SPECIES), ("test", TEST_SPECIES))
    }
    for split, names in (("train", TRAIN_SPECIES), ("test", TEST_SPECIES)):
        if not splits[split]:
            raise InputError(
                f"{root}: no shape for {split}, expected names that begin with {', '.join(names)}"
            )
    return ShapeDataset("smal_r", shapes, splits, class_names=SPECIES)
