"""Soft things: cloth that lies, hangs or stands, pillows, bags, shoes, toys."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic.shapes import (
    Mesh,
    SmoothNoise,
    capsule,
    curve,
    cushion,
    drape,
    ellipsoid,
    join,
    lathe,
    lattice,
    rounded_box,
    tube,
    wobble,
)

Rng = np.random.Generator


def cloth_heap(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.45), rng.uniform(0.04, 0.14)
    n = 24
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    points = np.stack([x * w / 2, y * d / 2, 0 * x], -1)
    fold, crease = SmoothNoise(rng, 0.22), SmoothNoise(rng, 0.09)
    falloff = np.clip(1.15 - (np.abs(x) ** 3 + np.abs(y) ** 3), 0, 1)
    points[..., 2] = (
        falloff * h * np.clip(0.7 + 0.35 * fold(points) + 0.2 * crease(points), 0.05, None)
    )
    points[..., :2] += 0.02 * np.stack(
        [SmoothNoise(rng, 0.2)(points), SmoothNoise(rng, 0.2)(points)], -1
    )
    return lattice(points)


def towel(rng: Rng) -> Mesh:
    """Folded cloth: a few soft layers."""
    w, d, h = rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.3), rng.uniform(0.04, 0.12)
    return wobble(rounded_box((w, d, h), h / 2, (0, 0, h / 2), 6), rng, 0.008, 0.15)


def pillow(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.2)
    return wobble(cushion((w, d, h), (0, 0, 0.4 * h)), rng, 0.008, 0.2)


def standing_cloth(rng: Rng) -> Mesh:
    """A cloth thrown over something, touching the ground all round."""
    r, h = rng.uniform(0.12, 0.25), rng.uniform(0.15, 0.35)
    folds, phase = rng.integers(4, 9), rng.uniform(0, 6.3)
    a = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    t = np.linspace(0, 1, 9)
    radius = (
        r
        * (0.15 + 0.85 * t**0.6)[None]
        * (1 + 0.16 * t[None] ** 2 * np.sin(folds * a + phase)[:, None])
    )
    z = h * (1 - t**2.2)
    points = np.stack(
        [
            radius * np.cos(a)[:, None],
            radius * np.sin(a)[:, None],
            np.broadcast_to(z, radius.shape),
        ],
        -1,
    )
    return wobble(lattice(points, wrap_u=True), rng, 0.01, 0.2)


def hanging_cloth(rng: Rng, width: float, height: float) -> Mesh:
    """A coat or towel on a hook at the origin, back against y = 0."""
    cloth = drape(width, height, rng, rng.uniform(0.015, 0.04), rng.uniform(0.1, 0.2))
    narrow = 0.35 + 0.65 * np.clip(-cloth.vertices[:, 2] / (0.35 * height), 0, 1)
    points = cloth.vertices * np.stack([narrow, np.ones_like(narrow), np.ones_like(narrow)], -1)
    points[:, 1] += 0.05 + 0.03 * SmoothNoise(rng, 0.3)(points)
    return cloth._replace(vertices=points)


def bag(rng: Rng) -> Mesh:
    """Backpack or shopping bag, leaning a little."""
    w, d, h = rng.uniform(0.22, 0.4), rng.uniform(0.12, 0.25), rng.uniform(0.28, 0.5)
    body = wobble(rounded_box((w, d, h), 0.45 * d, (0, 0, h / 2), 8), rng, 0.018, 0.25)
    pocket = rounded_box((0.7 * w, 0.1, 0.4 * h), 0.05, (0, d / 2, 0.3 * h), 5)
    straps = [
        tube(
            curve(
                [
                    (s * w / 5, -d / 3, h * 0.95),
                    (s * w / 5, -d / 2 - 0.08, h * 1.05),
                    (s * w / 4, -d / 2 - 0.06, 0.5 * h),
                    (s * w / 4, -d / 2, 0.15 * h),
                ],
                12,
            ),
            0.013,
            6,
        )
        for s in (-1, 1)
    ]
    return join([body, pocket, *straps]).turned(rng.uniform(-0.25, 0.1), 0)


def shoe(rng: Rng) -> Mesh:
    parts = []
    for s in (-1, 1):
        sole = rounded_box((0.1, 0.28, 0.05), 0.03, (0, 0, 0.025), 5)
        upper = ellipsoid((0.095, 0.17, 0.11), (0, 0.05, 0.05), 4)
        heel = lathe(
            [(0.04, 0), (0.042, 0.07), (0.048, rng.uniform(0.08, 0.1))], 12, (0, -0.08, 0.03)
        )
        parts.append(
            join([sole, upper, heel])
            .turned(rng.normal(0, 0.3))
            .moved((s * 0.08, rng.normal(0, 0.03), 0))
        )
    return join(parts)


def toy(rng: Rng) -> Mesh:
    """A stuffed animal: capsules and balls."""
    s = rng.uniform(0.7, 1.5)
    body = ellipsoid((0.16, 0.14, 0.2), (0, 0, 0.12), 5)
    head = ellipsoid((0.13, 0.13, 0.12), (0, 0.02, 0.26), 5)
    parts = [body, head, ellipsoid((0.05, 0.07, 0.04), (0, 0.09, 0.245), 3)]
    for side in (-1, 1):
        parts.append(ellipsoid((0.05, 0.03, rng.uniform(0.05, 0.13)), (side * 0.05, 0, 0.33), 3))
        parts.append(
            capsule(
                (side * 0.07, 0.02, 0.17),
                (side * rng.uniform(0.1, 0.16), 0.09, rng.uniform(0.08, 0.2)),
                0.025,
                7,
            )
        )
        parts.append(capsule((side * 0.05, 0.03, 0.04), (side * 0.08, 0.16, 0.035), 0.032, 7))
    return join(parts).scaled((s, s, s))
