"""Things to sit on."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece, Support, legs
from sparsefeat.synthetic.shapes import (
    Mesh,
    SmoothNoise,
    box,
    capsule,
    curve,
    cushion,
    cylinder,
    join,
    lattice,
    rod,
    rounded_box,
    slab,
    torus,
    tube,
    wobble,
)

Rng = np.random.Generator


def chair(rng: Rng) -> Piece:
    w, d, seat, top = (
        rng.uniform(0.38, 0.48),
        rng.uniform(0.38, 0.48),
        rng.uniform(0.42, 0.48),
        rng.uniform(0.78, 1.05),
    )
    parts = legs(rng, w, d, seat - 0.02)
    parts.append(
        rounded_box((w, d, rng.uniform(0.03, 0.09)), 0.02, (0, 0, seat), 4)
        if rng.random() < 0.5
        else box((w, d, 0.03), (0, 0, seat))
    )
    lean, style = rng.uniform(0.05, 0.25), rng.integers(4)
    rise = top - seat
    if style == 0:
        back = [rod((x, 0, 0), (x, 0, rise), 0.016, 8) for x in (-w / 2 + 0.03, w / 2 - 0.03)]
        back += [
            slab(-w / 2, w / 2, -0.01, 0.01, z, z + rng.uniform(0.04, 0.09))
            for z in np.linspace(0.3, 0.85, rng.integers(2, 4)) * rise
        ]
    elif style == 1:
        back = [
            rod((x, 0, 0), (x * 1.1, 0, rise), 0.01, 6)
            for x in np.linspace(-w / 2 + 0.03, w / 2 - 0.03, 6)
        ]
        back.append(
            tube(
                curve(
                    [
                        (-w * 0.55, 0, rise - 0.02),
                        (0, -0.04, rise + 0.03),
                        (w * 0.55, 0, rise - 0.02),
                    ],
                    9,
                ),
                0.02,
            )
        )
    else:
        u, v = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(0, 1, 8), indexing="ij")
        bend = rng.uniform(0.0, 0.1)
        shell = np.stack(
            [
                u * w / 2 * (1 - 0.15 * v**3),
                -bend * (1 - u**2) + 0.03 * np.sin(5 * v),
                (0.05 + 0.95 * v) * rise,
            ],
            -1,
        )
        back = [lattice(shell), lattice(shell - [0, rng.uniform(0.012, 0.06), 0])]
    parts.append(join(back).turned(lean, 0).moved((0, -d / 2 + 0.02, seat)))
    if rng.random() < 0.3:
        for s in (-1, 1):
            x = s * (w / 2 + 0.01)
            parts.append(
                tube(
                    [
                        (x, -d / 2, seat + 0.22),
                        (x, d / 2 - 0.05, seat + 0.22),
                        (x, d / 2 - 0.05, seat),
                    ],
                    0.018,
                    6,
                )
            )
    if rng.random() < 0.25:
        parts.append(things.cloth_heap(rng).moved((0, 0, seat + 0.03)))
    elif rng.random() < 0.2:
        parts.append(cushion((w * 0.9, d * 0.9, 0.08), (0, 0, seat + 0.05)))
    return Piece(join(parts), w, d + 0.05)


def office_chair(rng: Rng) -> Piece:
    seat, top = rng.uniform(0.44, 0.54), rng.uniform(0.4, 0.7)
    parts = [rod((0, 0, 0.08), (0, 0, seat), 0.03)]
    for k in range(5):
        a = k * 2 * np.pi / 5 + rng.uniform(0, 0.2)
        end = np.array([0.3 * np.cos(a), 0.3 * np.sin(a), 0.06])
        parts += [
            rod((0, 0, 0.12), end, 0.025, 6, 0.018),
            torus(0.022, 0.014, (0, 0, 0), 10, 6)
            .turned(np.pi / 2, 0)
            .turned(a)
            .moved(end - [0, 0, 0.025]),
        ]
    parts.append(wobble(rounded_box((0.48, 0.46, 0.09), 0.04, (0, 0, seat), 6), rng, 0.006, 0.3))
    u, v = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(0, 1, 9), indexing="ij")
    wide = 0.22 * (1 - 0.35 * (2 * v - 1) ** 4)
    front = np.stack([u * wide, -0.07 * (1 - u**2) - 0.05 * np.sin(3 * v), 0.08 + v * top], -1)
    parts += [
        join([lattice(front), lattice(front - [0, 0.05, 0])])
        .turned(0.15, 0)
        .moved((0, -0.2, seat)),
        box((0.06, 0.02, 0.3), (0, -0.27, seat + 0.1)),
    ]
    if rng.random() < 0.7:
        for s in (-1, 1):
            parts += [
                rounded_box((0.06, 0.24, 0.03), 0.014, (s * 0.28, 0, seat + 0.22), 4),
                rod((s * 0.27, 0, seat - 0.02), (s * 0.28, 0, seat + 0.21), 0.015, 6),
            ]
    return Piece(join(parts), 0.62, 0.62)


def stool(rng: Rng) -> Piece:
    r, h = rng.uniform(0.15, 0.2), rng.uniform(0.4, 0.7)
    parts = [cylinder(r, 0.04, (0, 0, h), 18)]
    for k in range(rng.integers(3, 5)):
        a = k * 2 * np.pi / 3.5
        parts.append(
            rod(
                (1.1 * r * np.cos(a), 1.1 * r * np.sin(a), 0),
                (0.7 * r * np.cos(a), 0.7 * r * np.sin(a), h),
                0.014,
                6,
            )
        )
    parts.append(torus(0.95 * r, 0.01, (0, 0, 0.35 * h), 16, 6))
    return Piece(join(parts), 2.2 * r, 2.2 * r)


def sofa(rng: Rng, seats: int | None = None) -> Piece:
    seats = int(rng.integers(1, 4)) if seats is None else seats
    arm, inner = rng.uniform(0.12, 0.25), seats * rng.uniform(0.55, 0.7)
    w, d, seat, top = (
        inner + 2 * arm,
        rng.uniform(0.75, 0.95),
        rng.uniform(0.36, 0.44),
        rng.uniform(0.7, 0.95),
    )
    armtop, soft = rng.uniform(0.5, 0.65), rng.uniform(0.03, 0.09)
    parts = [
        slab(
            -w / 2 + 0.02,
            w / 2 - 0.02,
            -d / 2 + 0.02,
            d / 2 - 0.04,
            rng.uniform(0.02, 0.12),
            seat - 0.12,
        )
    ]
    parts.append(
        wobble(rounded_box((w, 0.22, top), soft, (0, 0, top / 2), 7), rng, 0.006, 0.4)
        .turned(0.08, 0)
        .moved((0, -d / 2 + 0.11, 0.02))
    )
    for s in (-1, 1):
        side = rounded_box((arm, d, armtop), soft, (s * (w - arm) / 2, 0, armtop / 2), 6)
        parts.append(side)
        if rng.random() < 0.4:
            parts.append(
                capsule(
                    (s * (w - arm) / 2, -d / 2 + 0.1, armtop),
                    (s * (w - arm) / 2, d / 2 - 0.1, armtop),
                    arm * 0.6,
                    12,
                )
            )
    each = inner / seats
    for k in range(seats):
        x = -inner / 2 + (k + 0.5) * each
        parts.append(
            wobble(
                rounded_box((each - 0.01, d - 0.3, 0.17), 0.06, (x, 0.08, seat), 7),
                rng,
                0.008,
                0.25,
            )
        )
        back = rounded_box((each - 0.02, 0.17, top - seat), 0.07, (0, 0, (top - seat) / 2), 7)
        parts.append(
            wobble(back, rng, 0.012, 0.25).turned(0.18, 0).moved((x, -d / 2 + 0.3, seat + 0.05))
        )
    for _ in range(rng.integers(0, 4)):
        pillow = (
            things.pillow(rng)
            .scaled(0.8)
            .turned(rng.uniform(0.7, 1.3), 0)
            .turned(rng.normal(0, 0.5))
        )
        parts.append(
            pillow.moved(
                (rng.uniform(-0.4, 0.4) * inner, -d / 2 + rng.uniform(0.42, 0.55), seat + 0.24)
            )
        )
    if rng.random() < 0.5:
        parts.append(
            _throw(
                rng,
                (rng.choice([-1, 1]) * (w - arm) / 2, 0, armtop + 0.02),
                arm + 0.1,
                d * rng.uniform(0.4, 0.8),
            )
        )
    return Piece(
        join(parts),
        w,
        d,
        (
            Support(
                -inner / 2,
                inner / 2,
                0.0,
                d / 2 - 0.05,
                seat + 0.08,
                0.4,
                (things.toy, things.bag, things.books, things.cloth_heap),
            ),
        ),
    )


def _throw(rng: Rng, center, width: float, depth: float) -> Mesh:
    """A blanket over an arm rest or a bed's edge, hanging down on both sides."""
    u, v = np.meshgrid(np.linspace(-1, 1, 22), np.linspace(-0.5, 0.5, 16), indexing="ij")
    over = np.maximum(np.abs(u) * width - width * 0.5, 0) * 1.6
    points = np.stack([np.clip(u, -0.52, 0.52) * width, v * depth, -over], -1)
    points += 0.012 * np.stack([SmoothNoise(rng, 0.15)(points) for _ in range(3)], -1)
    return lattice(points).moved(center)
