"""Limbs as rounded cones, and the smooth body that many of them blend into."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Cones:
    """P rounded cones: two balls and the cone that touches both, with an elliptic cross-section.

    Attributes:
        origin: (P, 3), centre of the first ball.
        axes: (P, 3, 3), rows: side, depth and length direction of each cone. Orthonormal.
        length: (P,), from the first centre to the second.
        radius: (P, 2), of the two balls.
        stretch: (P, 2), factors of the cross-section along side and depth.
        blend: (P,), distance over which a cone flows into others.
    """

    origin: np.ndarray
    axes: np.ndarray
    length: np.ndarray
    radius: np.ndarray
    stretch: np.ndarray
    blend: np.ndarray

    def __len__(self) -> int:
        return len(self.origin)

    def only(self, p: int) -> Cones:
        """Cone ``p`` alone."""
        return Cones(*(getattr(self, entry.name)[[p]] for entry in fields(self)))

    def moved(self, rotation: np.ndarray, offset: np.ndarray) -> Cones:
        """Every cone p moved by x -> rotation[p] x + offset[p]. Shapes: (P, 3, 3), (P, 3)."""
        return replace(
            self,
            origin=np.einsum("pij,pj->pi", rotation, self.origin) + offset,
            axes=np.einsum("pij,paj->pai", rotation, self.axes),
        )

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance of points to every cone, negative within. Shape: (N, 3) -> (N, P).

        Exact for round cross-sections (Quilez, "Distance functions": round cone); of elliptic ones, the
        surface and the sign are.
        """
        local = [
            points @ self.axes[:, i].T - (self.axes[:, i] * self.origin).sum(1) for i in range(3)
        ]
        around = np.hypot(local[0] / self.stretch[:, 0], local[1] / self.stretch[:, 1])
        value, _, _ = _silhouette(around, local[2], self.radius, self.length)
        return value * self.stretch.min(1)


_STILL = 1e-5
"""Steps onto a surface end where one is shorter than this, in radii."""


def body_field(
    cones: Cones, points: np.ndarray, near: np.ndarray, share: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The smooth union of cones: zero on the body's surface, negative within.

    ``f(x) = -log sum_p s_p exp(-d_p(x) / blend_p)``: infinitely smooth where the d_p are, and indifferent
    to the order of the cones. Each cone has a blend of its own, so that fingers part and hips flow.

    Args:
        cones: P of them.
        points: Shape (N, 3).
        near: rows of the K cones that each point feels. Shape (N, K).
        share: how strongly, from 0 to 1; None: fully. Shape (N, K).

    Returns:
        Values (N,), in units of the blend, and gradients (N, 3).
    """
    axes, stretch, blend = cones.axes[near], cones.stretch[near], cones.blend[near]
    local = np.einsum("nkij,nkj->nki", axes, points[:, None] - cones.origin[near])
    flat = local[..., :2] / stretch
    around = np.hypot(flat[..., 0], flat[..., 1])
    value, d_around, d_along = _silhouette(
        around, local[..., 2], cones.radius[near], cones.length[near]
    )
    scale = stretch.min(-1)
    exponent = -value * scale / blend
    if share is not None:
        exponent = exponent + np.log(np.maximum(share, 1e-30))
    top = exponent.max(1, keepdims=True)
    weight = np.exp(exponent - top)
    total = weight.sum(1, keepdims=True)
    weight *= scale / (total * blend)
    outwards = flat / stretch * (d_around / np.maximum(around, 1e-12))[..., None]
    pull = np.concatenate([outwards, d_along[..., None]], -1) * weight[..., None]
    return -(top + np.log(total))[:, 0], np.einsum("nki,nkij->nj", pull, axes)


def onto_surface(
    cones: Cones,
    points: np.ndarray,
    steps: int,
    near: np.ndarray,
    share: np.ndarray | None = None,
    limit: float = np.inf,
) -> np.ndarray:
    """Move points onto the body's surface, along the field's gradient, by Newton's steps.

    Args:
        cones, points, near, share: as for `body_field`.
        steps: number of them.
        limit: longest step.
    """
    points, moving = points.copy(), np.arange(len(points))
    least = _STILL * float(np.median(cones.radius))
    for _ in range(steps):
        value, gradient = body_field(
            cones, points[moving], near[moving], None if share is None else share[moving]
        )
        slope = np.maximum(np.linalg.norm(gradient, axis=1), 1e-12)
        step = np.clip(value / slope, -limit, limit)
        points[moving] -= (step / slope)[:, None] * gradient
        # Newton's next step would be the square of one that is this small.
        moving = moving[np.abs(step) > least]
    return points


def _silhouette(around: np.ndarray, along: np.ndarray, radius: np.ndarray, length: np.ndarray):
    """Distance to a cone's outline in the half-plane (around, along) of its axis, and its derivatives."""
    first, second = radius[..., 0], radius[..., 1]
    length = np.maximum(length, 1e-9)
    # Where one ball swallows the other there is no cone that touches both: the larger ball is left.
    sine = np.clip((first - second) / length, -0.999, 0.999)
    cosine = np.sqrt(1 - sine**2)
    place = cosine * along - sine * around
    low, high = place < 0, place > cosine * length
    beyond = np.where(high, along - length, along)
    to_ball = np.hypot(around, beyond)
    ends = low | high
    value = np.where(
        ends, to_ball - np.where(high, second, first), cosine * around + sine * along - first
    )
    safe = np.maximum(to_ball, 1e-12)
    return value, np.where(ends, around / safe, cosine), np.where(ends, beyond / safe, sine)
