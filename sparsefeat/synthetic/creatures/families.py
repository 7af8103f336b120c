"""The families of creatures: a template each, the classes that share it, their bodies and poses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.synthetic.creatures import hand, humanoid, humanoid_poses, quadruped, quadruped_poses
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
    """

    classes: Mapping[str, tuple[str, ...]]
    template: Callable[[], Body]
    body: Callable[[str, np.random.Generator], Body]
    pose: Callable[[str, np.random.Generator], Pose]


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

PART_NAMES = tuple(dict.fromkeys(humanoid.PARTS + quadruped.PARTS + hand.PARTS))
"""Parts of all families, in the order of their labels, which do not depend on the families that are made."""


@functools.cache
def template(family: str) -> Template:
    """The template of a family; it is the same in every process.

    Raises:
        InputError: an unknown family.
    """
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}, expected one of {', '.join(FAMILIES)}")
    return Template(FAMILIES[family].template())


@functools.cache
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
