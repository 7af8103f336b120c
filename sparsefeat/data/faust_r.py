"""FAUST remeshed: every shape has a triangulation of its own, of about 5000 vertices."""

from __future__ import annotations

import os

from sparsefeat.data.faust import HUMAN8, NAME, people_splits, person
from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import numbered, read_pairs, remeshed_shapes
from sparsefeat.data.shapes import ShapeDataset


def load_faust_r(root: str | os.PathLike) -> ShapeDataset:
    """FAUST_r (Ren et al., "Continuous and orientation-preserving correspondences", 2018).

    Args:
        root: folder with ``vtx_5k/tr_reg_000.off`` to 099 (or ``off/``, or the meshes themselves) and
            ``corres/<name>.vts``. ``labels_human8/<name>.txt``, one of eight body parts a vertex, and
            ``test_pairs.txt`` are used if they are there.

    Returns:
        100 shapes, split by people: train 0-79, test 80-99.

    Raises:
        InputError: another layout, or shapes are missing.
    """
    root = open_folder(root, "remeshed FAUST shapes tr_reg_<000-099>.off with corres/<name>.vts")
    shapes = tuple(
        remeshed_shapes(
            root,
            ("vtx_5k", "off", "."),
            "tr_reg_<000-099>.off",
            "labels_human8",
            len(HUMAN8),
            individual=person,
        )
    )
    rows = numbered(shapes, NAME, range(100), root)
    listed = root / "test_pairs.txt"
    labelled = (shapes[0].path.parent / "labels_human8").is_dir() or (
        root / "labels_human8"
    ).is_dir()
    return ShapeDataset(
        "faust_r",
        shapes,
        people_splits(rows),
        part_names=HUMAN8 if labelled else None,
        pairs=read_pairs(listed, [s.name for s in shapes]) if listed.is_file() else None,
    )
