"""What is connected to water: kitchens and bathrooms."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece, Support, fronts
from sparsefeat.synthetic.shapes import (
    curve,
    join,
    lathe,
    prism,
    rod,
    rounded_box,
    slab,
    tapered_box,
    torus,
    tube,
)

Rng = np.random.Generator


def kitchen(rng: Rng) -> Piece:
    """A run of counter with sink, hob, wall cabinets or open shelves above."""
    w, d, h = rng.uniform(1.4, 2.8), rng.uniform(0.56, 0.64), rng.uniform(0.86, 0.94)
    sink = rng.uniform(-w / 2 + 0.35, w / 2 - 0.35)
    sw, top = rng.uniform(0.2, 0.28), 0.035
    parts = [
        slab(-w / 2, w / 2, -d / 2, d / 2 - 0.06, 0.0, 0.1),
        slab(-w / 2, w / 2, -d / 2, d / 2 - 0.02, 0.1, h - 0.2),
    ]
    parts += [
        slab(-w / 2, sink - sw, -d / 2, d / 2, h - top, h),
        slab(sink + sw, w / 2, -d / 2, d / 2, h - top, h),
    ]
    parts += [
        slab(sink - sw, sink + sw, -d / 2, -d / 2 + 0.1, h - top, h),
        slab(sink - sw, sink + sw, d / 2 - 0.09, d / 2, h - top, h),
    ]
    parts += [
        slab(x, x + 0.01, -d / 2 + 0.1, d / 2 - 0.09, h - 0.2, h)
        for x in (sink - sw, sink + sw - 0.01)
    ]
    parts += [slab(-w / 2, w / 2, d / 2 - 0.04, d / 2 - 0.02, h - 0.2, h - top)]
    tap = curve(
        [
            (sink, -d / 2 + 0.06, h),
            (sink, -d / 2 + 0.06, h + 0.22),
            (sink, -d / 2 + 0.14, h + 0.3),
            (sink, -d / 2 + 0.24, h + 0.2),
        ],
        12,
    )
    parts += [
        tube(tap, 0.014, 8),
        rod((sink + 0.03, -d / 2 + 0.06, h), (sink + 0.09, -d / 2 + 0.07, h + 0.1), 0.01, 6),
    ]
    parts += fronts(
        rng,
        -w / 2,
        w / 2,
        d / 2 - 0.02,
        0.1,
        h - top,
        int(rng.integers(1, 4)),
        max(2, round(w / 0.5)),
    )
    hob = sink + 0.75 if sink < 0 else sink - 0.75
    if abs(hob) < w / 2 - 0.3:
        parts.append(slab(hob - 0.28, hob + 0.28, -0.24, 0.24, h, h + 0.012))
        for x in (-0.13, 0.13):
            parts += [torus(0.08, 0.012, (hob + x, y, h + 0.03), 14, 6) for y in (-0.12, 0.12)]
        if rng.random() < 0.7:
            parts.append(things.pot(rng).moved((hob + 0.13, -0.12, h + 0.04)))
        if rng.random() < 0.6:
            hood = tapered_box((0.6, 0.45, 0.25), 0.4, (0, -0.1), (hob, -d / 2 + 0.225, h + 0.85))
            parts += [hood, slab(hob - 0.12, hob + 0.12, -d / 2, -d / 2 + 0.22, h + 0.9, 2.4)]
    supports = [
        Support(-w / 2, sink - sw, -d / 2, d / 2, h, 0.5, things.KITCHEN),
        Support(sink + sw, w / 2, -d / 2, d / 2, h, 0.5, things.KITCHEN),
    ]
    low, above = h + rng.uniform(0.48, 0.62), rng.random()
    if above < 0.5:
        depth = rng.uniform(0.28, 0.36)
        x0, x1 = (-w / 2, min(hob - 0.32, w / 2)) if hob > 0 else (max(hob + 0.32, -w / 2), w / 2)
        if x1 - x0 > 0.4:
            parts.append(slab(x0, x1, -d / 2, -d / 2 + depth, low, low + 0.65))
            parts += fronts(
                rng, x0, x1, -d / 2 + depth, low, low + 0.65, 1, max(1, round((x1 - x0) / 0.45))
            )
    elif above < 0.85:
        for z in (low, low + 0.34):
            parts.append(slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.26, z, z + 0.025))
            supports.append(
                Support(-w / 2, w / 2, -d / 2, -d / 2 + 0.26, z + 0.025, 0.28, things.KITCHEN)
            )
    return Piece(join(parts), w, d, tuple(supports))


def washbasin(rng: Rng) -> Piece:
    r, h = rng.uniform(0.22, 0.28), rng.uniform(0.8, 0.88)
    t = np.linspace(0.1, 1, 7)
    shell = np.stack([r * t, h - 0.16 * (1 - t**2.5)], -1)
    basin = lathe(
        np.concatenate(
            [[(0.1, h - 0.2), (r * 1.06, h - 0.03), (r * 1.08, h)], shell[::-1], [(0, shell[0, 1])]]
        ),
        26,
    ).scaled((1.15, 0.9, 1))
    tap = tube(curve([(0, -0.18, h), (0, -0.18, h + 0.12), (0, -0.06, h + 0.12)], 8), 0.013, 7)
    mirror = slab(-0.25, 0.25, -0.24, -0.225, 1.2, 1.8).of_material(things.DARK)
    return Piece(
        join(
            [
                basin,
                tap,
                mirror,
                lathe([(0.12, 0), (0.08, 0.1), (0.075, 0.5), (0.12, h - 0.18)], 18),
            ]
        ),
        0.6,
        0.5,
    )


def toilet(rng: Rng) -> Piece:
    bowl = (
        lathe(
            [(0.12, 0), (0.11, 0.12), (0.19, 0.36), (0.2, 0.4), (0.14, 0.4), (0.1, 0.25), (0, 0.2)],
            24,
        )
        .scaled((0.95, 1.25, 1))
        .moved((0, 0.1, 0))
    )
    lid = prism(
        np.stack(
            [0.19 * np.cos(a := np.linspace(0, 6.28, 20, endpoint=False)), 0.24 * np.sin(a)], -1
        ),
        0.025,
    )
    lid = (
        lid.turned(np.pi / 2 - 0.15, 0).moved((0, -0.13, 0.64))
        if rng.random() < 0.6
        else lid.moved((0, 0.1, 0.42))
    )
    return Piece(
        join([bowl, lid, rounded_box((0.38, 0.17, 0.36), 0.03, (0, -0.25, 0.58), 5)]), 0.42, 0.7
    )
