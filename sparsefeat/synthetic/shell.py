"""The empty room: floor, walls with doors, windows and recesses, ceiling, and what is fixed to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsefeat.synthetic import things
from sparsefeat.synthetic.shapes import (
    Mesh,
    box,
    capsule,
    curve,
    cylinder,
    drape,
    ellipsoid,
    join,
    lathe,
    prism,
    rod,
    rounded_box,
    slab,
    torus,
    tube,
)

Rng = np.random.Generator


class Shell(NamedTuple):
    """The fixed parts of a room.

    ``openings``: per wall, intervals (x0, x1, lower edge) in metres that furniture must not hide.
    ``keep_clear``: rectangles (x0, y0, x1, y1) of the floor that doors need.
    """

    mesh: Mesh
    openings: list[list[tuple[float, float, float]]]
    keep_clear: list[tuple[float, float, float, float]]


def build(rng: Rng, kind: str, width: float, depth: float, height: float) -> Shell:
    """Floor, ceiling and four walls, each with what belongs to it; wall k is turned by k quarter turns."""
    lengths = (width, depth, width, depth)
    parts = [
        slab(-width / 2 - 0.3, width / 2 + 0.3, -depth / 2 - 0.3, depth / 2 + 0.3, -0.2, 0),
        *_ceiling(rng, width, depth, height),
    ]
    openings, keep_clear = [], []
    door_wall = int(rng.integers(4))
    for wall in range(4):
        away = lengths[(wall + 1) % 4] / 2
        mesh, holes, doors = _wall(rng, kind, lengths[wall], height, door=wall == door_wall)
        parts.append(mesh.moved((0, -away, 0)).turned(wall * np.pi / 2))
        openings.append(holes)
        for x0, x1 in doors:
            corners = (
                Mesh.of([[x0, -away, 0], [x1, -away + 0.7, 0]], np.zeros((0, 3)))
                .turned(wall * np.pi / 2)
                .vertices
            )
            keep_clear.append((*corners.min(0)[:2], *corners.max(0)[:2]))
    return Shell(join(parts), openings, keep_clear)


def _ceiling(rng: Rng, width: float, depth: float, height: float) -> list[Mesh]:
    parts = [
        slab(
            -width / 2 - 0.3,
            width / 2 + 0.3,
            -depth / 2 - 0.3,
            depth / 2 + 0.3,
            height,
            height + 0.2,
        )
    ]
    style = rng.random()
    if style < 0.2:  # beams
        for x in np.arange(-width / 2 + 0.3, width / 2, rng.uniform(0.5, 0.9)):
            parts.append(slab(x, x + 0.12, -depth / 2, depth / 2, height - 0.16, height))
    elif style < 0.35:  # a slope on one side, as under a roof
        low, run = rng.uniform(1.3, 1.9), rng.uniform(0.8, 1.5)
        y = depth / 2
        wedge = np.array(
            [
                [x, yy, z]
                for x in (-width / 2, width / 2)
                for yy, z in ((y, low), (y - run, height), (y, height + 0.1))
            ]
        )
        parts.append(Mesh.of(wedge, [[0, 1, 4], [0, 4, 3]]))
    x, y = rng.uniform(-0.2, 0.2) * width, rng.uniform(-0.2, 0.2) * depth
    lamp = rng.random()
    if lamp < 0.4:
        drop, r = rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.28)
        parts += [
            rod((x, y, height), (x, y, height - drop), 0.008, 5),
            lathe([(0.04, 0), (r, -0.16)], 18, (x, y, height - drop)),
        ]
    elif lamp < 0.7:
        parts.append(ellipsoid((0.36, 0.36, 0.18), (x, y, height - 0.03), 5))
    else:
        parts += [rounded_box((1.2, 0.15, 0.07), 0.02, (x, y, height - 0.035), 4)]
    return parts


def _pierced(
    length: float, height: float, thick: float, holes: list[tuple[float, float, float, float]]
) -> list[Mesh]:
    """A wall behind y = 0 with rectangular holes (x0, x1, z0, z1)."""
    parts, x = [], -length / 2 - thick
    for x0, x1, z0, z1 in sorted(holes):
        parts.append(slab(x, x0, -thick, 0, 0, height))
        if z0 > 0:
            parts.append(slab(x0, x1, -thick, 0, 0, z0))
        parts.append(slab(x0, x1, -thick, 0, z1, height))
        x = x1
    parts.append(slab(x, length / 2 + thick, -thick, 0, 0, height))
    return parts


def _wall(rng: Rng, kind: str, length: float, height: float, door: bool):
    """One wall along x, its inner face at y = 0, the room towards +y."""
    thick = rng.uniform(0.1, 0.28)
    holes: list[tuple[float, float, float, float]] = []
    parts: list[Mesh] = []
    openings: list[tuple[float, float, float]] = []
    doors: list[tuple[float, float]] = []
    if door:
        w = rng.uniform(0.78, 0.95)
        x = rng.uniform(-length / 2 + 0.15, length / 2 - w - 0.15)
        holes.append((x, x + w, 0.0, rng.uniform(1.98, 2.1)))
        parts += _door(rng, *holes[-1], thick)
        openings.append((x - 0.05, x + w + 0.05, 0.0))
        doors.append((x, x + w))
    if rng.random() < 0.55:
        w = rng.uniform(0.6, min(2.0, 0.6 * length))
        x = rng.uniform(-length / 2 + 0.2, length / 2 - w - 0.2)
        if not any(a < x + w + 0.15 and x - 0.15 < b for a, b, _, _ in holes):
            z0 = rng.uniform(0.75, 1.1)
            hole = (x, x + w, z0, rng.uniform(max(z0 + 0.6, 1.8), min(2.25, height - 0.1)))
            holes.append(hole)
            parts += _window(rng, *hole, thick)
            openings.append((x - 0.1, x + w + 0.1, z0))
    parts += _pierced(length, height, thick, holes)
    solid = [(-length / 2, length / 2)]
    for x0, x1, _, _ in sorted(holes):
        solid = [
            piece
            for a, b in solid
            for piece in ((a, min(b, x0)), (max(a, x1), b))
            if piece[1] - piece[0] > 0.05
        ]
    if rng.random() < 0.75:  # skirting board
        tall = rng.uniform(0.05, 0.12)
        parts += [slab(a, b, 0, 0.015, 0, tall) for a, b in solid]
    if rng.random() < 0.25:  # panelling or tiles to half height
        rail = rng.uniform(0.8, 1.3)
        parts += [
            slab(a, b, 0, 0.012, 0, min(rail, 0.74))
            for a, b in [(-length / 2, length / 2)]
            if not door
        ]
        parts += [slab(a, b, 0, 0.03, rail, rail + 0.04) for a, b in solid]
    if rng.random() < 0.3:  # pillar or chimney breast
        w, d = rng.uniform(0.15, 0.5), rng.uniform(0.08, 0.3)
        a, b = solid[rng.integers(len(solid))]
        if b - a > w + 0.3:
            x = rng.uniform(a + 0.1, b - w - 0.1)
            parts.append(slab(x, x + w, 0, d, 0, height))
    if rng.random() < 0.25:  # pipes
        x = rng.choice([-1, 1]) * (length / 2 - rng.uniform(0.08, 0.3))
        if all(not a - 0.1 < x < b + 0.1 for a, b, _, _ in holes):
            parts += [
                rod((x + k * 0.09, 0.05, 0), (x + k * 0.09, 0.05, height), 0.02, 8)
                for k in range(rng.integers(1, 3))
            ]
    parts += _fixtures(rng, solid)
    return join(parts), openings, doors


def _door(rng: Rng, x0: float, x1: float, z0: float, z1: float, thick: float) -> list[Mesh]:
    trim = 0.07
    parts = [slab(x, x + trim, 0, 0.02, 0, z1 + trim) for x in (x0 - trim, x1)] + [
        slab(x0 - trim, x1 + trim, 0, 0.02, z1, z1 + trim)
    ]
    leaf = [slab(0, x1 - x0, -0.04, 0, 0.005, z1)]
    if rng.random() < 0.5:
        leaf += [
            slab(0.12, x1 - x0 - 0.12, 0, 0.012, a, b) for a, b in ((0.15, 0.8), (1.0, z1 - 0.15))
        ]
    grip = curve(
        [(x1 - x0 - 0.07, 0, 1.02), (x1 - x0 - 0.07, 0.05, 1.02), (x1 - x0 - 0.18, 0.055, 1.02)], 6
    )
    leaf += [
        tube(grip, 0.011, 6),
        rounded_box((0.04, 0.01, 0.2), 0.004, (x1 - x0 - 0.07, 0.005, 1.0), 3),
    ]
    swing = 0.0 if rng.random() < 0.6 else rng.uniform(0.3, 1.5)
    parts.append(
        join(leaf)
        .turned(swing if rng.random() < 0.6 else -swing)
        .moved((x0, -0.05 if swing == 0 else 0.0, 0))
    )
    hall = rng.uniform(0.9, 1.6)
    parts += [
        slab(x0 - 1, x1 + 1, -thick - hall - 0.1, -thick - hall, 0, z1 + 0.3),
        slab(x0 - 1, x1 + 1, -thick - hall, -thick, -0.1, 0),
    ]
    return parts


def _window(rng: Rng, x0: float, x1: float, z0: float, z1: float, thick: float) -> list[Mesh]:
    frame, back = rng.uniform(0.04, 0.07), -thick + 0.05
    parts = [slab(x0, x1, back, back + 0.05, z, z + frame) for z in (z0, z1 - frame)]
    bars = max(2, round((x1 - x0) / 0.7) + 1)
    parts += [
        slab(x, x + frame, back, back + 0.05, z0, z1) for x in np.linspace(x0, x1 - frame, bars)
    ]
    parts += [
        slab(x0 - 0.05, x1 + 0.05, -thick, rng.uniform(0.04, 0.2), z0 - 0.04, z0),
        *_sill_things(rng, x0, x1, z0),
    ]
    parts.append(
        tube(
            [
                (x1 - 0.03, back + 0.05, (z0 + z1) / 2),
                (x1 - 0.03, back + 0.09, (z0 + z1) / 2),
                (x1 - 0.03, back + 0.09, (z0 + z1) / 2 - 0.1),
            ],
            0.01,
            6,
        )
    )
    style = rng.random()
    if style < 0.5:
        drop = z1 + 0.12 - (0.02 if rng.random() < 0.4 else z0 - rng.uniform(0.05, 0.2))
        for side in (0, 1):
            w = rng.uniform(0.2, 0.5) * (x1 - x0)
            x = x0 - 0.1 + w / 2 if side == 0 else x1 + 0.1 - w / 2
            fold = rng.uniform(0.02, 0.05)
            parts.append(
                drape(w, drop, rng, fold, rng.uniform(0.09, 0.2)).moved(
                    (x, 0.06 + fold + 0.12, z1 + 0.1)
                )
            )
        parts.append(rod((x0 - 0.25, 0.2, z1 + 0.12), (x1 + 0.25, 0.2, z1 + 0.12), 0.015, 7))
    elif style < 0.75:  # slatted blind
        low = rng.uniform(z0, (z0 + z1) / 2)
        tilt = rng.uniform(0.1, 1.3)
        slat = box((x1 - x0 - 0.02, 0.045, 0.003)).turned(tilt, 0)
        parts += [
            slat.moved(((x0 + x1) / 2, back + 0.1, z)) for z in np.arange(z1 - 0.05, low, -0.045)
        ]
    if rng.random() < 0.5:
        parts += _radiator(rng, x0 + 0.02, x1 - 0.02, z0 - 0.16)
    return parts


def _sill_things(rng: Rng, x0: float, x1: float, z0: float) -> list[Mesh]:
    parts = []
    for _ in range(rng.integers(0, 4)):
        make = (
            things.plant,
            things.vase,
            things.bottle,
            things.books,
            things.candle_stick,
            things.toy,
        )[rng.integers(6)]
        thing = make(rng).scaled((0.55, 0.55, 0.7))
        parts.append(
            thing.turned(rng.uniform(0, 6.3)).moved((rng.uniform(x0 + 0.1, x1 - 0.1), -0.02, z0))
        )
    return parts


def _radiator(rng: Rng, x0: float, x1: float, top: float) -> list[Mesh]:
    low, pitch = 0.12, rng.uniform(0.05, 0.09)
    if top - low < 0.25:
        return []
    if rng.random() < 0.6:
        parts = [
            capsule((x, 0.09, low), (x, 0.09, top), 0.028, 8)
            for x in np.arange(x0 + pitch, x1 - pitch, pitch)
        ]
    else:
        parts = [slab(x0, x1, 0.05, 0.11, low, top)] + [
            slab(x, x + 0.02, 0.11, 0.122, low + 0.03, top - 0.03)
            for x in np.arange(x0 + 0.03, x1 - 0.03, 0.045)
        ]
    parts += [rod((x0, 0.09, z), (x1, 0.09, z), 0.02, 7) for z in (low + 0.04, top - 0.04)]
    parts += [
        cylinder(0.022, 0.07, (0, 0, 0), 10)
        .turned(np.pi / 2, 1)
        .moved((x1 + 0.05, 0.09, top - 0.04)),
        rod((x1 + 0.05, 0.09, 0), (x1 + 0.05, 0.09, top), 0.01, 6),
    ]
    return parts


def _fixtures(rng: Rng, solid: list[tuple[float, float]]) -> list[Mesh]:
    """Pictures, shelves, clocks, switches, hooks with clothes, cables: between the openings of a wall."""
    parts = []
    for a, b in solid:
        x = a + rng.uniform(0.05, 0.5)
        while x < b - 0.3:
            room, z = b - x - 0.05, rng.uniform(1.25, 1.6)
            kind = rng.random()
            w = min(room, rng.uniform(0.25, 0.9))
            if kind < 0.3:
                h, t = rng.uniform(0.25, 0.7), rng.uniform(0.015, 0.05)
                parts.append(slab(x, x + w, 0, 0.6 * t, z, z + h))
                parts += [slab(p, p + 0.03, 0, t, z, z + h) for p in (x, x + w - 0.03)]
                parts += [slab(x, x + w, 0, t, p, p + 0.03) for p in (z, z + h - 0.03)]
            elif kind < 0.55:
                d = rng.uniform(0.15, 0.28)
                parts.append(slab(x, x + w, 0, d, z - 0.025, z))
                parts += [
                    slab(p, p + 0.02, 0, 0.8 * d, z - 0.15, z - 0.025)
                    for p in (x + 0.05, x + w - 0.07)
                ]
                if rng.random() < 0.5:
                    parts.append(things.book_row(rng, w, 0.32, d).turned(0).moved((x, d, z)))
                else:
                    for p in np.arange(x + 0.1, x + w - 0.05, 0.2):
                        thing = things.SMALL[rng.integers(len(things.SMALL))](rng)
                        size = np.ptp(thing.vertices, 0)
                        s = min(1.0, 0.2 / size[0], d / size[1], 0.35 / size[2])
                        parts.append(thing.scaled((s,) * 3).moved((p, d / 2, z)))
            elif kind < 0.63:
                r = rng.uniform(0.1, 0.18)
                parts.append(
                    join([cylinder(r, 0.03, segments=26), torus(r, 0.015, (0, 0, 0.012))])
                    .turned(-np.pi / 2, 0)
                    .moved((x + r, 0.02, z + 0.3))
                )
                w = 2 * r
            elif kind < 0.78:
                parts.append(slab(x, x + w, 0, 0.02, z + 0.15, z + 0.22))
                for p in np.arange(x + 0.08, x + w, 0.16):
                    parts.append(
                        tube(
                            curve(
                                [(p, 0.02, z + 0.17), (p, 0.07, z + 0.16), (p, 0.08, z + 0.21)], 5
                            ),
                            0.008,
                            5,
                        )
                    )
                    if rng.random() < 0.6:
                        cloth = things.hanging_cloth(
                            rng, rng.uniform(0.2, 0.45), rng.uniform(0.4, 1.0)
                        )
                        parts.append(cloth.moved((p, 0.05, z + 0.18)))
            elif kind < 0.86:
                parts += [
                    rounded_box((0.085, 0.02, 0.085), 0.008, (x + 0.1, 0.01, p), 3)
                    for p in (0.3, 1.1)
                ]
                ends = [
                    (x + 0.1, 0.02, 0.3),
                    (x + 0.15, 0.05, 0.15),
                    (x + rng.uniform(0.2, 0.6), 0.06, 0.02),
                    (x + rng.uniform(0.5, 0.9), 0.1, 0.01),
                ]
                parts.append(tube(curve(ends, 16), 0.008, 5))
                w = 0.2
            elif kind < 0.93:
                outline = np.stack(
                    [np.cos(t := np.linspace(0, 2 * np.pi, 24, endpoint=False)), np.sin(t)], -1
                ) * [0.5 * w, 0.5 * w * rng.uniform(0.7, 1.6)]
                parts.append(
                    prism(outline, 0.03)
                    .turned(np.pi / 2, 0)
                    .moved((x + w / 2, 0.015, z + 0.25))
                    .of_material(things.DARK)
                )
            x += w + rng.uniform(0.15, 1.0)
    return parts
