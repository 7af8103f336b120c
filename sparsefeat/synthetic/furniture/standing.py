"""Things that stand on the floor by themselves."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece
from sparsefeat.synthetic.shapes import (
    box,
    curve,
    cylinder,
    ellipsoid,
    join,
    lathe,
    rod,
    sheet,
    torus,
    tube,
    wobble,
)

Rng = np.random.Generator


def floor_lamp(rng: Rng) -> Piece:
    h, r, style = rng.uniform(1.3, 1.8), rng.uniform(0.14, 0.26), rng.random()
    shade = lathe([(r, 0), (rng.uniform(0.4, 1.0) * r, 0.3)], 22)
    if style < 0.5:
        mesh = join(
            [
                cylinder(0.15, 0.03, (0, 0, 0.015), 20),
                rod((0, 0, 0), (0, 0, h), 0.014),
                shade.moved((0, 0, h - 0.2)),
            ]
        )
    else:  # arched
        arch = curve([(0, 0, 0), (0, 0, 0.7 * h), (0.15, 0.1, h), (0.45, 0.3, 0.95 * h)], 16)
        mesh = join(
            [
                cylinder(0.16, 0.04, (0, 0, 0.02), 20),
                tube(arch, 0.014),
                ellipsoid((0.3, 0.3, 0.22), arch[-1] - [0, 0, 0.1], 5),
            ]
        )
    return Piece(mesh, 0.4, 0.4)


def big_plant(rng: Rng) -> Piece:
    return Piece(things.plant(rng, rng.uniform(0.5, 1.0)), 0.5, 0.5)


def coat_rack(rng: Rng) -> Piece:
    h = rng.uniform(1.6, 1.85)
    parts = [rod((0, 0, 0), (0, 0, h), 0.022)]
    for k in range(4):
        a = k * np.pi / 2 + rng.uniform(0, 0.4)
        out = np.array([np.cos(a), np.sin(a), 0])
        parts += [
            rod((0, 0, 0.1), 0.28 * out, 0.016, 6),
            tube(
                curve([(0, 0, h - 0.15), 0.1 * out + [0, 0, h - 0.12], 0.16 * out + [0, 0, h]], 7),
                0.012,
                6,
            ),
        ]
        if rng.random() < 0.7:
            coat = things.hanging_cloth(rng, rng.uniform(0.25, 0.4), rng.uniform(0.6, 1.0))
            parts.append(coat.turned(a - np.pi / 2).moved(0.08 * out + [0, 0, h - 0.08]))
    return Piece(join(parts), 0.6, 0.6)


def dustbin(rng: Rng) -> Piece:
    r, h = rng.uniform(0.12, 0.2), rng.uniform(0.28, 0.6)
    parts = [lathe([(0, 0), (0.8 * r, 0), (r, h), (0.95 * r, h), (0.78 * r, 0.02), (0, 0.02)], 20)]
    if rng.random() < 0.5:
        parts.append(
            wobble(ellipsoid((1.8 * r, 1.8 * r, 0.2), (0, 0, h - 0.04), 6), rng, 0.02, 0.12)
        )
    return Piece(join(parts), 2 * r, 2 * r)


def ladder(rng: Rng) -> Piece:
    h, w = rng.uniform(0.8, 1.8), rng.uniform(0.35, 0.45)
    parts = [rod((s * w / 2, 0.35, 0), (s * 0.4 * w, 0, h), 0.02, 6) for s in (-1, 1)]
    parts += [rod((s * w / 2, -0.35, 0), (s * 0.4 * w, 0, h), 0.018, 6) for s in (-1, 1)]
    parts += [
        box((w * (0.98 - 0.18 * t), 0.09, 0.025), (0, 0.35 * (1 - t), t * h))
        for t in np.linspace(0.12, 0.97, max(3, int(h / 0.27)))
    ]
    return Piece(join(parts), w, 0.75)


def bicycle(rng: Rng) -> Piece:
    parts, r = [], 0.33
    for x in (-0.52, 0.52):
        wheel = [torus(r, 0.02, (0, 0, 0), 28, 7)] + [
            rod((0, 0, 0), (r * np.cos(a), r * np.sin(a), 0), 0.004, 4)
            for a in np.linspace(0, 5.8, 9)
        ]
        parts.append(join(wheel).turned(np.pi / 2, 0).moved((x, 0, r)))
    seat, head, crank, rear, front = (
        (-0.17, 0, 0.85),
        (0.38, 0, 0.85),
        (-0.05, 0, 0.3),
        (-0.52, 0, r),
        (0.52, 0, r),
    )
    for a, b in (
        (seat, crank),
        (seat, head),
        (head, crank),
        (crank, rear),
        (seat, rear),
        (head, front),
    ):
        parts.append(rod(a, b, 0.018, 7))
    parts += [
        ellipsoid((0.26, 0.14, 0.07), (-0.2, 0, 0.92), 4),
        rod(head, (0.34, 0, 1.0), 0.016, 6),
    ]
    parts.append(
        tube(
            curve(
                [(0.25, -0.28, 1.0), (0.36, -0.12, 1.02), (0.36, 0.12, 1.02), (0.25, 0.28, 1.0)], 12
            ),
            0.014,
            6,
        )
    )
    return Piece(join(parts).turned(rng.uniform(-0.2, 0.0), 0), 1.75, 0.55)


def rug(rng: Rng) -> Piece:
    w, d = rng.uniform(0.8, 2.0), rng.uniform(0.6, 1.4)
    return Piece(sheet(w, d, rng, 0.012, 0.5, 16), w, d)
