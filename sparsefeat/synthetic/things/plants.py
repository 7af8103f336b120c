"""Plants and their parts."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic.shapes import Mesh, curve, join, lathe, lattice, rod, tube

Rng = np.random.Generator


def leaf(rng: Rng, length: float, width: float) -> Mesh:
    """A leaf from the origin along +x, folded along its midrib and bending down."""
    t = np.linspace(0, 1, 7)
    half = width / 2 * np.sin(np.pi * t**0.8) ** 0.9
    droop, fold = rng.uniform(0.1, 0.9), rng.uniform(-0.2, 0.6)
    s = np.array([-1.0, 0.0, 1.0])
    points = np.empty((7, 3, 3))
    points[..., 0] = (length * t * (1 - 0.2 * droop * t))[:, None]
    points[..., 1] = half[:, None] * s
    points[..., 2] = (-droop * length * t**2 * 0.7)[:, None] + fold * half[:, None] * np.abs(s)
    return lattice(points)


def twigs(rng: Rng, length: float) -> Mesh:
    parts = []
    for _ in range(rng.integers(5, 12)):
        a, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
        end = (
            length
            * rng.uniform(0.6, 1)
            * np.array([np.cos(a) * np.sin(tilt), np.sin(a) * np.sin(tilt), np.cos(tilt)])
        )
        parts.append(tube(curve([(0, 0, 0), end * 0.5 + rng.normal(0, 0.03, 3), end], 6), 0.004, 5))
        for _ in range(rng.integers(1, 4)):
            one = leaf(rng, rng.uniform(0.05, 0.14), rng.uniform(0.03, 0.07))
            parts.append(
                one.turned(rng.uniform(-0.9, 0.3), 1)
                .turned(rng.uniform(0, 6.3))
                .moved(end * rng.uniform(0.5, 1))
            )
    return join(parts)


def plant(rng: Rng, size: float | None = None) -> Mesh:
    size = rng.uniform(0.2, 0.45) if size is None else size
    r, h = rng.uniform(0.16, 0.24) * size**0.5 * 0.8, rng.uniform(0.25, 0.45) * size**0.7
    parts = [
        lathe(
            [(0, 0), (0.75 * r, 0), (r, h), (0.88 * r, h), (0.85 * r, 0.85 * h), (0, 0.85 * h)], 18
        )
    ]
    broad = rng.random() < 0.5
    for _ in range(rng.integers(14, 34)):
        turn, tilt = rng.uniform(0, 6.3), rng.uniform(-1.4, -0.2)
        rise = rng.uniform(0.0, 0.8) * size
        one = leaf(
            rng,
            size * rng.uniform(0.3, 0.7),
            size * (rng.uniform(0.15, 0.35) if broad else rng.uniform(0.03, 0.09)),
        )
        parts.append(one.turned(tilt, 1).turned(turn).moved((0, 0, h * 0.85 + rise)))
    parts.append(rod((0, 0, 0.8 * h), (0, 0, h + 0.8 * size), 0.012 * size + 0.004, 6))
    return join(parts)
