"""What four-legged animals do: poses by name, each different every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsefeat.synthetic.creatures.body import LEFT, RIGHT, mirrored, turn
from sparsefeat.synthetic.creatures.quadruped import SIDES

Pose = dict[str, np.ndarray]


class _Beast:
    """Collects a pose in an animal's terms. Angles are degrees; each is varied by about ``spread``.

    Args:
        rng: varies.
        lead: the side that leads, `LEFT` or `RIGHT`.
    """

    def __init__(self, rng: np.random.Generator, lead: float):
        self.rng, self.lead, self.pose = rng, lead, {}

    def about(self, angle: float, spread: float = 5.0) -> float:
        return float(angle + spread * np.clip(self.rng.normal(), -1.8, 1.8))

    def trunk(self, rear: float = 0, arch: float = 0, aside: float = 0) -> None:
        """Raise the front of the body, arch the back, bend it to the lead."""
        self.pose["pelvis"] = turn(x=-self.about(rear, 2))
        half = turn(x=self.about(arch, 2) / 2, z=self.lead * self.about(aside, 3) / 2)
        self.pose["waist"] = self.pose["chest"] = half

    def head(self, down: float = 0, nod: float = 0, aside: float = 0) -> None:
        """Lower the neck, nod, look to the lead."""
        down, aside = self.about(down, 6), self.lead * self.about(aside, 8)
        self.pose["neck"] = turn(x=0.6 * down, z=0.45 * aside)
        self.pose["upper neck"] = turn(x=0.4 * down, z=0.35 * aside)
        self.pose["head"] = turn(x=self.about(nod, 6), z=0.3 * aside)
        for side in (LEFT, RIGHT):
            self.pose[f"{SIDES[side]} ear"] = mirrored(
                side, turn(x=self.about(0, 8), y=self.about(0, 8))
            )

    def tail(self, up: float = 0, aside: float = 0) -> None:
        up, aside = self.about(up, 8), self.about(aside, 14)
        for k in (1, 2, 3):
            self.pose[f"tail {k}"] = turn(x=up / 3, z=aside / 3 * (1.4 if k > 1 else 0.4))

    def foreleg(
        self, side: float, swing: float = 0, elbow: float = 0, wrist: float = 0, foot: float = 0
    ) -> None:
        """A foreleg: swung forwards, elbow bent (the forearm rises), wrist and foot bent back."""
        name = SIDES[side]
        self.pose[f"{name} upper foreleg"] = mirrored(
            side, turn(x=-self.about(swing), y=-self.about(2, 1.5))
        )
        self.pose[f"{name} forearm"] = mirrored(side, turn(x=-self.about(elbow, 3)))
        self.pose[f"{name} lower foreleg"] = mirrored(side, turn(x=self.about(wrist, 3)))
        self.pose[f"{name} forefoot"] = mirrored(side, turn(x=self.about(foot, 3)))

    def hind_leg(
        self, side: float, swing: float = 0, knee: float = 0, hock: float = 0, foot: float = 0
    ) -> None:
        """A hind leg: swung forwards, knee bent (the shank goes back), hock bent (the rest comes forward)."""
        name = SIDES[side]
        self.pose[f"{name} upper hind leg"] = mirrored(
            side, turn(x=-self.about(swing), y=-self.about(2, 1.5))
        )
        self.pose[f"{name} shank"] = mirrored(side, turn(x=self.about(knee, 3)))
        self.pose[f"{name} lower hind leg"] = mirrored(side, turn(x=-self.about(hock, 3)))
        self.pose[f"{name} hind foot"] = mirrored(side, turn(x=self.about(foot, 3)))

    def standing(self) -> None:
        """All as in the rest pose, a little different each time."""
        self.trunk()
        self.head()
        self.tail()
        for side in (LEFT, RIGHT):
            self.foreleg(side)
            self.hind_leg(side)


def _stand(b: _Beast) -> None:
    pass


def _walk(b: _Beast) -> None:
    stride = b.about(22, 4)
    b.foreleg(b.lead, stride)
    b.foreleg(-b.lead, -0.8 * stride, 14, 20)
    b.hind_leg(b.lead, -stride)
    b.hind_leg(-b.lead, stride, 4, 4)


def _trot(b: _Beast) -> None:
    b.head(-6)
    b.foreleg(b.lead, 30, 34, 52, 10)
    b.foreleg(-b.lead, -22)
    b.hind_leg(b.lead, -28, -8)
    b.hind_leg(-b.lead, 34, 26, 24)


def _gallop(b: _Beast) -> None:
    b.trunk(4, -8)
    b.head(22, -8)
    b.tail(22)
    b.foreleg(b.lead, 58, 6)
    b.foreleg(-b.lead, 40, 34, 46, 10)
    b.hind_leg(b.lead, -46, -14, -14)
    b.hind_leg(-b.lead, -30, -6, -8)


def _gather(b: _Beast) -> None:
    b.trunk(-4, 16)
    b.head(14)
    b.foreleg(b.lead, -36, 10, 46)
    b.foreleg(-b.lead, -22, 20, 62)
    b.hind_leg(b.lead, 52, 22, 12)
    b.hind_leg(-b.lead, 38, 18, 10)


def _graze(b: _Beast) -> None:
    b.trunk(-4, 4)
    b.head(78, -22, 6)
    b.foreleg(b.lead, 16)
    b.foreleg(-b.lead, -8)


def _look_back(b: _Beast) -> None:
    b.trunk(0, 0, 18)
    b.head(-4, 0, 88)
    b.tail(0, -30)


def _alert(b: _Beast) -> None:
    b.head(-20, 14, 22)
    b.tail(-20)
    b.foreleg(b.lead, 34, 40, 78, 20)


def _sit(b: _Beast) -> None:
    b.trunk(40, 6)
    b.head(34, 6)
    b.tail(-38, 30)
    for side in (LEFT, RIGHT):
        b.foreleg(side, -36, 2, 2)
        b.hind_leg(side, 64, 92, 78, 30)


def _lie(b: _Beast) -> None:
    b.trunk(4, 4)
    b.head(-8, 8, 14)
    b.tail(-20, 30)
    for side in (LEFT, RIGHT):
        b.foreleg(side, -12, 92, 12)
        b.hind_leg(side, 62, 108, 96, 30)


def _rear(b: _Beast) -> None:
    b.trunk(52, -6)
    b.head(34, 8)
    b.tail(-20)
    b.foreleg(b.lead, 30, 62, 74, 20)
    b.foreleg(-b.lead, 48, 44, 60, 20)
    for side in (LEFT, RIGHT):
        b.hind_leg(side, -34, 14, 10)


def _stretch(b: _Beast) -> None:
    b.trunk(-24, -12)
    b.head(-26)
    b.tail(30)
    for side in (LEFT, RIGHT):
        b.foreleg(side, 54, 12, 6)
        b.hind_leg(side, -22, 0, 2)


POSES: dict[str, Callable[[_Beast], None]] = {
    "stand": _stand,
    "walk": _walk,
    "sit": _sit,
    "graze": _graze,
    "gallop": _gallop,
    "look-back": _look_back,
    "trot": _trot,
    "lie": _lie,
    "alert": _alert,
    "rear": _rear,
    "gather": _gather,
    "stretch": _stretch,
}

_RUNNERS = (
    "stand",
    "walk",
    "graze",
    "gallop",
    "look-back",
    "trot",
    "alert",
    "gather",
    "rear",
    "lie",
)
# What a species does; dogs and cats do everything.
HABITS = {
    "dog": tuple(POSES),
    "cat": tuple(POSES),
    "horse": _RUNNERS,
    "giraffe": ("stand", "walk", "graze", "gallop", "look-back", "trot", "alert"),
    "pig": ("stand", "walk", "graze", "gallop", "look-back", "trot", "alert", "stretch"),
    "rabbit": ("stand", "walk", "sit", "gallop", "look-back", "graze", "gather", "stretch"),
}


def make_pose(name: str, rng: np.random.Generator) -> Pose:
    """A pose of this name; which side leads is left to chance."""
    beast = _Beast(rng, LEFT if rng.random() < 0.5 else RIGHT)
    beast.standing()
    POSES[name](beast)
    return beast.pose
