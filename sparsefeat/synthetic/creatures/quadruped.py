"""Four-legged animals: dogs, cats, horses, giraffes, pigs and rabbits on one skeleton."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from sparsefeat.synthetic.creatures.body import LEFT, RIGHT, Body, Builder

SIDES = {LEFT: "left", RIGHT: "right"}
_LIMBS = (
    "upper foreleg",
    "lower foreleg",
    "forefoot",
    "upper hind leg",
    "lower hind leg",
    "hind foot",
)
PARTS = (
    "head",
    "neck",
    "torso",
    "tail",
    *(f"{side} {limb}" for limb in _LIMBS for side in SIDES.values()),
)


@dataclass(frozen=True)
class Animal:
    """Proportions of an animal that stands. Lengths in metres, angles in degrees.

    Attributes:
        height: of the shoulder joints over the ground.
        hip_height: of the hip joints.
        length: from shoulder to hip.
        chest, waist, hip: radii of the trunk.
        narrow: width of the trunk over its height.
        neck: length.
        neck_up: angle over the horizontal.
        neck_base, neck_top: radii.
        skull: radius.
        face: length from skull to tip of the nose.
        face_down: angle under the horizontal.
        muzzle, nose: radii where the face begins and ends.
        ear, ear_width: length and radius.
        ear_up: angle over the horizontal; negative ears hang.
        ear_out: share of sideways in their direction, from 0, upright, to 1.
        tail: length.
        tail_up: angle over the horizontal, backwards; negative tails hang.
        tail_base, tail_tip: radii.
        thigh: radius of the upper legs where they begin.
        knee: where they end.
        shin: radius of the lower legs at their end.
        foot: radius of paw or hoof.
        paw: length of the foot over its radius.
        crouch: how bent the hind legs stand, from 0.5 for a horse to 1.5 for a rabbit.
        ear_flat: thickness of the ears over their width.
    """

    height: float
    hip_height: float
    length: float
    chest: float
    waist: float
    hip: float
    narrow: float
    neck: float
    neck_up: float
    neck_base: float
    neck_top: float
    skull: float
    face: float
    face_down: float
    muzzle: float
    nose: float
    ear: float
    ear_width: float
    ear_up: float
    ear_out: float
    tail: float
    tail_up: float
    tail_base: float
    tail_tip: float
    thigh: float
    knee: float
    shin: float
    foot: float
    paw: float
    crouch: float
    ear_flat: float = 0.42


# fmt: off
SPECIES = {
    #                height hip_h  length chest  waist  hip    narrow
    "dog": Animal(   0.56,  0.55,  0.56,  0.128, 0.092, 0.100, 0.82,
                     0.20,  48,    0.080, 0.066, 0.082, 0.150, 12, 0.056, 0.036,  # neck and head
                     0.115, 0.034, 20,    0.55,                                   # ears
                     0.36,  48,    0.026, 0.014,                                  # tail
                     0.068, 0.036, 0.025, 0.033, 1.5, 1.0),
    "cat": Animal(   0.24,  0.26,  0.30,  0.062, 0.056, 0.060, 0.85,
                     0.085, 44,    0.040, 0.038, 0.051, 0.044, 20, 0.034, 0.022,
                     0.076, 0.027, 66,    0.40,
                     0.33,  30,    0.0155, 0.012,
                     0.036, 0.019, 0.0145, 0.018, 1.4, 1.1),
    "horse": Animal( 1.28,  1.32,  1.10,  0.310, 0.275, 0.290, 0.82,
                     0.72,  44,    0.265, 0.155, 0.130, 0.450, 50, 0.132, 0.108,
                     0.200, 0.048, 72,    0.30,
                     0.95,  -66,   0.090, 0.060,
                     0.175, 0.078, 0.046, 0.066, 1.2, 0.6),
    "giraffe": Animal(2.45, 2.15,  1.15,  0.420, 0.350, 0.330, 0.78,
                     2.10,  66,    0.250, 0.105, 0.130, 0.360, 30, 0.105, 0.075,
                     0.200, 0.045, 25,    0.85,
                     0.85,  -72,   0.048, 0.036,
                     0.220, 0.100, 0.062, 0.088, 1.2, 0.5),
    "pig": Animal(   0.33,  0.34,  0.66,  0.190, 0.222, 0.205, 0.90,
                     0.16,  14,    0.150, 0.125, 0.126, 0.130, 24, 0.086, 0.080,
                     0.175, 0.064, 40,    0.62,
                     0.20,  38,    0.018, 0.010,
                     0.086, 0.050, 0.036, 0.042, 1.1, 0.7),
    "rabbit": Animal(0.130, 0.140, 0.18,  0.050, 0.068, 0.076, 0.92,
                     0.066, 46,    0.037, 0.035, 0.047, 0.046, 22, 0.034, 0.021,
                     0.150, 0.021, 76,    0.18,
                     0.036, 30,    0.020, 0.024,
                     0.044, 0.019, 0.0135, 0.0155, 2.4, 1.5),
}
# Thin parts of the template are thick, so that a grid of one spacing resolves them.
TEMPLATE = Animal(   1.05,  1.05,  1.05,  0.225, 0.195, 0.205, 1.38,
                     0.46,  46,    0.150, 0.125, 0.150, 0.270, 20, 0.105, 0.080,
                     0.270, 0.084, 50,    0.60,
                     0.62,  20,    0.062, 0.050,
                     0.115, 0.085, 0.070, 0.084, 1.4, 0.9, 0.75)
# fmt: on


def random_animal(species: str, rng: np.random.Generator) -> Animal:
    """One of a species: every proportion differs by some percent, dogs' by more."""
    spread = 0.10 if species == "dog" else 0.06
    animal = SPECIES[species]
    angles = {
        "neck_up",
        "face_down",
        "ear_up",
        "tail_up",
        "crouch",
        "paw",
        "narrow",
        "ear_out",
        "ear_flat",
    }
    size = float(np.exp(0.12 * np.clip(rng.normal(), -2, 2)))
    stout = float(np.exp(spread * np.clip(rng.normal(), -2, 2)))
    legs = float(np.exp(1.5 * spread * np.clip(rng.normal(), -2, 1.2)))
    changed: dict[str, float] = {}
    for entry in fields(Animal):
        value = getattr(animal, entry.name)
        if entry.name in angles:
            continue
        factor = size * float(np.exp(0.5 * spread * np.clip(rng.normal(), -2, 2)))
        if entry.name in ("chest", "waist", "hip", "neck_base", "thigh"):
            factor *= stout
        if entry.name in ("height", "hip_height"):
            factor = size * legs
        changed[entry.name] = value * factor
    if species == "dog":
        # Ears hang or stand, tails are carried high or low.
        changed["ear_up"] = float(rng.choice([-48.0, 62.0]))
        changed["ear_out"] = 0.75 if changed["ear_up"] < 0 else 0.35
        changed["tail_up"] = float(rng.uniform(-25, 65))
    return replace(animal, **changed)


def build(a: Animal = TEMPLATE) -> Body:
    """The body of these proportions: it stands and faces -y, in metres, z up."""
    make = Builder(PARTS)
    front, back = -a.length / 2, a.length / 2
    soft = 0.10 * a.chest
    oval = (a.narrow, 1.0)
    chest_z, hip_z = a.height + 0.25 * a.chest, a.hip_height + 0.15 * a.hip
    middle_z = (chest_z + hip_z) / 2
    make.bone("pelvis", None, (0, 0.75 * back, hip_z))
    rump = ((0, back * 1.02, hip_z), (0, back * 0.6, hip_z))
    make.cone("pelvis", "torso", *rump, a.hip, oval, blend=soft)
    make.bone("waist", "pelvis", (0, 0.35 * back, middle_z))
    belly = ((0, back * 0.62, hip_z), (0, -back * 0.05, middle_z))
    make.cone("waist", "torso", *belly, (0.97 * a.hip, a.waist), oval, blend=soft)
    make.bone("chest", "waist", (0, -0.1 * back, middle_z))
    ribs = ((0, -back * 0.05, middle_z), (0, front * 0.6, chest_z))
    make.cone("chest", "torso", *ribs, (a.waist, a.chest), oval, blend=soft)
    breast = ((0, front * 0.6, chest_z), (0, front * 1.02, chest_z + 0.05 * a.chest))
    make.cone("chest", "torso", *breast, (a.chest, 0.86 * a.chest), oval, blend=soft)
    _neck_and_head(make, a, front, chest_z)
    _tail(make, a, back * 1.02 + 0.8 * a.hip, hip_z + 0.5 * a.hip)
    for s in (LEFT, RIGHT):
        _foreleg(make, s, a, front)
    for s in (LEFT, RIGHT):
        _hind_leg(make, s, a, back)
    return make.build()


def _neck_and_head(make: Builder, a: Animal, front: float, chest_z: float) -> None:
    up, down = np.radians(a.neck_up), np.radians(a.face_down)
    along = np.array([0, -np.cos(up), np.sin(up)])
    base = np.array([0, front - 0.35 * a.chest, chest_z + 0.3 * a.chest])
    middle, top = base + 0.5 * a.neck * along, base + a.neck * along
    thick = (a.neck_base + a.neck_top) / 2
    soft = 0.12 * a.neck_base
    oval = (0.82, 1.0)
    make.bone("neck", "chest", base)
    make.cone("neck", "neck", base, middle, (a.neck_base, thick), oval, blend=soft)
    make.bone("upper neck", "neck", middle)
    make.cone("upper neck", "neck", middle, top, (thick, a.neck_top), oval, blend=soft)
    make.bone("head", "upper neck", top)
    ahead = np.array([0, -np.cos(down), -np.sin(down)])
    crown = np.array([0, np.sin(down) * -1.0, np.cos(down)])
    skull = top + 0.25 * a.skull * ahead + 0.35 * a.skull * np.array([0, 0, 1])
    make.cone("head", "head", skull, skull + 0.3 * a.skull * ahead, a.skull, blend=0.10 * a.skull)
    root, tip = (
        skull + 0.6 * a.skull * ahead - 0.25 * a.skull * crown,
        skull + (a.face + 0.5 * a.skull) * ahead,
    )
    tip = tip - 0.42 * a.skull * crown
    make.cone("head", "head", root, tip, (a.muzzle, a.nose), (0.92, 1.0), blend=0.14 * a.skull)
    for s in (LEFT, RIGHT):
        cheek = (
            skull
            + np.array([s * 0.34 * a.skull, 0, 0])
            + 0.25 * a.skull * ahead
            - 0.35 * a.skull * crown
        )
        make.cone("head", "head", cheek, cheek, 0.62 * a.skull, blend=0.12 * a.skull)
    for s in (LEFT, RIGHT):
        lift = np.radians(a.ear_up)
        level = np.array([s * a.ear_out, np.sqrt(max(0.0, 1 - a.ear_out**2)), 0])
        points = np.cos(lift) * level + np.sin(lift) * np.array([0, 0, 1.0])
        start = skull + a.skull * np.array([s * 0.58, 0.18, 0.66])
        end = start + (a.ear - 0.6 * a.ear_width) * points
        bone = make.bone(f"{SIDES[s]} ear", "head", start)
        # Flat, and its open side looks forwards and out.
        make.cone(
            bone,
            "head",
            start,
            end,
            (a.ear_width, 0.42 * a.ear_width),
            (1.0, a.ear_flat),
            np.cross(points, [s * 0.35, -1.0, 0.15]),
            blend=0.16 * a.ear_width,
        )


def _tail(make: Builder, a: Animal, y: float, z: float) -> None:
    up = np.radians(a.tail_up)
    along = np.array([0, np.cos(up), np.sin(up)])
    start = np.array([0, y - 0.3 * a.tail_base, z])
    # It leaves the back level and turns to its direction.
    places = [start, start + 0.22 * a.tail * (along + [0, 1, 0]) / 2]
    places += [places[1] + share * 0.78 * a.tail * along for share in (0.5, 1.0)]
    radii = np.linspace(a.tail_base, a.tail_tip, 4)
    parent = "pelvis"
    for k in range(3):
        parent = make.bone(f"tail {k + 1}", parent, places[k])
        make.cone(
            parent,
            "tail",
            places[k],
            places[k + 1],
            (radii[k], radii[k + 1]),
            blend=0.3 * a.tail_base,
        )


def _foreleg(make: Builder, s: float, a: Animal, front: float) -> None:
    side, h = SIDES[s], a.height
    x = s * (a.chest * a.narrow - 0.55 * a.thigh)
    shoulder = (0.9 * x, front * 0.98, h * 1.0 + 0.05 * a.chest)
    elbow, wrist = (x, front * 0.90 + 0.06 * h, 0.58 * h), (x, front * 0.90 + 0.03 * h, 0.29 * h)
    ankle = (x, front * 0.90 + 0.02 * h, 0.9 * a.foot + 0.04 * h)
    bone = make.bone(f"{side} upper foreleg", "chest", shoulder)
    make.cone(bone, bone, shoulder, elbow, (a.thigh, 0.5 * (a.thigh + a.knee)), blend=0.2 * a.thigh)
    forearm = make.bone(f"{side} forearm", bone, elbow)
    make.cone(
        forearm,
        bone,
        elbow,
        wrist,
        (0.5 * (a.thigh + a.knee), 0.5 * (a.knee + a.shin)),
        blend=0.3 * a.knee,
    )
    shin = make.bone(f"{side} lower foreleg", forearm, wrist)
    make.cone(shin, shin, wrist, ankle, (1.08 * a.shin, a.shin), blend=0.3 * a.shin)
    _foot(make, s, a, ankle, f"{side} forefoot", shin)


def _hind_leg(make: Builder, s: float, a: Animal, back: float) -> None:
    side, h = SIDES[s], a.hip_height
    x = s * (a.hip * a.narrow - 0.5 * a.thigh)
    hip = (0.9 * x, back * 0.98, h)
    knee = (x, back * 0.98 - 0.13 * h * a.crouch, 0.60 * h)
    hock = (x, back * 0.98 + 0.13 * h * a.crouch, 0.31 * h)
    ankle = (x, back * 0.98 + 0.07 * h * a.crouch, 0.9 * a.foot + 0.04 * h)
    bone = make.bone(f"{side} upper hind leg", "pelvis", hip)
    make.cone(
        bone,
        bone,
        hip,
        knee,
        (1.25 * a.thigh, 0.62 * (a.thigh + a.knee)),
        (0.85, 1),
        blend=0.2 * a.thigh,
    )
    shank = make.bone(f"{side} shank", bone, knee)
    make.cone(
        shank,
        bone,
        knee,
        hock,
        (0.55 * (a.thigh + a.knee), 0.55 * (a.knee + a.shin)),
        blend=0.3 * a.knee,
    )
    shin = make.bone(f"{side} lower hind leg", shank, hock)
    make.cone(shin, shin, hock, ankle, (1.1 * a.shin, a.shin), blend=0.3 * a.shin)
    _foot(make, s, a, ankle, f"{side} hind foot", shin)


def _foot(make: Builder, s: float, a: Animal, ankle, name: str, parent: str) -> None:
    bone = make.bone(name, parent, ankle)
    x, y, _ = ankle
    heel, toe = (x, y - 0.1 * a.foot, 0.95 * a.foot), (x, y - (a.paw - 0.4) * a.foot, 0.85 * a.foot)
    make.cone(bone, name, heel, toe, (a.foot, 0.9 * a.foot), blend=0.25 * a.foot)
