"""Fragments of a scene, how much they overlap, and the two layouts that 3DMatch is used in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.checks import checked_positive, checked_share
from sparsefeat.errors import InputError, opening, opens_path, warn
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.gtlog import write_info, write_log
from sparsefeat.io.pointcloud import compact, write_ply
from sparsefeat.synthetic.camera import Intrinsics
from sparsefeat.synthetic.fusion import distinct, fuse_frames, pack, unpack

LAYOUTS = ("train", "test", "both")

OVERLAP_DISTANCE = 0.035
"""Metres within which a neighbour counts for overlap; gives the overlaps listed with 3DMatch within 0.02."""


VOLUME = np.array([[-1.5, -1.5, 0.5], [1.5, 1.5, 3.5]])
"""Lower and upper corner of the volume in front of the first camera that 3DMatch fuses, metres."""

_SLAB, _GRID = (
    0.005,
    0.006,
)  # the layer of voxels that 3DMatch keeps on either side of a surface, and its voxels, metres


class Fragment(NamedTuple):
    """Points (N,3) float64 in metres in the scene's frame, and the fragment's pose (4,4) in that frame."""

    points: np.ndarray
    pose: np.ndarray


class Overlap(NamedTuple):
    """Fragments i < j, their overlap in [0,1] and the pair's information matrix (6,6) in the frame of i."""

    i: int
    j: int
    share: float
    information: np.ndarray


def fuse_fragment(
    depths: Sequence[np.ndarray],
    camera: Intrinsics,
    poses: Sequence[np.ndarray],
    voxel_size: float = 0.01,
    spacing: float = 0.025,
    like_3dmatch: bool = True,
) -> np.ndarray:
    """Fuse depth frames into the points of a fragment.

    3DMatch's fragments are the centres of the 6 mm voxels close to the surface, in a volume of 3 m, in the
    order of z, y, x: a thin layer, of which ``spacing`` then keeps the points nearest to the camera. A
    network sees the difference to a bare surface in how many voxels are taken; so we do the same. With the
    defaults the first 50 frames of 7-Scenes' redkitchen give 3DMatch's first fragment of it: as many points,
    99 % of either within 3.5 cm of the other, and the same distribution of local surface variation.

    Args:
        depths, camera, poses, voxel_size: see `fuse_frames`; the fragment's frame is that of ``poses``.
        spacing: one point is kept per cell of this edge, metres; 0 keeps all.
        like_3dmatch: as above; if not, the points lie on the surface and nothing is cut off.

    Returns:
        Points (N,3) float64 in metres.
    """
    points = fuse_frames(depths, camera, poses, voxel_size, slab=_SLAB if like_3dmatch else 0.0)
    if like_3dmatch:
        points = points[((points >= VOLUME[0]) & (points < VOLUME[1])).all(1)]
        keys = distinct(pack(np.rint(points[:, ::-1] / _GRID)))
        points = unpack(keys)[:, ::-1] * _GRID
    return thin(points, spacing)


def thin(points: np.ndarray, spacing: float) -> np.ndarray:
    """The first point of every cell floor(p / spacing), in the order given; all if ``spacing`` is 0."""
    if spacing <= 0 or len(points) == 0:
        return points
    _, first = np.unique(pack(np.floor(points / spacing)), return_index=True)
    return points[np.sort(first)]


def transform(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (N,3) moved by a (4,4) rigid transform."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def information_matrix(points: np.ndarray) -> np.ndarray:
    """Sum over corresponding points p of GᵀG with G = [I | -[p]×].

    As in Choi, Zhou and Koltun, "Robust reconstruction of indoor scenes" (CVPR 2015), section 4: a small
    motion with translation t and rotation vector w moves p by G [t; w], so that with e = [t; w] the number
    eᵀ Info e / Info[0,0] is the mean squared displacement; Info[0,0] is the number of points. (The
    benchmark's rule puts the vector part of the quaternion, about w / 2, for w.)

    Args:
        points: (N,3) corresponding points in the frame of fragment i.

    Returns:
        (6,6) float64, translation first.
    """
    n = len(points)
    sx, sy, sz = points.sum(0) if n else (0.0, 0.0, 0.0)
    information = np.zeros((6, 6))
    information[:3, :3] = n * np.eye(3)
    information[:3, 3:] = [[0, sz, -sy], [-sz, 0, sx], [sy, -sx, 0]]
    information[3:, :3] = information[:3, 3:].T
    second = points.T @ points
    information[3:, 3:] = np.trace(second) * np.eye(3) - second
    return information


def overlaps(
    fragments: Sequence[Fragment], distance: float = OVERLAP_DISTANCE, minimum: float = 0.1
) -> list[Overlap]:
    """Pairs of fragments that see the same surface.

    The overlap is the share of the points of fragment i, the earlier one, that have a point of fragment j
    within ``distance``, as in 3DMatch's gt_overlap.log, whose fragments hold about one point per 2.5 cm.

    Args:
        fragments: all fragments of a scene.
        distance: metres; at least the spacing of the points.
        minimum: pairs that overlap less are left out.
    """
    trees = [cKDTree(fragment.points) for fragment in fragments]
    found = []
    for i, fragment in enumerate(fragments[:-1]):
        if len(fragment.points) == 0:
            continue
        low, high = fragment.points.min(0) - distance, fragment.points.max(0) + distance
        for j in range(i + 1, len(fragments)):
            other = fragments[j].points
            other = other[((other >= low) & (other <= high)).all(1)]
            if len(other) < 0.25 * minimum * len(fragment.points):
                continue
            gap, _ = trees[j].query(fragment.points, distance_upper_bound=distance)
            near = np.isfinite(gap)
            if near.mean() >= minimum:
                common = transform(fragment.points[near], np.linalg.inv(fragment.pose))
                found.append(Overlap(i, j, float(near.mean()), information_matrix(common)))
    return found


def check_layout(layout: str) -> None:
    """Raise InputError if ``layout`` is not one of `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise InputError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}")


def check_fusion(voxel_size: float, spacing: float) -> None:
    """Raise InputError if fragments cannot be fused with these."""
    if not 0.002 <= checked_positive(voxel_size, "voxel_size") <= 0.2:
        raise InputError(f"voxel_size: got {voxel_size} m, expected 0.002 to 0.2")
    checked_share(spacing, "spacing in metres")


def make_folder(path: str | os.PathLike) -> Path:
    """The folder at ``path``, made if it was not there; InputError if that cannot be."""
    with opening(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@opens_path
def write_scene(
    output: str | os.PathLike,
    scene: str,
    fragments: Sequence[Fragment],
    layout: str,
    spacing: float = 0.025,
) -> None:
    """Write the fragments of a scene and their overlaps in one layout or both, side by side.

    Args:
        output: folder, made if it is not there.
        scene: name of the scene.
        fragments: in one common frame.
        layout: ``train``, ``test`` or ``both``.
        spacing: of the points, metres. Those of one surface are up to so far apart, which is no lack of overlap: of
            18 pairs of rooms, thinned to 10 cm, overlaps are 0.04 too high on average, and at 3.5 cm 0.3 too low.
    """
    check_layout(layout)
    folder = make_folder(output)
    pairs = overlaps(fragments, max(OVERLAP_DISTANCE, spacing))
    if len(fragments) > 1 and not any(pair.share >= 0.30 for pair in pairs):
        warn(f"{folder}: no two fragments of {scene} overlap by 30 % or more")
    if layout in ("train", "both"):
        write_training_layout(folder, scene, fragments, pairs)
    if layout in ("test", "both"):
        write_test_layout(folder, scene, fragments, pairs)


def write_training_layout(
    folder: Path,
    scene: str,
    fragments: Sequence[Fragment],
    pairs: Sequence[Overlap],
    sequence: str = "seq-01",
) -> None:
    """Write ``<scene>@<sequence>_<k>.npz`` and ``<scene>@<sequence>-0.30.txt``.

    The files have FCGF's key ``pcd``, and ``viewpoint``, where the fragment's first camera stood.
    """
    names = [f"{scene}@{sequence}_{k:03d}.npz" for k in range(len(fragments))]
    for name, fragment in zip(names, fragments, strict=True):
        with atomic_write(folder / name) as path:
            viewpoint = compact(fragment.pose[:3, 3])
            np.savez(path, pcd=compact(fragment.points), viewpoint=viewpoint)
    lines = [f"{names[p.i]} {names[p.j]} {p.share:.6f}\n" for p in pairs if p.share >= 0.30]
    with atomic_write(folder / f"{scene}@{sequence}-0.30.txt") as path:
        path.write_text("".join(lines))


def write_test_layout(
    folder: Path, scene: str, fragments: Sequence[Fragment], pairs: Sequence[Overlap]
) -> None:
    """Write ``<scene>/cloud_bin_<k>.ply`` and, beside it, ``<scene>-evaluation`` (overlap of 30 % and more)
    and ``<scene>-evaluation-lo`` (10 to 30 %) with ``gt.log``, ``gt.info`` and ``gt_overlap.log``; of either only
    where there are such pairs."""
    (folder / scene).mkdir(parents=True, exist_ok=True)
    for k, fragment in enumerate(fragments):
        local = transform(fragment.points, np.linalg.inv(fragment.pose))
        write_ply(folder / scene / f"cloud_bin_{k}.ply", compact(local))
    count = len(fragments)
    for suffix, low, high in (("-evaluation", 0.30, np.inf), ("-evaluation-lo", 0.10, 0.30)):
        target = folder / (scene + suffix)
        chosen = [p for p in pairs if low <= p.share < high]
        if not chosen:
            _remove_lists(target)  # of an earlier run
            continue
        target.mkdir(exist_ok=True)
        relative = [np.linalg.inv(fragments[p.i].pose) @ fragments[p.j].pose for p in chosen]
        write_log(
            target / "gt.log", [(p.i, p.j, count, m) for p, m in zip(chosen, relative, strict=True)]
        )
        write_info(target / "gt.info", [(p.i, p.j, count, p.information) for p in chosen])
        with atomic_write(target / "gt_overlap.log") as path:
            path.write_text("".join(f"{p.i},{p.j},{p.share:.4f}\n" for p in chosen))


def _remove_lists(folder: Path) -> None:
    if folder.is_dir():
        for name in ("gt.log", "gt.info", "gt_overlap.log"):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is something else in it
            folder.rmdir()
