"""A recorded RGB-D sequence on disk, and the fragments that it fuses to.

Two ways of keeping one are read: ``frame-<k>.depth.png`` with ``frame-<k>.pose.txt`` (7-Scenes, 3DMatch's
raw sequences), and ``depth/<k>.png`` with ``trajectory.log``, whose block ``k k k+1`` has the pose of frame
k (Redwood). Poses map the camera (x right, y down, z forward) to a common frame. Intrinsics come from
``camera-intrinsics.txt`` (3x3) or ``camera-intrinsics.json`` (as Open3D writes it) in the folder or the one
above.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sparsefeat.errors import InputError, opening, opens_path
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.damage import DAMAGE, describe
from sparsefeat.io.gtlog import read_log, rigid_problem
from sparsefeat.io.lock import output_folder
from sparsefeat.io.text import read_lines
from sparsefeat.synthetic.camera import Intrinsics
from sparsefeat.synthetic.fragments import (
    Fragment,
    check_fusion,
    check_layout,
    fuse_fragment,
    transform,
    write_scene,
)
from sparsefeat.synthetic.parallel import run_tasks

_FRAME = re.compile(r"frame-(\d+)\.depth\.png")
_NUMBERED = re.compile(r"(?:.*\D)?(\d+)\.png")
_NO_DEPTH = 65535  # what 7-Scenes writes where nothing was measured; others write 0


class RgbdSequence(NamedTuple):
    """Frames of a moving depth camera.

    Attributes:
        files: one depth picture per frame, 16 bit.
        poses: (F,4,4) float64, camera to common frame, metres.
        camera: intrinsics of all frames.
        depth_scale: units of the pictures per metre.
    """

    files: tuple[Path, ...]
    poses: np.ndarray
    camera: Intrinsics
    depth_scale: float

    def depth(self, k: int, max_depth: float = 4.0) -> np.ndarray:
        """Depth (H,W) float32 of frame ``k`` in metres, 0 where nothing before ``max_depth`` is.

        Raises:
            InputError: the picture cannot be read whole, or is of another size than the first.
        """
        raw = _read_depth(self.files[k])
        expected = (self.camera.height, self.camera.width)
        if raw.shape != expected:
            raise InputError(
                f"{self.files[k]}: {raw.shape[1]} x {raw.shape[0]} pixels, the first frame has "
                f"{expected[1]} x {expected[0]}"
            )
        depth = raw.astype(np.float32) / np.float32(self.depth_scale)
        depth[(raw == _NO_DEPTH) | (depth > max_depth)] = 0
        return depth


@opens_path
def read_rgbd(
    folder: str | os.PathLike,
    intrinsics: Sequence[float] | str | os.PathLike | None = None,
    depth_scale: float = 1000.0,
) -> RgbdSequence:
    """Find the frames, poses and intrinsics of a recorded sequence; pictures are read when asked for.

    Args:
        folder: as the module says.
        intrinsics: ``(fx, fy, cx, cy)`` in pixels or a file; None looks for ``camera-intrinsics.txt``.
        depth_scale: units of the depth pictures per metre.

    Raises:
        InputError: no frames, a frame without pose, a pose that is not a rigid motion, no intrinsics or
            impossible ones, an unreadable first picture. The file is named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with depth pictures and poses")
    if not depth_scale > 0:
        raise InputError(f"depth_scale: got {depth_scale:g}, expected units per metre, more than 0")
    frames = _numbered(folder, _FRAME)
    if frames:
        poses = [
            _read_pose(path.with_name(path.name.replace(".depth.png", ".pose.txt")))
            for path in frames.values()
        ]
    else:
        frames = _numbered(folder / "depth", _NUMBERED)
        if not frames:
            raise InputError(
                f"{folder}: no depth pictures, expected frame-<k>.depth.png or depth/<k>.png"
            )
        poses = _trajectory_poses(folder / "trajectory.log", frames)
    files = tuple(frames.values())
    height, width = _read_depth(files[0]).shape
    fx, fy, cx, cy = _find_intrinsics(folder, intrinsics)
    if not (0 < fx < math.inf and 0 < fy < math.inf and 0 < cx < width and 0 < cy < height):
        raise InputError(
            f"{folder}: intrinsics fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} do not fit pictures of "
            f"{width} x {height} pixels"
        )
    return RgbdSequence(
        files, np.array(poses), Intrinsics(width, height, fx, fy, cx, cy), float(depth_scale)
    )


def fuse_rgbd(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    frames: int = 50,
    layout: str = "both",
    scene: str | None = None,
    intrinsics: Sequence[float] | str | os.PathLike | None = None,
    depth_scale: float = 1000.0,
    voxel_size: float = 0.01,
    spacing: float = 0.025,
    like_3dmatch: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Fragment]:
    """Fuse a recorded sequence to fragments and write them as 3DMatch is laid out on disk.

    Args:
        folder, intrinsics, depth_scale: see `read_rgbd`.
        output: folder for the layouts, made if it is not there; never inside of ``folder``.
        frames: consecutive frames in a fragment; a remainder of less than half of that is left out.
        layout: ``train``, ``test`` or ``both``, see `sparsefeat.synthetic.rooms.make_rooms`.
        scene: name of the scene, the folder's by default; white space and @ become hyphens.
        voxel_size: of the fusion, metres.
        spacing, like_3dmatch: see `sparsefeat.synthetic.fragments.fuse_fragment`.
        workers: number of processes.
        progress: called with (fragments done, all fragments) after each fragment.

    Returns:
        The fragments, in the common frame of the poses.

    Raises:
        InputError: bad input (see `read_rgbd`), a truncated picture, a fragment without a single point, a name of a
            scene that is no name of a file, or ``output`` has a scene of this name that was made otherwise.
    """
    folder, output = Path(folder), Path(output)
    if frames < 1:
        raise InputError(f"frames: got {frames}, expected 1 or more")
    if workers < 1:
        raise InputError(f"workers: got {workers}, expected 1 or more")
    if not depth_scale > 0:
        raise InputError(f"depth_scale: got {depth_scale}, expected units per metre above 0")
    check_layout(layout)
    check_fusion(voxel_size, spacing)
    name = re.sub(r"[\s@]+", "-", folder.resolve().name if scene is None else scene)
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise InputError(f"scene: got {name!r}, expected a name without slashes")
    sequence = read_rgbd(folder, intrinsics, depth_scale)
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{output}: lies inside of the recording {folder}, which is never written to"
        )
    starts = [
        k
        for k in range(0, len(sequence.files), frames)
        if len(sequence.files) - k >= min(frames, (frames + 1) // 2)
    ]
    if not starts:
        raise InputError(
            f"{folder}: {len(sequence.files)} frames, too few for fragments of {frames}"
        )
    tasks = [
        (sequence, k, min(k + frames, len(sequence.files)), voxel_size, spacing, like_3dmatch)
        for k in starts
    ]
    fragments: list[Fragment | None] = [None] * len(tasks)
    camera = sequence.camera
    made = (
        f"recording={folder.resolve()} of={len(sequence.files)} frames={frames} layout={layout} "
        f"intrinsics={camera.fx:.9g},{camera.fy:.9g},{camera.cx:.9g},{camera.cy:.9g} "
        f"depth_scale={depth_scale:g} voxel_size={voxel_size:g} spacing={spacing:g} "
        f"like_3dmatch={like_3dmatch}"
    )
    with output_folder(output):
        mark = output / f"{name}.made"
        _refuse_other(output, name, mark, made)
        for done, (k, fragment) in enumerate(run_tasks(_fuse_window, tasks, workers), 1):
            fragments[k] = fragment
            if progress is not None:
                progress(done, len(tasks))
        with opening(mark), atomic_write(mark) as path:
            path.write_text(made + "\n", encoding="utf-8")
        write_scene(output, name, fragments, layout, max(spacing, voxel_size))
    return fragments


@opens_path
def _refuse_other(output: Path, name: str, mark: Path, made: str) -> None:
    """Refuse to write over a scene of the same name, unless it was made from the same recording in the same way."""
    held = [output / name, *output.glob(f"{glob.escape(name)}@*")]
    held = [path for path in held if path.exists()]
    found = mark.read_text(encoding="utf-8").strip() if mark.is_file() else None
    if held and found != made:
        origin = "another origin" if found is None else found
        raise InputError(
            f"{held[0]}: the scene {name} is there already, of {origin}; name another scene, or delete it"
        )


def _fuse_window(
    sequence: RgbdSequence, first: int, last: int, voxel_size, spacing, like_3dmatch
) -> Fragment:
    start = sequence.poses[first]
    depths = [sequence.depth(k) for k in range(first, last)]
    poses = np.linalg.inv(start) @ sequence.poses[first:last]
    points = fuse_fragment(depths, sequence.camera, poses, voxel_size, spacing, like_3dmatch)
    if len(points) == 0:
        raise InputError(
            f"{sequence.files[first]}: no surface in the {last - first} frames from here on"
        )
    return Fragment(transform(points, start), start)


def _numbered(folder: Path, pattern: re.Pattern) -> dict[int, Path]:
    """Files whose name fits ``pattern``, by the number in it, in order. Hidden files are none."""
    if not folder.is_dir():
        return {}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = ((pattern.fullmatch(path.name), path) for path in shown)
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _read_depth(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            raw = np.asarray(picture)
    except (OSError, Image.DecompressionBombError, *DAMAGE) as error:
        raise InputError(
            f"{path}: cannot be read as a whole PNG picture ({describe(error)})"
        ) from error
    if raw.ndim != 2 or raw.dtype.kind not in "ui" or raw.dtype.itemsize < 2:
        raise InputError(
            f"{path}: {raw.dtype} of shape {raw.shape}, expected one 16-bit channel of depth"
        )
    return raw


def _read_matrix(path: Path, size: int) -> np.ndarray:
    rows = [line.split() for line in read_lines(path) if line.strip()]
    try:
        matrix = np.array(rows, float)
    except ValueError:
        matrix = np.zeros(0)
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: expected a matrix of {size} x {size} finite numbers")
    return matrix


def _read_pose(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the pose of the depth picture beside it")
    pose = _read_matrix(path, 4)
    problem = rigid_problem(pose)
    if problem:
        raise InputError(f"{path}: the pose {problem}")
    return pose


def _trajectory_poses(path: Path, frames: dict[int, Path]) -> list[np.ndarray]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file, expected the poses of {len(frames)} depth pictures"
        )
    known = {block.i: block.matrix for block in read_log(path)}
    for number, picture in frames.items():
        if number not in known:
            raise InputError(
                f"{path}: no block '{number} {number} {number + 1}', the pose of {picture}"
            )
    return [known[number] for number in frames]


def _find_intrinsics(folder: Path, given) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy as given, or from the file given, or from a file where they are usually kept."""
    if given is not None and not isinstance(given, (str, os.PathLike)):
        values = tuple(float(value) for value in given)
        if len(values) != 4:
            raise InputError(f"intrinsics: got {len(values)} numbers, expected fx, fy, cx, cy")
        return values
    names = [folder / "camera-intrinsics.txt", folder / "camera-intrinsics.json"]
    names += [folder.resolve().parent / path.name for path in names]
    places = [Path(given)] if given is not None else names
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        where = (
            places[0] if given is not None else f"{folder}: no camera-intrinsics.txt here or above"
        )
        raise InputError(
            f"{where}: intrinsics are needed, expected a 3x3 matrix in a file, or fx, fy, cx, cy"
        )
    if path.suffix == ".json":
        try:
            flat = json.loads("\n".join(read_lines(path)))["intrinsic_matrix"]
            matrix = np.array(flat, float).reshape(3, 3).T  # Open3D writes columns
        except DAMAGE as error:
            raise InputError(
                f"{path}: expected a field 'intrinsic_matrix' of nine numbers"
            ) from error
    else:
        matrix = _read_matrix(path, 3)
    return matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
