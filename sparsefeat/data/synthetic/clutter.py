"""Small things that lie about: each function makes one, standing on z = 0 about the origin, 3 to 50 cm across."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsefeat.data.synthetic.shapes import (
    Mesh,
    SmoothNoise,
    box,
    capsule,
    curve,
    cushion,
    cylinder,
    drape,
    ellipsoid,
    join,
    lathe,
    lattice,
    prism,
    rod,
    rounded_box,
    sheet,
    slab,
    tapered_box,
    torus,
    tube,
    wobble,
)

Rng = np.random.Generator
DARK = 1  # material of screens and dark gloss, which return little light to a depth camera


def bottle(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.03, 0.055), rng.uniform(0.18, 0.34)
    neck, shoulder = rng.uniform(0.25, 0.5) * r, rng.uniform(0.5, 0.75)
    waist = rng.uniform(0.8, 1.05)
    return lathe(
        [(0, 0), (r, 0), (r * waist, 0.3 * h), (r, shoulder * h), (0.7 * r, (shoulder + 0.12) * h),
         (neck, (shoulder + 0.2) * h), (neck, h), (0, h)], 14
    )  # fmt: skip


def mug(rng: Rng) -> Mesh:
    r, h, flare = rng.uniform(0.035, 0.05), rng.uniform(0.08, 0.12), rng.uniform(0.85, 1.15)
    body = lathe([(0, 0), (r, 0), (r * flare, h), (r * flare * 0.9, h), (r * 0.85, 0.01), (0, 0.01)], 16)
    a = np.linspace(-1.3, 1.3, 8)
    handle = np.stack([r + 0.032 * np.cos(a), 0 * a, h / 2 + 0.35 * h * np.sin(a)], -1)
    return join([body, tube(handle, 0.006, 6)])


def bowl(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.1)
    t = np.linspace(0.25, 1, 7)
    outer = np.stack([r * np.sqrt(t), h * t**1.6], -1)
    parts = [lathe(np.concatenate([[(0, 0.01)], outer, outer[::-1] * [0.93, 1] + [0, 0.008], [(0, 0.03)]]), 20)]
    if rng.random() < 0.6:  # fruit
        for _ in range(rng.integers(3, 7)):
            d = rng.uniform(0.05, 0.085)
            x, y = rng.uniform(-0.5, 0.5, 2) * r
            parts.append(ellipsoid((d, d * rng.uniform(0.8, 1.2), d), (x, y, h * rng.uniform(0.6, 1.1)), 3))
    return join(parts)


def plates(rng: Rng) -> Mesh:
    r, parts, z = rng.uniform(0.09, 0.14), [], 0.0
    for _ in range(rng.integers(1, 6)):
        x, y = rng.normal(0, 0.006, 2)
        parts.append(lathe([(0, z), (0.6 * r, z), (r, z + 0.02), (0.97 * r, z + 0.025), (0.6 * r, z + 0.007),
                            (0, z + 0.007)], 20, (x, y, 0)))  # fmt: skip
        z += 0.012
    return join(parts)


def books(rng: Rng) -> Mesh:
    parts, z = [], 0.0
    for _ in range(rng.integers(1, 7)):
        w, d, h = rng.uniform(0.12, 0.22), rng.uniform(0.17, 0.3), rng.uniform(0.012, 0.05)
        x, y = rng.normal(0, 0.015, 2)
        parts.append(box((w, d, h), (0, 0, z + h / 2)).turned(rng.normal(0, 0.25)).moved((x, y, 0)))
        z += h
    return join(parts)


def book_row(rng: Rng, width: float, height: float, depth: float) -> Mesh:
    """Books side by side along x from 0 to about ``width``, spines at y = 0, the last ones leaning."""
    parts, x = [], 0.0
    base = rng.uniform(0.6, 0.95) * height
    while True:
        w = rng.uniform(0.012, 0.055)
        h, d = min(base * rng.uniform(0.75, 1.05), height * 0.97), depth * rng.uniform(0.55, 0.9)
        if x + w > width:
            break
        book = box((w, d, h), (w / 2, -d / 2 - rng.uniform(0, 0.02), h / 2))
        if rng.random() < 0.08:
            lean = rng.uniform(0.1, 0.35)
            book = book.turned(lean, 1)
            book = book.moved((x - min(0, book.vertices[:, 0].min()), 0, -book.vertices[:, 2].min()))
            w = np.ptp(book.vertices[:, 0])
            if x + w > width:
                break
            parts.append(book)
        else:
            parts.append(book.moved((x, 0, 0)))
        x += w + (rng.uniform(0.03, 0.2) if rng.random() < 0.06 else 0.001)
    return join(parts)


def carton(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.08, 0.4), rng.uniform(0.08, 0.32), rng.uniform(0.06, 0.3)
    if rng.random() < 0.6 or min(w, d) < 0.15:
        return box((w, d, h), (0, 0, h / 2))
    t = 0.006  # open, with four flaps
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2, 0, t)]
    for axis, (a, b) in enumerate(((w, d), (d, w))):
        for sign in (-1, 1):
            side = slab(-b / 2, b / 2, -t, 0, 0, h)
            flap = slab(-b / 2, b / 2, 0, rng.uniform(0.35, 0.5) * a, -t, 0).turned(rng.uniform(-1.4, 0.9), 0)
            wall = join([side, flap.moved((0, 0, h))]).moved((0, a / 2, 0))
            parts.append(wall.turned((axis * np.pi / 2 + np.pi / 2) + (np.pi if sign < 0 else 0)))
    return join(parts)


def box_stack(rng: Rng) -> Mesh:
    parts, z = [], 0.0
    w, d = rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.4)
    for _ in range(rng.integers(2, 5)):
        h = rng.uniform(0.06, 0.25)
        x, y = rng.normal(0, 0.02, 2)
        parts.append(box((w, d, h), (x, y, z + h / 2)).turned(rng.normal(0, 0.2)))
        z, w, d = z + h, w * rng.uniform(0.6, 1.0), d * rng.uniform(0.6, 1.0)
    return join(parts)


def can(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.03, 0.07), rng.uniform(0.06, 0.18)
    return cylinder(r, h, (0, 0, h / 2), 16, r * rng.choice([1.0, 1.0, 0.8, 1.2]))


def ball(rng: Rng) -> Mesh:
    d = rng.uniform(0.07, 0.24)
    return ellipsoid((d, d, d), (0, 0, d / 2), 5)


def vase(rng: Rng) -> Mesh:
    h = rng.uniform(0.15, 0.45)
    z = np.linspace(0, 1, 9)
    r = 0.22 * h * (1 + 0.55 * np.sin(rng.uniform(2, 6) * z + rng.uniform(0, 6))) + 0.015
    parts = [lathe(np.concatenate([[(0, 0)], np.stack([r, h * z], -1)]), 18)]
    if rng.random() < 0.5:
        parts.append(twigs(rng, rng.uniform(0.2, 0.5)).moved((0, 0, 0.8 * h)))
    return join(parts)


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
        end = length * rng.uniform(0.6, 1) * np.array([np.cos(a) * np.sin(tilt), np.sin(a) * np.sin(tilt), np.cos(tilt)])
        parts.append(tube(curve([(0, 0, 0), end * 0.5 + rng.normal(0, 0.03, 3), end], 6), 0.004, 5))
        for _ in range(rng.integers(1, 4)):
            one = leaf(rng, rng.uniform(0.05, 0.14), rng.uniform(0.03, 0.07))
            parts.append(one.turned(rng.uniform(-0.9, 0.3), 1).turned(rng.uniform(0, 6.3)).moved(end * rng.uniform(0.5, 1)))
    return join(parts)


def plant(rng: Rng, size: float | None = None) -> Mesh:
    size = rng.uniform(0.2, 0.45) if size is None else size
    r, h = rng.uniform(0.16, 0.24) * size**0.5 * 0.8, rng.uniform(0.25, 0.45) * size**0.7
    parts = [lathe([(0, 0), (0.75 * r, 0), (r, h), (0.88 * r, h), (0.85 * r, 0.85 * h), (0, 0.85 * h)], 18)]
    broad = rng.random() < 0.5
    for _ in range(rng.integers(14, 34)):
        turn, tilt = rng.uniform(0, 6.3), rng.uniform(-1.4, -0.2)
        rise = rng.uniform(0.0, 0.8) * size
        one = leaf(rng, size * rng.uniform(0.3, 0.7), size * (rng.uniform(0.15, 0.35) if broad else rng.uniform(0.03, 0.09)))
        parts.append(one.turned(tilt, 1).turned(turn).moved((0, 0, h * 0.85 + rise)))
    parts.append(rod((0, 0, 0.8 * h), (0, 0, h + 0.8 * size), 0.012 * size + 0.004, 6))
    return join(parts)


def teapot(rng: Rng) -> Mesh:
    r = rng.uniform(0.06, 0.1)
    body = ellipsoid((2 * r, 2 * r, 1.6 * r), (0, 0, 0.8 * r), 5)
    lid = ellipsoid((0.5 * r, 0.5 * r, 0.5 * r), (0, 0, 1.7 * r), 3)
    spout = tube(curve([(0.8 * r, 0, 0.6 * r), (1.4 * r, 0, 0.9 * r), (1.7 * r, 0, 1.6 * r)], 6), np.linspace(0.25, 0.12, 6) * r)
    handle = tube(curve([(-0.8 * r, 0, 1.3 * r), (-1.7 * r, 0, 1.3 * r), (-1.5 * r, 0, 0.6 * r), (-0.9 * r, 0, 0.5 * r)], 9), 0.1 * r, 6)
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


def table_lamp(rng: Rng) -> Mesh:
    h, r = rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.2)
    foot = lathe([(0, 0), (0.6 * r, 0), (0.5 * r, 0.02), (0.02, 0.04), (rng.uniform(0.015, 0.06), 0.3 * h), (0.012, 0.7 * h)], 14)
    lift = rng.uniform(0.5, 1.0)
    return join([foot, lathe([(r, 0.62 * h), (r * lift * 0.8, h)], 18)])


def desk_lamp(rng: Rng) -> Mesh:
    a, b = rng.uniform(0.2, 0.35, 2)
    p, q = rng.uniform(0.1, 0.5), rng.uniform(1.4, 2.2)
    knee = np.array([-np.sin(p) * a, 0, np.cos(p) * a])
    head = knee + [np.sin(q) * b, 0, np.cos(q - 0.6) * b]
    shade = lathe([(0.02, 0), (0.035, -0.03), (0.075, -0.1)], 14).turned(-0.4, 1).moved(head)
    return join([cylinder(0.08, 0.02, (0, 0, 0.01)), rod((0, 0, 0.02), knee, 0.009, 6), rod(knee, head, 0.009, 6), shade])


def laptop(rng: Rng) -> Mesh:
    w, d, tilt = rng.uniform(0.3, 0.38), rng.uniform(0.2, 0.26), rng.uniform(0.1, 0.6)
    screen = box((w, 0.008, d), (0, 0, d / 2)).of_material(DARK).turned(tilt, 0).moved((0, -d / 2, 0.018))
    return join([box((w, d, 0.018), (0, 0, 0.009)), screen])


def keyboard(rng: Rng) -> Mesh:
    rows = [box((0.42, 0.018, 0.012), (0, y, 0.024 - 0.08 * y)) for y in np.linspace(-0.06, 0.06, 5)]
    mouse = ellipsoid((0.06, 0.11, 0.05), (rng.uniform(0.28, 0.36), rng.uniform(-0.04, 0.04), 0.012), 3)
    return join([tapered_box((0.45, 0.15, 0.022), 0.97, center=(0, 0, 0.011)), mouse, *rows])


def monitor(rng: Rng) -> Mesh:
    w = rng.uniform(0.4, 0.65)
    h, lift = w * rng.uniform(0.55, 0.72), rng.uniform(0.08, 0.18)
    panel = box((w, 0.03, h), (0, 0, h / 2))
    bezel = [slab(-w / 2, w / 2, 0.015, 0.025, z, z + 0.02) for z in (0, h - 0.02)]
    screen = slab(-w / 2 + 0.02, w / 2 - 0.02, 0.0151, 0.016, 0.02, h - 0.02).of_material(DARK)
    bulge = tapered_box((w * 0.6, h * 0.6, rng.uniform(0.02, 0.2)), 0.6).turned(np.pi / 2, 0).moved((0, -0.05, h / 2))
    head = join([panel, screen, bulge, *bezel]).turned(rng.uniform(-0.05, 0.25), 0).moved((0, 0, lift))
    foot = cylinder(rng.uniform(0.1, 0.14), 0.02, (0, -0.03, 0.01), 18)
    return join([head, foot, rod((0, -0.05, 0.01), (0, -0.05, lift + 0.4 * h), 0.022)])


def telephone(rng: Rng) -> Mesh:
    base = tapered_box((0.16, 0.2, 0.06), 0.85, (0, -0.02), (0, 0, 0.03))
    receiver = tube(curve([(-0.05, -0.09, 0.06), (-0.055, -0.04, 0.09), (-0.055, 0.04, 0.09), (-0.05, 0.09, 0.06)], 10),
                    [0.026, 0.026, 0.018, 0.015, 0.014, 0.014, 0.015, 0.018, 0.026, 0.026])  # fmt: skip
    coil = curve(np.c_[rng.uniform(0.08, 0.2, 5), rng.uniform(-0.15, 0.15, 5), np.full(5, 0.008)], 20)
    return join([base, receiver, tube(coil, 0.006, 5)])


def cable(rng: Rng) -> Mesh:
    points = np.c_[rng.uniform(-0.25, 0.25, (6, 2)), np.abs(rng.normal(0, 0.015, 6)) + 0.01]
    return tube(curve(points, 30), rng.uniform(0.006, 0.012), 6)


def cloth_heap(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.45), rng.uniform(0.04, 0.14)
    n = 18
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    points = np.stack([x * w / 2, y * d / 2, 0 * x], -1)
    fold, crease = SmoothNoise(rng, 0.22), SmoothNoise(rng, 0.09)
    falloff = np.clip(1.15 - (np.abs(x) ** 3 + np.abs(y) ** 3), 0, 1)
    points[..., 2] = falloff * h * np.clip(0.7 + 0.35 * fold(points) + 0.2 * crease(points), 0.05, None)
    points[..., :2] += 0.02 * np.stack([SmoothNoise(rng, 0.2)(points), SmoothNoise(rng, 0.2)(points)], -1)
    return lattice(points)


def towel(rng: Rng) -> Mesh:
    """Folded cloth: a few soft layers."""
    w, d, h = rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.3), rng.uniform(0.04, 0.12)
    return wobble(rounded_box((w, d, h), h / 2, (0, 0, h / 2), 6), rng, 0.008, 0.15)


def basket(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.3)
    flare = rng.uniform(1.0, 1.3)
    parts = [lathe([(0, 0), (r, 0), (r * flare, h), (r * flare - 0.012, h), (r - 0.012, 0.012), (0, 0.012)], 20)]
    if rng.random() < 0.6:
        parts.append(cloth_heap(rng).scaled(np.array([1.6 * r / 0.4, 1.6 * r / 0.4, 1.0])).moved((0, 0, h * 0.6)))
    if rng.random() < 0.4:
        a = np.linspace(0, np.pi, 12)
        arch = np.stack([r * flare * np.cos(a), 0 * a, h + 1.2 * r * np.sin(a)], -1)
        parts.append(tube(arch, 0.008, 6))
    return join(parts)


def bag(rng: Rng) -> Mesh:
    """Backpack or shopping bag, leaning a little."""
    w, d, h = rng.uniform(0.22, 0.4), rng.uniform(0.12, 0.25), rng.uniform(0.28, 0.5)
    body = wobble(rounded_box((w, d, h), 0.45 * d, (0, 0, h / 2), 8), rng, 0.018, 0.25)
    pocket = rounded_box((0.7 * w, 0.1, 0.4 * h), 0.05, (0, d / 2, 0.3 * h), 5)
    straps = [tube(curve([(s * w / 5, -d / 3, h * 0.95), (s * w / 5, -d / 2 - 0.08, h * 1.05), (s * w / 4, -d / 2 - 0.06, 0.5 * h),
                          (s * w / 4, -d / 2, 0.15 * h)], 12), 0.013, 6) for s in (-1, 1)]  # fmt: skip
    return join([body, pocket, *straps]).turned(rng.uniform(-0.25, 0.1), 0)


def shoe(rng: Rng) -> Mesh:
    parts = []
    for s in (-1, 1):
        sole = rounded_box((0.1, 0.28, 0.05), 0.03, (0, 0, 0.025), 5)
        upper = ellipsoid((0.095, 0.17, 0.11), (0, 0.05, 0.05), 4)
        heel = lathe([(0.04, 0), (0.042, 0.07), (0.048, rng.uniform(0.08, 0.1))], 12, (0, -0.08, 0.03))
        parts.append(join([sole, upper, heel]).turned(rng.normal(0, 0.3)).moved((s * 0.08, rng.normal(0, 0.03), 0)))
    return join(parts)


def toy(rng: Rng) -> Mesh:
    """A stuffed animal: capsules and balls."""
    s = rng.uniform(0.7, 1.5)
    body = ellipsoid((0.16, 0.14, 0.2), (0, 0, 0.12), 5)
    head = ellipsoid((0.13, 0.13, 0.12), (0, 0.02, 0.26), 5)
    parts = [body, head, ellipsoid((0.05, 0.07, 0.04), (0, 0.09, 0.245), 3)]
    for side in (-1, 1):
        parts.append(ellipsoid((0.05, 0.03, rng.uniform(0.05, 0.13)), (side * 0.05, 0, 0.33), 3))
        parts.append(capsule((side * 0.07, 0.02, 0.17), (side * rng.uniform(0.1, 0.16), 0.09, rng.uniform(0.08, 0.2)), 0.025, 7))
        parts.append(capsule((side * 0.05, 0.03, 0.04), (side * 0.08, 0.16, 0.035), 0.032, 7))
    return join(parts).scaled((s, s, s))


def picture_frame(rng: Rng) -> Mesh:
    w, h, t = rng.uniform(0.12, 0.3), rng.uniform(0.14, 0.35), rng.uniform(0.012, 0.03)
    rim = [slab(-w / 2, w / 2, 0, t, z, z + 0.02) for z in (0, h - 0.02)]
    rim += [slab(x, x + 0.02, 0, t, 0, h) for x in (-w / 2, w / 2 - 0.02)]
    frame = join([slab(-w / 2, w / 2, 0, 0.006, 0, h), *rim]).turned(rng.uniform(0.15, 0.35), 0)
    return join([frame, rod((0, -0.06, 0), (0, 0, 0.6 * h), 0.005, 5)])


def crumpled_paper(rng: Rng) -> Mesh:
    return wobble(ellipsoid((0.1, 0.1, 0.08), (0, 0, 0.04), 5), rng, 0.012, 0.06)


def papers(rng: Rng) -> Mesh:
    parts = []
    for k in range(rng.integers(1, 5)):
        page = sheet(0.21, 0.3, rng, rng.uniform(0.002, 0.02), 0.25, 8)
        parts.append(page.turned(rng.uniform(0, 6.3)).moved((*rng.normal(0, 0.08, 2), 0.004 * k)))
    return join(parts)


def candle_stick(rng: Rng) -> Mesh:
    h = rng.uniform(0.15, 0.35)
    return lathe([(0, 0), (0.05, 0), (0.045, 0.015), (0.012, 0.03), (0.02, 0.3 * h), (0.01, 0.45 * h), (0.03, 0.55 * h),
                  (0.011, 0.56 * h), (0.011, h), (0, h)], 12)  # fmt: skip


def speaker(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.1, 0.22), rng.uniform(0.12, 0.25), rng.uniform(0.18, 0.4)
    cones = [lathe([(0.42 * w, 0), (0.4 * w, -0.01), (0.12 * w, -0.035), (0, -0.03)], 14).turned(-np.pi / 2, 0).moved((0, d / 2 + 0.012, z * h))
             for z in (0.3, 0.72)]  # fmt: skip
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
    jug = lathe([(0, 0.03), (0.055, 0.03), (0.07, 0.08), (0.05, 0.15), (0.055, 0.165)], 16, (0, 0.05, 0))
    return join([back, head, jug, slab(-w / 2, w / 2, -0.1, 0.13, 0, 0.03)])


def fan(rng: Rng) -> Mesh:
    r, h = rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.35)
    rings = [torus(r * k, 0.006, (0, 0, z)) for k, z in ((1, 0), (0.97, 0.06), (0.6, 0.08), (0.6, -0.03))]
    blades = [leaf(rng, 0.9 * r, 0.8 * r).turned(0.5, 0).turned(k * 2.1) for k in range(3)]
    head = join([*rings, *blades, cylinder(0.05, 0.12, (0, 0, -0.05))]).turned(-np.pi / 2 + rng.uniform(-0.2, 0.3), 0)
    return join([head.moved((0, 0, h)), rod((0, -0.02, 0), (0, -0.02, h), 0.015), cylinder(0.1, 0.025, (0, 0, 0.012))])


def bracket(rng: Rng) -> Mesh:
    """An irregular object of blocks: something off a workbench."""
    parts = []
    for _ in range(rng.integers(3, 7)):
        size = rng.uniform(0.03, 0.16, 3)
        turn = rng.uniform(0, 6.3) if rng.random() < 0.4 else 0.0
        x, y = rng.uniform(-0.07, 0.07, 2)
        outline = np.stack([np.cos(a := np.sort(rng.uniform(0, 2 * np.pi, 6))), np.sin(a)], -1) * size[0]
        one = box(size) if rng.random() < 0.6 else prism(outline, size[2])
        parts.append(one.turned(turn, int(rng.integers(3))).moved((x, y, rng.uniform(0.02, 0.14))))
    return join(parts)


def standing_cloth(rng: Rng) -> Mesh:
    """A cloth thrown over something, touching the ground all round."""
    r, h = rng.uniform(0.12, 0.25), rng.uniform(0.15, 0.35)
    folds, phase = rng.integers(4, 9), rng.uniform(0, 6.3)
    a = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    t = np.linspace(0, 1, 9)
    radius = r * (0.15 + 0.85 * t**0.6)[None] * (1 + 0.16 * t[None] ** 2 * np.sin(folds * a + phase)[:, None])
    z = h * (1 - t**2.2)
    points = np.stack([radius * np.cos(a)[:, None], radius * np.sin(a)[:, None], np.broadcast_to(z, radius.shape)], -1)
    return wobble(lattice(points, wrap_u=True), rng, 0.01, 0.2)


def hanging_cloth(rng: Rng, width: float, height: float) -> Mesh:
    """A coat or towel on a hook at the origin, back against y = 0."""
    cloth = drape(width, height, rng, rng.uniform(0.015, 0.04), rng.uniform(0.1, 0.2))
    narrow = 0.35 + 0.65 * np.clip(-cloth.vertices[:, 2] / (0.35 * height), 0, 1)
    points = cloth.vertices * np.stack([narrow, np.ones_like(narrow), np.ones_like(narrow)], -1)
    points[:, 1] += 0.05 + 0.03 * SmoothNoise(rng, 0.3)(points)
    return cloth._replace(vertices=points)


def pillow(rng: Rng) -> Mesh:
    w, d, h = rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.2)
    return wobble(cushion((w, d, h), (0, 0, 0.4 * h)), rng, 0.008, 0.2)


SMALL: tuple[Callable[[Rng], Mesh], ...] = (
    bottle, mug, bowl, plates, books, carton, can, ball, vase, teapot, pot, table_lamp, desk_lamp, laptop, telephone,
    cable, cloth_heap, towel, basket, toy, picture_frame, crumpled_paper, papers, candle_stick, speaker, fan, bracket, plant,
)  # fmt: skip
KITCHEN: tuple[Callable[[Rng], Mesh], ...] = (
    bottle, mug, bowl, plates, can, teapot, pot, toaster, coffee_machine, towel, carton, vase, basket, cloth_heap, bracket,
)  # fmt: skip
OFFICE: tuple[Callable[[Rng], Mesh], ...] = (
    mug, books, laptop, telephone, papers, cable, desk_lamp, speaker, carton, bottle, picture_frame, crumpled_paper, bracket,
    monitor, keyboard, fan, plant,
)  # fmt: skip
FLOOR: tuple[Callable[[Rng], Mesh], ...] = (
    bag, box_stack, carton, shoe, basket, ball, cloth_heap, toy, standing_cloth, pillow, cable, books, fan, plant, bracket,
)  # fmt: skip
