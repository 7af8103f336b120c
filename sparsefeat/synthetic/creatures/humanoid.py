"""People: adults, children, slim and stout ones, standing, walking, reaching, sitting, lying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsefeat.synthetic.creatures.body import LEFT, RIGHT, Body, Builder
from sparsefeat.synthetic.creatures.hand import palm_and_fingers

PARTS = (
    "head",
    "neck",
    "torso",
    *(f"{side} {part}" for part in ("upper arm", "forearm", "hand") for side in ("left", "right")),
    *(f"{side} {part}" for part in ("thigh", "calf", "foot") for side in ("left", "right")),
)
SIDES = {LEFT: "left", RIGHT: "right"}


@dataclass(frozen=True)
class Build:
    """Proportions of a person. Lengths in metres for a person of 1.75 m, factors relative to the average.

    Attributes:
        height: metres.
        leg, arm, torso: lengths.
        shoulder, hip: widths.
        girth: thickness of all but bones.
        muscle: thickness of arms, calves and shoulders.
        belly, bust: from 0, flat, to 1.
        head, hand, foot: sizes.
        splay: how far apart the fingers are.
    """

    height: float = 1.75
    leg: float = 1.0
    arm: float = 1.0
    torso: float = 1.0
    shoulder: float = 1.0
    hip: float = 1.0
    girth: float = 1.0
    muscle: float = 1.0
    belly: float = 0.1
    bust: float = 0.1
    head: float = 1.0
    hand: float = 1.0
    foot: float = 1.0
    splay: float = 1.0


# Hands, heads and feet of the template are large, so that a grid of one spacing resolves them.
TEMPLATE = Build(head=1.4, hand=2.9, foot=1.4, girth=0.92, splay=2.2)


def random_build(rng: np.random.Generator) -> Build:
    """Somebody: man, woman or child, of any weight."""
    kind = rng.choice(["man", "woman", "child"], p=[0.4, 0.4, 0.2])
    weight = float(np.clip(rng.normal(0, 0.5), -0.9, 1.3))

    def around(mean: float, spread: float) -> float:
        return float(np.clip(rng.normal(mean, spread), mean - 2 * spread, mean + 2 * spread))

    stout = 1 + (0.30 if weight > 0 else 0.16) * weight
    if kind == "child":
        height = around(1.22, 0.12)
        young = (1.5 - height) / 0.5
        return Build(
            height=height,
            leg=around(0.94, 0.02) - 0.05 * young,
            arm=around(0.95, 0.02),
            torso=around(1.02, 0.02),
            shoulder=around(0.92, 0.02),
            hip=around(0.95, 0.02),
            girth=around(1.08, 0.03) * (1 + 0.12 * weight),
            muscle=around(0.92, 0.03),
            belly=around(0.25, 0.08) + 0.2 * max(weight, 0),
            bust=0.0,
            head=around(1.28, 0.03) + 0.1 * young,
            hand=around(0.98, 0.02),
            foot=around(1.0, 0.02),
        )
    man = kind == "man"
    return Build(
        height=around(1.78 if man else 1.66, 0.07),
        leg=around(1.0, 0.03),
        arm=around(1.0, 0.025),
        torso=around(1.0, 0.025),
        shoulder=around(1.08 if man else 0.93, 0.03),
        hip=around(0.97 if man else 1.08, 0.03),
        girth=around(1.0 if man else 0.95, 0.03) * stout,
        muscle=around(1.08 if man else 0.9, 0.06),
        belly=float(np.clip(0.15 + 0.6 * weight + 0.1 * rng.normal(), 0, 1)),
        bust=0.08 if man else float(np.clip(0.55 + 0.3 * weight + 0.12 * rng.normal(), 0.25, 1)),
        head=around(1.0, 0.03),
        hand=around(1.05 if man else 0.95, 0.03),
        foot=around(1.05 if man else 0.96, 0.03),
    )


def build(b: Build = TEMPLATE) -> Body:
    """The body of these proportions, arms spread, palms down, facing -y. In metres, z up."""
    leg, torso, girth = b.leg, b.torso, b.girth
    hip_z = 0.90 * leg
    unscaled = hip_z + 0.62 * torso + 0.09 + 0.14 * b.head
    make = Builder(PARTS, b.height / unscaled if b is not TEMPLATE else 1.0)

    def up(z: float) -> float:
        return hip_z + z * torso

    soft = 0.02 * girth
    make.bone("pelvis", None, (0, 0, up(0.05)))
    hip_x, hip_r = 0.078 * b.hip, 0.084 * girth * (0.5 + 0.5 * b.hip)
    make.cone(
        "pelvis", "torso", (-hip_x, 0.01, up(0.04)), (hip_x, 0.01, up(0.04)), hip_r, blend=soft
    )
    for s in (LEFT, RIGHT):
        seat = (s * hip_x * 0.9, 0.055 * girth, up(-0.015))
        make.cone("pelvis", "torso", seat, seat, 0.070 * girth * (0.6 + 0.4 * b.hip), blend=0.018)
    make.bone("waist", "pelvis", (0, 0.01, up(0.14)))
    waist = 0.092 * girth * (0.75 + 0.25 * b.hip)
    make.cone(
        "waist", "torso", (0, 0.005, up(0.12)), (0, 0, up(0.30)), waist, (1.25, 0.95), blend=soft
    )
    belly = (0, -(0.03 + 0.055 * b.belly) * girth, up(0.15))
    make.cone(
        "waist", "torso", belly, belly, (0.068 + 0.05 * b.belly) * girth, (1.15, 1), blend=soft
    )
    make.bone("chest", "waist", (0, 0.015, up(0.28)))
    wide = 1.32 * (0.4 + 0.6 * b.shoulder)
    rib = (0.098 * girth, 0.102 * (0.4 + 0.6 * girth))
    make.cone(
        "chest", "torso", (0, 0, up(0.29)), (0, 0.005, up(0.43)), rib, (wide, 0.92), blend=soft
    )
    for s in (LEFT, RIGHT):
        breast = (s * 0.078 * b.shoulder, -(0.062 + 0.03 * b.bust) * girth, up(0.375))
        make.cone("chest", "torso", breast, breast, (0.045 + 0.028 * b.bust) * girth, blend=0.016)
    shoulder_x, shoulder_z = 0.175 * b.shoulder, up(0.505)
    neck_r = 0.052 * (0.5 + 0.3 * girth + 0.2 * b.muscle)
    for s in (LEFT, RIGHT):
        base, tip = (s * 0.02, 0.012, up(0.52)), (s * shoulder_x * 0.72, 0.01, shoulder_z - 0.01)
        make.cone("chest", "torso", base, tip, 0.058 * (0.5 * b.muscle + 0.5 * girth), blend=soft)
    make.bone("neck", "chest", (0, 0.015, up(0.55)))
    neck_top = up(0.62) + 0.02
    make.cone(
        "neck",
        "neck",
        (0, 0.015, up(0.54)),
        (0, 0.005, neck_top),
        (neck_r, neck_r * 0.95),
        blend=0.018,
    )
    _head(make, b.head, neck_top)
    for s in (LEFT, RIGHT):
        _arm(make, s, b, shoulder_x, shoulder_z)
    for s in (LEFT, RIGHT):
        _leg(make, s, b, hip_x, hip_z)
    return make.build()


def _head(make: Builder, size: float, z: float) -> None:
    make.bone("head", "neck", (0, 0.0, z))

    def at(x: float, y: float, up: float) -> tuple[float, float, float]:
        return x * size, y * size, z + up * size

    skull = (at(0, 0.012, 0.118), at(0, -0.004, 0.125))
    make.cone("head", "head", *skull, 0.081 * size, (1.0, 1.12), blend=0.014 * size)
    jaw = (at(0, -0.025, 0.055), at(0, -0.05, 0.03))
    make.cone("head", "head", *jaw, (0.062 * size, 0.04 * size), (0.98, 1), blend=0.014 * size)
    nose = (at(0, -0.092, 0.095), at(0, -0.108, 0.07))
    make.cone("head", "head", *nose, (0.008 * size, 0.014 * size), blend=0.006 * size)
    for s in (LEFT, RIGHT):
        ear = (at(s * 0.084, 0.012, 0.10), at(s * 0.081, 0.006, 0.075))
        shape = (0.021 * size, 0.014 * size)
        make.cone("head", "head", *ear, shape, (0.55, 1), blend=0.005 * size)
    for s in (LEFT, RIGHT):
        brow = (at(s * 0.018, -0.088, 0.118), at(s * 0.045, -0.078, 0.116))
        make.cone("head", "head", *brow, 0.014 * size, blend=0.008 * size)


def _arm(make: Builder, s: float, b: Build, x0: float, z: float) -> None:
    side = SIDES[s]
    thick = 0.35 + 0.35 * b.girth + 0.3 * b.muscle
    elbow, wrist = x0 + 0.275 * b.arm, x0 + 0.52 * b.arm
    y = 0.01
    bone = make.bone(f"{side} upper arm", "chest", (s * x0, y, z))
    cap = (s * (x0 - 0.005), y, z - 0.005)
    make.cone(bone, bone, cap, cap, 0.057 * (0.3 + 0.4 * b.muscle + 0.3 * b.girth), blend=0.016)
    make.cone(
        bone, bone, (s * x0, y, z), (s * elbow, y, z), (0.047 * thick, 0.037 * thick), blend=0.012
    )
    biceps = ((s * (x0 + 0.09 * b.arm), y, z), (s * (x0 + 0.17 * b.arm), y, z))
    make.cone(bone, bone, *biceps, 0.042 * thick * b.muscle, blend=0.012)
    bone = make.bone(f"{side} forearm", bone, (s * elbow, y, z))
    make.cone(
        bone,
        bone,
        (s * elbow, y, z),
        (s * wrist, y, z),
        (0.037 * thick, 0.025 * thick),
        blend=0.012,
    )
    bulge = ((s * (elbow + 0.03), y, z), (s * (elbow + 0.10 * b.arm), y, z))
    make.cone(bone, bone, *bulge, (0.036 * thick, 0.034 * thick), blend=0.012)
    hand = make.bone(f"{side} hand", bone, (s * wrist, y, z))
    palm_and_fingers(
        make, hand, (s * wrist, y, z), (s * b.hand, b.hand), lambda finger: hand, b.splay
    )


def _leg(make: Builder, s: float, b: Build, hip_x: float, hip_z: float) -> None:
    side = SIDES[s]
    thick = 0.3 + 0.7 * b.girth
    calf = thick * (0.7 + 0.3 * b.muscle)
    ankle_z = 0.075 * (0.5 + 0.5 * b.foot)
    knee_z = ankle_z + 0.5 * (hip_z - ankle_z)
    x, knee_x, ankle_x = s * hip_x * 1.06, s * (0.092 * b.hip + 0.012), s * (0.095 * b.hip + 0.02)
    bone = make.bone(f"{side} thigh", "pelvis", (x, 0.01, hip_z))
    upper = 0.084 * thick * (0.75 + 0.25 * b.hip)
    make.cone(
        bone,
        bone,
        (x, 0.01, hip_z - 0.03),
        (knee_x, 0.0, knee_z),
        (upper, 0.052 * (0.5 + 0.5 * thick)),
        blend=0.016,
    )
    bone = make.bone(f"{side} calf", bone, (knee_x, 0.0, knee_z))
    make.cone(
        bone,
        bone,
        (knee_x, 0, knee_z),
        (ankle_x, 0.02, ankle_z),
        (0.05 * (0.5 + 0.5 * thick), 0.031 * calf),
        blend=0.014,
    )
    back = (
        (knee_x, 0.018, knee_z - 0.06 * b.leg),
        ((knee_x + ankle_x) / 2, 0.022, knee_z - 0.16 * b.leg),
    )
    make.cone(bone, bone, *back, (0.046 * calf, 0.042 * calf), blend=0.014)
    f = b.foot
    foot = make.bone(f"{side} foot", bone, (ankle_x, 0.02, ankle_z))
    out = s * 0.02 * f
    heel, ball, toe = (
        (ankle_x, 0.035 * f, 0.035 * f),
        (ankle_x + out, -0.115 * f, 0.024 * f),
        (ankle_x + 1.3 * out, -0.165 * f, 0.018 * f),
    )
    make.cone(foot, foot, heel, heel, 0.036 * f, blend=0.01)
    instep = ((ankle_x, 0.015 * f, ankle_z - 0.01), ball)
    make.cone(foot, foot, *instep, (0.034 * f, 0.026 * f), (1.15, 1), blend=0.012)
    make.cone(foot, foot, heel, ball, (0.031 * f, 0.025 * f), (1.25, 1), blend=0.01)
    toes = make.bone(f"{side} toes", foot, ball)
    make.cone(toes, foot, ball, toe, (0.026 * f, 0.019 * f), (1.7, 1), blend=0.01)
