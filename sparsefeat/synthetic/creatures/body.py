"""A body: bones that turn, cones around them, parts that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.synthetic.creatures.cones import Cones

LEFT, RIGHT = 1.0, -1.0
"""Sides of a body that faces -y with z up: its left is +x."""


@dataclass(frozen=True, eq=False)
class Body:
    """Bones in rest pose with the cones around them.

    Attributes:
        bones: names, parents before children.
        parents: (B,) int64, -1 for the root.
        joints: (B, 3), where each bone turns against its parent.
        cones: P cones in rest pose.
        cone_bone: (P,) int64.
        cone_part: (P,) int64, row of ``parts``.
        parts: names of the body's parts.
    """

    bones: tuple[str, ...]
    parents: np.ndarray
    joints: np.ndarray
    cones: Cones
    cone_bone: np.ndarray
    cone_part: np.ndarray
    parts: tuple[str, ...]

    def posed(self, pose: Mapping[str, np.ndarray]) -> Cones:
        """The cones in a pose.

        Args:
            pose: bone -> rotation (3, 3) about its joint, in the axes of the rest pose carried along by the
                parent. Bones that are not named stay.

        Raises:
            InputError: a bone that is not there.
        """
        unknown = sorted(set(pose) - set(self.bones))
        if unknown:
            raise InputError(
                f"pose: no bone {unknown[0]!r}, expected one of {', '.join(self.bones)}"
            )
        rotation = np.empty((len(self.bones), 3, 3))
        offset = np.empty((len(self.bones), 3))
        for k, name in enumerate(self.bones):
            turn, joint = pose.get(name, np.eye(3)), self.joints[k]
            parent = self.parents[k]
            before = (rotation[parent], offset[parent]) if parent >= 0 else (np.eye(3), np.zeros(3))
            rotation[k] = before[0] @ turn
            offset[k] = before[0] @ (joint - turn @ joint) + before[1]
        return self.cones.moved(rotation[self.cone_bone], offset[self.cone_bone])

    def overlap(self, cones: Cones) -> float:
        """How deep limbs that are not neighbours run into each other, in these posed cones; 0: not at all."""
        steps = np.linspace(0, 1, 4)
        reach = steps * cones.length[:, None]
        points = cones.origin[:, None] + reach[..., None] * cones.axes[:, None, 2]
        thick = (
            cones.radius[:, :1] * (1 - steps) + cones.radius[:, 1:] * steps
        ) * cones.stretch.mean(1)[:, None]
        flat, thick = points.reshape(-1, 3), thick.ravel()
        depth = thick[:, None] - cones.distance(flat)
        far = ~self.neighbours(3)[np.repeat(np.arange(len(cones)), len(steps))]
        return float(max(0.0, depth[far].max(initial=0.0)))

    def neighbours(self, hops: int = 1) -> np.ndarray:
        """Which cones are near each other along the skeleton: bones at most ``hops`` apart. (P, P) bool."""
        count = len(self.bones)
        apart = np.where(np.eye(count, dtype=bool), 0, count)
        for k, parent in enumerate(self.parents):
            if parent >= 0:
                apart[k, parent] = apart[parent, k] = 1
        for middle in range(count):
            apart = np.minimum(apart, apart[:, middle, None] + apart[None, middle])
        return apart[self.cone_bone][:, self.cone_bone] <= hops


def turn(**degrees: float) -> np.ndarray:
    """Rotation matrix (3, 3): ``turn(x=10, y=20)`` turns by 10 degrees about x first, then by 20 about y.

    Counter-clockwise, seen from the tip of the axis. For a body that faces -y, ``x`` bends forwards what
    points up and swings backwards what hangs down.
    """
    rotation = np.eye(3)
    for axis, angle in degrees.items():
        a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        one = np.eye(3)
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        one[a, a], one[a, b], one[b, a], one[b, b] = cosine, -sine, sine, cosine
        rotation = one @ rotation
    return rotation


def mirrored(side: float, rotation: np.ndarray) -> np.ndarray:
    """The rotation of a left bone; for the right side the one that mirrors it."""
    mirror = np.diag([side, 1.0, 1.0])
    return mirror @ rotation @ mirror


@dataclass
class Builder:
    """Collects bones and cones; every body of a family adds the same ones in the same order.

    Args:
        parts: names of the parts.
        size: all lengths are multiplied by it.
    """

    parts: tuple[str, ...]
    size: float = 1.0
    _bones: list[tuple[str, int, np.ndarray]] = field(default_factory=list)
    _cones: list[tuple] = field(default_factory=list)

    def bone(self, name: str, parent: str | None, joint: Sequence[float]) -> str:
        """Add a bone that turns about ``joint``; return its name."""
        names = [bone[0] for bone in self._bones]
        self._bones.append(
            (name, -1 if parent is None else names.index(parent), np.array(joint, float))
        )
        return name

    def cone(
        self,
        bone: str,
        part: str,
        first: Sequence[float],
        second: Sequence[float],
        radius: float | tuple[float, float],
        stretch: tuple[float, float] = (1.0, 1.0),
        side: Sequence[float] = (1.0, 0.0, 0.0),
        blend: float = 0.015,
    ) -> None:
        """Add a cone.

        Args:
            bone: that it moves with.
            part: that its surface belongs to.
            first, second: centres of its balls.
            radius: of both, or of each.
            stretch: factors of its cross-section along ``side`` and across it.
            side: a direction; what of it is perpendicular to the cone is used.
            blend: distance over which it flows into others.
        """
        names = [b[0] for b in self._bones]
        first, second = np.array(first, float), np.array(second, float)
        radii = (radius, radius) if isinstance(radius, (int, float)) else radius
        self._cones.append(
            (
                names.index(bone),
                self.parts.index(part),
                first,
                second,
                radii,
                stretch,
                np.array(side),
                blend,
            )
        )

    def build(self) -> Body:
        """The body of all that was added."""
        bone, part, first, second, radius, stretch, side, blend = (
            np.array(column, dtype=float) for column in zip(*self._cones, strict=True)
        )
        along = second - first
        length = np.linalg.norm(along, axis=1)
        # A ball has no direction of its own: any will do.
        along = np.where(
            length[:, None] > 1e-9, along / np.maximum(length, 1e-12)[:, None], [0.0, 0.0, 1.0]
        )
        # So has a cone along its own side direction.
        side = np.where((np.abs((side * along).sum(1)) > 0.999)[:, None], [0.0, 1.0, 0.0], side)
        side = side - (side * along).sum(1, keepdims=True) * along
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        axes = np.stack([side, np.cross(along, side), along], 1)
        size = self.size
        cones = Cones(first * size, axes, length * size, radius * size, stretch, blend * size)
        return Body(
            tuple(name for name, _, _ in self._bones),
            np.array([parent for _, parent, _ in self._bones]),
            np.array([joint for _, _, joint in self._bones]) * size,
            cones,
            bone.astype(np.int64),
            part.astype(np.int64),
            self.parts,
        )
