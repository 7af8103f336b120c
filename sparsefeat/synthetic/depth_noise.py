"""What a structured-light camera makes of an ideal depth picture.

The terms and their sizes follow Khoshelham and Elberink, "Accuracy and resolution of Kinect depth data"
(Sensors 2012), for noise in disparity and its quantisation, and Nguyen, Izadi and Lovell, "Modeling Kinect
sensor noise for improved 3D reconstruction and tracking" (3DIMPVT 2012), for its growth with the angle of
incidence and for the lateral noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from scipy.special import ndtri

from sparsefeat.synthetic.camera import Intrinsics

FAINTEST = (0.2, 0.6, np.inf)
"""Cosine of incidence below which 2.5 m return nothing, by material: 0 ordinary, 1 dark gloss, 2 glass."""


class NoiseConfig(NamedTuple):
    """Sizes of the error terms; all lengths in metres, disparities in pixels of the 640-pixel-wide sensor."""

    baseline: float = 0.075  # between projector and camera
    disparity_sd: float = 0.035  # correlated over neighbouring pixels, as matching windows make it
    disparity_step: float = 0.125  # the sensor's sub-pixel resolution
    lateral_sd: float = 0.8  # in pixels of the picture: jagged edges
    near: float = 0.4
    far: float = 4.5
    distortion: float = 0.004  # relative, low frequency, the same for all frames of a camera
    holes: float = 0.02  # share of the picture lost in blobs


class DepthNoise:
    """One physical camera: its own distortion, and noise drawn from pools that it makes once.

    Args:
        camera: intrinsics of the pictures.
        rng: draws the distortion and the pools.
        config: sizes of the error terms; a Kinect's by default.
    """

    def __init__(
        self, camera: Intrinsics, rng: np.random.Generator, config: NoiseConfig | None = None
    ):
        config = NoiseConfig() if config is None else config
        self.camera, self.config = camera, config
        shape = (camera.height, camera.width)
        coarse = rng.normal(size=(4, 5))
        field = zoom(coarse, (shape[0] / 4, shape[1] / 5), order=3)[: shape[0], : shape[1]]
        self._distortion = (1 + config.distortion * field).astype(np.float32)
        # Drawing and filtering noise costs more than all the rest; frames take random windows of one big
        # sheet instead, flipped at random, which neighbouring frames practically never share.
        big = (2 * shape[0], 2 * shape[1])
        white = rng.standard_normal(big, dtype=np.float32)
        smooth = _unit(
            gaussian_filter(rng.standard_normal(big, dtype=np.float32), 1.6, mode="wrap")
        )
        self._disparity = 0.85 * smooth + 0.5 * white
        self._lateral = [
            _unit(gaussian_filter(rng.standard_normal(big, dtype=np.float32), 0.7, mode="wrap"))
            for _ in range(2)
        ]
        self._blobs = _unit(
            gaussian_filter(rng.standard_normal(big, dtype=np.float32), 4.0, mode="wrap")
        )
        self._uniform = rng.random(big, dtype=np.float32)
        v, u = np.indices(shape, np.float32)
        self._u, self._v = u, v

    def _window(self, sheet: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = self.camera.height, self.camera.width
        v, u = (
            rng.integers(0, sheet.shape[0] - height + 1),
            rng.integers(0, sheet.shape[1] - width + 1),
        )
        part = sheet[v : v + height, u : u + width]
        return part[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]

    def __call__(
        self, depth: np.ndarray, cosine: np.ndarray, material: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """One noisy frame.

        Args:
            depth: (H,W) ideal depth in metres, 0 where there is nothing.
            cosine: (H,W) cosine of the angle of incidence.
            material: (H,W) integers, see `FAINTEST`.
            rng: draws this frame's noise.

        Returns:
            (H,W) float32 depth in metres, 0 where the camera reports nothing.
        """
        cfg, camera = self.config, self.camera
        height, width = depth.shape
        # Edges are jagged because a pixel reports the depth of somewhere near it.
        u = np.rint(self._u + cfg.lateral_sd * self._window(self._lateral[0], rng))
        v = np.rint(self._v + cfg.lateral_sd * self._window(self._lateral[1], rng))
        index = np.clip(v, 0, height - 1).astype(np.int32) * width + np.clip(
            u, 0, width - 1
        ).astype(np.int32)
        z = depth.ravel().take(index)
        facing = cosine.ravel().take(index)
        hit = z > 0

        # Disparity in pixels of a 640-wide sensor: that is where the noise is even.
        strength = np.float32(camera.fx * (640 / camera.width) * cfg.baseline)
        disparity = strength / np.maximum(z * self._distortion, 0.1)
        spread = cfg.disparity_sd / np.maximum(facing, 0.25) ** 0.5
        noisy = disparity + spread * self._window(self._disparity, rng)
        noisy = np.rint(noisy / cfg.disparity_step) * np.float32(cfg.disparity_step)
        result = strength / np.maximum(noisy, 1.0)

        chance = self._window(self._uniform, rng)
        lost = ~hit | (result < cfg.near) | self._shadow(disparity, hit)
        lost |= result > cfg.far
        # Light comes back in proportion to the cosine and to the inverse square of the distance.
        faintest = np.asarray(FAINTEST, np.float32)[material.ravel().take(index)]
        lost |= facing < faintest * np.maximum(z / 2.5, 0.7) ** 2 * (0.85 + 0.3 * chance)
        lost |= self._window(self._blobs, rng) > _quantile(cfg.holes)
        result[lost] = 0
        return result

    def _shadow(self, disparity: np.ndarray, hit: np.ndarray) -> np.ndarray:
        """Where the projector's light is blocked: beside near things, on one side."""
        reach = np.where(hit, self._u * np.float32(640 / self.camera.width) + disparity, -np.inf)
        furthest = np.maximum.accumulate(reach, axis=1)
        return reach < furthest - 2.0


def _unit(noise: np.ndarray) -> np.ndarray:
    return (noise / noise.std()).astype(np.float32)


def _quantile(share: float) -> float:
    """Value that a normal variable exceeds with probability ``share``."""
    return float(ndtri(1 - share)) if share > 0 else np.inf
