"""Things that hold something: bottles, cups, pots, baskets; each stands on z = 0 about the origin."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic.shapes import (
    Mesh,
    curve,
    cylinder,
    ellipsoid,
    join,
    lathe,
    rod,
    slab,
    torus,
    tube,
)
from sparsefeat.synthetic.things.cloths import cloth_heap
from sparsefeat.synthetic.things.plants import twigs

Rng = np.random.Generator


def bottle(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.03, 0.055), rng.uniform(0.18, 0.34)
    neck, shoulder = rng.uniform(0.25, 0.5) * r, rng.uniform(0.5, 0.75)
    waist = rng.uniform(0.8, 1.05)
    return lathe(
        [
            (0, 0),
            (r, 0),
            (r * waist, 0.3 * h),
            (r, shoulder * h),
            (0.7 * r, (shoulder + 0.12) * h),
            (neck, (shoulder + 0.2) * h),
            (neck, h),
            (0, h),
        ],
        14,
    )


def mug(rng: Rng) -> Mesh:
    r, h, flare = rng.uniform(0.035, 0.05), rng.uniform(0.08, 0.12), rng.uniform(0.85, 1.15)
    body = lathe(
        [(0, 0), (r, 0), (r * flare, h), (r * flare * 0.9, h), (r * 0.85, 0.01), (0, 0.01)], 16
    )
    a = np.linspace(-1.3, 1.3, 8)
    handle = np.stack([r + 0.032 * np.cos(a), 0 * a, h / 2 + 0.35 * h * np.sin(a)], -1)
    return join([body, tube(handle, 0.006, 6)])


def bowl(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.1)
    t = np.linspace(0.25, 1, 7)
    outer = np.stack([r * np.sqrt(t), h * t**1.6], -1)
    parts = [
        lathe(
            np.concatenate([[(0, 0.01)], outer, outer[::-1] * [0.93, 1] + [0, 0.008], [(0, 0.03)]]),
            20,
        )
    ]
    if rng.random() < 0.6:  # fruit
        for _ in range(rng.integers(3, 7)):
            d = rng.uniform(0.05, 0.085)
            x, y = rng.uniform(-0.5, 0.5, 2) * r
            parts.append(
                ellipsoid((d, d * rng.uniform(0.8, 1.2), d), (x, y, h * rng.uniform(0.6, 1.1)), 3)
            )
    return join(parts)


def plates(rng: Rng) -> Mesh:
    r, parts, z = rng.uniform(0.09, 0.14), [], 0.0
    for _ in range(rng.integers(1, 6)):
        x, y = rng.normal(0, 0.006, 2)
        parts.append(
            lathe(
                [
                    (0, z),
                    (0.6 * r, z),
                    (r, z + 0.02),
                    (0.97 * r, z + 0.025),
                    (0.6 * r, z + 0.007),
                    (0, z + 0.007),
                ],
                20,
                (x, y, 0),
            )
        )
        z += 0.012
    return join(parts)


def can(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.03, 0.07), rng.uniform(0.06, 0.18)
    return cylinder(r, h, (0, 0, h / 2), 16, r * rng.choice([1.0, 1.0, 0.8, 1.2]))


def vase(rng: Rng) -> Mesh:
    h = rng.uniform(0.15, 0.45)
    z = np.linspace(0, 1, 9)
    r = 0.22 * h * (1 + 0.55 * np.sin(rng.uniform(2, 6) * z + rng.uniform(0, 6))) + 0.015
    parts = [lathe(np.concatenate([[(0, 0)], np.stack([r, h * z], -1)]), 18)]
    if rng.random() < 0.5:
        parts.append(twigs(rng, rng.uniform(0.2, 0.5)).moved((0, 0, 0.8 * h)))
    return join(parts)


def teapot(rng: Rng) -> Mesh:
    r = rng.uniform(0.06, 0.1)
    body = ellipsoid((2 * r, 2 * r, 1.6 * r), (0, 0, 0.8 * r), 5)
    lid = ellipsoid((0.5 * r, 0.5 * r, 0.5 * r), (0, 0, 1.7 * r), 3)
    spout = tube(
        curve([(0.8 * r, 0, 0.6 * r), (1.4 * r, 0, 0.9 * r), (1.7 * r, 0, 1.6 * r)], 6),
        np.linspace(0.25, 0.12, 6) * r,
    )
    handle = tube(
        curve(
            [
                (-0.8 * r, 0, 1.3 * r),
                (-1.7 * r, 0, 1.3 * r),
                (-1.5 * r, 0, 0.6 * r),
                (-0.9 * r, 0, 0.5 * r),
            ],
            9,
        ),
        0.1 * r,
        6,
    )
    return join([body, lid, spout, handle])


def pot(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.08, 0.14), rng.uniform(0.06, 0.18)
    body = lathe([(0, 0), (r, 0), (r, h), (r * 1.05, h), (0.3 * r, h + 0.02), (0, h + 0.025)], 20)
    grip = cylinder(0.015, 0.03, (0, 0, h + 0.04), 8)
    if rng.random() < 0.5:
        handles = [rod((r, 0, 0.8 * h), (r + rng.uniform(0.12, 0.2), 0, 0.85 * h), 0.012, 6)]
    else:
        handles = [torus(0.03, 0.008, (s * (r + 0.015), 0, 0.75 * h), 10, 6) for s in (-1, 1)]
    return join([body, grip, *handles])


def basket(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.3)
    flare = rng.uniform(1.0, 1.3)
    parts = [
        lathe(
            [
                (0, 0),
                (r, 0),
                (r * flare, h),
                (r * flare - 0.012, h),
                (r - 0.012, 0.012),
                (0, 0.012),
            ],
            20,
        )
    ]
    if rng.random() < 0.6:
        parts.append(
            cloth_heap(rng)
            .scaled(np.array([1.6 * r / 0.4, 1.6 * r / 0.4, 1.0]))
            .moved((0, 0, h * 0.6))
        )
    if rng.random() < 0.4:
        a = np.linspace(0, np.pi, 12)
        arch = np.stack([r * flare * np.cos(a), 0 * a, h + 1.2 * r * np.sin(a)], -1)
        parts.append(tube(arch, 0.008, 6))
    return join(parts)


def candle_stick(rng: Rng) -> Mesh:
    h = rng.uniform(0.15, 0.35)
    return lathe(
        [
            (0, 0),
            (0.05, 0),
            (0.045, 0.015),
            (0.012, 0.03),
            (0.02, 0.3 * h),
            (0.01, 0.45 * h),
            (0.03, 0.55 * h),
            (0.011, 0.56 * h),
            (0.011, h),
            (0, h),
        ],
        12,
    )


def crate(rng: Rng) -> Mesh:
    """A slatted crate with bottles or cans in it."""
    w, d, h = rng.uniform(0.3, 0.45), rng.uniform(0.22, 0.35), rng.uniform(0.15, 0.28)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2, 0, 0.012)]
    for z in np.arange(0.03, h, rng.uniform(0.05, 0.1)):
        parts += [slab(-w / 2, w / 2, y, y + 0.012, z, z + 0.04) for y in (-d / 2, d / 2 - 0.012)]
        parts += [slab(x, x + 0.012, -d / 2, d / 2, z, z + 0.04) for x in (-w / 2, w / 2 - 0.012)]
    make = bottle if rng.random() < 0.6 else can
    for x in np.arange(-w / 2 + 0.07, w / 2 - 0.05, 0.11):
        for y in np.arange(-d / 2 + 0.07, d / 2 - 0.05, 0.11):
            if rng.random() < 0.7:
                parts.append(make(rng).moved((x, y, 0.012)))
    return join(parts)


def dish_rack(rng: Rng) -> Mesh:
    """Plates on edge in a rack, cups beside them."""
    w, d = rng.uniform(0.3, 0.45), rng.uniform(0.25, 0.35)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2, 0, 0.02)]
    parts += [
        rod((-w / 2, y, 0.09), (w / 2, y, 0.09), 0.005, 5) for y in (-d / 2, 0.1 - d / 2, d / 2)
    ]
    for x in np.arange(-w / 2 + 0.03, w / 2 - 0.02, rng.uniform(0.03, 0.06)):
        if rng.random() < 0.75:
            r, lean = rng.uniform(0.08, 0.12), rng.normal(0, 0.12)
            plate = lathe([(0, 0), (0.6 * r, 0), (r, 0.018), (0.98 * r, 0.024), (0, 0.006)], 18)
            parts.append(plate.turned(np.pi / 2 + lean, 1).moved((x, -d / 2 + 0.06, 0.02 + r)))
    parts += [
        mug(rng).turned(np.pi, 0).moved((x, d / 4, 0.13))
        for x in np.arange(-w / 2 + 0.06, w / 2, 0.11)
    ]
    return join(parts)
