"""What people do: poses by name, each different every time, within what joints allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsefeat.synthetic.creatures.body import LEFT, RIGHT, mirrored, turn
from sparsefeat.synthetic.creatures.hand import FINGERS
from sparsefeat.synthetic.creatures.humanoid import SIDES

Pose = dict[str, np.ndarray]


class _Person:
    """Collects a pose in a person's terms. Angles are degrees; each is varied by about ``spread``.

    Args:
        rng: varies.
        lead: the side that leads, as in walking: `LEFT` or `RIGHT`.
    """

    def __init__(self, rng: np.random.Generator, lead: float):
        self.rng, self.lead, self.pose = rng, lead, {}

    def about(self, angle: float, spread: float = 6.0) -> float:
        return float(angle + spread * np.clip(self.rng.normal(), -1.8, 1.8))

    def trunk(self, tilt: float = 0, bend: float = 0, twist: float = 0, roll: float = 0) -> None:
        """Tilt the whole body forwards; bend the spine forwards, twist it, lean it to the lead."""
        self.pose["pelvis"] = turn(x=self.about(tilt, 3))
        half = turn(
            x=self.about(bend, 4) / 2,
            y=self.lead * self.about(roll, 3) / 2,
            z=self.lead * self.about(twist, 5) / 2,
        )
        self.pose["waist"] = self.pose["chest"] = half

    def look(self, down: float = 0, aside: float = 0) -> None:
        down, aside = self.about(down, 8), self.lead * self.about(aside, 18)
        self.pose["neck"] = turn(x=0.4 * down, z=0.4 * aside)
        self.pose["head"] = turn(x=0.6 * down, y=self.about(0, 5), z=0.6 * aside)

    def arm(
        self, side: float, lower: float, swing: float = 0, elbow: float = 12, twist: float = 0
    ) -> None:
        """An arm: lowered from the horizontal, swung forwards, bent; twisted, the elbow's crook turns up."""
        name = SIDES[side]
        lower = np.clip(self.about(lower), -85, 82)
        upper = turn(x=-self.about(twist), y=lower) if twist else turn(x=-self.about(0), y=lower)
        upper = turn(x=-self.about(swing, 8)) @ upper
        self.pose[f"{name} upper arm"] = mirrored(side, upper)
        self.pose[f"{name} forearm"] = mirrored(
            side, turn(x=self.about(0, 15), z=-np.clip(self.about(elbow), 2, 140))
        )
        self.pose[f"{name} hand"] = mirrored(side, turn(y=self.about(0, 12), z=self.about(0, 8)))

    def fingers(self, side: float, curl: float, index: float | None = None) -> None:
        """Curl the fingers, the index finger on its own if it is given."""
        for finger in FINGERS:
            bent = self.about(index if finger == "index" and index is not None else curl, 4)
            for joint in (1, 2):
                self.pose[f"{SIDES[side]} hand {finger} {joint}"] = mirrored(side, turn(y=bent))
        for joint in (1, 2):
            closed = turn(y=0.3 * curl, z=0.35 * curl)
            self.pose[f"{SIDES[side]} hand thumb {joint}"] = mirrored(side, closed)

    def leg(
        self,
        side: float,
        lift: float,
        knee: float = 4,
        spread: float = 4,
        toes: float = 0,
        out: float = 8,
    ) -> None:
        """A leg: swung forwards, spread aside, turned out; the knee bent, the toes pulled up."""
        name = SIDES[side]
        thigh = turn(
            z=self.about(out, 4),
            y=-self.about(spread, 2.5),
            x=-np.clip(self.about(lift, 5), -45, 120),
        )
        self.pose[f"{name} thigh"] = mirrored(side, thigh)
        self.pose[f"{name} calf"] = mirrored(side, turn(x=np.clip(self.about(knee, 5), 0, 140)))
        self.pose[f"{name} foot"] = mirrored(side, turn(x=-np.clip(self.about(toes, 4), -50, 30)))

    def relaxed(self) -> None:
        """Arms hang, legs stand, hands half open; what comes after says what is different."""
        self.trunk()
        self.look()
        for side in (LEFT, RIGHT):
            self.arm(side, 74, 4, 14)
            self.fingers(side, self.about(18, 6))
            self.leg(side, 0)


def _stand(p: _Person) -> None:
    pass


def _open(p: _Person) -> None:
    for side in (LEFT, RIGHT):
        p.arm(side, 40, 5, 10)
        p.fingers(side, 6)
        p.leg(side, 0, 4, 10)


def _spread(p: _Person) -> None:
    for side in (LEFT, RIGHT):
        p.arm(side, 4, 0, 8)
        p.fingers(side, 5)
        p.leg(side, 0, 3, 14)


def _walk(p: _Person) -> None:
    stride = p.about(26, 4)
    p.trunk(4, 0, 10)
    p.leg(p.lead, stride, 6, 2, 8)
    p.leg(-p.lead, -0.7 * stride, 22, 2, -12)
    p.arm(p.lead, 76, -0.8 * stride, 12)
    p.arm(-p.lead, 76, stride, 28)


def _run(p: _Person) -> None:
    p.trunk(14, 4, 14)
    p.leg(p.lead, 62, 78, 2, 0)
    p.leg(-p.lead, -22, 42, 2, -25)
    p.arm(p.lead, 72, -48, 85)
    p.arm(-p.lead, 72, 48, 90)
    for side in (LEFT, RIGHT):
        p.fingers(side, 55)


def _wave(p: _Person) -> None:
    p.arm(p.lead, -18, 0, 62, 85)
    p.fingers(p.lead, 4)
    p.look(0, 8)


def _hands_up(p: _Person) -> None:
    for side in (LEFT, RIGHT):
        p.arm(side, -55, 0, 18, 60)
        p.fingers(side, 5)
        p.leg(side, 0, 4, 9)


def _reach(p: _Person) -> None:
    p.trunk(0, -4, 0, 8)
    p.arm(p.lead, 70, 150, 12)
    p.fingers(p.lead, 12)
    p.look(-22)
    p.leg(-p.lead, -8, 14, 5)


def _point(p: _Person) -> None:
    p.arm(p.lead, 62, 82, 6)
    p.fingers(p.lead, 62, 3)
    p.look(0, -6)


def _carry(p: _Person) -> None:
    for side in (LEFT, RIGHT):
        p.arm(side, 70, 22, 78)
        p.fingers(side, 30)
        p.leg(side, 0, 6, 8)


def _sit(p: _Person) -> None:
    p.trunk(-6, 10)
    for side in (LEFT, RIGHT):
        p.leg(side, 82, 84, 9, 0)
        p.arm(side, 64, 32, 42)


def _sit_on_floor(p: _Person) -> None:
    p.trunk(-12, 18)
    p.leg(p.lead, 88, 14, 12, 0)
    p.leg(-p.lead, 96, 62, 12, 0)
    for side in (LEFT, RIGHT):
        p.arm(side, 55, -30, 8)


def _squat(p: _Person) -> None:
    p.trunk(28, 18)
    p.look(-24)
    for side in (LEFT, RIGHT):
        p.leg(side, 108, 118, 16, 22, 18)
        p.arm(side, 66, 74, 20)


def _kneel(p: _Person) -> None:
    p.trunk(4, 6)
    p.leg(p.lead, 88, 88, 8, 0)
    p.leg(-p.lead, -2, 92, 4, -40)
    p.arm(p.lead, 62, 34, 48)


def _bow(p: _Person) -> None:
    p.trunk(38, 48)
    for side in (LEFT, RIGHT):
        p.leg(side, 40, 8, 4)
        p.arm(side, 72, 88, 8)


def _kick(p: _Person) -> None:
    p.trunk(-12, 4, -10)
    p.leg(p.lead, 72, 14, 4, -20)
    p.leg(-p.lead, 0, 10)
    p.arm(p.lead, 50, -34, 25)
    p.arm(-p.lead, 52, 55, 25)


def _balance(p: _Person) -> None:
    p.trunk(32, 6)
    p.look(-24)
    p.leg(p.lead, -36, 16, 2, -30)
    p.leg(-p.lead, 32, 8, 1)
    for side in (LEFT, RIGHT):
        p.arm(side, 4, 5, 10)
        p.fingers(side, 4)


def _crawl(p: _Person) -> None:
    p.trunk(84, 0)
    p.look(-42)
    step = p.about(14, 4)
    for side, ahead in ((p.lead, step), (-p.lead, -step)):
        p.leg(side, 84 + ahead, 82, 5, -45)
        p.arm(side, 74, 86 - ahead, 6)
        p.pose[f"{SIDES[side]} hand"] = mirrored(side, turn(y=-70))
        p.fingers(side, 4)


def _lie_on_back(p: _Person) -> None:
    p.trunk(-90)
    p.look(6, 20)
    p.leg(p.lead, 4, 6, 7)
    p.leg(-p.lead, 34, 62, 6)
    for side in (LEFT, RIGHT):
        p.arm(side, 52, 4, 16)


def _lie_on_front(p: _Person) -> None:
    p.trunk(90)
    p.look(-18, 30)
    for side in (LEFT, RIGHT):
        p.leg(side, -2, 6, 7, -42)
        p.arm(side, -30, 0, 62, 70)


def _jump(p: _Person) -> None:
    p.trunk(6, -4)
    p.leg(p.lead, 48, 72, 6, -25)
    p.leg(-p.lead, 4, 48, 6, -25)
    p.arm(p.lead, -48, 0, 14, 40)
    p.arm(-p.lead, -30, 0, 20, 40)


POSES: dict[str, Callable[[_Person], None]] = {
    "stand": _stand,
    "walk": _walk,
    "sit": _sit,
    "open": _open,
    "reach": _reach,
    "run": _run,
    "wave": _wave,
    "squat": _squat,
    "point": _point,
    "kneel": _kneel,
    "hands-up": _hands_up,
    "bow": _bow,
    "kick": _kick,
    "lie-on-back": _lie_on_back,
    "carry": _carry,
    "balance": _balance,
    "crawl": _crawl,
    "spread": _spread,
    "sit-on-floor": _sit_on_floor,
    "jump": _jump,
    "lie-on-front": _lie_on_front,
}


def make_pose(name: str, rng: np.random.Generator) -> Pose:
    """A pose of this name; which side leads is left to chance."""
    person = _Person(rng, LEFT if rng.random() < 0.5 else RIGHT)
    person.relaxed()
    POSES[name](person)
    return person.pose
