"""Appliances, screens and lamps of a size that stands on a table."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic.shapes import (
    Mesh,
    box,
    curve,
    cylinder,
    ellipsoid,
    join,
    lathe,
    rod,
    rounded_box,
    slab,
    tapered_box,
    torus,
    tube,
)
from sparsefeat.synthetic.things.plants import leaf

Rng = np.random.Generator

DARK = 1  # material of screens and dark gloss, which return little light to a depth camera


def laptop(rng: Rng) -> Mesh:
    w, d, tilt = rng.uniform(0.3, 0.38), rng.uniform(0.2, 0.26), rng.uniform(0.1, 0.6)
    screen = (
        box((w, 0.008, d), (0, 0, d / 2))
        .of_material(DARK)
        .turned(tilt, 0)
        .moved((0, -d / 2, 0.018))
    )
    return join([box((w, d, 0.018), (0, 0, 0.009)), screen])


def keyboard(rng: Rng) -> Mesh:
    rows = [
        box((0.42, 0.018, 0.012), (0, y, 0.024 - 0.08 * y)) for y in np.linspace(-0.06, 0.06, 5)
    ]
    mouse = ellipsoid(
        (0.06, 0.11, 0.05), (rng.uniform(0.28, 0.36), rng.uniform(-0.04, 0.04), 0.012), 3
    )
    return join([tapered_box((0.45, 0.15, 0.022), 0.97, center=(0, 0, 0.011)), mouse, *rows])


def monitor(rng: Rng) -> Mesh:
    w = rng.uniform(0.4, 0.65)
    h, lift = w * rng.uniform(0.55, 0.72), rng.uniform(0.08, 0.18)
    panel = box((w, 0.03, h), (0, 0, h / 2))
    bezel = [slab(-w / 2, w / 2, 0.015, 0.025, z, z + 0.02) for z in (0, h - 0.02)]
    screen = slab(-w / 2 + 0.02, w / 2 - 0.02, 0.0151, 0.016, 0.02, h - 0.02).of_material(DARK)
    bulge = (
        tapered_box((w * 0.6, h * 0.6, rng.uniform(0.02, 0.2)), 0.6)
        .turned(np.pi / 2, 0)
        .moved((0, -0.05, h / 2))
    )
    head = (
        join([panel, screen, bulge, *bezel]).turned(rng.uniform(-0.05, 0.25), 0).moved((0, 0, lift))
    )
    foot = cylinder(rng.uniform(0.1, 0.14), 0.02, (0, -0.03, 0.01), 18)
    return join([head, foot, rod((0, -0.05, 0.01), (0, -0.05, lift + 0.4 * h), 0.022)])


def telephone(rng: Rng) -> Mesh:
    base = tapered_box((0.16, 0.2, 0.06), 0.85, (0, -0.02), (0, 0, 0.03))
    receiver = tube(
        curve(
            [
                (-0.05, -0.09, 0.06),
                (-0.055, -0.04, 0.09),
                (-0.055, 0.04, 0.09),
                (-0.05, 0.09, 0.06),
            ],
            10,
        ),
        [0.026, 0.026, 0.018, 0.015, 0.014, 0.014, 0.015, 0.018, 0.026, 0.026],
    )
    coil = curve(
        np.c_[rng.uniform(0.08, 0.2, 5), rng.uniform(-0.15, 0.15, 5), np.full(5, 0.008)], 20
    )
    return join([base, receiver, tube(coil, 0.006, 5)])


def cable(rng: Rng) -> Mesh:
    points = np.c_[rng.uniform(-0.25, 0.25, (6, 2)), np.abs(rng.normal(0, 0.015, 6)) + 0.01]
    return tube(curve(points, 30), rng.uniform(0.006, 0.012), 6)


def speaker(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.1, 0.22), rng.uniform(0.12, 0.25), rng.uniform(0.18, 0.4)
    cones = [
        lathe([(0.42 * w, 0), (0.4 * w, -0.01), (0.12 * w, -0.035), (0, -0.03)], 14)
        .turned(-np.pi / 2, 0)
        .moved((0, d / 2 + 0.012, z * h))
        for z in (0.3, 0.72)
    ]
    return join([box((w, d, h), (0, 0, h / 2)), *cones])


def toaster(rng: Rng) -> Mesh:
    w, h = rng.uniform(0.24, 0.32), rng.uniform(0.16, 0.2)
    body = rounded_box((w, 0.17, h), 0.04, (0, 0, h / 2), 6)
    lever = box((0.02, 0.03, 0.015), (w / 2 + 0.01, 0, 0.7 * h))
    toast = [box((0.1, 0.015, 0.1), (rng.normal(0, 0.02), y, h)) for y in (-0.035, 0.035)]
    return join([body, lever, *toast])


def coffee_machine(rng: Rng) -> Mesh:
    h, w = rng.uniform(0.28, 0.4), rng.uniform(0.18, 0.28)
    back = slab(-w / 2, w / 2, -0.15, -0.03, 0, h)
    head = rounded_box((w, 0.27, 0.1), 0.025, (0, 0.0, h - 0.05), 5)
    jug = lathe(
        [(0, 0.03), (0.055, 0.03), (0.07, 0.08), (0.05, 0.15), (0.055, 0.165)], 16, (0, 0.05, 0)
    )
    return join([back, head, jug, slab(-w / 2, w / 2, -0.1, 0.13, 0, 0.03)])


def fan(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.35)
    rings = [
        torus(r * k, 0.006, (0, 0, z)) for k, z in ((1, 0), (0.97, 0.06), (0.6, 0.08), (0.6, -0.03))
    ]
    blades = [leaf(rng, 0.9 * r, 0.8 * r).turned(0.5, 0).turned(k * 2.1) for k in range(3)]
    head = join([*rings, *blades, cylinder(0.05, 0.12, (0, 0, -0.05))]).turned(
        -np.pi / 2 + rng.uniform(-0.2, 0.3), 0
    )
    return join(
        [
            head.moved((0, 0, h)),
            rod((0, -0.02, 0), (0, -0.02, h), 0.015),
            cylinder(0.1, 0.025, (0, 0, 0.012)),
        ]
    )


def table_lamp(rng: Rng) -> Mesh:
    h, r = rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.2)
    foot = lathe(
        [
            (0, 0),
            (0.6 * r, 0),
            (0.5 * r, 0.02),
            (0.02, 0.04),
            (rng.uniform(0.015, 0.06), 0.3 * h),
            (0.012, 0.7 * h),
        ],
        14,
    )
    lift = rng.uniform(0.5, 1.0)
    return join([foot, lathe([(r, 0.62 * h), (r * lift * 0.8, h)], 18)])


def desk_lamp(rng: Rng) -> Mesh:
    a, b = rng.uniform(0.2, 0.35, 2)
    p, q = rng.uniform(0.1, 0.5), rng.uniform(1.4, 2.2)
    knee = np.array([-np.sin(p) * a, 0, np.cos(p) * a])
    head = knee + [np.sin(q) * b, 0, np.cos(q - 0.6) * b]
    shade = lathe([(0.02, 0), (0.035, -0.03), (0.075, -0.1)], 14).turned(-0.4, 1).moved(head)
    return join(
        [
            cylinder(0.08, 0.02, (0, 0, 0.01)),
            rod((0, 0, 0.02), knee, 0.009, 6),
            rod(knee, head, 0.009, 6),
            shade,
        ]
    )
