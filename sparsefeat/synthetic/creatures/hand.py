"""Hands: on people's arms, and large ones of their own, open, pointing, counting, making a fist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparsefeat.synthetic.creatures.body import Body, Builder, turn

FINGERS = ("index", "middle", "ring", "little")
PARTS = ("wrist", "palm", "thumb", *(f"{finger} finger" for finger in FINGERS))
# Lengths of a finger's bones over the finger's, by their number.
_BONES = {2: (0.5, 0.5), 3: (0.45, 0.30, 0.25)}


@dataclass(frozen=True)
class Build:
    """Proportions of a hand, relative to the average of 0.19 m.

    Attributes:
        size: of all.
        fingers: their length.
        thick: thickness of the fingers.
        palm: width.
        splay: how far apart the fingers are.
    """

    size: float = 1.0
    fingers: float = 1.0
    thick: float = 1.0
    palm: float = 1.0
    splay: float = 1.0


# Fingers of the template stand apart, so that a grid of one spacing tells them apart.
TEMPLATE = Build(thick=1.05, palm=1.15, splay=2.0)


def random_build(rng: np.random.Generator) -> Build:
    """Somebody's hand."""
    draw = np.clip(rng.normal(size=5), -1.8, 1.8)
    spread = (0.10, 0.06, 0.07, 0.05, 0.15)
    return Build(*(float(np.exp(s * d)) for s, d in zip(spread, draw, strict=True)))


def build(b: Build = TEMPLATE) -> Body:
    """A left hand of these proportions with a piece of the arm, along x, palm down. In metres."""
    make = Builder(PARTS, b.size)
    arm = make.bone("arm", None, (-0.05, 0, 0))
    make.cone(
        arm,
        "wrist",
        (-0.075, 0, 0),
        (0.005, 0, 0),
        (0.029, 0.026),
        (1.12, 0.8),
        (0, 1, 0),
        blend=0.006,
    )
    hand = make.bone("hand", arm, (0, 0, 0))

    def part(finger: str) -> str:
        return f"{finger} finger" if finger in FINGERS else finger

    palm_and_fingers(
        make,
        hand,
        (0, 0, 0),
        (1.0, b.palm),
        part,
        b.splay,
        bones=3,
        length=b.fingers,
        thick=b.thick,
    )
    return make.build()


def palm_and_fingers(
    make: Builder,
    hand: str,
    wrist: Sequence[float],
    scale: tuple[float, float],
    part: Callable[[str], str],
    splay: float = 1.0,
    bones: int = 2,
    length: float = 1.0,
    thick: float = 1.0,
) -> None:
    """Add palm, four fingers and a thumb from ``wrist`` along x, palm down, thumb to -y; 0.19 m long.

    Args:
        make: the builder.
        hand: bone of the palm; the fingers' are ``<hand> <finger> 1``, ``2``, ...
        wrist: where the palm begins.
        scale: factors along x (negative for a right hand) and of all else.
        part: name of the part, of "palm", "thumb", "index", ...
        splay: how far apart the fingers are.
        bones: of a finger, 2 or 3.
        length: factor of the fingers' length.
        thick: factor of the fingers' thickness.
    """
    size = scale[1]

    def at(x: float, y: float, z: float = 0.0) -> tuple[float, float, float]:
        return wrist[0] + scale[0] * x, wrist[1] + size * y, wrist[2] + size * z

    wide = 0.75 + 0.25 * splay
    palm = (at(0.012, 0.0), at(0.072, 0.002))
    radius = (0.026 * size, 0.030 * size * wide)
    make.cone(hand, part("palm"), *palm, radius, (1.25, 0.5 / wide), (0, 1, 0), blend=0.006 * size)
    ball = (at(0.02, -0.024, -0.004), at(0.045, -0.034, -0.006))
    make.cone(hand, part("palm"), *ball, (0.015 * size, 0.014 * size), blend=0.006 * size)
    for k, finger in enumerate(FINGERS):
        spread = 0.12 * (k - 1.4) * splay
        whole = (0.078, 0.088, 0.082, 0.065)[k] * length
        thickness = (0.0088, 0.0090, 0.0086, 0.0078)[k] * thick * size
        place = np.array([(0.086, 0.090, 0.087, 0.079)[k], (-0.031 + 0.0205 * k) * wide])
        along = np.array([np.cos(spread), np.sin(spread)])
        parent, radius = hand, 1.1 * thickness
        for joint, share in enumerate(_BONES[bones], 1):
            end = place + share * whole * along
            thinner = radius - 0.25 * thickness * share
            parent = make.bone(f"{hand} {finger} {joint}", parent, at(*place))
            make.cone(
                parent, part(finger), at(*place), at(*end), (radius, thinner), blend=0.003 * size
            )
            place, radius = end, thinner
    root, middle, tip = (0.030, -0.034, -0.004), (0.056, -0.068, -0.006), (0.082, -0.090, -0.006)
    first = make.bone(f"{hand} thumb 1", hand, at(*root))
    thickness = thick * size
    make.cone(
        first,
        part("thumb"),
        at(*root),
        at(*middle),
        (0.0125 * thickness, 0.0105 * thickness),
        blend=0.004 * size,
    )
    second = make.bone(f"{hand} thumb 2", first, at(*middle))
    make.cone(
        second,
        part("thumb"),
        at(*middle),
        at(*tip),
        (0.0105 * thickness, 0.0088 * thickness),
        blend=0.003 * size,
    )


# How far each finger is bent, from 0, straight, to 1: thumb, index, middle, ring, little.
POSES = {
    "open": (0.0, 0.04, 0.04, 0.04, 0.06),
    "point": (0.75, 0.0, 0.92, 0.95, 0.95),
    "fist": (0.85, 0.95, 0.97, 0.97, 0.97),
    "victory": (0.8, 0.0, 0.0, 0.95, 0.95),
    "thumb-up": (0.0, 0.96, 0.97, 0.97, 0.97),
    "relaxed": (0.2, 0.24, 0.30, 0.34, 0.36),
    "claw": (0.35, 0.5, 0.5, 0.52, 0.55),
    "horns": (0.8, 0.0, 0.95, 0.95, 0.0),
    "three": (0.8, 0.0, 0.0, 0.0, 0.95),
    "grasp": (0.6, 0.36, 0.38, 0.40, 0.42),
}


def make_pose(name: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A pose of this name: fingers point up, the palm looks at the viewer (-y) or a little aside."""

    def about(angle: float, spread: float) -> float:
        return float(angle + spread * np.clip(rng.normal(), -1.8, 1.8))

    thumb, *bent = POSES[name]
    pose = {"arm": turn(y=-90, z=about(-90, 15)), "hand": turn(y=about(0, 12), z=about(0, 7))}
    apart = 7.0 if name in ("victory", "horns") else 0.0
    for k, (finger, share) in enumerate(zip(FINGERS, bent, strict=True)):
        aside = apart * (k - 0.5) if share < 0.3 else 0.0
        for joint, most in enumerate((82, 95, 62), 1):
            angle = np.clip(about(most * share, 4), -6, most)
            pose[f"hand {finger} {joint}"] = turn(
                y=angle, z=aside + about(0, 1.5) if joint == 1 else 0.0
            )
    pose["hand thumb 1"] = turn(y=about(52 * thumb, 4), z=about(26 * thumb, 4))
    pose["hand thumb 2"] = turn(x=20 * thumb, y=22 * thumb, z=about(56 * thumb, 4))
    return pose
