"""Voxels of many mesh files: what tools/voxelize.py does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsefeat.errors import InputError
from sparsefeat.extract.files import check_picture, failure, find_inputs
from sparsefeat.extract.surfaces import expected_voxels
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.lock import output_folder
from sparsefeat.io.meshes import MESH_SUFFIXES, read_mesh
from sparsefeat.mesh.geodesic import surface_vertices
from sparsefeat.mesh.nearest import nearest_voxels
from sparsefeat.mesh.pictures import draw_voxels
from sparsefeat.mesh.voxelization import voxelize_mesh
from sparsefeat.models.blocks import checked_device

ATTRIBUTES = ("area", "normal", "triangle")
UP_AXES = ("x", "y", "z", "-x", "-y", "-z")
PICTURE_NAME = "voxels.png"
_RESULT_KEYS = ("vertex_voxel",)
"""Arrays by which an npz of :func:`voxelize_files` is known."""
_MANY_VOXELS = 2e7
_MOST_VOXELS = 2e9
"""Their coordinates alone take 24 GB."""


@dataclass
class Voxelization:
    """What :func:`voxelize_files` did.

    Attributes:
        written: input -> its npz.
        failed: input -> why it has none.
        voxels: input -> how many it has.
        picture: the PNG, or None if there is none.
    """

    written: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    voxels: dict[Path, int] = field(default_factory=dict)
    picture: Path | None = None


def voxelize_files(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    voxel_size: float | None = None,
    resolution: int | None = None,
    attributes: Iterable[str] = (),
    device: str | None = None,
    image: bool = True,
    up: str = "y",
    max_panels: int = 12,
    report: Callable[[str], None] | None = None,
    progress: Callable[[str, float, int, str], None] | None = None,
) -> Voxelization:
    """Write the voxels of each mesh, and one picture of all.

    Each input gives ``<name>.npz`` with coordinates (V, 3) int32, voxel_size, the attributes that were asked
    for (see MeshVoxels), and vertex_voxel (N,) int64: for each vertex of the file the row of the voxel that
    it is in (of a vertex in no face: that is nearest). A file that cannot be read or written is reported,
    and the others are done all the same; repairs of a mesh are reported too.

    Args:
        inputs: files, and folders that are searched for meshes at any depth; what lies in a folder keeps its
            sub-folder.
        output: folder, made if it is absent.
        voxel_size: in the unit of the vertices.
        resolution: instead of it: so many voxels along the longest side of each mesh's bounding box (one
            more where the mesh lies across cells of the grid, which always has a corner at the origin).
        attributes: of "area", "normal", "triangle".
        device: where to compute; None: the CPU.
        image: whether to draw ``voxels.png``.
        up: the axis that points up in the picture.
        max_panels: meshes in the picture.
        report: called with one line for each failed input and each repair.
        progress: called with (stage, files done, files in all, name).

    Raises:
        InputError: an option is wrong, nothing was found, the output folder cannot be made, or an input or another
            file that is no result of an earlier call would be overwritten.
    """
    attributes = tuple(attributes)
    _check_options(voxel_size, resolution, attributes, up)
    where = checked_device(device or "cpu", torch.nn.Identity())
    output = Path(output)
    result = Voxelization()

    def fail(path: Path, error: Exception) -> None:
        result.failed[path] = failure(path, error)
        if report:
            report(result.failed[path])

    targets = find_inputs(inputs, output, fail, MESH_SUFFIXES, (".npz",), "meshes", _RESULT_KEYS)
    if image:
        check_picture(output / PICTURE_NAME, _RESULT_KEYS)
    with output_folder(output):
        panels: list[tuple[str, np.ndarray]] = []
        for index, (path, name) in enumerate(targets.items()):
            if progress:
                progress("voxels", index, len(targets), str(name))
            target = output / f"{name}.npz"
            try:
                arrays = _voxelize(path, voxel_size, resolution, attributes, where, report)
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(target) as temporary:
                    np.savez(temporary, **arrays)
            except Exception as error:  # whatever it is: it belongs to its file, the others go on
                fail(path, error)
                continue
            result.written[path] = target
            result.voxels[path] = len(arrays["coordinates"])
            if image and len(panels) < max_panels:
                panels.append((f"{name} · {result.voxels[path]:,} voxels", arrays["coordinates"]))
        if progress and targets:
            progress("voxels", len(targets), len(targets), "")
        if panels:
            if progress:
                progress("picture", 0, 1, PICTURE_NAME)
            result.picture = output / PICTURE_NAME
            draw_voxels(
                [cells for _, cells in panels], result.picture, [title for title, _ in panels], up
            )
            if progress:
                progress("picture", 1, 1, PICTURE_NAME)
    return result


def _voxelize(
    path: Path,
    voxel_size: float | None,
    resolution: int | None,
    attributes: tuple[str, ...],
    device: torch.device,
    report: Callable[[str], None] | None,
) -> dict[str, Any]:
    mesh = read_mesh(path)
    if report:
        for line in mesh.repairs:
            report(f"{path}: {line}")
    if voxel_size is None:
        used = mesh.vertices[surface_vertices(mesh.vertices, mesh.faces)]
        side = float((used.max(0) - used.min(0)).max())
        if not side > 0:
            raise InputError(
                f"{path}: all vertices are at one place, so that a resolution gives no size"
            )
        assert resolution is not None  # one of the two is given
        voxel_size = side / resolution
    count = expected_voxels(mesh.vertices, mesh.faces, voxel_size)
    if count > _MOST_VOXELS:
        raise InputError(
            f"{path}: about {count:.2g} voxels of {voxel_size:g}, expected at most {_MOST_VOXELS:.2g}; is the voxel size "
            "in the unit of the mesh?"
        )
    if count > _MANY_VOXELS and report:
        report(f"{path}: about {count:.2g} voxels of {voxel_size:g}; this takes a while")
    try:
        voxels = voxelize_mesh(
            mesh.vertices, mesh.faces, voxel_size, device=device, **dict.fromkeys(attributes, True)
        )
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{path}: the voxels of {voxel_size:g} do not fit the memory of {device}"
        ) from error
    position = torch.from_numpy(mesh.vertices) / voxels.voxel_size
    arrays: dict[str, np.ndarray | float] = {
        "coordinates": voxels.coordinates.cpu().numpy(),
        "voxel_size": voxels.voxel_size,
        "vertex_voxel": nearest_voxels(position, voxels.coordinates.cpu()).numpy(),
    }
    return arrays | {name: getattr(voxels, name).cpu().numpy() for name in attributes}


def _check_options(
    voxel_size: float | None, resolution: int | None, attributes: tuple[str, ...], up: str
) -> None:
    if (voxel_size is None) == (resolution is None):
        raise InputError(
            f"voxel size {voxel_size} and resolution {resolution}, expected one of them"
        )
    if voxel_size is not None and not 0 < voxel_size < float("inf"):
        raise InputError(f"voxel size {voxel_size!r}, expected a positive number")
    if resolution is not None and not 1 <= resolution <= 1 << 20:
        raise InputError(f"resolution {resolution!r}, expected 1 to {1 << 20} voxels")
    for name in attributes:
        if name not in ATTRIBUTES:
            raise InputError(f"attribute {name!r}, expected some of {', '.join(ATTRIBUTES)}")
    if up not in UP_AXES:
        raise InputError(f"up {up!r}, expected one of {', '.join(UP_AXES)}")
