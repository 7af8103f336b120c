"""A whole room from a seed: shell, furniture along the walls and in the middle, and what lies about."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparsefeat.checks import checked_seed
from sparsefeat.synthetic import furniture, shell, things
from sparsefeat.synthetic.furniture.pieces import Piece, Support
from sparsefeat.synthetic.shapes import Mesh, box, join, rod, rounded_box, slab

Rng = np.random.Generator
DARK_SHARE = (
    0.07  # of furniture and things, glossy or black enough to be lost to a depth camera from afar
)


class Room(NamedTuple):
    """A furnished room centred at the origin, floor at z = 0; sizes in metres."""

    kind: str
    width: float
    depth: float
    height: float
    mesh: Mesh
    obstacles: np.ndarray  # (B,4) rectangles x0, y0, x1, y1 of what stands taller than 1 m


class _Floor:
    """Which rectangles of the floor are taken."""

    def __init__(self, width: float, depth: float):
        self.half = np.array([width / 2, depth / 2])
        self.taken: list[tuple[float, float, float, float]] = []

    def free(self, rectangle: tuple[float, float, float, float], gap: float) -> bool:
        x0, y0, x1, y1 = rectangle
        if x0 < -self.half[0] or y0 < -self.half[1] or x1 > self.half[0] or y1 > self.half[1]:
            return False
        return all(
            x1 + gap <= a or c + gap <= x0 or y1 + gap <= b or d + gap <= y0
            for a, b, c, d in self.taken
        )


def _bounds(mesh: Mesh) -> tuple[float, float, float, float]:
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    return low[0], low[1], high[0], high[1]


def _footprint(
    width: float, depth: float, turn: float, x: float, y: float
) -> tuple[float, float, float, float]:
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    hx, hy = (width * c + depth * s) / 2, (width * s + depth * c) / 2
    return x - hx, y - hy, x + hx, y + hy


def scatter(rng: Rng, support: Support, density: float) -> list[Mesh]:
    """Small things on a support, about ``density`` per square metre, hardly ever touching."""
    w, d = support.x1 - support.x0, support.y1 - support.y0
    if w <= 0.05 or d <= 0.05:
        return []
    placed: list[tuple[float, float, float]] = []
    parts = []
    for _ in range(rng.poisson(density * w * d)):
        thing = support.things[rng.integers(len(support.things))](rng).turned(
            rng.uniform(0, 2 * np.pi)
        )
        low, high = thing.vertices.min(0), thing.vertices.max(0)
        size = high - low
        shrink = min(1.0, support.headroom / max(size[2], 1e-6), w / size[0], d / size[1])
        if shrink < 0.4:
            continue
        thing = thing.moved([-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0]).scaled(
            (shrink,) * 3
        )
        size = size * shrink
        for _ in range(8):
            x = rng.uniform(support.x0 + size[0] / 2, support.x1 - size[0] / 2 + 1e-6)
            y = rng.uniform(support.y0 + size[1] / 2, support.y1 - size[1] / 2 + 1e-6)
            r = 0.42 * np.hypot(size[0], size[1])
            if all((x - a) ** 2 + (y - b) ** 2 > (0.85 * (r + c)) ** 2 for a, b, c in placed):
                placed.append((x, y, r))
                if rng.random() < DARK_SHARE:
                    thing = thing.of_material(things.DARK)
                parts.append(thing.moved((x, y, support.z)))
                break
    return parts


def _furnished(rng: Rng, piece: Piece, density: float) -> Mesh:
    parts = [piece.mesh]
    if rng.random() < DARK_SHARE:
        parts[0] = piece.mesh.of_material(things.DARK)
    for support in piece.supports:
        parts += scatter(rng, support, density)
    return join(parts)


def _choose(rng: Rng, options) -> Callable[[Rng], Piece]:
    weights = np.array([w for _, w in options], float)
    return options[rng.choice(len(options), p=weights / weights.sum())][0]


def _centre_group(rng: Rng, kind: str, floor: _Floor, density: float) -> list[Mesh]:
    """A table with chairs, an island of desks, a coffee table: whatever stands in the middle."""
    turn = rng.choice([0, np.pi / 2]) + (
        rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(-0.8, 0.8)
    )
    if kind == "living" and rng.random() < 0.6:
        piece = furniture.table(rng, low=True)
    elif kind in ("office", "workshop"):
        piece = furniture.desk(rng) if rng.random() < 0.6 else furniture.table(rng)
    else:
        piece = furniture.table(rng)
    for _ in range(12):
        x, y = rng.uniform(-0.5, 0.5, 2) * floor.half
        spot = _footprint(piece.width, piece.depth, turn, x, y)
        if floor.free(spot, 0.35):
            break
    else:
        return []
    floor.taken.append(spot)
    parts = [_furnished(rng, piece, density)]
    group_reach = 0.0
    if piece.depth > 0.55 or rng.random() < 0.3:
        for side in range(4):
            along, across = (
                (piece.width, piece.depth) if side % 2 == 0 else (piece.depth, piece.width)
            )
            for k in range(max(1, int(along / 0.65))):
                if rng.random() < 0.35:
                    continue
                seat = (
                    furniture.office_chair
                    if kind == "office" or rng.random() < 0.15
                    else furniture.chair
                )(rng)
                offset = (k + 0.5) * along / max(1, int(along / 0.65)) - along / 2
                away = across / 2 + rng.uniform(-0.05, 0.3)
                one = seat.mesh.turned(np.pi + rng.normal(0, 0.3)).moved(
                    (offset, away + seat.depth / 2 - 0.15, 0)
                )
                parts.append(one.turned(side * np.pi / 2))
                group_reach = max(group_reach, away + seat.depth)
    group = join(parts).turned(turn).moved((x, y, 0))
    low, high = group.vertices.min(0), group.vertices.max(0)
    if (low[:2] > -floor.half).all() and (high[:2] < floor.half).all():
        return [group]
    return [join(parts[:1]).turned(turn).moved((x, y, 0))]


def _leaning(rng: Rng) -> Mesh:
    """Something long that leans on a wall at y = 0."""
    length, angle = rng.uniform(0.6, 1.9), rng.uniform(0.12, 0.4)
    kind = rng.integers(4)
    if kind == 0:
        one = box((rng.uniform(0.2, 0.8), rng.uniform(0.01, 0.04), length), (0, 0, length / 2))
    elif kind == 1:
        one = rod((0, 0, 0), (0, 0, length), rng.uniform(0.02, 0.09), 14)
    elif kind == 2:
        one = join(
            [
                rod((0, 0, 0), (0, 0, length), 0.013, 7),
                rounded_box((0.3, 0.06, 0.12), 0.03, (0, 0, 0.06), 4),
            ]
        )
    else:
        w = rng.uniform(0.4, 0.9)
        rim = [slab(x, x + 0.04, 0, 0.03, 0, length) for x in (-w / 2, w / 2 - 0.04)]
        rim += [slab(-w / 2, w / 2, 0, 0.03, z, z + 0.04) for z in (0, length - 0.04)]
        one = join([slab(-w / 2, w / 2, 0, 0.008, 0, length), *rim])
    return one.turned(angle, 0).moved((0, length * np.sin(angle) + 0.03, 0)).turned(0.0)


def make_room(seed: np.random.SeedSequence | int) -> Room:
    """A furnished room.

    Args:
        seed: decides everything.

    Returns:
        The room; its mesh has some 50 to 200 thousand triangles.

    Raises:
        InputError: another seed than a sequence or a whole number of at least 0.
    """
    rng = np.random.default_rng(
        seed if isinstance(seed, np.random.SeedSequence) else checked_seed(seed)
    )
    kind = str(rng.choice(list(furniture.WALL), p=[0.24, 0.2, 0.18, 0.2, 0.1, 0.08]))
    size = {"bath": (2.2, 3.4)}.get(kind, (3.0, 6.2))
    width, depth, height = rng.uniform(*size), rng.uniform(*size), rng.uniform(2.3, 2.9)
    density = rng.uniform(6, 26)
    floor = _Floor(width, depth)
    built = shell.build(rng, kind, width, depth, height)
    floor.taken += built.keep_clear
    parts = [built.mesh]
    obstacles = []
    lengths = (width, depth, width, depth)
    for wall in rng.permutation(4):
        turn = wall * np.pi / 2
        length, away = lengths[wall], lengths[(wall + 1) % 4] / 2
        x = -length / 2 + rng.uniform(0, 0.4)
        misses = 0
        while x < length / 2 - 0.3 and misses < 25:
            piece = _choose(rng, furniture.WALL[kind] if rng.random() < 0.88 else _EVERYTHING)(rng)
            tall = piece.mesh.vertices[:, 2].max()
            skew = rng.normal(0, 0.03) if rng.random() < 0.8 else rng.uniform(-0.5, 0.5)
            back = abs(np.sin(skew)) * piece.width / 2 + rng.uniform(0.01, 0.08)
            cx, cy = x + piece.width / 2, -away + piece.depth / 2 + back
            spot = _footprint(piece.width, piece.depth, skew, cx, cy)
            windows = [
                o
                for o in built.openings[wall]
                if o[0] < spot[2] and spot[0] < o[1] and o[2] < tall + 0.05
            ]
            corners = np.array([[spot[0], spot[1], 0], [spot[2], spot[3], 0]])
            spun = Mesh.of(corners, np.zeros((0, 3))).turned(turn).vertices
            rectangle = (spun[:, 0].min(), spun[:, 1].min(), spun[:, 0].max(), spun[:, 1].max())
            if (
                spot[2] > length / 2
                or windows
                or tall > height - 0.02
                or not floor.free(rectangle, 0.02)
            ):
                x, misses = x + 0.15, misses + 1
                continue
            floor.taken.append(rectangle)
            mesh = _furnished(rng, piece, density).turned(skew).moved((cx, cy, 0)).turned(turn)
            parts.append(mesh)
            if tall > 1.0:
                obstacles.append(rectangle)
            x = spot[2] + (rng.uniform(0.02, 0.12) if rng.random() < 0.5 else rng.uniform(0.2, 0.7))
    for _ in range(rng.integers(1, 2 + max(1, int(width * depth / 9)))):
        parts += _centre_group(rng, kind, floor, density)
    if rng.random() < 0.5:  # nothing is in a rug's way
        x, y = rng.uniform(-0.25, 0.25, 2) * [width, depth]
        parts.append(furniture.rug(rng).mesh.turned(rng.normal(0, 0.3)).moved((x, y, 0)))
    floor_things = rng.poisson(0.03 * density * width * depth) + 2
    for _ in range(floor_things):
        _drop(rng, floor, parts)
    for _ in range(rng.integers(0, 4)):
        wall = int(rng.integers(4))
        thing = _leaning(rng)
        w = np.ptp(thing.vertices[:, 0])
        along = rng.uniform(-0.5, 0.5) * (lengths[wall] - w - 0.2)
        thing = thing.moved((along, -lengths[(wall + 1) % 4] / 2, 0)).turned(wall * np.pi / 2)
        if floor.free(_bounds(thing), 0.0) and thing.vertices[:, 2].max() < height:
            floor.taken.append(_bounds(thing))
            parts.append(thing)
    return Room(kind, width, depth, height, join(parts), np.array(obstacles).reshape(-1, 4))


def _drop(rng: Rng, floor: _Floor, parts: list[Mesh]) -> None:
    """Put one thing on a free spot of the floor, if a few trials find one."""
    options = things.FLOOR
    thing = options[rng.integers(len(options))](rng).turned(rng.uniform(0, 2 * np.pi))
    for _ in range(6):
        moved = thing.moved((*(rng.uniform(-0.95, 0.95, 2) * floor.half), 0))
        if floor.free(_bounds(moved), 0.02):
            floor.taken.append(_bounds(moved))
            parts.append(moved)
            return


_EVERYTHING = tuple(option for options in furniture.WALL.values() for option in options)
