"""Depth frames with poses, fused into a truncated signed distance field on sparse blocks, then to points.

The field is that of Curless and Levoy, "A volumetric method for building complex models from range
images" (SIGGRAPH 1996), with unit weights and distances along the optical axis, as Kinect-like data
sets are commonly fused; only blocks of 4x4x4 voxels near a measured surface are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsefeat.checks import as_array, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.synthetic.camera import Intrinsics

_EDGE = 4  # voxels along a block's edge: small blocks hug the surface, and 64 floats are one cache line row
_RANGE = 1 << 20  # block coordinates are packed into 21 bits each
_CHUNK = 512  # blocks projected at a time, so that the intermediate arrays stay in the cache


def pack(blocks: np.ndarray) -> np.ndarray:
    """One integer (N,) for integer coordinates (N,3) within a million; sorts by the first of them first.

    Raises:
        InputError: a coordinate beyond, whose integer would be that of another place.
    """
    if blocks.size and not (-_RANGE <= blocks.min() and blocks.max() < _RANGE):
        raise InputError(
            f"cells {blocks.min():.0f} to {blocks.max():.0f}, expected -{_RANGE} to {_RANGE - 1}: "
            "too far from the origin for their size; move the points or poses to it"
        )
    shifted = blocks.astype(np.int64) + _RANGE
    return (shifted[..., 0] << 42) | (shifted[..., 1] << 21) | shifted[..., 2]


def unpack(keys: np.ndarray) -> np.ndarray:
    """The coordinates (N,3) that `pack` took."""
    mask = (1 << 21) - 1
    return np.stack([keys >> 42, (keys >> 21) & mask, keys & mask], -1) - _RANGE


def distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted keys without repetitions: numpy.unique by sorting, which is several times as fast."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _touched(
    depth: np.ndarray, camera: Intrinsics, pose: np.ndarray, block: float, reach: float, stride: int
) -> np.ndarray:
    """Keys of the blocks within ``reach`` of a measured point, along its ray."""
    z = depth[::stride, ::stride]
    v, u = np.nonzero((z != 0) & np.isfinite(z))
    z = z[v, u]
    rays = np.stack(
        [
            (u * stride - camera.cx) / camera.fx,
            (v * stride - camera.cy) / camera.fy,
            np.ones_like(z),
        ],
        -1,
    )
    rays = rays.astype(np.float32) @ pose[:3, :3].T.astype(np.float32) / np.float32(block)
    start = (pose[:3, 3] / block).astype(np.float32)
    steps = int(np.ceil(2 * reach / block)) + 1
    found = []
    for offset in np.linspace(-reach, reach, steps + 1, dtype=np.float32):
        found.append(pack(np.floor(rays * (z + offset)[:, None] + start)))
    return distinct(np.concatenate(found))


def _integrate(total, weight, rows, origins, depth, camera, pose, voxel, truncation) -> None:
    """Add one frame to the blocks in ``rows``, whose corners are at ``origins`` (B,3) metres."""
    to_camera = np.linalg.inv(pose)
    rotation = to_camera[:3, :3]
    scale = np.array([[camera.fx], [camera.fy], [1.0]])
    step = (np.arange(_EDGE) + 0.5) * voxel
    cells = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)
    inner = (scale * (rotation @ cells.T)).astype(np.float32)  # (3, 64)
    outer = (scale * (rotation @ origins.T + to_camera[:3, 3:])).astype(np.float32)  # (3, B)
    height, width = depth.shape
    # A rim of zeros (no measurement) takes every projection that falls outside of the picture.
    padded = np.zeros((height + 2, width + 2), np.float32)
    padded[1:-1, 1:-1] = depth
    flat = padded.ravel()
    cu, cv = np.float32(camera.cx + 1.5), np.float32(camera.cy + 1.5)
    truncation = np.float32(truncation)
    for first in range(0, len(rows), _CHUNK):
        part = slice(first, first + _CHUNK)
        z = outer[2, part, None] + inner[2]
        np.maximum(z, np.float32(0.05), out=z)
        inverse = np.reciprocal(z)
        u = outer[0, part, None] + inner[0]
        u *= inverse
        u += cu
        v = outer[1, part, None] + inner[1]
        v *= inverse
        v += cv
        np.clip(u, 0, width + 1, out=u)
        np.clip(v, 0, height + 1, out=v)
        index = v.astype(np.int32)
        index *= width + 2
        index += u.astype(np.int32)
        measured = flat.take(index)
        distance = measured - z
        seen = distance > -truncation
        seen &= measured > 0
        np.minimum(distance, truncation, out=distance)
        distance *= seen
        total[rows[part]] += distance
        weight[rows[part]] += seen


def _crossings(keys, total, weight, voxel, truncation, min_weight, slab) -> np.ndarray:
    """Points (N,3) where the field changes sign between neighbouring observed voxels.

    With a ``slab``, two more points beside each, that far before and behind it along the voxels' edge.
    """
    observed = weight >= min_weight
    field = np.where(observed, total / np.maximum(weight, 1), np.nan).astype(np.float32)
    field[np.abs(field) > 0.95 * truncation] = (
        np.nan
    )  # a jump between free and occluded space is no surface
    field = field.reshape(-1, _EDGE, _EDGE, _EDGE)
    blocks = unpack(keys)
    points = []
    for axis in range(3):
        neighbour = blocks.copy()
        neighbour[:, axis] += 1
        wanted = pack(neighbour)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        border = np.where((keys[at] == wanted)[:, None, None], field.take(0, axis + 1)[at], np.nan)
        extended = np.concatenate([field, np.expand_dims(border, axis + 1)], axis + 1)
        a = field
        b = extended.take(np.arange(1, _EDGE + 1), axis + 1)
        # From free space (positive) to behind the surface, or back; comparisons with NaN are false.
        changed = ((a > 0) & (b <= 0)) | ((a <= 0) & (b > 0))
        which = np.nonzero(changed)
        one, two = a[which], b[which]
        cell = np.stack(which[1:], -1) + 0.5 + blocks[which[0]] * _EDGE
        cell[:, axis] += one / (one - two)
        cell *= voxel
        points.append(cell)
        if slab > 0:
            offset = slab * np.eye(3)[axis]
            points += [cell - offset, cell + offset]
    return np.concatenate(points)


def fuse_frames(
    depths: Sequence[np.ndarray],
    camera: Intrinsics,
    poses: Sequence[np.ndarray],
    voxel_size: float = 0.01,
    truncation: float | None = None,
    min_weight: int = 1,
    slab: float = 0.0,
) -> np.ndarray:
    """Fuse depth frames into surface points.

    Args:
        depths: frames (H,W) in metres along the optical axis, 0 where nothing was measured.
        camera: intrinsics of all frames.
        poses: one (4,4) transform per frame, camera (x right, y down, z forward) to the wanted frame.
        voxel_size: edge of a voxel of the field in metres.
        truncation: distance in metres beyond which the field is cut; by default 3 cm, or 2.4 voxels if
            that is more.
        min_weight: number of frames that must have seen a voxel.
        slab: half the thickness in metres of the layer of points; 0 gives the surface itself.

    Returns:
        Points (N,3) float64, several per voxel, in the frame of ``poses``.

    Raises:
        InputError: no frame, frames and poses of different number, a frame of another size than the camera's, or a
            pose so far from the origin that voxels cannot be counted.
    """
    if len(depths) == 0 or len(depths) != len(poses):
        raise InputError(
            f"fuse_frames: got {len(depths)} depth frames and {len(poses)} poses, expected as many, 1 or more"
        )
    checked_positive(voxel_size, "fuse_frames: voxel_size")
    depths = [as_array(depth, "fuse_frames: depth") for depth in depths]
    poses = [as_array(pose, "fuse_frames: pose").astype(float) for pose in poses]
    for k, (depth, pose) in enumerate(zip(depths, poses, strict=True)):
        if depth.shape != (camera.height, camera.width) or pose.shape != (4, 4):
            raise InputError(
                f"fuse_frames: frame {k} of shape {depth.shape} and its pose {pose.shape}, expected "
                f"{(camera.height, camera.width)} as the camera has, and (4, 4)"
            )
    truncation = max(0.03, 2.4 * voxel_size) if truncation is None else truncation
    block = voxel_size * _EDGE
    # Rays a block apart at 3.5 m find every block that is near a surface, given a few frames.
    stride = max(1, int(block * camera.fx / 3.5))
    touched = [
        _touched(d, camera, p, block, truncation, stride)
        for d, p in zip(depths, poses, strict=True)
    ]
    keys = distinct(np.concatenate(touched))
    if len(keys) == 0:
        return np.zeros((0, 3))
    total = np.zeros((len(keys), _EDGE**3), np.float32)
    weight = np.zeros((len(keys), _EDGE**3), np.float32)
    origins = unpack(keys) * block
    for depth, pose, mine in zip(depths, poses, touched, strict=True):
        rows = np.searchsorted(keys, mine)
        _integrate(
            total,
            weight,
            rows,
            origins[rows],
            depth,
            camera,
            pose,
            voxel_size,
            truncation,
        )
    return _crossings(keys, total, weight, voxel_size, truncation, min_weight, slab)
