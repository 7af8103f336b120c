"""Shelves, cupboards and stacks."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece, Support, fitted, fronts, handle, legs
from sparsefeat.synthetic.shapes import join, rounded_box, slab

Rng = np.random.Generator


def bookshelf(rng: Rng) -> Piece:
    w, d, h = rng.uniform(0.6, 1.4), rng.uniform(0.24, 0.4), rng.uniform(0.9, 2.1)
    t, rows, open_back = 0.022, max(2, int(h / rng.uniform(0.28, 0.42))), rng.random() < 0.15
    parts = [slab(x, x + t, -d / 2, d / 2, 0, h) for x in (-w / 2, w / 2 - t)]
    if not open_back:
        parts.append(slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.01, 0, h))
    pitch = (h - t) / rows
    for r in range(rows + 1):
        parts.append(slab(-w / 2, w / 2, -d / 2, d / 2, r * pitch, r * pitch + t))
        if r == rows:
            break
        x, floor, room = -w / 2 + t, r * pitch + t, pitch - t
        while x < w / 2 - 0.12:
            span = min(rng.uniform(0.15, 0.6), w / 2 - t - x)
            kind = rng.random()
            if kind < 0.5:
                parts.append(
                    things.book_row(rng, span, room, d).moved(
                        (x, d / 2 - rng.uniform(0.01, 0.06), floor)
                    )
                )
            elif kind < 0.85:
                thing = things.SMALL[rng.integers(len(things.SMALL))](rng)
                small = fitted(thing, span - 0.01, d - 0.03, room - 0.02)
                parts.append(small.moved((x + span / 2, 0, floor)))
            x += span
    return Piece(join(parts), w, d, (Support(-w / 2, w / 2, -d / 2, d / 2, h, 0.4),))


def cabinet(rng: Rng) -> Piece:
    """Chest of drawers, sideboard or wardrobe."""
    tall = rng.random() < 0.35
    w, d, h = (
        rng.uniform(0.5, 1.5),
        rng.uniform(0.38, 0.6),
        rng.uniform(1.5, 2.1) if tall else rng.uniform(0.55, 1.1),
    )
    base = rng.uniform(0.02, 0.14)
    parts = [
        slab(-w / 2, w / 2, -d / 2, d / 2 - 0.02, base, h),
        slab(-w / 2 - 0.015, w / 2 + 0.015, -d / 2, d / 2 + 0.01, h, h + 0.025),
    ]
    parts += (
        legs(rng, w, d, base)
        if base > 0.07
        else [slab(-w / 2 + 0.02, w / 2 - 0.02, -d / 2, d / 2 - 0.06, 0, base)]
    )
    columns = max(1, round(w / rng.uniform(0.4, 0.7)))
    rows = 1 if tall or rng.random() < 0.3 else int(rng.integers(2, 6))
    parts += fronts(rng, -w / 2, w / 2, d / 2 - 0.02, base, h, rows, columns)
    return Piece(
        join(parts), w + 0.03, d + 0.04, (Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.025, 0.6),)
    )


def fridge(rng: Rng) -> Piece:
    w, d, h, split = (
        rng.uniform(0.55, 0.75),
        rng.uniform(0.58, 0.7),
        rng.uniform(1.3, 1.9),
        rng.uniform(0.25, 0.6),
    )
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2 - 0.06, 0, h)]
    for z0, z1 in ((0.06, split * h), (split * h + 0.01, h)):
        parts.append(rounded_box((w, 0.06, z1 - z0), 0.02, (0, d / 2 - 0.03, (z0 + z1) / 2), 5))
        parts.append(handle(rng, 2, -w / 2 + 0.06, d / 2, (z0 + z1) / 2, True))
    return Piece(
        join(parts), w, d + 0.04, (Support(-w / 2, w / 2, -d / 2, d / 2, h, 0.3, things.KITCHEN),)
    )


def tv_stand(rng: Rng) -> Piece:
    w, d, h = rng.uniform(1.0, 1.7), rng.uniform(0.38, 0.5), rng.uniform(0.35, 0.55)
    parts = [
        slab(-w / 2, w / 2, -d / 2, d / 2, z, z + 0.025)
        for z in (0.06, 0.28, h - 0.025)[:: 1 if h > 0.4 else 2]
    ]
    parts += [slab(x, x + 0.025, -d / 2, d / 2, 0, h) for x in (-w / 2, 0, w / 2 - 0.025)]
    parts += [
        fitted(things.carton(rng), 0.4, d - 0.05, 0.18).moved((x, 0, 0.085))
        for x in (-w / 4, w / 4)
    ]
    screen = rng.uniform(1.2, 2.0)
    parts.append(things.monitor(rng).scaled((screen, 1, screen)).moved((0, 0, h)))
    return Piece(
        join(parts),
        w,
        d,
        (
            Support(-w / 2, -w / 2 + 0.25, -d / 2, d / 2, h),
            Support(w / 2 - 0.25, w / 2, -d / 2, d / 2, h),
        ),
    )


def stand_of_boxes(rng: Rng) -> Piece:
    parts, x = [], -0.3
    for _ in range(rng.integers(2, 4)):
        one = things.box_stack(rng)
        parts.append(one.turned(rng.normal(0, 0.15)).moved((x, rng.uniform(-0.05, 0.1), 0)))
        x += rng.uniform(0.3, 0.45)
    return Piece(join(parts), 1.0, 0.5)
