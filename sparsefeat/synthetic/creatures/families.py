"""The families of creatures: a template each, the classes that share it, their bodies and poses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.synthetic.creatures import (
    hand,
    humanoid,
    humanoid_poses,
    quadruped,
    quadruped_poses,
    varied,
)
from sparsefeat.synthetic.creatures.body import Body
from sparsefeat.synthetic.creatures.template import Template

Pose = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """Creatures that correspond point by point.

    Attributes:
        classes: name of a class -> names of the poses that it takes, the plain ones first.
        template: the body in rest pose that all are images of.
        body: a body of a class, at random.
        pose: a pose by name, varied at random.
        relief: whether individuals have clothes, hair, humps and the like, see :mod:`.relief`.
        handles: whether the template may have handles, or several components.
    """

    classes: Mapping[str, tuple[str, ...]]
    template: Callable[[], Body]
    body: Callable[[str, np.random.Generator], Body]
    pose: Callable[[str, np.random.Generator], Pose]
    relief: bool = False
    handles: bool = False


FAMILIES: dict[str, Family] = {
    "humanoid": Family(
        {"human": tuple(humanoid_poses.POSES)},
        humanoid.build,
        lambda kind, rng: humanoid.build(humanoid.random_build(rng)),
        humanoid_poses.make_pose,
    ),
    "quadruped": Family(
        quadruped_poses.HABITS,
        quadruped.build,
        lambda kind, rng: quadruped.build(quadruped.random_animal(kind, rng)),
        quadruped_poses.make_pose,
    ),
    "hand": Family(
        {"hand": tuple(hand.POSES)},
        hand.build,
        lambda kind, rng: hand.build(hand.random_build(rng)),
        hand.make_pose,
    ),
}

VARIED: dict[str, Family] = {
    "figure": Family(
        {"figure": tuple(humanoid_poses.POSES)},
        humanoid.build,
        lambda kind, rng: varied.random_person(rng),
        humanoid_poses.make_pose,
        relief=True,
    ),
    "beast": Family(
        {"beast": quadruped_poses.HABITS["dog"]},
        quadruped.build,
        lambda kind, rng: varied.random_beast(rng),
        quadruped_poses.make_pose,
        relief=True,
    ),
}
"""More varied ones, made on request: people and animals of unusual proportions, with clothes, hair and humps."""

KINDS = (*FAMILIES, *VARIED, *varied.SPECIES_MAKERS)
"""All that can be asked for."""

PART_NAMES = tuple(
    dict.fromkeys(
        humanoid.PARTS + quadruped.PARTS + hand.PARTS + varied.MONSTER_PARTS + varied.MOLECULE_PARTS
    )
)
"""Parts of all families, in the order of their labels, which do not depend on the families that are made."""


@functools.lru_cache(16)
def find_family(name: str) -> Family:
    """A family by its name: one of ``FAMILIES`` or ``VARIED``, or a species "<monster or molecule>_<seed>".

    Raises:
        InputError: an unknown family.
    """
    known = FAMILIES | VARIED
    kind, _, seed = name.partition("_")
    if kind in varied.SPECIES_MAKERS and seed.isdigit():
        made = varied.SPECIES_MAKERS[kind](int(seed))
        return Family(
            {name: varied.POSES},
            lambda: made.body(None),
            lambda _, rng: made.body(rng),
            lambda _, rng: made.pose(rng),
            relief=kind == "monster",
            handles=True,
        )
    if name not in known:
        raise InputError(f"unknown family {name!r}, expected one of {', '.join(KINDS)}")
    return known[name]


@functools.lru_cache(16)
def template(family: str) -> Template:
    """The template of a family; it is the same in every process.

    Raises:
        InputError: an unknown family.
    """
    group = find_family(family)
    return Template(group.template(), handles=group.handles)


@functools.lru_cache(16)
def landmarks(family: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks of a family: the vertices of one triangulation of its template, always the same one.

    Args:
        family: its name.
        count: about how many.

    Returns:
        Places (L, 3) and normals (L, 3) on the template, and the triangulation's faces (F, 3).
    """
    surface = template(family)
    mesh = surface.triangulate(count, np.random.SeedSequence(0))
    return mesh.vertices, surface.normals(mesh.vertices), mesh.faces
