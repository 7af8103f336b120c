"""Tables, desks and benches to work at."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece, Support, fitted, fronts, legs
from sparsefeat.synthetic.shapes import (
    Mesh,
    box,
    curve,
    cylinder,
    join,
    lathe,
    lattice,
    rod,
    slab,
    torus,
    tube,
)

Rng = np.random.Generator


def table(rng: Rng, low: bool = False) -> Piece:
    h = rng.uniform(0.35, 0.48) if low else rng.uniform(0.7, 0.78)
    w, d = (
        (rng.uniform(0.6, 1.2), rng.uniform(0.45, 0.7))
        if low
        else (rng.uniform(0.8, 1.9), rng.uniform(0.65, 0.95))
    )
    t = rng.uniform(0.018, 0.045)
    style = rng.integers(4)
    top = things.SMALL if rng.random() < 0.5 else things.KITCHEN
    if style == 0:  # round, on a pedestal
        r = rng.uniform(0.3, 0.42) if low else rng.uniform(0.4, 0.6)
        leg = [
            (0.5 * r, 0),
            (0.45 * r, 0.02),
            (0.06, 0.06),
            (rng.uniform(0.03, 0.08), 0.4 * h),
            (0.04, 0.7 * h),
            (0.09, h - t),
        ]
        mesh = join([cylinder(r, t, (0, 0, h - t / 2), 28), lathe(leg, 16)])
        return Piece(
            mesh, 2 * r, 2 * r, (Support(-0.65 * r, 0.65 * r, -0.65 * r, 0.65 * r, h, 0.6, top),)
        )
    parts = [box((w, d, t), (0, 0, h - t / 2))]
    if style == 1:  # trestles
        for s in (-1, 1):
            x = s * (w / 2 - 0.15)
            parts += [
                rod((x, -d / 2 + 0.05, 0), (x, 0.1, h - t), 0.02),
                rod((x, d / 2 - 0.05, 0), (x, -0.1, h - t), 0.02),
            ]
        parts.append(slab(-w / 2 + 0.15, w / 2 - 0.15, -0.03, 0.03, 0.3 * h, 0.3 * h + 0.05))
    else:
        parts += legs(rng, w, d, h - t)
        if rng.random() < 0.6:  # apron
            a = rng.uniform(0.05, 0.12)
            parts += [
                slab(-w / 2 + 0.05, w / 2 - 0.05, y, y + 0.02, h - t - a, h - t)
                for y in (-d / 2 + 0.05, d / 2 - 0.07)
            ]
            parts += [
                slab(x, x + 0.02, -d / 2 + 0.05, d / 2 - 0.05, h - t - a, h - t)
                for x in (-w / 2 + 0.05, w / 2 - 0.07)
            ]
    if rng.random() < 0.25 and not low:
        parts.append(_tablecloth(rng, w, d, h))
    return Piece(join(parts), w, d, (Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.004, 0.6, top),))


def _tablecloth(rng: Rng, w: float, d: float, h: float) -> Mesh:
    drop = rng.uniform(0.12, 0.3)
    n = 44
    x, y = np.meshgrid(
        np.linspace(-1, 1, n) * (w / 2 + drop),
        np.linspace(-1, 1, n) * (d / 2 + drop),
        indexing="ij",
    )
    over_x, over_y = np.maximum(np.abs(x) - w / 2, 0), np.maximum(np.abs(y) - d / 2, 0)
    over = np.maximum(over_x, over_y)
    wave = 0.025 * np.sin(16 * (x + y)) * np.minimum(over / drop, 1)
    px = np.clip(x, -w / 2 - 0.015, w / 2 + 0.015) + np.sign(x) * (over_x > 0) * (0.02 + wave)
    py = np.clip(y, -d / 2 - 0.015, d / 2 + 0.015) + np.sign(y) * (over_y > 0) * (0.02 + wave)
    return lattice(np.stack([px, py, h + 0.004 - over], -1))


def desk(rng: Rng) -> Piece:
    w, d, h = rng.uniform(1.1, 1.8), rng.uniform(0.6, 0.8), rng.uniform(0.7, 0.77)
    parts = [box((w, d, 0.03), (0, 0, h - 0.015))]
    if rng.random() < 0.6:
        side = rng.choice([-1, 1])
        x0, x1 = sorted((side * (w / 2 - 0.02), side * (w / 2 - 0.45)))
        parts += [
            slab(x0, x1, -d / 2 + 0.03, d / 2 - 0.05, 0.03, h - 0.03),
            *fronts(rng, x0, x1, d / 2 - 0.05, 0.03, h - 0.03, 3, 1),
        ]
        x = -side * (w / 2 - 0.05)
        parts += [
            box((0.04, d - 0.1, h - 0.03), (x, 0, (h - 0.03) / 2)),
            slab(-w / 2, w / 2, -d / 2 + 0.05, -d / 2 + 0.07, 0.35, h - 0.03),
        ]
    else:
        parts += legs(rng, w, d, h - 0.03)
    spread = rng.uniform(-0.25, 0.25) * w
    screens = int(rng.integers(1, 3))
    for k in range(screens):
        turn = rng.normal(0, 0.15) + (0.25 if k else -0.2) * (screens > 1)
        parts.append(
            things.monitor(rng)
            .turned(turn)
            .moved((spread + (k - 0.5 * (screens - 1)) * 0.55, -d / 2 + 0.22, h))
        )
    parts.append(things.keyboard(rng).turned(rng.normal(0, 0.1)).moved((spread, d / 2 - 0.18, h)))
    if rng.random() < 0.6:  # cables down the back
        for _ in range(rng.integers(1, 4)):
            x = spread + rng.uniform(-0.4, 0.4)
            path = [
                (x, -d / 2 + 0.1, h),
                (x, -d / 2 - 0.01, h - 0.1),
                (x + rng.normal(0, 0.2), -d / 2 + 0.08, 0.3),
                (x + rng.normal(0, 0.3), -d / 2 + 0.1, 0.01),
            ]
            parts.append(tube(curve(path, 14), 0.008, 5))
    supports = [
        Support(-w / 2, spread - 0.35, -d / 2, d / 2, h, 0.6, things.OFFICE),
        Support(spread + 0.4, w / 2, -d / 2, d / 2, h, 0.6, things.OFFICE),
    ]
    if rng.random() < 0.3:
        z = h + rng.uniform(0.55, 0.75)
        parts.append(slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.25, z, z + 0.025))
        supports.append(
            Support(-w / 2, w / 2, -d / 2, -d / 2 + 0.25, z + 0.025, 0.4, things.OFFICE)
        )
    return Piece(join(parts), w, d, tuple(s for s in supports if s.x1 - s.x0 > 0.1))


def pegboard(rng: Rng) -> Piece:
    """A workbench with tools hanging over it."""
    w, d, h = rng.uniform(1.0, 1.6), 0.6, 0.85
    parts = [
        box((w, d, 0.05), (0, 0, h)),
        *legs(rng, w, d, h),
        slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.02, h + 0.2, h + 0.95),
        box((w - 0.1, d - 0.1, 0.03), (0, 0, 0.25)),
    ]
    for _ in range(rng.integers(6, 14)):
        x, z, length = (
            rng.uniform(-w / 2 + 0.1, w / 2 - 0.1),
            h + rng.uniform(0.35, 0.85),
            rng.uniform(0.1, 0.25),
        )
        tool = rng.integers(3)
        if tool == 0:
            parts += [
                rod(
                    (x, -d / 2 + 0.04, z),
                    (x + rng.normal(0, 0.02), -d / 2 + 0.04, z - length),
                    0.014,
                    6,
                ),
                box((0.1, 0.03, 0.04), (x, -d / 2 + 0.04, z)),
            ]
        elif tool == 1:
            parts.append(
                torus(length / 2.5, 0.014, segments=16, sides=6)
                .turned(np.pi / 2, 0)
                .moved((x, -d / 2 + 0.04, z - length / 2.5))
            )
        else:
            parts.append(
                fitted(things.bracket(rng), 0.2, 0.12, 0.2).moved((x, -d / 2 + 0.08, z - 0.15))
            )
    tools = (
        things.bracket,
        things.can,
        things.carton,
        things.cable,
        things.box_stack,
        things.basket,
    )
    return Piece(
        join(parts),
        w,
        d,
        (
            Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.025, 0.5, tools),
            Support(-w / 2 + 0.1, w / 2 - 0.1, -d / 2 + 0.1, d / 2 - 0.1, 0.265, 0.4, tools),
        ),
    )
