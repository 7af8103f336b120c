"""FAUST's registrations: 10 people in 10 poses each, on one connectivity."""

from __future__ import annotations

import os

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import find_meshes, mesh_loader, numbered
from sparsefeat.data.shapes import Shape, ShapeDataset

NAME = r"tr_reg_(\d{3})"
# Parts carried over from a body model; not those of the human-segmentation benchmark.
HUMAN8 = ("head", "torso", "upperarm", "forearm", "hand", "thigh", "calf", "foot")
_LABELS = "labels_human8.txt"


def people_splits(rows: dict[int, int]) -> dict[str, tuple[int, ...]]:
    """Train on people 0 to 7 (shapes 0 to 79), test on people 8 and 9 (80 to 99)."""
    return {
        "train": tuple(rows[i] for i in range(80)),
        "test": tuple(rows[i] for i in range(80, 100)),
    }


def person(name: str) -> int:
    """Who shape ``tr_reg_<i>`` is: person i // 10. -1 for a name of another form."""
    digits = name.removeprefix("tr_reg_")
    return int(digits) // 10 if digits.isdecimal() else -1


def load_faust(root: str | os.PathLike) -> ShapeDataset:
    """FAUST's training registrations (Bogo et al., "FAUST", CVPR 2014).

    Args:
        root: folder with ``registrations/tr_reg_000.ply`` to 099 (or ``training/registrations/``, or the
            meshes themselves), as MPI-FAUST unpacks. ``labels_human8.txt`` beside them, one of eight body
            parts a vertex for all shapes, is used if it is there.

    Returns:
        100 shapes, split by people: train 0-79, test 80-99. Vertex k is the same point in all of them.

    Raises:
        InputError: another layout, or shapes are missing.
    """
    root = open_folder(root, "FAUST registrations tr_reg_<000-099>.ply")
    places = ("registrations", "training/registrations", ".")
    folder, meshes = find_meshes(root, places, "tr_reg_<000-099>.ply", (".ply", ".off", ".obj"))
    labels = folder / _LABELS if (folder / _LABELS).is_file() else None
    shapes = tuple(
        Shape(
            mesh.stem,
            mesh,
            mesh_loader(mesh, vertex_labels=labels, one_connectivity=True, parts=len(HUMAN8)),
            individual=person(mesh.stem),
        )
        for mesh in meshes
    )
    rows = numbered(shapes, NAME, range(100), root)
    return ShapeDataset("faust", shapes, people_splits(rows), part_names=HUMAN8 if labels else None)
