"""Pieces of furniture: each function makes one, its back towards -y, standing on z = 0 about the origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparsefeat.data.synthetic import clutter
from sparsefeat.data.synthetic.shapes import (
    Mesh,
    SmoothNoise,
    box,
    capsule,
    curve,
    cushion,
    cylinder,
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


class Support(NamedTuple):
    """A horizontal place (metres, in the piece's frame) where small things may stand, and how tall they may be."""

    x0: float
    x1: float
    y0: float
    y1: float
    z: float
    headroom: float = 0.6
    things: tuple[Callable[[Rng], Mesh], ...] = clutter.SMALL


class Piece(NamedTuple):
    """A piece of furniture: its mesh, its footprint (width along x, depth along y) and its supports."""

    mesh: Mesh
    width: float
    depth: float
    supports: tuple[Support, ...] = ()


def _legs(rng: Rng, w: float, d: float, h: float) -> list[Mesh]:
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
                legs.append(rod((x + sx * splay, y + sy * splay, 0), (x, y, h), 0.6 * r, 8, 1.3 * r))
            else:
                turned = [(r, 0), (0.6 * r, 0.1 * h), (1.3 * r, 0.3 * h), (0.7 * r, 0.55 * h), (1.4 * r, 0.8 * h), (r, h)]
                legs.append(lathe(turned, 10, (x, y, 0)))
    if rng.random() < 0.4:
        z = rng.uniform(0.1, 0.4) * h
        legs += [rod((-w / 2 + inset, sy * (d / 2 - inset - r), z), (w / 2 - inset, sy * (d / 2 - inset - r), z), 0.7 * r, 6)
                 for sy in (-1, 1)]  # fmt: skip
    return legs


def _handle(rng: Rng, style: int, x: float, y: float, z: float, upright: bool) -> Mesh:
    """Door or drawer handle in front of the plane at ``y``."""
    if style == 0:
        return ellipsoid((0.035, 0.04, 0.035), (x, y + 0.02, z), 3)
    half = 0.06 if style == 1 else 0.11
    end = np.array([0, 0, half]) if upright else np.array([half, 0, 0])
    mid = np.array([x, y + 0.035, z])
    path = [mid - end - [0, 0.035, 0], mid - end, mid + end, mid + end - [0, 0.035, 0]]
    return tube(path, 0.008, 6)


def _fronts(rng: Rng, x0: float, x1: float, y: float, z0: float, z1: float, rows: int, columns: int) -> list[Mesh]:
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
                one += [slab(left, right, thick, thick + 0.012, z, z + rim) for z in (low, high - rim)]
                one += [slab(x, x + rim, thick, thick + 0.012, low, high) for x in (left, right - rim)]
            grip = right - 0.05 if tall and c % 2 == 0 else left + 0.05 if tall else (left + right) / 2
            one.append(_handle(rng, style, grip, thick, (low + high) / 2 if not tall else low + 0.6 * (high - low), tall))
            front = join(one)
            if rng.random() < 0.1:
                if tall:  # ajar
                    hinge = left if c % 2 == 0 else right
                    swing = rng.uniform(0.2, 1.3) * (1 if c % 2 == 0 else -1)
                    front = front.moved((-hinge, 0, 0)).turned(swing).moved((hinge, 0, 0))
                else:
                    pull = rng.uniform(0.05, 0.2)
                    front = join([front.moved((0, pull, 0)), slab(left + 0.02, right - 0.02, -0.2, pull, low + 0.02, low + 0.6 * (high - low))])
            parts.append(front.moved((0, y, 0)))
    return parts


def table(rng: Rng, low: bool = False) -> Piece:
    h = rng.uniform(0.35, 0.48) if low else rng.uniform(0.7, 0.78)
    w, d = (rng.uniform(0.6, 1.2), rng.uniform(0.45, 0.7)) if low else (rng.uniform(0.8, 1.9), rng.uniform(0.65, 0.95))
    t = rng.uniform(0.018, 0.045)
    style = rng.integers(4)
    things = clutter.SMALL if rng.random() < 0.5 else clutter.KITCHEN
    if style == 0:  # round, on a pedestal
        r = rng.uniform(0.3, 0.42) if low else rng.uniform(0.4, 0.6)
        leg = [(0.5 * r, 0), (0.45 * r, 0.02), (0.06, 0.06), (rng.uniform(0.03, 0.08), 0.4 * h), (0.04, 0.7 * h), (0.09, h - t)]
        mesh = join([cylinder(r, t, (0, 0, h - t / 2), 28), lathe(leg, 16)])
        return Piece(mesh, 2 * r, 2 * r, (Support(-0.65 * r, 0.65 * r, -0.65 * r, 0.65 * r, h, 0.6, things),))
    parts = [box((w, d, t), (0, 0, h - t / 2))]
    if style == 1:  # trestles
        for s in (-1, 1):
            x = s * (w / 2 - 0.15)
            parts += [rod((x, -d / 2 + 0.05, 0), (x, 0.1, h - t), 0.02), rod((x, d / 2 - 0.05, 0), (x, -0.1, h - t), 0.02)]
        parts.append(slab(-w / 2 + 0.15, w / 2 - 0.15, -0.03, 0.03, 0.3 * h, 0.3 * h + 0.05))
    else:
        parts += _legs(rng, w, d, h - t)
        if rng.random() < 0.6:  # apron
            a = rng.uniform(0.05, 0.12)
            parts += [slab(-w / 2 + 0.05, w / 2 - 0.05, y, y + 0.02, h - t - a, h - t) for y in (-d / 2 + 0.05, d / 2 - 0.07)]
            parts += [slab(x, x + 0.02, -d / 2 + 0.05, d / 2 - 0.05, h - t - a, h - t) for x in (-w / 2 + 0.05, w / 2 - 0.07)]
    if rng.random() < 0.25 and not low:
        parts.append(_tablecloth(rng, w, d, h))
    return Piece(join(parts), w, d, (Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.004, 0.6, things),))


def _tablecloth(rng: Rng, w: float, d: float, h: float) -> Mesh:
    drop = rng.uniform(0.12, 0.3)
    n = 44
    x, y = np.meshgrid(np.linspace(-1, 1, n) * (w / 2 + drop), np.linspace(-1, 1, n) * (d / 2 + drop), indexing="ij")
    over_x, over_y = np.maximum(np.abs(x) - w / 2, 0), np.maximum(np.abs(y) - d / 2, 0)
    over = np.maximum(over_x, over_y)
    wave = 0.025 * np.sin(16 * (x + y)) * np.minimum(over / drop, 1)
    px = np.clip(x, -w / 2 - 0.015, w / 2 + 0.015) + np.sign(x) * (over_x > 0) * (0.02 + wave)
    py = np.clip(y, -d / 2 - 0.015, d / 2 + 0.015) + np.sign(y) * (over_y > 0) * (0.02 + wave)
    return lattice(np.stack([px, py, h + 0.004 - over], -1))


def chair(rng: Rng) -> Piece:
    w, d, seat, top = rng.uniform(0.38, 0.48), rng.uniform(0.38, 0.48), rng.uniform(0.42, 0.48), rng.uniform(0.78, 1.05)
    parts = _legs(rng, w, d, seat - 0.02)
    parts.append(rounded_box((w, d, rng.uniform(0.03, 0.09)), 0.02, (0, 0, seat), 4) if rng.random() < 0.5 else box((w, d, 0.03), (0, 0, seat)))
    lean, style = rng.uniform(0.05, 0.25), rng.integers(4)
    rise = top - seat
    if style == 0:
        back = [rod((x, 0, 0), (x, 0, rise), 0.016, 8) for x in (-w / 2 + 0.03, w / 2 - 0.03)]
        back += [slab(-w / 2, w / 2, -0.01, 0.01, z, z + rng.uniform(0.04, 0.09)) for z in np.linspace(0.3, 0.85, rng.integers(2, 4)) * rise]
    elif style == 1:
        back = [rod((x, 0, 0), (x * 1.1, 0, rise), 0.01, 6) for x in np.linspace(-w / 2 + 0.03, w / 2 - 0.03, 6)]
        back.append(tube(curve([(-w * 0.55, 0, rise - 0.02), (0, -0.04, rise + 0.03), (w * 0.55, 0, rise - 0.02)], 9), 0.02))
    else:
        u, v = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(0, 1, 8), indexing="ij")
        bend = rng.uniform(0.0, 0.1)
        shell = np.stack([u * w / 2 * (1 - 0.15 * v**3), -bend * (1 - u**2) + 0.03 * np.sin(5 * v), (0.05 + 0.95 * v) * rise], -1)
        back = [lattice(shell), lattice(shell - [0, rng.uniform(0.012, 0.06), 0])]
    parts.append(join(back).turned(lean, 0).moved((0, -d / 2 + 0.02, seat)))
    if rng.random() < 0.3:
        for s in (-1, 1):
            x = s * (w / 2 + 0.01)
            parts.append(tube([(x, -d / 2, seat + 0.22), (x, d / 2 - 0.05, seat + 0.22), (x, d / 2 - 0.05, seat)], 0.018, 6))
    if rng.random() < 0.25:
        parts.append(clutter.cloth_heap(rng).moved((0, 0, seat + 0.03)))
    elif rng.random() < 0.2:
        parts.append(cushion((w * 0.9, d * 0.9, 0.08), (0, 0, seat + 0.05)))
    return Piece(join(parts), w, d + 0.05)


def office_chair(rng: Rng) -> Piece:
    seat, top = rng.uniform(0.44, 0.54), rng.uniform(0.4, 0.7)
    parts = [rod((0, 0, 0.08), (0, 0, seat), 0.03)]
    for k in range(5):
        a = k * 2 * np.pi / 5 + rng.uniform(0, 0.2)
        end = np.array([0.3 * np.cos(a), 0.3 * np.sin(a), 0.06])
        parts += [rod((0, 0, 0.12), end, 0.025, 6, 0.018), torus(0.022, 0.014, (0, 0, 0), 10, 6).turned(np.pi / 2, 0).turned(a).moved(end - [0, 0, 0.025])]
    parts.append(wobble(rounded_box((0.48, 0.46, 0.09), 0.04, (0, 0, seat), 6), rng, 0.006, 0.3))
    u, v = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(0, 1, 9), indexing="ij")
    wide = 0.22 * (1 - 0.35 * (2 * v - 1) ** 4)
    front = np.stack([u * wide, -0.07 * (1 - u**2) - 0.05 * np.sin(3 * v), 0.08 + v * top], -1)
    parts += [join([lattice(front), lattice(front - [0, 0.05, 0])]).turned(0.15, 0).moved((0, -0.2, seat)), box((0.06, 0.02, 0.3), (0, -0.27, seat + 0.1))]
    if rng.random() < 0.7:
        for s in (-1, 1):
            parts += [rounded_box((0.06, 0.24, 0.03), 0.014, (s * 0.28, 0, seat + 0.22), 4), rod((s * 0.27, 0, seat - 0.02), (s * 0.28, 0, seat + 0.21), 0.015, 6)]
    return Piece(join(parts), 0.62, 0.62)


def stool(rng: Rng) -> Piece:
    r, h = rng.uniform(0.15, 0.2), rng.uniform(0.4, 0.7)
    parts = [cylinder(r, 0.04, (0, 0, h), 18)]
    for k in range(rng.integers(3, 5)):
        a = k * 2 * np.pi / 3.5
        parts.append(rod((1.1 * r * np.cos(a), 1.1 * r * np.sin(a), 0), (0.7 * r * np.cos(a), 0.7 * r * np.sin(a), h), 0.014, 6))
    parts.append(torus(0.95 * r, 0.01, (0, 0, 0.35 * h), 16, 6))
    return Piece(join(parts), 2.2 * r, 2.2 * r)


def sofa(rng: Rng, seats: int | None = None) -> Piece:
    seats = int(rng.integers(1, 4)) if seats is None else seats
    arm, inner = rng.uniform(0.12, 0.25), seats * rng.uniform(0.55, 0.7)
    w, d, seat, top = inner + 2 * arm, rng.uniform(0.75, 0.95), rng.uniform(0.36, 0.44), rng.uniform(0.7, 0.95)
    armtop, soft = rng.uniform(0.5, 0.65), rng.uniform(0.03, 0.09)
    parts = [slab(-w / 2 + 0.02, w / 2 - 0.02, -d / 2 + 0.02, d / 2 - 0.04, rng.uniform(0.02, 0.12), seat - 0.12)]
    parts.append(wobble(rounded_box((w, 0.22, top), soft, (0, 0, top / 2), 7), rng, 0.006, 0.4).turned(0.08, 0).moved((0, -d / 2 + 0.11, 0.02)))
    for s in (-1, 1):
        side = rounded_box((arm, d, armtop), soft, (s * (w - arm) / 2, 0, armtop / 2), 6)
        parts.append(side)
        if rng.random() < 0.4:
            parts.append(capsule((s * (w - arm) / 2, -d / 2 + 0.1, armtop), (s * (w - arm) / 2, d / 2 - 0.1, armtop), arm * 0.6, 12))
    each = inner / seats
    for k in range(seats):
        x = -inner / 2 + (k + 0.5) * each
        parts.append(wobble(rounded_box((each - 0.01, d - 0.3, 0.17), 0.06, (x, 0.08, seat), 7), rng, 0.008, 0.25))
        back = rounded_box((each - 0.02, 0.17, top - seat), 0.07, (0, 0, (top - seat) / 2), 7)
        parts.append(wobble(back, rng, 0.012, 0.25).turned(0.18, 0).moved((x, -d / 2 + 0.3, seat + 0.05)))
    for _ in range(rng.integers(0, 4)):
        pillow = clutter.pillow(rng).scaled(0.8).turned(rng.uniform(0.7, 1.3), 0).turned(rng.normal(0, 0.5))
        parts.append(pillow.moved((rng.uniform(-0.4, 0.4) * inner, -d / 2 + rng.uniform(0.42, 0.55), seat + 0.24)))
    if rng.random() < 0.5:
        parts.append(_throw(rng, (rng.choice([-1, 1]) * (w - arm) / 2, 0, armtop + 0.02), arm + 0.1, d * rng.uniform(0.4, 0.8)))
    return Piece(join(parts), w, d, (Support(-inner / 2, inner / 2, 0.0, d / 2 - 0.05, seat + 0.08, 0.4, (clutter.toy, clutter.bag, clutter.books, clutter.cloth_heap)),))


def _throw(rng: Rng, center, width: float, depth: float) -> Mesh:
    """A blanket over an arm rest or a bed's edge, hanging down on both sides."""
    u, v = np.meshgrid(np.linspace(-1, 1, 22), np.linspace(-0.5, 0.5, 16), indexing="ij")
    over = np.maximum(np.abs(u) * width - width * 0.5, 0) * 1.6
    points = np.stack([np.clip(u, -0.52, 0.52) * width, v * depth, -over], -1)
    points += 0.012 * np.stack([SmoothNoise(rng, 0.15)(points) for _ in range(3)], -1)
    return lattice(points).moved(center)


def bed(rng: Rng) -> Piece:
    w, d, h = rng.choice([0.9, 1.2, 1.5, 1.7]) + rng.uniform(-0.05, 0.05), rng.uniform(1.95, 2.1), rng.uniform(0.4, 0.6)
    head = rng.uniform(0.7, 1.2)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2, 0.08, h - 0.2), rounded_box((w - 0.02, d - 0.04, 0.22), 0.06, (0, 0, h - 0.1), 7)]
    board = slab(-w / 2 - 0.03, w / 2 + 0.03, -d / 2 - 0.05, -d / 2, 0, head)
    if rng.random() < 0.4:
        bars = [rod((x, -d / 2, 0.2), (x, -d / 2, head), 0.014, 6) for x in np.linspace(-w / 2, w / 2, 9)]
        board = join([*bars, tube(curve([(-w / 2, -d / 2, head), (0, -d / 2, head + 0.12), (w / 2, -d / 2, head)], 12), 0.025)])
    parts.append(board)
    n, reach = 40, rng.uniform(0.55, 0.75) * d  # the cover: over both sides and the foot
    x, y = np.meshgrid(np.linspace(-1, 1, n) * (w / 2 + 0.28), np.linspace(d / 2 + 0.22 - reach - 0.2, d / 2 + 0.22, n), indexing="ij")
    hang = np.maximum(np.maximum(np.abs(x) - w / 2, y - d / 2), 0)
    cover = np.stack([np.clip(x, -w / 2 - 0.03, w / 2 + 0.03), np.minimum(y, d / 2 + 0.03), h + 0.03 - hang], -1)
    bumps = 0.02 * SmoothNoise(rng, 0.5)(cover) + 0.014 * SmoothNoise(rng, 0.16)(cover)
    cover[..., 2] += np.where(hang > 0, 0, np.abs(bumps) * 1.3)
    cover[..., 0] += np.where(np.abs(x) > w / 2, np.sign(x) * (0.015 + np.abs(bumps)), 0)
    cover[..., 1] += np.where(y > d / 2, 0.015 + np.abs(bumps), 0)
    parts.append(lattice(cover))
    if rng.random() < 0.5:
        parts.append(wobble(rounded_box((w, 0.3, 0.09), 0.04, (0, d / 2 - reach, h + 0.05), 8), rng, 0.014, 0.2))
    for x0 in np.linspace(-w / 2, w / 2, 3 if w > 1.3 else 2)[:-1] + w / (4 if w > 1.3 else 2):
        pillow = clutter.pillow(rng).scaled((1.2, 1.1, 1.0)).turned(rng.uniform(0.0, 0.7), 0)
        parts.append(pillow.moved((x0 + rng.normal(0, 0.03), -d / 2 + 0.3, h + 0.08)))
    things = (clutter.cloth_heap, clutter.toy, clutter.books, clutter.bag, clutter.towel, clutter.pillow)
    return Piece(join(parts), w + 0.1, d + 0.1, (Support(-w / 2 + 0.1, w / 2 - 0.1, 0, d / 2 - 0.2, h + 0.05, 0.5, things),))


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
                parts.append(clutter.book_row(rng, span, room, d).moved((x, d / 2 - rng.uniform(0.01, 0.06), floor)))
            elif kind < 0.85:
                thing = clutter.SMALL[rng.integers(len(clutter.SMALL))](rng)
                fitted = _fit(thing, span - 0.01, d - 0.03, room - 0.02)
                parts.append(fitted.moved((x + span / 2, 0, floor)))
            x += span
    return Piece(join(parts), w, d, (Support(-w / 2, w / 2, -d / 2, d / 2, h, 0.4),))


def _fit(mesh: Mesh, width: float, depth: float, height: float) -> Mesh:
    """The mesh shrunk, if it must be, to fit a box, and centred over the origin."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    scale = min(1.0, *(np.array([width, depth, height]) / np.maximum(high - low, 1e-6)))
    return mesh.moved([-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0]).scaled((scale, scale, scale))


def cabinet(rng: Rng) -> Piece:
    """Chest of drawers, sideboard or wardrobe."""
    tall = rng.random() < 0.35
    w, d, h = rng.uniform(0.5, 1.5), rng.uniform(0.38, 0.6), rng.uniform(1.5, 2.1) if tall else rng.uniform(0.55, 1.1)
    base = rng.uniform(0.02, 0.14)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2 - 0.02, base, h), slab(-w / 2 - 0.015, w / 2 + 0.015, -d / 2, d / 2 + 0.01, h, h + 0.025)]
    parts += _legs(rng, w, d, base) if base > 0.07 else [slab(-w / 2 + 0.02, w / 2 - 0.02, -d / 2, d / 2 - 0.06, 0, base)]
    columns = max(1, round(w / rng.uniform(0.4, 0.7)))
    rows = 1 if tall or rng.random() < 0.3 else int(rng.integers(2, 6))
    parts += _fronts(rng, -w / 2, w / 2, d / 2 - 0.02, base, h, rows, columns)
    return Piece(join(parts), w + 0.03, d + 0.04, (Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.025, 0.6),))


def kitchen(rng: Rng) -> Piece:
    """A run of counter with sink, hob, wall cabinets or open shelves above."""
    w, d, h = rng.uniform(1.4, 2.8), rng.uniform(0.56, 0.64), rng.uniform(0.86, 0.94)
    sink = rng.uniform(-w / 2 + 0.35, w / 2 - 0.35)
    sw, top = rng.uniform(0.2, 0.28), 0.035
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2 - 0.06, 0.0, 0.1), slab(-w / 2, w / 2, -d / 2, d / 2 - 0.02, 0.1, h - 0.2)]
    parts += [slab(-w / 2, sink - sw, -d / 2, d / 2, h - top, h), slab(sink + sw, w / 2, -d / 2, d / 2, h - top, h)]
    parts += [slab(sink - sw, sink + sw, -d / 2, -d / 2 + 0.1, h - top, h), slab(sink - sw, sink + sw, d / 2 - 0.09, d / 2, h - top, h)]
    parts += [slab(x, x + 0.01, -d / 2 + 0.1, d / 2 - 0.09, h - 0.2, h) for x in (sink - sw, sink + sw - 0.01)]
    parts += [slab(-w / 2, w / 2, d / 2 - 0.04, d / 2 - 0.02, h - 0.2, h - top)]
    tap = curve([(sink, -d / 2 + 0.06, h), (sink, -d / 2 + 0.06, h + 0.22), (sink, -d / 2 + 0.14, h + 0.3), (sink, -d / 2 + 0.24, h + 0.2)], 12)
    parts += [tube(tap, 0.014, 8), rod((sink + 0.03, -d / 2 + 0.06, h), (sink + 0.09, -d / 2 + 0.07, h + 0.1), 0.01, 6)]
    parts += _fronts(rng, -w / 2, w / 2, d / 2 - 0.02, 0.1, h - top, int(rng.integers(1, 4)), max(2, round(w / 0.5)))
    hob = sink + 0.75 if sink < 0 else sink - 0.75
    if abs(hob) < w / 2 - 0.3:
        parts.append(slab(hob - 0.28, hob + 0.28, -0.24, 0.24, h, h + 0.012))
        for x in (-0.13, 0.13):
            parts += [torus(0.08, 0.012, (hob + x, y, h + 0.03), 14, 6) for y in (-0.12, 0.12)]
        if rng.random() < 0.7:
            parts.append(clutter.pot(rng).moved((hob + 0.13, -0.12, h + 0.04)))
        if rng.random() < 0.6:
            hood = tapered_box((0.6, 0.45, 0.25), 0.4, (0, -0.1), (hob, -d / 2 + 0.225, h + 0.85))
            parts += [hood, slab(hob - 0.12, hob + 0.12, -d / 2, -d / 2 + 0.22, h + 0.9, 2.4)]
    supports = [Support(-w / 2, sink - sw, -d / 2, d / 2, h, 0.5, clutter.KITCHEN), Support(sink + sw, w / 2, -d / 2, d / 2, h, 0.5, clutter.KITCHEN)]
    low, above = h + rng.uniform(0.48, 0.62), rng.random()
    if above < 0.5:
        depth = rng.uniform(0.28, 0.36)
        x0, x1 = (-w / 2, min(hob - 0.32, w / 2)) if hob > 0 else (max(hob + 0.32, -w / 2), w / 2)
        if x1 - x0 > 0.4:
            parts.append(slab(x0, x1, -d / 2, -d / 2 + depth, low, low + 0.65))
            parts += _fronts(rng, x0, x1, -d / 2 + depth, low, low + 0.65, 1, max(1, round((x1 - x0) / 0.45)))
    elif above < 0.85:
        for z in (low, low + 0.34):
            parts.append(slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.26, z, z + 0.025))
            supports.append(Support(-w / 2, w / 2, -d / 2, -d / 2 + 0.26, z + 0.025, 0.28, clutter.KITCHEN))
    return Piece(join(parts), w, d, tuple(supports))


def fridge(rng: Rng) -> Piece:
    w, d, h, split = rng.uniform(0.55, 0.75), rng.uniform(0.58, 0.7), rng.uniform(1.3, 1.9), rng.uniform(0.25, 0.6)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2 - 0.06, 0, h)]
    for z0, z1 in ((0.06, split * h), (split * h + 0.01, h)):
        parts.append(rounded_box((w, 0.06, z1 - z0), 0.02, (0, d / 2 - 0.03, (z0 + z1) / 2), 5))
        parts.append(_handle(rng, 2, -w / 2 + 0.06, d / 2, (z0 + z1) / 2, True))
    return Piece(join(parts), w, d + 0.04, (Support(-w / 2, w / 2, -d / 2, d / 2, h, 0.3, clutter.KITCHEN),))


def desk(rng: Rng) -> Piece:
    w, d, h = rng.uniform(1.1, 1.8), rng.uniform(0.6, 0.8), rng.uniform(0.7, 0.77)
    parts = [box((w, d, 0.03), (0, 0, h - 0.015))]
    if rng.random() < 0.6:
        side = rng.choice([-1, 1])
        x0, x1 = sorted((side * (w / 2 - 0.02), side * (w / 2 - 0.45)))
        parts += [slab(x0, x1, -d / 2 + 0.03, d / 2 - 0.05, 0.03, h - 0.03), *_fronts(rng, x0, x1, d / 2 - 0.05, 0.03, h - 0.03, 3, 1)]
        x = -side * (w / 2 - 0.05)
        parts += [box((0.04, d - 0.1, h - 0.03), (x, 0, (h - 0.03) / 2)), slab(-w / 2, w / 2, -d / 2 + 0.05, -d / 2 + 0.07, 0.35, h - 0.03)]
    else:
        parts += _legs(rng, w, d, h - 0.03)
    spread = rng.uniform(-0.25, 0.25) * w
    screens = int(rng.integers(1, 3))
    for k in range(screens):
        turn = rng.normal(0, 0.15) + (0.25 if k else -0.2) * (screens > 1)
        parts.append(clutter.monitor(rng).turned(turn).moved((spread + (k - 0.5 * (screens - 1)) * 0.55, -d / 2 + 0.22, h)))
    parts.append(clutter.keyboard(rng).turned(rng.normal(0, 0.1)).moved((spread, d / 2 - 0.18, h)))
    if rng.random() < 0.6:  # cables down the back
        for _ in range(rng.integers(1, 4)):
            x = spread + rng.uniform(-0.4, 0.4)
            path = [(x, -d / 2 + 0.1, h), (x, -d / 2 - 0.01, h - 0.1), (x + rng.normal(0, 0.2), -d / 2 + 0.08, 0.3), (x + rng.normal(0, 0.3), -d / 2 + 0.1, 0.01)]
            parts.append(tube(curve(path, 14), 0.008, 5))
    supports = [Support(-w / 2, spread - 0.35, -d / 2, d / 2, h, 0.6, clutter.OFFICE), Support(spread + 0.4, w / 2, -d / 2, d / 2, h, 0.6, clutter.OFFICE)]
    if rng.random() < 0.3:
        z = h + rng.uniform(0.55, 0.75)
        parts.append(slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.25, z, z + 0.025))
        supports.append(Support(-w / 2, w / 2, -d / 2, -d / 2 + 0.25, z + 0.025, 0.4, clutter.OFFICE))
    return Piece(join(parts), w, d, tuple(s for s in supports if s.x1 - s.x0 > 0.1))


def tv_stand(rng: Rng) -> Piece:
    w, d, h = rng.uniform(1.0, 1.7), rng.uniform(0.38, 0.5), rng.uniform(0.35, 0.55)
    parts = [slab(-w / 2, w / 2, -d / 2, d / 2, z, z + 0.025) for z in (0.06, 0.28, h - 0.025)[:: 1 if h > 0.4 else 2]]
    parts += [slab(x, x + 0.025, -d / 2, d / 2, 0, h) for x in (-w / 2, 0, w / 2 - 0.025)]
    parts += [_fit(clutter.carton(rng), 0.4, d - 0.05, 0.18).moved((x, 0, 0.085)) for x in (-w / 4, w / 4)]
    screen = rng.uniform(1.2, 2.0)
    parts.append(clutter.monitor(rng).scaled((screen, 1, screen)).moved((0, 0, h)))
    return Piece(join(parts), w, d, (Support(-w / 2, -w / 2 + 0.25, -d / 2, d / 2, h), Support(w / 2 - 0.25, w / 2, -d / 2, d / 2, h)))


def floor_lamp(rng: Rng) -> Piece:
    h, r, style = rng.uniform(1.3, 1.8), rng.uniform(0.14, 0.26), rng.random()
    shade = lathe([(r, 0), (rng.uniform(0.4, 1.0) * r, 0.3)], 22)
    if style < 0.5:
        mesh = join([cylinder(0.15, 0.03, (0, 0, 0.015), 20), rod((0, 0, 0), (0, 0, h), 0.014), shade.moved((0, 0, h - 0.2))])
    else:  # arched
        arch = curve([(0, 0, 0), (0, 0, 0.7 * h), (0.15, 0.1, h), (0.45, 0.3, 0.95 * h)], 16)
        mesh = join([cylinder(0.16, 0.04, (0, 0, 0.02), 20), tube(arch, 0.014), ellipsoid((0.3, 0.3, 0.22), arch[-1] - [0, 0, 0.1], 5)])
    return Piece(mesh, 0.4, 0.4)


def big_plant(rng: Rng) -> Piece:
    return Piece(clutter.plant(rng, rng.uniform(0.5, 1.0)), 0.5, 0.5)


def coat_rack(rng: Rng) -> Piece:
    h = rng.uniform(1.6, 1.85)
    parts = [rod((0, 0, 0), (0, 0, h), 0.022)]
    for k in range(4):
        a = k * np.pi / 2 + rng.uniform(0, 0.4)
        out = np.array([np.cos(a), np.sin(a), 0])
        parts += [rod((0, 0, 0.1), 0.28 * out, 0.016, 6), tube(curve([(0, 0, h - 0.15), 0.1 * out + [0, 0, h - 0.12], 0.16 * out + [0, 0, h]], 7), 0.012, 6)]
        if rng.random() < 0.7:
            coat = clutter.hanging_cloth(rng, rng.uniform(0.25, 0.4), rng.uniform(0.6, 1.0))
            parts.append(coat.turned(a - np.pi / 2).moved(0.08 * out + [0, 0, h - 0.08]))
    return Piece(join(parts), 0.6, 0.6)


def bin_(rng: Rng) -> Piece:
    r, h = rng.uniform(0.12, 0.2), rng.uniform(0.28, 0.6)
    parts = [lathe([(0, 0), (0.8 * r, 0), (r, h), (0.95 * r, h), (0.78 * r, 0.02), (0, 0.02)], 20)]
    if rng.random() < 0.5:
        parts.append(wobble(ellipsoid((1.8 * r, 1.8 * r, 0.2), (0, 0, h - 0.04), 6), rng, 0.02, 0.12))
    return Piece(join(parts), 2 * r, 2 * r)


def stand_of_boxes(rng: Rng) -> Piece:
    parts, x = [], -0.3
    for _ in range(rng.integers(2, 4)):
        one = clutter.box_stack(rng)
        parts.append(one.turned(rng.normal(0, 0.15)).moved((x, rng.uniform(-0.05, 0.1), 0)))
        x += rng.uniform(0.3, 0.45)
    return Piece(join(parts), 1.0, 0.5)


def ladder(rng: Rng) -> Piece:
    h, w = rng.uniform(0.8, 1.8), rng.uniform(0.35, 0.45)
    parts = [rod((s * w / 2, 0.35, 0), (s * 0.4 * w, 0, h), 0.02, 6) for s in (-1, 1)]
    parts += [rod((s * w / 2, -0.35, 0), (s * 0.4 * w, 0, h), 0.018, 6) for s in (-1, 1)]
    parts += [box((w * (0.98 - 0.18 * t), 0.09, 0.025), (0, 0.35 * (1 - t), t * h)) for t in np.linspace(0.12, 0.97, max(3, int(h / 0.27)))]
    return Piece(join(parts), w, 0.75)


def washbasin(rng: Rng) -> Piece:
    r, h = rng.uniform(0.22, 0.28), rng.uniform(0.8, 0.88)
    t = np.linspace(0.1, 1, 7)
    shell = np.stack([r * t, h - 0.16 * (1 - t**2.5)], -1)
    basin = lathe(np.concatenate([[(0.1, h - 0.2), (r * 1.06, h - 0.03), (r * 1.08, h)], shell[::-1], [(0, shell[0, 1])]]), 26).scaled((1.15, 0.9, 1))
    tap = tube(curve([(0, -0.18, h), (0, -0.18, h + 0.12), (0, -0.06, h + 0.12)], 8), 0.013, 7)
    mirror = slab(-0.25, 0.25, -0.24, -0.225, 1.2, 1.8).of_material(clutter.DARK)
    return Piece(join([basin, tap, mirror, lathe([(0.12, 0), (0.08, 0.1), (0.075, 0.5), (0.12, h - 0.18)], 18)]), 0.6, 0.5)


def toilet(rng: Rng) -> Piece:
    bowl = lathe([(0.12, 0), (0.11, 0.12), (0.19, 0.36), (0.2, 0.4), (0.14, 0.4), (0.1, 0.25), (0, 0.2)], 24).scaled((0.95, 1.25, 1)).moved((0, 0.1, 0))
    lid = prism(np.stack([0.19 * np.cos(a := np.linspace(0, 6.28, 20, endpoint=False)), 0.24 * np.sin(a)], -1), 0.025)
    lid = lid.turned(np.pi / 2 - 0.15, 0).moved((0, -0.13, 0.64)) if rng.random() < 0.6 else lid.moved((0, 0.1, 0.42))
    return Piece(join([bowl, lid, rounded_box((0.38, 0.17, 0.36), 0.03, (0, -0.25, 0.58), 5)]), 0.42, 0.7)


def bicycle(rng: Rng) -> Piece:
    parts, r = [], 0.33
    for x in (-0.52, 0.52):
        wheel = [torus(r, 0.02, (0, 0, 0), 28, 7)] + [rod((0, 0, 0), (r * np.cos(a), r * np.sin(a), 0), 0.004, 4) for a in np.linspace(0, 5.8, 9)]
        parts.append(join(wheel).turned(np.pi / 2, 0).moved((x, 0, r)))
    seat, head, crank, rear, front = (-0.17, 0, 0.85), (0.38, 0, 0.85), (-0.05, 0, 0.3), (-0.52, 0, r), (0.52, 0, r)
    for a, b in ((seat, crank), (seat, head), (head, crank), (crank, rear), (seat, rear), (head, front)):
        parts.append(rod(a, b, 0.018, 7))
    parts += [ellipsoid((0.26, 0.14, 0.07), (-0.2, 0, 0.92), 4), rod(head, (0.34, 0, 1.0), 0.016, 6)]
    parts.append(tube(curve([(0.25, -0.28, 1.0), (0.36, -0.12, 1.02), (0.36, 0.12, 1.02), (0.25, 0.28, 1.0)], 12), 0.014, 6))
    return Piece(join(parts).turned(rng.uniform(-0.2, 0.0), 0), 1.75, 0.55)


def pegboard(rng: Rng) -> Piece:
    """A workbench with tools hanging over it."""
    w, d, h = rng.uniform(1.0, 1.6), 0.6, 0.85
    parts = [box((w, d, 0.05), (0, 0, h)), *_legs(rng, w, d, h), slab(-w / 2, w / 2, -d / 2, -d / 2 + 0.02, h + 0.2, h + 0.95), box((w - 0.1, d - 0.1, 0.03), (0, 0, 0.25))]
    for _ in range(rng.integers(6, 14)):
        x, z, length = rng.uniform(-w / 2 + 0.1, w / 2 - 0.1), h + rng.uniform(0.35, 0.85), rng.uniform(0.1, 0.25)
        tool = rng.integers(3)
        if tool == 0:
            parts += [rod((x, -d / 2 + 0.04, z), (x + rng.normal(0, 0.02), -d / 2 + 0.04, z - length), 0.014, 6), box((0.1, 0.03, 0.04), (x, -d / 2 + 0.04, z))]
        elif tool == 1:
            parts.append(torus(length / 2.5, 0.014, segments=16, sides=6).turned(np.pi / 2, 0).moved((x, -d / 2 + 0.04, z - length / 2.5)))
        else:
            parts.append(_fit(clutter.bracket(rng), 0.2, 0.12, 0.2).moved((x, -d / 2 + 0.08, z - 0.15)))
    things = (clutter.bracket, clutter.can, clutter.carton, clutter.cable, clutter.box_stack, clutter.basket)
    return Piece(join(parts), w, d, (Support(-w / 2, w / 2, -d / 2, d / 2, h + 0.025, 0.5, things), Support(-w / 2 + 0.1, w / 2 - 0.1, -d / 2 + 0.1, d / 2 - 0.1, 0.265, 0.4, things)))


def rug(rng: Rng) -> Piece:
    w, d = rng.uniform(0.8, 2.0), rng.uniform(0.6, 1.4)
    return Piece(sheet(w, d, rng, 0.012, 0.5, 16), w, d)


WALL: dict[str, tuple[tuple[Callable[[Rng], Piece], float], ...]] = {
    "living": ((sofa, 3), (bookshelf, 3), (tv_stand, 2), (cabinet, 2), (floor_lamp, 1), (big_plant, 1.5), (table, 1), (desk, 1), (stand_of_boxes, 0.5), (bicycle, 0.3)),
    "bed": ((bed, 4), (cabinet, 3), (bookshelf, 1.5), (desk, 1.5), (coat_rack, 1), (floor_lamp, 1), (tv_stand, 1), (big_plant, 0.7), (chair, 1), (stand_of_boxes, 0.5)),
    "kitchen": ((kitchen, 5), (fridge, 2), (cabinet, 1.5), (table, 1), (bin_, 1), (stool, 1), (bookshelf, 1), (big_plant, 0.5)),
    "office": ((desk, 5), (bookshelf, 3), (cabinet, 2), (stand_of_boxes, 1), (coat_rack, 0.7), (big_plant, 1), (bin_, 1), (office_chair, 1), (bicycle, 0.5)),
    "workshop": ((pegboard, 4), (bookshelf, 2), (stand_of_boxes, 2), (ladder, 1), (cabinet, 1), (bicycle, 1), (desk, 1), (stool, 1)),
    "bath": ((washbasin, 3), (toilet, 3), (cabinet, 2), (coat_rack, 0.5), (bin_, 1), (stool, 0.7), (bookshelf, 0.7)),
}  # fmt: skip
