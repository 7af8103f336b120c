"""Books, cartons, frames and paper."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic.shapes import Mesh, box, ellipsoid, join, rod, sheet, slab, wobble

Rng = np.random.Generator


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
            book = book.moved(
                (x - min(0, book.vertices[:, 0].min()), 0, -book.vertices[:, 2].min())
            )
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
            flap = slab(-b / 2, b / 2, 0, rng.uniform(0.35, 0.5) * a, -t, 0).turned(
                rng.uniform(-1.4, 0.9), 0
            )
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
