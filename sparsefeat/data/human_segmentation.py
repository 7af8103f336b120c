"""Human segmentation: people of five sources, one of eight parts on every face."""

from __future__ import annotations

import os
from pathlib import Path

from sparsefeat.data.layouts import contents, open_folder
from sparsefeat.data.shape_files import list_meshes, mesh_loader, require_files
from sparsefeat.data.shapes import Shape, ShapeDataset
from sparsefeat.errors import InputError

PARTS = 8
_MOTIONS = ("bouncing", "crane", "handstand", "jumping", "march1", "march2", "squat1", "squat2")
_TEST = tuple(i for i in range(1, 21) if i not in (16, 18))


def load_human_segmentation(root: str | os.PathLike) -> ShapeDataset:
    """The benchmark of Maron et al., "Convolutional neural networks on surfaces via seamless toric covers".

    Args:
        root: folder with ``meshes/train/{adobe,faust,MIT_animation,scape}``, ``meshes/test/shrec`` and
            ``segs/...`` (one part of 1 to 8 a face), or the ``sig17_seg_benchmark`` above them.

    Returns:
        381 training and 18 test shapes, with face labels 0 to 7.

    Raises:
        InputError: another layout, or a file is missing.
    """
    expected = "meshes/{train,test} and segs/{train,test}"
    root = open_folder(root, expected)
    if (root / "sig17_seg_benchmark").is_dir():
        root = root / "sig17_seg_benchmark"
    if not (root / "meshes").is_dir() or not (root / "segs").is_dir():
        raise InputError(f"{root}: no {expected}; {contents(root)}")
    train, test = _train_files(root), _test_files(root)
    require_files((labels for _, _, labels in train + test), root, "label files")
    shapes = tuple(
        Shape(name, mesh, mesh_loader(mesh, face_labels=labels, label_offset=-1, parts=PARTS))
        for name, mesh, labels in train + test
    )
    splits = {"train": tuple(range(len(train))), "test": tuple(range(len(train), len(shapes)))}
    return ShapeDataset("human_segmentation", shapes, splits, part_count=PARTS)


def _train_files(root: Path) -> list[tuple[str, Path, Path]]:
    """(name, mesh, labels) of the training shapes. All shapes of a set but adobe share one label file."""
    meshes, segs = root / "meshes" / "train", root / "segs" / "train"
    sets = [
        ("adobe", meshes / "adobe", None),
        ("faust", meshes / "faust", segs / "faust/faust_corrected.txt"),
    ]
    for motion in _MOTIONS:
        folder = meshes / "MIT_animation" / f"meshes_{motion}" / "meshes"
        sets.append((f"mit/{motion}", folder, segs / "mit" / f"mit_{motion}_corrected.txt"))
    sets.append(("scape", meshes / "scape", segs / "scape/scape_corrected.txt"))
    found = []
    for name, folder, labels in sets:
        files = list_meshes(folder) if folder.is_dir() else []
        if not files:
            raise InputError(
                f"{folder}: no meshes here, they are part of the training set; {contents(root)}"
            )
        for mesh in files:
            found.append((f"{name}/{mesh.stem}", mesh, labels or segs / name / f"{mesh.stem}.txt"))
    return found


def _test_files(root: Path) -> list[tuple[str, Path, Path]]:
    """(name, mesh, labels) of the test shapes: there is no 16 and no 18, and 12 has a corrected mesh."""
    meshes, segs = root / "meshes" / "test" / "shrec", root / "segs" / "test" / "shrec"
    names = {i: "12_fix_orientation.off" if i == 12 else f"{i}.off" for i in _TEST}
    require_files((meshes / name for name in names.values()), root, "test meshes")
    return [(f"shrec/{i}", meshes / names[i], segs / f"shrec_{i}_full.txt") for i in _TEST]
