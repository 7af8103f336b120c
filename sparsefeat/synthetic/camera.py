"""A hand-held depth camera: intrinsics, ray casting, and the path that a person walks with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from sparsefeat.extras import import_extra
from sparsefeat.synthetic.shapes import Mesh


class Intrinsics(NamedTuple):
    """Pinhole camera: picture size and focal lengths and principal point, all in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def rays(self) -> np.ndarray:
        """Directions (H*W,3) float32 through the pixel centres, with unit z."""
        v, u = np.mgrid[: self.height, : self.width]
        rays = np.stack([(u - self.cx) / self.fx, (v - self.cy) / self.fy, np.ones_like(u)], -1)
        return rays.reshape(-1, 3).astype(np.float32)


KINECT = Intrinsics(320, 240, 292.5, 292.5, 159.5, 119.5)  # half the Kinect's 640 x 480


class Scene:
    """A mesh prepared for ray casting with Embree.

    Args:
        mesh: what there is to see, in metres.

    Raises:
        MissingExtraError: ``embreex`` is not installed.
    """

    def __init__(self, mesh: Mesh):
        purpose = "making synthetic rooms"
        self._scene = import_extra("embreex.rtcore_scene", purpose).EmbreeScene()
        triangles = mesh.vertices[mesh.faces].astype(np.float32)
        # Embree holds on to the buffers of this object; it has to live as long as the scene.
        self._triangles = import_extra("embreex.mesh_construction", purpose).TriangleMesh(
            self._scene, triangles
        )
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        # Row -1 answers for rays that hit nothing.
        self.normals = np.concatenate([normals, np.zeros((1, 3), np.float32)])
        self.material = np.concatenate([mesh.material, np.zeros(1, np.int8)])

    def cast(
        self, camera: Intrinsics, pose: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What an ideal camera at ``pose`` (4,4, camera to world) sees.

        Returns:
            depth (H,W) float32 along the optical axis, 0 where nothing is hit; the cosine of the angle of
            incidence (H,W) float32 in [0,1]; the material (H,W) int8.
        """
        rays = camera.rays()
        directions = np.ascontiguousarray(rays @ pose[:3, :3].T.astype(np.float32))
        origins = np.empty_like(directions)
        origins[:] = pose[:3, 3]
        hit = self._scene.run(origins, directions, output=True)
        face = hit["primID"]
        shape = (camera.height, camera.width)
        depth = np.where(face >= 0, hit["tfar"], 0).astype(np.float32)
        # Directions have unit z in the camera's frame, so the ray parameter is the depth.
        cosine = np.abs(np.einsum("ij,ij->i", self.normals[face], directions)) / np.linalg.norm(
            rays, axis=1
        )
        return depth.reshape(shape), cosine.reshape(shape), self.material[face].reshape(shape)


def look(position: np.ndarray, forward: np.ndarray, roll: float) -> np.ndarray:
    """Pose (4,4), camera (x right, y down, z forward) to a world with z up."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, down, forward], 1) @ Rotation.from_euler("z", roll).as_matrix()
    pose[:3, 3] = position
    return pose


class Path(NamedTuple):
    """Where a camera is and looks, frame by frame: T of them, lengths in metres."""

    position: np.ndarray  # (T,2)
    looked_at: np.ndarray  # (T,2)
    height: np.ndarray  # (T,) of the camera
    target: np.ndarray  # (T,) height of what is looked at
    roll: np.ndarray  # (T,) radians


SWEEPS = 0.3
"""Share of rooms that are swept from inside, like an empty room; in the others one looks from several sides."""


def walk(
    rng: np.random.Generator,
    width: float,
    depth: float,
    obstacles: np.ndarray,
    fragments: int,
    frames: int,
) -> np.ndarray:
    """The views of a hand-held camera: a sweep round the room, or visits to a few of its places from all sides.

    Args:
        rng: source of randomness.
        width, depth: the room's inner size in metres; the room is centred at the origin, floor at z = 0.
        obstacles: (B,4) rectangles x0, y0, x1, y1 that are too tall to hold a camera over.
        fragments, frames: number of fragments and of frames in each.

    Returns:
        Poses (fragments * frames, 4, 4), camera to room.
    """
    way = _sweep if rng.random() < SWEEPS else _visits
    path = way(rng, np.array([width, depth]) / 2, obstacles, fragments, frames)
    forward = np.concatenate(
        [path.looked_at - path.position, (path.target - path.height)[:, None]], 1
    )
    flat = np.linalg.norm(forward[:, :2], axis=1)
    forward[:, 2] = np.clip(forward[:, 2], -1.1 * flat, 0.6 * flat)
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    side = np.stack([-forward[:, 1], forward[:, 0]], 1)
    position = np.concatenate([path.position, path.height[:, None]], 1)
    shake = gaussian_filter1d(rng.normal(size=(len(forward), 5)), 1.5, axis=0, mode="nearest") * [
        0.01,
        0.01,
        0.01,
        0.012,
        0.012,
    ]
    forward[:, 2] += shake[:, 3]
    forward[:, :2] += side * shake[:, 4:5]
    return np.stack(
        [look(p, f, r) for p, f, r in zip(position + shake[:, :3], forward, path.roll, strict=True)]
    )


def _sweep(
    rng: np.random.Generator, half: np.ndarray, obstacles: np.ndarray, fragments: int, frames: int
) -> Path:
    """A sweep round a room of half the size (2,) that comes back to where it has been.

    The view turns along the walls by some 5 to 55 degrees a fragment, stops, turns back or goes round
    again, so that fragments overlap their followers by much and others by little; the second visit is
    from another place.
    """
    keys = fragments + 2
    turn = np.radians(np.clip(20 * np.exp(0.55 * rng.normal(size=keys)), 5, 55)) * rng.choice(
        [-1, 1]
    )
    back = int(keys * rng.uniform(0.45, 0.7))
    if abs(turn.sum()) < 2 * np.pi * 1.2:  # too short for a whole lap: turn round instead
        turn[back:] *= -rng.uniform(0.7, 1.1)
    else:
        turn[rng.random(keys) < 0.1] *= -0.7
    azimuth = rng.uniform(0, 2 * np.pi) + np.cumsum(turn)
    standoff = rng.uniform(1.5, 3.2, keys)
    aside = rng.uniform(-0.5, 0.5, keys)
    height = rng.uniform(1.15, 1.75, keys)
    target = rng.uniform(0.0, 1.05, keys)
    upward = rng.random(keys) < 0.06
    target[upward] = rng.uniform(1.5, 2.2, upward.sum())
    roll = rng.normal(0, 0.07, keys)

    total = fragments * frames
    t = np.linspace(0.5, keys - 1.5, total)
    # Hands do not move evenly: time runs faster and slower along the path.
    t = t + 0.12 * np.sin(2 * np.pi * t * rng.uniform(0.5, 0.9) + rng.uniform(0, 6.3))
    tracks = CubicSpline(
        np.arange(keys), np.stack([azimuth, standoff, aside, height, target, roll], 1)
    )(t)
    azimuth, standoff, aside, height, target, roll = tracks.T

    direction = np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
    wall = _wall(direction, half)
    side = np.stack([-direction[:, 1], direction[:, 0]], 1)
    position = direction * (wall - standoff)[:, None] + side * aside[:, None]
    # The distance to the wall jumps where the view passes a corner; a person does not.
    smooth = 0.35 * frames
    position = gaussian_filter1d(position, smooth, axis=0, mode="nearest")
    limit = half - _FROM_WALLS
    for _ in range(4):
        position = np.clip(position, -limit, limit)
        for x0, y0, x1, y1 in obstacles:
            position = _outside(position, x0 - _CLEAR, y0 - _CLEAR, x1 + _CLEAR, y1 + _CLEAR)
        position = gaussian_filter1d(
            np.clip(position, -limit, limit), 0.12 * frames, axis=0, mode="nearest"
        )
    looked_at = direction * (0.92 * wall)[:, None]
    looked_at = gaussian_filter1d(looked_at, 0.2 * frames, axis=0, mode="nearest")
    return Path(position, looked_at, height, target, roll)


def _visits(
    rng: np.random.Generator, half: np.ndarray, obstacles: np.ndarray, fragments: int, frames: int
) -> Path:
    """Views of two or three places of a room of half the size (2,), each fragment from another side.

    People come back to a thing from elsewhere: in redkitchen and home_md, two lines of sight to the same point differ by
    27 and 28 degrees on average. In sweeps they differ by 12 (results/fragments/viewpoints.json).
    """
    azimuth = rng.uniform(0, 2 * np.pi, rng.integers(2, 4))
    direction = np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
    places = direction * (_wall(direction, half) * rng.uniform(0.3, 0.95, len(azimuth)))[:, None]
    heights = rng.uniform(0.1, 1.1, len(azimuth))
    limit = np.maximum(half - _FROM_WALLS, 0.05)
    rows = []
    here, position = 0, np.zeros(2)
    bearing = rng.uniform(0, 2 * np.pi)
    for _ in range(fragments):
        if rng.random() < 0.25:
            here = int(rng.integers(len(places)))
        looked_at = places[here] + rng.normal(0, 0.3, 2)
        for _ in range(60):  # fewer than 60 tries find a free spot, unless there is none
            angle = bearing + rng.choice([-1, 1]) * rng.uniform(0.1, 1.2)
            away = np.array([np.cos(angle), np.sin(angle)])
            spot = looked_at + rng.uniform(1.2, 3.2) * away
            if _free(spot, limit, obstacles):
                position, bearing = spot, angle
                break
            bearing += 0.1
        # A hand moves a little, and looks along what it scans.
        step, gaze = rng.normal(0, 0.12, 2), rng.normal(0, 0.3, 2)
        up = rng.uniform(-0.25, 0.25, 2)
        height = rng.uniform(1.05, 1.8) + rng.uniform(-0.1, 0.1, 2)
        target = rng.uniform(1.5, 2.2) if rng.random() < 0.06 else heights[here]
        roll = rng.normal(0, 0.07, 2)
        for end in (0, 1):
            sign = 2 * end - 1
            rows.append(
                [
                    *np.clip(position + sign * step, -limit, limit),
                    *(looked_at + sign * gaze),
                    height[end],
                    target + up[end],
                    roll[end],
                ]
            )
    ends = np.array(rows).reshape(fragments, 2, -1)
    t = np.linspace(0, 1, frames)[None, :, None]
    t = t + rng.uniform(-0.15, 0.15, (fragments, 1, 1)) * np.sin(2 * np.pi * t)
    tracks = (ends[:, :1] * (1 - t) + ends[:, 1:] * t).reshape(fragments * frames, -1)
    return Path(tracks[:, :2], tracks[:, 2:4], *tracks[:, 4:].T)


_FROM_WALLS, _CLEAR = 0.4, 0.35  # metres between a camera and walls, and between it and obstacles


def _wall(direction: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Distance from the centre to the walls of a room of half the size (2,). Shape: (N,2) -> (N,)."""
    distance: np.ndarray = 1 / np.maximum((np.abs(direction) / half).max(1), 1e-9)
    return distance


def _free(spot: np.ndarray, limit: np.ndarray, obstacles: np.ndarray) -> bool:
    """Whether a camera can be at a spot (2,): within the limit (2,) and clear of obstacles (B,4)."""
    if (np.abs(spot) > limit).any():
        return False
    low, high = obstacles[:, :2] - _CLEAR, obstacles[:, 2:] + _CLEAR
    return not ((spot > low) & (spot < high)).all(1).any()


def _outside(position: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Positions (P,2), those inside of a rectangle moved out through its nearest side."""
    inside = (
        (position[:, 0] > x0)
        & (position[:, 0] < x1)
        & (position[:, 1] > y0)
        & (position[:, 1] < y1)
    )
    if not inside.any():
        return position
    moved = position.copy()
    at = position[inside]
    gaps = np.stack([at[:, 0] - x0, x1 - at[:, 0], at[:, 1] - y0, y1 - at[:, 1]], 1)
    # All of a stretch leaves through the same side, or the path would be torn.
    best = np.argmin(gaps.sum(0))
    moved[inside, best // 2] = (x0, x1, y0, y1)[best]
    return moved


def drifted(
    poses: np.ndarray, rng: np.random.Generator, angle_deg: float, distance: float
) -> np.ndarray:
    """Poses with the slow error that visual odometry makes, zero in the middle of the sequence.

    Args:
        poses: (P,4,4), camera to world.
        rng: source of randomness.
        angle_deg, distance: typical error in degrees and metres between the middle and the ends.
    """
    count = len(poses)
    steps = gaussian_filter1d(rng.normal(size=(count, 6)), 3, axis=0, mode="nearest")
    error = np.cumsum(steps, 0)
    error -= error[count // 2]
    spread = np.sqrt((error**2).mean()) + 1e-12
    error *= rng.uniform(0.3, 1.5) / spread
    result = poses.copy()
    result[:, :3, :3] = (
        poses[:, :3, :3] @ Rotation.from_rotvec(error[:, :3] * np.radians(angle_deg)).as_matrix()
    )
    result[:, :3, 3] += error[:, 3:] * distance
    return result
