"""Rooms to train on: from a seed to fragments on disk."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparsefeat import __version__
from sparsefeat.checks import checked_count
from sparsefeat.errors import InputError, opening, opens_path
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.lock import LOCK_NAME, output_folder
from sparsefeat.synthetic.camera import KINECT, Intrinsics, Scene, drifted, walk
from sparsefeat.synthetic.depth_noise import DepthNoise
from sparsefeat.synthetic.fragments import (
    Fragment,
    check_fusion,
    check_layout,
    fuse_fragment,
    transform,
    write_scene,
)
from sparsefeat.synthetic.layout import Room, make_room
from sparsefeat.synthetic.parallel import run_tasks

_MADE = "made.txt"
_UNFINISHED = "unfinished: "

DRIFT_DEG, DRIFT = (
    0.15,
    0.005,
)  # typical error of the camera's path within a fragment: degrees, metres


class PreparedRoom:
    """A room with everything that its fragments share: the scene to cast rays at, the camera and its walk.

    Args:
        seed, index: decide everything.
        fragments, frames: number of fragments and of frames in each.
        camera: intrinsics of the depth camera.
    """

    def __init__(
        self, seed: int, index: int, fragments: int, frames: int, camera: Intrinsics = KINECT
    ):
        layout, path, noise = np.random.SeedSequence([seed, index]).spawn(3)
        self.seed, self.index, self.frames, self.camera = seed, index, frames, camera
        self.room: Room = make_room(layout)
        self.scene = Scene(self.room.mesh)
        rng = np.random.default_rng(path)
        self.poses = walk(
            rng, self.room.width, self.room.depth, self.room.obstacles, fragments, frames
        )
        self.noise = DepthNoise(camera, np.random.default_rng(noise))

    def fragment(self, k: int, voxel_size: float, spacing: float) -> Fragment:
        """Fragment ``k``: its frames seen with noise, fused with drifting poses; in the room's frame."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, self.index, 1 + k]))
        # Casting rays is most of the work, and between frames at 30 Hz a hand moves by millimetres: every
        # second view is cast, and seen twice with noise of its own.
        views = self.poses[k * self.frames : (k + 1) * self.frames : 2]
        depths = []
        for view in views:
            ideal = self.scene.cast(self.camera, view)
            depths += [self.noise(*ideal, rng) for _ in range(2)]
        start = views[0]
        believed = drifted(
            np.repeat(np.linalg.inv(start) @ views, 2, axis=0), rng, DRIFT_DEG, DRIFT
        )
        points = fuse_fragment(
            depths[: self.frames], self.camera, believed[: self.frames], voxel_size, spacing
        )
        return Fragment(transform(points, start), start)


@functools.lru_cache(maxsize=1)
def _prepared(seed: int, index: int, fragments: int, frames: int) -> PreparedRoom:
    return PreparedRoom(seed, index, fragments, frames)


def _make_fragment(seed, index, fragments, frames, k, voxel_size, spacing) -> Fragment:
    return _prepared(seed, index, fragments, frames).fragment(k, voxel_size, spacing)


def room_name(index: int) -> str:
    """Name of the scene of room ``index``."""
    return f"room-{index:04d}"


def is_room_name(name: str) -> bool:
    """Whether a scene is called as one of `make_rooms`, whose numbers begin anew in every folder."""
    return re.fullmatch(r"room-\d{4,}", name) is not None


def splits(rooms: int) -> dict[str, list[str]]:
    """Names of the rooms for ``train``, ``val`` and ``test``.

    Of four rooms or more one in eight, at least one, is for validation and as many for testing; of fewer
    the last one is for both."""
    names = [room_name(k) for k in range(rooms)]
    if rooms < 4:
        held = names[-1:]
        return {"train": names[:-1] or names, "val": held, "test": held}
    share = max(1, rooms // 8)
    return {"train": names[: -2 * share], "val": names[-2 * share : -share], "test": names[-share:]}


def make_rooms(
    output: str | Path,
    seed: int,
    rooms: int = 4,
    fragments_per_room: int = 8,
    layout: str = "both",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    *,
    frames: int = 50,
    voxel_size: float = 0.01,
    spacing: float = 0.025,
) -> Path:
    """Make furnished rooms and write them as 3DMatch is laid out on disk.

    ``train`` writes ``<output>/<scene>@seq-01_<k>.npz`` and the overlap lists, all fragments of a room in
    one frame; ``test`` writes ``<output>/<scene>/cloud_bin_<k>.ply`` with its evaluation folders, each
    fragment in the frame of its first camera; ``both`` writes both side by side. ``train_rooms.txt``,
    ``val_rooms.txt`` and ``test_rooms.txt`` list the scenes of each split (see `splits`). The same arguments
    give the same files, whatever the number of workers.

    ``<output>/made.txt`` keeps the arguments. A folder that holds rooms of these arguments is left as it is; where their
    making was interrupted it starts over.

    Args:
        output: folder, made if it is not there; empty, or of the same arguments.
        seed: decides everything.
        rooms: number of rooms.
        fragments_per_room: number of fragments of each.
        layout: ``train``, ``test`` or ``both``.
        workers: number of processes; 1 works in this one.
        progress: called with (fragments done, all fragments) after each fragment.
        frames: depth frames fused into a fragment; 25 take half the time and give noisier fragments.
        voxel_size: of the fusion, metres.
        spacing: one point is kept per cell of this edge, metres; 0 keeps all.

    Returns:
        The output folder.

    Raises:
        InputError: a number out of range, an unknown layout, or the folder holds something else.
        MissingExtraError: ``embreex`` is not installed.
    """
    check_layout(layout)
    counts = {
        "seed": (seed, 0),
        "rooms": (rooms, 1),
        "fragments_per_room": (fragments_per_room, 1),
        "workers": (workers, 1),
        "frames": (frames, 2),
    }
    for name, (value, least) in counts.items():
        checked_count(value, name, least)
    check_fusion(voxel_size, spacing)
    tasks = [
        (seed, r, fragments_per_room, frames, k, voxel_size, spacing)
        for r in range(rooms)
        for k in range(fragments_per_room)
    ]
    made = (
        f"seed={seed} rooms={rooms} fragments_per_room={fragments_per_room} layout={layout} frames={frames} "
        f"voxel_size={voxel_size:g} spacing={spacing:g} sparsefeat={__version__}"
    )
    mark = Path(output) / _MADE
    with opening(mark):
        if mark.is_file() and mark.read_text().strip() == made:
            return Path(output)
    with output_folder(output) as folder:
        _begin(folder, made)
        unfinished: dict[int, dict[int, Fragment]] = {}
        for done, (task, fragment) in enumerate(run_tasks(_make_fragment, tasks, workers), 1):
            room, k = divmod(task, fragments_per_room)
            finished = unfinished.setdefault(room, {})
            finished[k] = fragment
            if len(finished) == fragments_per_room:
                write_scene(
                    folder,
                    room_name(room),
                    [finished[k] for k in range(fragments_per_room)],
                    layout,
                    spacing,
                )
                del unfinished[room]
            if progress is not None:
                progress(done, len(tasks))
        for split, names in splits(rooms).items():
            with opening(folder), atomic_write(folder / f"{split}_rooms.txt") as path:
                path.write_text("".join(name + "\n" for name in names))
        with opening(folder), atomic_write(folder / _MADE) as path:
            path.write_text(made + "\n")
    return folder


@opens_path
def _begin(folder: Path, made: str) -> None:
    """Mark a folder as one whose rooms are being made.

    Raises:
        InputError: it holds something else.
    """
    mark = folder / _MADE
    found = mark.read_text().strip() if mark.is_file() else None
    if found is None and any(path.name != LOCK_NAME for path in folder.iterdir()):
        raise InputError(
            f"{folder}: there is something already, expected a new or an empty folder for rooms; delete it, or name another"
        )
    if found not in (None, _UNFINISHED + made):
        raise InputError(
            f"{folder}: holds rooms made with {found.removeprefix(_UNFINISHED)}, asked for are {made}; delete it or "
            "name another folder"
        )
    with atomic_write(mark) as path:
        path.write_text(_UNFINISHED + made + "\n")
