"""Beds."""

from __future__ import annotations

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.furniture.pieces import Piece, Support
from sparsefeat.synthetic.shapes import (
    SmoothNoise,
    curve,
    join,
    lattice,
    rod,
    rounded_box,
    slab,
    tube,
    wobble,
)

Rng = np.random.Generator


def bed(rng: Rng) -> Piece:
    w, d, h = (
        rng.choice([0.9, 1.2, 1.5, 1.7]) + rng.uniform(-0.05, 0.05),
        rng.uniform(1.95, 2.1),
        rng.uniform(0.4, 0.6),
    )
    head = rng.uniform(0.7, 1.2)
    parts = [
        slab(-w / 2, w / 2, -d / 2, d / 2, 0.08, h - 0.2),
        rounded_box((w - 0.02, d - 0.04, 0.22), 0.06, (0, 0, h - 0.1), 7),
    ]
    board = slab(-w / 2 - 0.03, w / 2 + 0.03, -d / 2 - 0.05, -d / 2, 0, head)
    if rng.random() < 0.4:
        bars = [
            rod((x, -d / 2, 0.2), (x, -d / 2, head), 0.014, 6)
            for x in np.linspace(-w / 2, w / 2, 9)
        ]
        board = join(
            [
                *bars,
                tube(
                    curve(
                        [(-w / 2, -d / 2, head), (0, -d / 2, head + 0.12), (w / 2, -d / 2, head)],
                        12,
                    ),
                    0.025,
                ),
            ]
        )
    parts.append(board)
    n, reach = 40, rng.uniform(0.55, 0.75) * d  # the cover: over both sides and the foot
    x, y = np.meshgrid(
        np.linspace(-1, 1, n) * (w / 2 + 0.28),
        np.linspace(d / 2 + 0.22 - reach - 0.2, d / 2 + 0.22, n),
        indexing="ij",
    )
    hang = np.maximum(np.maximum(np.abs(x) - w / 2, y - d / 2), 0)
    cover = np.stack(
        [np.clip(x, -w / 2 - 0.03, w / 2 + 0.03), np.minimum(y, d / 2 + 0.03), h + 0.03 - hang], -1
    )
    bumps = 0.02 * SmoothNoise(rng, 0.5)(cover) + 0.014 * SmoothNoise(rng, 0.16)(cover)
    cover[..., 2] += np.where(hang > 0, 0, np.abs(bumps) * 1.3)
    cover[..., 0] += np.where(np.abs(x) > w / 2, np.sign(x) * (0.015 + np.abs(bumps)), 0)
    cover[..., 1] += np.where(y > d / 2, 0.015 + np.abs(bumps), 0)
    parts.append(lattice(cover))
    if rng.random() < 0.5:
        parts.append(
            wobble(
                rounded_box((w, 0.3, 0.09), 0.04, (0, d / 2 - reach, h + 0.05), 8), rng, 0.014, 0.2
            )
        )
    for x0 in np.linspace(-w / 2, w / 2, 3 if w > 1.3 else 2)[:-1] + w / (4 if w > 1.3 else 2):
        pillow = things.pillow(rng).scaled((1.2, 1.1, 1.0)).turned(rng.uniform(0.0, 0.7), 0)
        parts.append(pillow.moved((x0 + rng.normal(0, 0.03), -d / 2 + 0.3, h + 0.08)))
    lying = (things.cloth_heap, things.toy, things.books, things.bag, things.towel, things.pillow)
    return Piece(
        join(parts),
        w + 0.1,
        d + 0.1,
        (Support(-w / 2 + 0.1, w / 2 - 0.1, 0, d / 2 - 0.2, h + 0.05, 0.5, lying),),
    )
