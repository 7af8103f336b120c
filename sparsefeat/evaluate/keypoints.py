"""Key points of a fragment and their features: the same points for every descriptor of a run."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sparsefeat.checks import checked_seed
from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.orientation import Viewpoints, load_orientation
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.mesh.saliency import surface_variation
from sparsefeat.sparse import quantize


class Describe(Protocol):
    """What makes features of points."""

    def __call__(
        self, points: np.ndarray, *, viewpoint: np.ndarray | None
    ) -> np.ndarray | torch.Tensor:
        """Points (V, 3) float64 in metres, and where they were seen from, (3,) or (K, 3), if that is known -> (V, C)."""


@dataclass(frozen=True)
class Fragment:
    """A described fragment.

    Attributes:
        points: (K, 3) float64, key points in metres, after the rotation.
        features: (K, C) float32.
        rotation: (4, 4) float64, what was applied to the file's points first.
    """

    points: np.ndarray
    features: np.ndarray
    rotation: np.ndarray


def fragment_seed(seed: int, scene: str, path: Path, purpose: str) -> list[int]:
    """Entropy of a generator that is the same for a fragment on every machine and in any order of pairs."""
    return [seed, zlib.crc32(f"{scene}/{Path(path).name}/{purpose}".encode())]


def keypoint_rows(
    length: int, points: int | None, rng: np.random.Generator, weight: np.ndarray | None = None
) -> np.ndarray:
    """Up to ``points`` of ``length`` rows at random without repetition, ascending; all of them if None.

    With a positive ``weight`` (length,) rows are drawn one after the other with a probability in proportion to it.
    """
    if points is None or points >= length:
        return np.arange(length)
    if weight is None:
        return np.sort(rng.choice(length, points, replace=False))
    return np.sort(rng.choice(length, points, replace=False, p=weight / weight.sum()))


def keypoint_weight(points: np.ndarray, voxel_size: float) -> np.ndarray:
    """How much rather a point is drawn where the surface is curved. Shape: (N, 3) -> (N,).

    The cube of the surface variation within eight voxels: on 20 pairs of 3DMatch's redkitchen lower powers, and twelve
    voxels, had fewer inliers.
    """
    return (surface_variation(points, 8 * voxel_size) + 1e-4) ** 3


ORIENTATIONS = ("given", "unknown", "wrong")
"""What descriptors are told of the side that fragments were seen from: what is known, nothing, or a wrong place.

A viewpoint of the layout is believed. A wrong one is given as a user would give it, so that it may be noticed.
"""
VIEWPOINT_ERROR = 3.0
"""Metres that a wrong viewpoint is off, in a random direction of its own."""


class FragmentDescriber:
    """Describes fragments once each and remembers the latest ones.

    A fragment is read, rotated if asked for, thinned to the first point of every voxel
    ``floor(p / voxel_size)``, described as a whole (before the thinning if ``dense``), and then a seeded
    choice of rows is kept. The choice depends on the seed, the scene and the file name only, so all
    descriptors are compared on the same points.

    Args:
        describe: see :data:`Describe`.
        voxel_size: metres.
        points: key points kept per fragment; None keeps all.
        seed: of the choice and of the rotations.
        rotate: turn every fragment by its own rotation, uniform over SO(3), before anything else.
        dense: the descriptor sees all points of a fragment, not one of each voxel; key points are the same.
        cache_bytes: how much is remembered; a scene of 60 fragments of 5000 32-d features takes 45 MB.
        viewpoints: of fragments, in place of what their files say.
        salient: key points are drawn by :func:`keypoint_weight` in place of evenly.
        orientation: one of :data:`ORIENTATIONS`.
    """

    def __init__(
        self,
        describe: Describe,
        voxel_size: float,
        points: int | None = 5000,
        seed: int = 0,
        rotate: bool = False,
        dense: bool = False,
        cache_bytes: int = 1 << 29,
        viewpoints: Viewpoints | None = None,
        salient: bool = False,
        orientation: str = "given",
    ):
        if not voxel_size > 0:
            raise InputError(f"voxel_size: expected a positive length in metres, got {voxel_size}")
        if points is not None and points < 1:
            raise InputError(f"points: expected at least one key point a fragment, got {points}")
        if orientation not in ORIENTATIONS:
            raise InputError(f"orientation {orientation!r}, expected {', '.join(ORIENTATIONS)}")
        if orientation != "given" and viewpoints is not None:
            raise InputError(f"orientation {orientation!r} beside viewpoints, expected one of them")
        self.describe = describe
        self.voxel_size = voxel_size
        self.points = points
        self.seed = checked_seed(seed)
        self.rotate = rotate
        self.dense = dense
        self.cache_bytes = cache_bytes
        self.viewpoints = viewpoints
        self.salient = salient
        self.orientation = orientation
        self._cache: OrderedDict[tuple[str, Path], Fragment] = OrderedDict()
        self._size = 0

    def __call__(self, scene: str, path: Path) -> Fragment:
        """The described fragment at ``path``.

        Raises:
            InputError: an unreadable or empty file, or features of a wrong shape or not finite.
        """
        key = (scene, Path(path))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        fragment = self._describe(scene, Path(path))
        self._cache[key] = fragment
        self._size += _bytes(fragment)
        while self._size > self.cache_bytes and len(self._cache) > 2:
            self._size -= _bytes(self._cache.popitem(last=False)[1])
        return fragment

    def _viewpoint(self, scene: str, path: Path) -> np.ndarray | None:
        """Where the descriptor is told that the fragment was seen from. Shape: (3,) or (K, 3)."""
        if self.orientation == "unknown":
            return None
        viewpoint = load_orientation(path, viewpoints=self.viewpoints).viewpoint
        if self.orientation == "wrong":
            if viewpoint is None:
                raise InputError(
                    f"{path}: no viewpoint, expected one to be {VIEWPOINT_ERROR} m off"
                )
            rng = np.random.default_rng(fragment_seed(self.seed, scene, path, "viewpoint"))
            away = rng.normal(size=3)
            viewpoint = viewpoint + VIEWPOINT_ERROR * away / np.linalg.norm(away)
        return viewpoint

    def _describe(self, scene: str, path: Path) -> Fragment:
        points = np.asarray(load_fragment(path), dtype=np.float64)
        rotation = np.eye(4)
        if self.rotate:
            rng = np.random.default_rng(fragment_seed(self.seed, scene, path, "rotation"))
            # A normalised Gaussian quaternion is uniform over SO(3).
            rotation[:3, :3] = Rotation.from_quat(rng.normal(size=4)).as_matrix()
            points = points @ rotation[:3, :3].T
        if len(points) == 0:
            raise InputError(f"{path}: a fragment without points")
        thin = quantize(torch.from_numpy(points), voxel_size=self.voxel_size).index.numpy()
        if not self.dense:
            points, thin = points[thin], slice(None)
        viewpoint = self._viewpoint(scene, path)
        if viewpoint is not None:
            viewpoint = viewpoint @ rotation[:3, :3].T
        described = self.describe.func if isinstance(self.describe, partial) else self.describe
        stated = self.viewpoints is None and self.orientation == "given"
        if isinstance(described, FeatureExtractor) and stated:
            # The layout says where its sensors stood. A viewpoint would be judged by the points, which may err.
            outward = None if viewpoint is None else viewpoint - points
            features = self.describe(points, normals=outward)
        else:
            features = self.describe(points, viewpoint=viewpoint)
        if isinstance(features, torch.Tensor):
            features = features.detach().float().cpu().numpy()
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or len(features) != len(points):
            raise InputError(
                f"{path}: the descriptor returned shape {features.shape}, expected ({len(points)}, C)"
            )
        points, features = points[thin], features[thin]
        rng = np.random.default_rng(fragment_seed(self.seed, scene, path, "keypoints"))
        drawn = self.points is not None and self.points < len(points)
        weight = keypoint_weight(points, self.voxel_size) if self.salient and drawn else None
        rows = keypoint_rows(len(points), self.points, rng, weight)
        features = features[rows]
        if not np.isfinite(features).all():
            row = int(rows[~np.isfinite(features).all(1)][0])
            raise InputError(
                f"{path}: the descriptor of point {row} at {points[row].round(3)} is not finite"
            )
        return Fragment(points[rows], features, rotation)


def _bytes(fragment: Fragment) -> int:
    return fragment.points.nbytes + fragment.features.nbytes
