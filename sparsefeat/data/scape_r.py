"""SCAPE remeshed: one man in 71 poses."""

from __future__ import annotations

import os

from sparsefeat.data.layouts import open_folder
from sparsefeat.data.shape_files import numbered, remeshed_shapes
from sparsefeat.data.shapes import ShapeDataset


def load_scape_r(root: str | os.PathLike) -> ShapeDataset:
    """SCAPE_r (Ren et al., "Continuous and orientation-preserving correspondences", 2018).

    Args:
        root: folder with ``off/mesh000.off`` to 071 (there is no 051; or ``vtx_5k/``, or the meshes
            themselves) and ``corres/<name>.vts``.

    Returns:
        71 shapes: train 0-51, test 52-71.

    Raises:
        InputError: another layout, or shapes are missing.
    """
    root = open_folder(root, "remeshed SCAPE shapes mesh<000-071>.off with corres/<name>.vts")
    shapes = tuple(remeshed_shapes(root, ("off", "vtx_5k", "."), "mesh<000-071>.off"))
    rows = numbered(shapes, r"mesh(\d{3})", (i for i in range(72) if i != 51), root)
    return ShapeDataset(
        "scape_r",
        shapes,
        {
            "train": tuple(rows[i] for i in sorted(rows) if i < 52),
            "test": tuple(rows[i] for i in sorted(rows) if i >= 52),
        },
    )
