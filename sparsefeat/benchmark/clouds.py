"""The voxels that engines are measured on: real indoor fragments where they are at hand, a drawn room otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError, opening
from sparsefeat.io.pointcloud import read_points
from sparsefeat.sparse import collate, quantize

SIZES = {"5k": 5_000, "20k": 20_000, "50k": 50_000, "100k": 100_000, "1M": 1_000_000}
"""Voxels aimed at, by name."""

FRAGMENTS = ("threedmatch_dense/*.ply", "threedmatch_test/*/cloud_bin_*.ply")
"""Where in the data folder fragments are, best first."""


@dataclass(frozen=True)
class Cloud:
    """Voxels (V, 4) int32, batch index first, in the order in which a scan gave them, and where they are from."""

    name: str
    coordinates: Tensor
    source: str
    voxel_size: float


def make_cloud(size: str, data: Path | None) -> Cloud:
    """Voxels of about ``SIZES[size]``: one fragment at 5 or 2.5 cm, or a batch of it, each copy turned.

    Args:
        size: a name in :data:`SIZES`.
        data: folder with fragments; where it has none, a room is drawn from a fixed seed.

    Raises:
        InputError: unknown name.
    """
    if size not in SIZES:
        raise InputError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    points, source = _points(data)
    wanted = SIZES[size]
    voxel_size = 0.05 if wanted <= 5_000 else 0.025
    clouds = [quantize(torch.from_numpy(points), voxel_size=voxel_size).coordinates]
    turns = np.random.default_rng(0)
    while sum(map(len, clouds)) < 0.8 * wanted:
        turned = points @ _turn(turns.uniform(0, 2 * math.pi)).T
        clouds.append(quantize(torch.from_numpy(turned), voxel_size=voxel_size).coordinates)
    coordinates = collate(clouds)
    if len(coordinates) > 1.2 * wanted:
        coordinates = coordinates[:wanted]
    return Cloud(size, coordinates.contiguous(), source, voxel_size)


def _points(data: Path | None) -> tuple[np.ndarray, str]:
    for pattern in FRAGMENTS if data is not None else ():
        with opening(data):
            found = sorted(data.glob(pattern))
        for path in found:
            return np.asarray(read_points(path).points, dtype=np.float64), str(
                path.relative_to(data)
            )
    return _room(np.random.default_rng(0)), "a drawn room"


def _turn(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _room(rng: np.random.Generator) -> np.ndarray:
    """Points on a floor, two walls and a dozen boxes and balls: as many voxels as an indoor fragment. Metres."""
    density = 20_000  # points a square metre: every voxel of 2.5 cm on a surface gets a dozen

    def sheet(origin, a, b) -> np.ndarray:
        a, b = np.asarray(a, float), np.asarray(b, float)
        count = int(density * np.linalg.norm(np.cross(a, b)))
        u, v = rng.random((2, count, 1))
        return np.asarray(origin, float) + u * a + v * b

    parts = [sheet((0, 0, 0), (2.2, 0, 0), (0, 2.2, 0)), sheet((0, 0, 0), (2.2, 0, 0), (0, 0, 1.2))]
    parts.append(sheet((0, 0, 0), (0, 2.2, 0), (0, 0, 1.2)))
    for _ in range(6):
        corner, (x, y, z) = rng.uniform(0.1, 1.8, 3) * (1, 1, 0), rng.uniform(0.15, 0.5, 3)
        parts.append(sheet(corner + (0, 0, z), (x, 0, 0), (0, y, 0)))
        parts.append(sheet(corner, (x, 0, 0), (0, 0, z)))
        parts.append(sheet(corner, (0, y, 0), (0, 0, z)))
        radius = rng.uniform(0.1, 0.25)
        ball = rng.normal(size=(int(density * 4 * math.pi * radius**2), 3))
        ball *= radius / np.linalg.norm(ball, axis=1, keepdims=True)
        parts.append(ball + rng.uniform(0.3, 1.9, 3) * (1, 1, 0.5))
    return np.concatenate(parts) + rng.normal(scale=0.004, size=(sum(map(len, parts)), 3))
