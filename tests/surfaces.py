"""Small surfaces that several tests compute on."""

from __future__ import annotations

import numpy as np
import trimesh


def sphere(level: int = 3) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(level)
    return np.array(mesh.vertices), np.array(mesh.faces)


def square(n: int, width: float = 1.0, height: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A flat rectangle of n by n vertices."""
    x, y = np.meshgrid(np.linspace(0, width, n), np.linspace(0, height, n), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], 1)
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + n, i + n + 1], 1), np.stack([i, i + n + 1, i + 1], 1)])
    return vertices, faces


def body() -> tuple[np.ndarray, np.ndarray]:
    """An egg with a bump: no symmetry."""
    vertices, faces = sphere(3)
    vertices = vertices * [1.0, 1.5, 0.7]
    return vertices * (1 + 0.3 * np.exp(-4 * ((vertices - [0.8, 0.6, 0.4]) ** 2).sum(1)))[
        :, None
    ], faces
