"""A piece of furniture, and the parts that several kinds share: legs, handles, doors and drawers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.shapes import Mesh, box, ellipsoid, join, lathe, rod, slab, tube

Rng = np.random.Generator


class Support(NamedTuple):
    """A horizontal place (metres, in the piece's frame) where things may stand, and how tall they may be."""

    x0: float
    x1: float
    y0: float
    y1: float
    z: float
    headroom: float = 0.6
    things: tuple[Callable[[Rng], Mesh], ...] = things.SMALL


class Piece(NamedTuple):
    """A piece of furniture: its mesh, its footprint (width along x, depth along y) and its supports."""

    mesh: Mesh
    width: float
    depth: float
    supports: tuple[Support, ...] = ()


def legs(rng: Rng, w: float, d: float, h: float) -> list[Mesh]:
    """Four legs under a top of ``w`` x ``d`` at height ``h``, in one of several styles."""
    style, r = rng.integers(4), rng.uniform(0.014, 0.032)
    inset, splay = rng.uniform(0.02, 0.08), rng.uniform(0, 0.08)
    legs = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (w / 2 - inset - r), sy * (d / 2 - inset - r)
            if style == 0:
                legs.append(box((2 * r, 2 * r, h), (x, y, h / 2)))
            elif style == 1:
                legs.append(rod((x + sx * splay, y + sy * splay, 0), (x, y, h), r, 8))
            elif style == 2:
                legs.append(
                    rod((x + sx * splay, y + sy * splay, 0), (x, y, h), 0.6 * r, 8, 1.3 * r)
                )
            else:
                turned = [
                    (r, 0),
                    (0.6 * r, 0.1 * h),
                    (1.3 * r, 0.3 * h),
                    (0.7 * r, 0.55 * h),
                    (1.4 * r, 0.8 * h),
                    (r, h),
                ]
                legs.append(lathe(turned, 10, (x, y, 0)))
    if rng.random() < 0.4:
        z = rng.uniform(0.1, 0.4) * h
        legs += [
            rod(
                (-w / 2 + inset, sy * (d / 2 - inset - r), z),
                (w / 2 - inset, sy * (d / 2 - inset - r), z),
                0.7 * r,
                6,
            )
            for sy in (-1, 1)
        ]
    return legs


def handle(rng: Rng, style: int, x: float, y: float, z: float, upright: bool) -> Mesh:
    """Door or drawer handle in front of the plane at ``y``."""
    if style == 0:
        return ellipsoid((0.035, 0.04, 0.035), (x, y + 0.02, z), 3)
    half = 0.06 if style == 1 else 0.11
    end = np.array([0, 0, half]) if upright else np.array([half, 0, 0])
    mid = np.array([x, y + 0.035, z])
    path = [mid - end - [0, 0.035, 0], mid - end, mid + end, mid + end - [0, 0.035, 0]]
    return tube(path, 0.008, 6)


def fronts(
    rng: Rng, x0: float, x1: float, y: float, z0: float, z1: float, rows: int, columns: int
) -> list[Mesh]:
    """Doors or drawer fronts with gaps between them, some ajar or pulled out, all with handles."""
    parts, style, gap = [], int(rng.integers(3)), 0.008
    panelled, thick = rng.random() < 0.4, rng.uniform(0.015, 0.025)
    w, h = (x1 - x0) / columns, (z1 - z0) / rows
    for r in range(rows):
        for c in range(columns):
            left, low = x0 + c * w + gap, z0 + r * h + gap
            right, high = left + w - 2 * gap, low + h - 2 * gap
            tall = high - low > 0.35
            one = [slab(left, right, 0, thick, low, high)]
            if panelled:
                rim = 0.05
                one += [
                    slab(left, right, thick, thick + 0.012, z, z + rim) for z in (low, high - rim)
                ]
                one += [
                    slab(x, x + rim, thick, thick + 0.012, low, high) for x in (left, right - rim)
                ]
            grip = (
                right - 0.05 if tall and c % 2 == 0 else left + 0.05 if tall else (left + right) / 2
            )
            one.append(
                handle(
                    rng,
                    style,
                    grip,
                    thick,
                    (low + high) / 2 if not tall else low + 0.6 * (high - low),
                    tall,
                )
            )
            front = join(one)
            if rng.random() < 0.1:
                if tall:  # ajar
                    hinge = left if c % 2 == 0 else right
                    swing = rng.uniform(0.2, 1.3) * (1 if c % 2 == 0 else -1)
                    front = front.moved((-hinge, 0, 0)).turned(swing).moved((hinge, 0, 0))
                else:
                    pull = rng.uniform(0.05, 0.2)
                    front = join(
                        [
                            front.moved((0, pull, 0)),
                            slab(
                                left + 0.02,
                                right - 0.02,
                                -0.2,
                                pull,
                                low + 0.02,
                                low + 0.6 * (high - low),
                            ),
                        ]
                    )
            parts.append(front.moved((0, y, 0)))
    return parts


def fitted(mesh: Mesh, width: float, depth: float, height: float) -> Mesh:
    """The mesh shrunk, if it must be, to fit a box, and centred over the origin."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    scale = min(1.0, *(np.array([width, depth, height]) / np.maximum(high - low, 1e-6)))
    return mesh.moved([-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0]).scaled(
        (scale, scale, scale)
    )
