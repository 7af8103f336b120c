"""Random changes of a cloud that leave its local geometry recognisable, all from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsefeat.errors import InputError


@dataclass
class AugmentConfig:
    """What happens to each cloud of a pair, beside the rotation, whose largest angle the request says."""

    scale: tuple[float, float] = (
        0.9,
        1.1,
    )  # factor, uniform in this range, the same for both clouds
    shift_m: float = (
        1.0  # metres; each axis uniform within +-: the phase of the voxel grid at every stride
    )
    jitter_m: float = (
        0.005  # metres; standard deviation of Gaussian noise per axis, clipped at 3 of them
    )
    crop_probability: float = 0.3  # share of clouds of which a half-space or a box is kept
    crop_keep: float = 0.7  # a crop keeps a share of points uniform between this and 1
    dropout: float = 0.2  # a share uniform between 0 and this of the points is left out
    drop_orientation: float = 0.0  # share of pairs without viewpoints, for oriented networks

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise InputError(
                f"scale is [{low}, {high}], expected two positive factors, the smaller first"
            )
        for name in ("shift_m", "jitter_m"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, expected metres, 0 or more")
        if not 0 <= self.crop_probability <= 1:
            raise InputError(
                f"crop_probability is {self.crop_probability}, expected a share from 0 to 1"
            )
        if not 0 < self.crop_keep <= 1:
            raise InputError(f"crop_keep is {self.crop_keep}, expected a share above 0, at most 1")
        if not 0 <= self.drop_orientation <= 1:
            raise InputError(
                f"drop_orientation is {self.drop_orientation}, expected a share from 0 to 1"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}, expected a share from 0 to below 1")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Return the configuration that changes nothing but the rotation."""
        return cls(
            (1.0, 1.0), shift_m=0.0, jitter_m=0.0, crop_probability=0.0, crop_keep=1.0, dropout=0.0
        )


def random_rotation(rng: np.random.Generator, max_angle_deg: float = 180.0) -> np.ndarray:
    """Draw a rotation uniformly from those that turn by at most an angle.

    The axis is uniform on the sphere. The angle has the density of the Haar measure of SO(3),
    (1 - cos angle) / pi on [0, 180 degrees], restricted to [0, max_angle_deg]; 180 is uniform over SO(3).
    (R. E. Miles, On random rotations in R^3, Biometrika 52, 1965.)

    Args:
        rng: the only source of randomness.
        max_angle_deg: largest angle of rotation in degrees, 0 to 180.

    Returns:
        (3, 3) float64 rotation.

    Raises:
        InputError: the angle is out of range.
    """
    if not 0 <= max_angle_deg <= 180:
        raise InputError(
            f"the largest angle of rotation is {max_angle_deg} degrees, expected 0 to 180"
        )
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = _haar_angle(rng.random(), math.radians(max_angle_deg))
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # Rodrigues' formula
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)


def augment(
    points: np.ndarray,
    rng: np.random.Generator,
    max_angle_deg: float,
    config: AugmentConfig,
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Drop out, crop, rotate about the centre, scale, shift and jitter the points of one cloud.

    Args:
        points: (N, 3), metres, N at least 1.
        rng: the only source of randomness: equal states give equal bits.
        max_angle_deg: see ``random_rotation``.
        config: what else happens.
        scale: factor about the centre; drawn once per pair, since scale is part of what features see.

    Returns:
        (N', 3) float32 points in the order given, 1 <= N' <= N, and the (4, 4) float64 transform that maps
        the given frame to theirs: ``scale`` times a rotation, and a translation. Jitter is not part of it.

    Raises:
        InputError: there are no points, or the angle is out of range.
    """
    if len(points) == 0:
        raise InputError("a cloud without points cannot be augmented")
    if config.dropout > 0:
        keep = _share(len(points), 1 - rng.uniform(0, config.dropout))
        # The points of the smallest random numbers: a random subset, without shuffling them.
        points = points[_smallest(rng.random(len(points)), keep)]
    if config.crop_probability > 0 and rng.random() < config.crop_probability:
        points = _crop(points, rng, rng.uniform(config.crop_keep, 1))
    # Rotating about the centre of what is left keeps coordinates small, wherever the camera stood.
    centre = points.mean(axis=0, dtype=np.float64)
    linear = scale * random_rotation(rng, max_angle_deg)
    shift = rng.uniform(-config.shift_m, config.shift_m, 3)
    transform = np.eye(4)
    transform[:3, :3] = linear
    transform[:3, 3] = shift - linear @ centre
    moved = points @ linear.T + transform[:3, 3]
    if config.jitter_m > 0:
        noise = rng.standard_normal(moved.shape, dtype=np.float32)
        moved += config.jitter_m * np.clip(noise, -3, 3)
    return moved.astype(np.float32), transform


def _haar_angle(share: float, limit: float) -> float:
    """The angle below which ``share`` of the Haar measure of rotations by at most ``limit`` radians lies."""
    # Solves a - sin a = share (limit - sin limit); the left side is increasing, so bisection cannot fail.
    target = share * (limit - math.sin(limit))
    low, high = 0.0, limit
    for _ in range(60):
        middle = 0.5 * (low + high)
        if middle - math.sin(middle) < target:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _crop(points: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Keep a share of the points: one side of a plane, or the inside of a box around one of them."""
    keep = _share(len(points), share)
    if rng.random() < 0.5:
        direction = rng.standard_normal(3)
        distance = points @ direction
    else:
        centre = points[rng.integers(len(points))]
        sides = rng.uniform(0.5, 1, 3)
        distance = np.abs((points - centre) @ random_rotation(rng).T / sides).max(axis=1)
    return points[_smallest(distance, keep)]


def _share(count: int, share: float) -> int:
    return max(1, min(count, round(count * share)))


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The indices of the smallest values, in increasing order of index."""
    if count >= len(values):
        return np.arange(len(values))
    return np.sort(np.argpartition(values, count)[:count])
