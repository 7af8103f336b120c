"""Bodies as different as they come: people and animals beyond the average, and species made up at random.

A made-up species has a template of its own. Its individuals differ in their proportions and poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from sparsefeat.synthetic.creatures import humanoid, quadruped
from sparsefeat.synthetic.creatures.body import LEFT, RIGHT, Body, Builder, turn
from sparsefeat.synthetic.creatures.humanoid import Build
from sparsefeat.synthetic.creatures.quadruped import SPECIES, Animal

POSES = tuple(f"pose-{k}" for k in range(8))
"""Names of the poses of made-up species, all of which are drawn at random."""
MONSTER_PARTS = (
    "trunk",
    "neck",
    "head",
    "tail",
    "left limb",
    "right limb",
    "left wing",
    "right wing",
)
MOLECULE_PARTS = ("molecule",)


def random_person(rng: np.random.Generator) -> Body:
    """Somebody of unusual proportions: toddlers to giants, thin to stout, long or short limbs."""

    def about(spread: float, middle: float = 1.0) -> float:
        return float(middle * np.exp(spread * np.clip(rng.normal(), -2, 2)))

    usual = humanoid.random_build(rng)
    spread = {
        "leg": 0.08,
        "arm": 0.08,
        "torso": 0.08,
        "shoulder": 0.09,
        "hip": 0.09,
        "girth": 0.16,
        "muscle": 0.12,
    }
    spread |= {"head": 0.10, "hand": 0.12, "foot": 0.10}
    changed = {name: getattr(usual, name) * about(s) for name, s in spread.items()}
    build = replace(usual, **changed, belly=float(rng.uniform(0, 1)), bust=float(rng.uniform(0, 1)))
    if rng.random() < 0.15:
        build = _toddler(rng)
    return _thickened(humanoid.build(build), rng, 0.08)


def _toddler(rng: np.random.Generator) -> Build:
    u = rng.uniform
    return Build(
        height=u(0.7, 1.05), leg=u(0.72, 0.86), arm=u(0.78, 0.9), torso=u(0.95, 1.1), shoulder=u(0.78, 0.92),
        hip=u(0.85, 1.0), girth=u(1.05, 1.3), muscle=u(0.85, 1.0), belly=u(0.3, 0.8), bust=0.0,
        head=u(1.5, 1.85), hand=u(0.8, 0.95), foot=u(0.85, 1.0),
    )  # fmt: skip


def random_beast(rng: np.random.Generator) -> Body:
    """An animal between two species, and then some."""
    first, second = (SPECIES[name] for name in rng.choice(list(SPECIES), 2))
    share = rng.random()
    # Lengths of animals of one size are mixed, so that a rabbit's ears may sit on a horse.
    scale = first.length / second.length
    changed: dict[str, float] = {}
    for entry in fields(Animal):
        a, b = getattr(first, entry.name), getattr(second, entry.name)
        if entry.name in _ANGLES:
            changed[entry.name] = float((1 - share) * a + share * b + rng.normal(0, 8))
        elif entry.name in _RATIOS:
            changed[entry.name] = float(a ** (1 - share) * b**share)
        else:
            factor = np.exp(0.12 * np.clip(rng.normal(), -2, 2))
            changed[entry.name] = float(a ** (1 - share) * (scale * b) ** share * factor)
    return _thickened(quadruped.build(Animal(**changed)), rng, 0.08)


_ANGLES = {"neck_up", "face_down", "ear_up", "tail_up"}
_RATIOS = {"narrow", "ear_out", "paw", "crouch", "ear_flat"}


def _thickened(body: Body, rng: np.random.Generator, spread: float) -> Body:
    """Every part a little thicker or thinner, both sides of the body alike."""
    plain = [part.removeprefix("left ").removeprefix("right ") for part in body.parts]
    kinds = sorted(set(plain))
    factor = np.exp(spread * np.clip(rng.normal(size=len(kinds)), -2, 2))
    of_cone = factor[[kinds.index(plain[part]) for part in body.cone_part]]
    return replace(body, cones=replace(body.cones, radius=body.cones.radius * of_cone[:, None]))


@dataclass(frozen=True)
class Species:
    """Made-up creatures that correspond point by point: what `Family` is for those that are known.

    Attributes:
        parts: names of the parts.
        body: one of its individuals; None: the template.
        pose: of an individual, at random.
    """

    parts: tuple[str, ...]
    body: Callable[[np.random.Generator | None], Body]
    pose: Callable[[np.random.Generator], dict[str, np.ndarray]]


def monster(seed: int) -> Species:
    """A species with a random number of legs, arms, wings, horns, necks and tails, the same on the left and right."""

    def body(rng: np.random.Generator | None) -> Body:
        plan = np.random.default_rng([seed, 0])

        def size(low: float, high: float, spread: float = 0.16) -> float:
            """What the species has, times what the individual adds."""
            own = 1.0 if rng is None else float(np.exp(spread * np.clip(rng.normal(), -2, 2)))
            return float(np.exp(plan.uniform(np.log(low), np.log(high)))) * own

        make = Builder(MONSTER_PARTS)
        upright = plan.random() < 0.35
        ahead = np.array([0, 0, 1.0]) if upright else np.array([0, -1.0, 0])
        back = np.array([0, 1.0, 0]) if upright else np.array([0, 0, 1.0])
        segments = int(plan.integers(2, 6))
        bone, place = None, np.zeros(3)
        trunk: list[tuple[str, np.ndarray, float]] = []
        thick = size(0.10, 0.20)
        flat = plan.uniform(0.7, 1.4), plan.uniform(0.8, 1.2)
        for k in range(segments):
            long, end = size(0.16, 0.32), size(0.8, 1.25) * thick
            bone = make.bone(f"trunk {k}", bone, place)
            make.cone(bone, "trunk", place, place + long * ahead, (thick, end), flat, blend=0.02)
            trunk.append((bone, place + 0.5 * long * ahead, 0.5 * (thick + end)))
            place, thick = place + long * ahead, end
        _neck_and_head(make, plan, size, trunk[-1][0], place, ahead, back, thick)
        if plan.random() < 0.7:
            start, first = np.zeros(3) - 0.02 * ahead, trunk[0]
            _limb(make, plan, size, "tail", "tail", first[0], start, -ahead + 0.4 * back * plan.normal(),
                  int(plan.integers(1, 5)), (0.10, 0.25), first[2] * 0.6, 0.1)  # fmt: skip
        pairs = int(plan.integers(0, 5)) if plan.random() < 0.8 else 0
        for k in range(pairs):
            at = trunk[round(k * (segments - 1) / max(1, pairs - 1))]
            down, out = plan.uniform(0.2, 1.0), plan.uniform(0.4, 1.2)
            _pair(make, plan, size, f"limb {k}", "limb", at, out, -down * back + 0.3 * plan.normal() * ahead,
                  int(plan.integers(2, 4)), (0.14, 0.36), plan.uniform(0.045, 0.09), flat)  # fmt: skip
        if plan.random() < 0.35:
            at = trunk[-1 if segments < 3 else -2]
            _pair(
                make,
                plan,
                size,
                "wing",
                "wing",
                at,
                1.0,
                0.9 * back,
                2,
                (0.28, 0.5),
                0.13,
                flat,
                (1.0, 0.26),
            )
        return make.build()

    def pose(rng: np.random.Generator) -> dict[str, np.ndarray]:
        bones = body(None).bones
        spread = {
            "trunk": 9,
            "neck": 14,
            "head": 18,
            "tail": 18,
            "left": 24,
            "right": 24,
            "horn": 6,
        }
        return {bone: _random_turn(rng, spread.get(bone.split()[0], 12)) for bone in bones}

    return Species(MONSTER_PARTS, body, pose)


def _neck_and_head(
    make: Builder, plan, size, parent: str, place, ahead, back, thick: float
) -> None:
    along = ahead + plan.uniform(-0.2, 0.8) * back
    along /= np.linalg.norm(along)
    radius = min(thick * plan.uniform(0.4, 0.8), 0.12)
    for k in range(int(plan.integers(0, 4))):
        long = size(0.08, 0.22)
        parent = make.bone(f"neck {k}", parent, place)
        make.cone(parent, "neck", place, place + long * along, (radius, 0.92 * radius), blend=0.02)
        place, radius = place + long * along, 0.92 * radius
    head = make.bone("head", parent, place)
    skull = size(0.08, 0.17)
    centre = place + 0.5 * skull * along
    make.cone(
        head,
        "head",
        centre,
        centre + 0.3 * skull * ahead,
        skull,
        (1.0, plan.uniform(0.8, 1.2)),
        blend=0.015,
    )
    snout = centre + (skull + size(0.03, 0.22)) * ahead - 0.3 * skull * back * plan.random()
    make.cone(
        head, "head", centre, snout, (0.6 * skull, skull * plan.uniform(0.25, 0.5)), blend=0.015
    )
    for k in range(int(plan.integers(0, 3))):
        out, up = plan.uniform(0.3, 1.0), plan.uniform(0.2, 1.0)
        long, radius = size(0.10, 0.30), plan.uniform(0.035, 0.06)
        for s, side in ((LEFT, "left"), (RIGHT, "right")):
            direction = np.array([s * out, 0, 0]) + up * back + 0.3 * k * ahead
            direction /= np.linalg.norm(direction)
            start = centre + 0.6 * skull * direction
            bone = make.bone(f"horn {k} {side}", head, start)
            make.cone(bone, "head", start, start + long * direction, (radius, 0.8 * radius),
                      (1.0, plan.uniform(0.6, 1.0)), blend=0.008)  # fmt: skip


def _pair(
    make: Builder,
    plan,
    size,
    name,
    part,
    at,
    out,
    direction,
    bones,
    lengths,
    radius,
    flat,
    stretch=(1.0, 1.0),
):
    """A limb on either side; both are drawn once."""
    bone, place, thick = at
    state, taper = plan.integers(1 << 30), plan.uniform(0.55, 0.9)
    long = [size(*lengths) for _ in range(bones)]
    for s, side in ((LEFT, "left"), (RIGHT, "right")):
        again = np.random.default_rng(state)
        start = place + np.array([s * 0.75 * thick * flat[0], 0, 0])
        way = direction + np.array([s * out, 0, 0])
        _limb(make, again, None, f"{side} {name}", f"{side} {part}", bone, start, way, bones, long, radius, 1 - taper,
              stretch, s)  # fmt: skip


def _limb(
    make,
    plan,
    size,
    name,
    part,
    parent,
    start,
    way,
    bones,
    lengths,
    radius,
    taper,
    stretch=(1.0, 1.0),
    s=1.0,
):
    """A row of bones that turns a little at each joint and gets thinner; ``lengths``: a range, or one each."""
    radius = max(radius, 0.04)
    for k in range(bones):
        way = way / np.linalg.norm(way)
        long = lengths[k] if size is None else size(*lengths)
        parent = make.bone(f"{name} {k}", parent, start)
        end = max(radius * (1 - taper), 0.036)
        make.cone(
            parent,
            part,
            start,
            start + long * way,
            (radius, end),
            stretch,
            (0.0, 1.0, 0.2),
            blend=0.012,
        )
        start, radius = start + long * way, end
        bent = 0.45 * plan.normal(size=3)
        way = way + bent * (s, 1, 1)


def molecule(seed: int) -> Species:
    """Balls blended along strands: double helices that branch, or loose strands wound through space."""

    def body(rng: np.random.Generator | None) -> Body:
        plan = np.random.default_rng([seed, 1])

        def own(spread: float) -> float:
            return 1.0 if rng is None else float(np.exp(spread * np.clip(rng.normal(), -2, 2)))

        make = Builder(MOLECULE_PARTS)
        if plan.random() < 0.65:
            _helices(make, plan, own)
        else:
            for strand in range(int(plan.choice([1, 1, 2, 3]))):
                _strand(make, plan, own, f"strand {strand}")
        return make.build()

    def pose(rng: np.random.Generator) -> dict[str, np.ndarray]:
        bones = body(None).bones
        spread = rng.uniform(1, 6)
        return {bone: _random_turn(rng, spread) for bone in bones}

    return Species(MOLECULE_PARTS, body, pose)


def _helices(make: Builder, plan: np.random.Generator, own: Callable[[float], float]) -> None:
    """Arms from one junction, each an axis with two strands of balls around it."""
    ball, blend = plan.uniform(0.055, 0.09), plan.uniform(0.008, 0.02)
    around, step = plan.uniform(0.09, 0.15), plan.uniform(0.06, 0.10)
    twist, groove, curl = plan.uniform(25, 42), plan.uniform(110, 180), plan.uniform(3, 14)
    root = make.bone("junction", None, np.zeros(3))
    make.cone(root, "molecule", np.zeros(3), np.zeros(3), around, blend=blend)
    arms = int(plan.integers(1, 5))
    for arm in range(arms):
        frame, place, bone = np.linalg.qr(plan.normal(size=(3, 3)))[0], np.zeros(3), root
        angle = plan.uniform(0, 360)
        for k in range(int(plan.integers(6, 34) / np.sqrt(arms))):
            frame = frame @ turn(x=curl * plan.normal(), y=curl * plan.normal(0.5))
            place = place + step * frame[:, 2]
            bone = make.bone(f"arm {arm} {k}", bone, place)
            core = 0.6 * around * own(0.1)
            make.cone(bone, "molecule", place, place, core, blend=blend)
            angle += twist
            for strand in (0.0, groove):
                if plan.random() < 0.06:
                    continue
                turned = np.radians(angle + strand + 8 * plan.normal())
                far = (
                    around
                    * np.exp(0.1 * plan.normal())
                    * (np.cos(turned) * frame[:, 0] + np.sin(turned) * frame[:, 1])
                )
                radius = ball * np.exp(0.2 * np.clip(plan.normal(), -2, 2)) * own(0.1)
                make.cone(
                    bone,
                    "molecule",
                    place + 0.7 * far,
                    place + far,
                    (0.8 * radius, radius),
                    blend=blend,
                )


def _strand(
    make: Builder, plan: np.random.Generator, own: Callable[[float], float], name: str
) -> None:
    """A row of balls of many sizes with side groups, which keeps together and away from itself."""
    radius, blend = plan.uniform(0.07, 0.12), plan.uniform(0.01, 0.04)
    side_groups, tube = 0.8 * plan.random(), plan.random() < 0.35
    place, way = 0.3 * plan.normal(size=3), plan.normal(size=3)
    taken: list[np.ndarray] = []
    bone = None
    for k in range(int(plan.integers(8, 36))):
        way = _free(way / np.linalg.norm(way) + 0.5 * plan.normal(size=3), place, taken)
        thick = radius * np.exp(0.2 * np.clip(plan.normal(), -2, 2)) * own(0.12)
        step = radius * plan.uniform(1.2, 2.0) * way
        bone = make.bone(f"{name} {k}", bone, place)
        make.cone(
            bone,
            "molecule",
            place,
            place + (step if tube else 0.2 * step),
            (thick, thick),
            blend=blend,
        )
        if plan.random() < side_groups:
            aside = plan.normal(size=3)
            aside /= np.linalg.norm(aside)
            far = place + radius * plan.uniform(0.9, 1.7) * aside
            near = place + 0.5 * thick * aside
            make.cone(bone, "molecule", near, far, (0.7 * thick, 0.8 * thick), blend=blend)
        taken.append(place)
        place = place + step


def _free(way: np.ndarray, place: np.ndarray, taken: list[np.ndarray]) -> np.ndarray:
    """A unit direction like ``way``, drawn to the middle of the whole and away from where the strand has been."""
    if len(taken) > 2:
        earlier = np.array(taken[:-1])
        apart = place - earlier
        distance = np.linalg.norm(apart, axis=1, keepdims=True).clip(0.02)
        push = (apart / distance * np.exp(-((distance / 0.25) ** 2))).sum(0)
        way = way + 1.5 * push + 1.5 * (earlier.mean(0) - place)
    return way / max(np.linalg.norm(way), 1e-9)


def _random_turn(rng: np.random.Generator, spread: float) -> np.ndarray:
    x, y, z = spread * np.clip(rng.normal(size=3), -1.8, 1.8)
    return turn(x=x, y=y, z=z)


SPECIES_MAKERS: dict[str, Callable[[int], Species]] = {"monster": monster, "molecule": molecule}
"""Kinds of made-up species -> one of a seed."""
