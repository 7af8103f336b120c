"""Things of no particular kind: what else lies about."""

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
    prism,
    rod,
    slab,
    torus,
    tube,
    wobble,
)

Rng = np.random.Generator


def ball(rng: Rng) -> Mesh:
    d = rng.uniform(0.07, 0.24)
    return ellipsoid((d, d, d), (0, 0, d / 2), 5)


def bracket(rng: Rng) -> Mesh:
    """An irregular object of blocks: something off a workbench."""
    parts = []
    for _ in range(rng.integers(3, 7)):
        size = rng.uniform(0.03, 0.16, 3)
        turn = rng.uniform(0, 6.3) if rng.random() < 0.4 else 0.0
        x, y = rng.uniform(-0.07, 0.07, 2)
        outline = (
            np.stack([np.cos(a := np.sort(rng.uniform(0, 2 * np.pi, 6))), np.sin(a)], -1) * size[0]
        )
        one = box(size) if rng.random() < 0.6 else prism(outline, size[2])
        parts.append(one.turned(turn, int(rng.integers(3))).moved((x, y, rng.uniform(0.02, 0.14))))
    return join(parts)


def sculpture(rng: Rng) -> Mesh:
    """Lumps grown together, with a ring or an arm: curved in every way at once."""
    parts, size = [], rng.uniform(0.06, 0.14)
    for k in range(rng.integers(2, 6)):
        lump = ellipsoid(size * rng.uniform(0.6, 1.7, 3), n=6)
        center = rng.uniform(-0.7, 0.7, 3) * size + [0, 0, size * (0.8 + 0.5 * k)]
        parts.append(
            wobble(lump, rng, 0.12 * size, 1.2 * size).turned(rng.uniform(0, 6.3), 0).moved(center)
        )
    if rng.random() < 0.5:
        ring = torus(rng.uniform(0.6, 1.1) * size, 0.2 * size).turned(rng.uniform(0, 3.1), 0)
        parts.append(ring.turned(rng.uniform(0, 6.3)).moved((0, 0, size * rng.uniform(1.0, 2.5))))
    if rng.random() < 0.6:
        a = rng.uniform(0, 6.3)
        out = size * np.array([np.cos(a), np.sin(a), 0])
        arm = curve(
            [[0, 0, size], out * 1.3 + [0, 0, 1.6 * size], out * 1.6 + [0, 0, 2.6 * size]], 10
        )
        parts.append(tube(arm, np.linspace(0.3, 0.12, 10) * size))
    whole = join(parts)
    return whole.moved((0, 0, -whole.vertices[:, 2].min()))


def turned_post(rng: Rng) -> Mesh:
    """Anything from a lathe: a random smooth profile."""
    h, r = rng.uniform(0.1, 0.5), rng.uniform(0.03, 0.1)
    knots = np.clip(r * (1 + 0.5 * rng.normal(size=6)), 0.01, 0.16)
    profile = curve(np.c_[knots, np.linspace(0, h, 6)], 16)
    return lathe([(0, 0), *np.maximum(profile, [0.008, 0]), (0, h)], 16)


def heap(rng: Rng) -> Mesh:
    """Small bodies thrown on a heap: toys, tools, bricks, laundry pegs."""
    parts, reach = [], rng.uniform(0.1, 0.22)
    for _ in range(rng.integers(8, 22)):
        size = rng.uniform(0.02, 0.09, 3)
        kind = rng.integers(4)
        if kind == 0:
            one = box(size * 1.3)
        elif kind == 1:
            one = ellipsoid(size * 1.4, n=3)
        elif kind == 2:
            one = cylinder(size[0] / 2, 2 * size[1], segments=10)
        else:
            one = torus(size[0], 0.3 * size[0], segments=12, sides=6)
        for axis in range(3):
            one = one.turned(rng.uniform(0, 6.3), axis)
        x, y = rng.normal(0, 0.45, 2) * reach
        height = 0.5 * reach * np.exp(-(x * x + y * y) / reach**2)
        parts.append(one.moved((x, y, height + rng.uniform(0, 0.03))))
    return join(parts)


def guitar(rng: Rng) -> Mesh:
    """A guitar that lies on its back."""
    a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = 0.17 + 0.035 * np.cos(2 * a) + 0.02 * np.cos(a) - 0.02 * np.cos(4 * a)
    outline = np.stack([radius * 0.95 * np.sin(a), radius * 1.25 * np.cos(a)], -1)
    neck = slab(-0.025, 0.025, 0.2, 0.75, 0.07, 0.1)
    head = slab(-0.035, 0.035, 0.75, 0.9, 0.06, 0.085)
    pegs = [rod((-0.06, y, 0.07), (0.06, y, 0.07), 0.006, 5) for y in (0.78, 0.82, 0.86)]
    body = [
        prism(outline, 0.1, (0, 0, 0.05)),
        torus(0.05, 0.006, (0, 0.05, 0.1)),
        neck,
        head,
        *pegs,
    ]
    return join([*body, box((0.13, 0.02, 0.015), (0, -0.1, 0.107))]).turned(rng.uniform(0, 6.3))


def wire_frame(rng: Rng) -> Mesh:
    """A rack of wire: letter tray, drying rack, basket."""
    w, d, h = rng.uniform(0.15, 0.4), rng.uniform(0.12, 0.3), rng.uniform(0.06, 0.25)
    parts, r = [], rng.uniform(0.004, 0.008)
    for z in np.linspace(0.01, h, rng.integers(2, 4)):
        corners = [(-w / 2, -d / 2, z), (w / 2, -d / 2, z), (w / 2, d / 2, z), (-w / 2, d / 2, z)]
        parts += [rod(p, q, r, 5) for p, q in zip(corners, corners[1:] + corners[:1], strict=True)]
    for x in np.linspace(-w / 2, w / 2, rng.integers(4, 9)):
        parts.append(
            tube([(x, -d / 2, h), (x, -d / 2, 0.01), (x, d / 2, 0.01), (x, d / 2, h)], r, 5)
        )
    return join(parts)
