"""What of a closed room is in the way of a view into it."""

from __future__ import annotations

import numpy as np

from sparsefeat.visualize.raster import View

# A wall: this share of a cloud's points within this share of its extent from one of its sides.
_THICKNESS = 0.04
_POINTS = 0.05
# ... that lie in this share of the squares of a board laid over that side; legs of a table do not.
_COVERED, _SQUARES = 0.4, 10
# More than this is no wall of a room but the whole of a flat cloud.
_FLAT = 0.6
_TURNS_DEG = np.arange(0.0, 90.0, 1.5)


def inside(points: np.ndarray, view: View) -> np.ndarray:
    """Which points to draw, so that one looks into a closed room: no ceiling, no wall towards the viewer.

    Only where at least two of these three sides are walls is anything left out, so that a table keeps its top.

    Args:
        points: finite. Shape: (N, 3)
        view: the direction of sight.

    Returns:
        (N,) bool.
    """
    right, _, towards = view.axes()
    up = View(0.0, 0.0, view.up).axes()[1]
    level = np.cross(right, up)
    level = level if level @ towards > 0 else -level
    ground = points @ np.stack([right, level], 1)
    turn = np.radians(_TURNS_DEG)
    # The turn at which the room's ground plan fills its bounding rectangle best.
    axes = np.stack([np.cos(turn), np.sin(turn)], 1)
    across = np.stack([-axes[:, 1], axes[:, 0]], 1)
    some = ground[:: max(1, len(ground) // 20_000)]
    areas = np.ptp(some @ axes.T, axis=0) * np.ptp(some @ across.T, axis=0)
    best = int(np.argmin(areas))
    sides = [points @ up]
    for axis in (axes[best], across[best]):
        # Towards the viewer, who is at the far end of the second coordinate.
        sides.append(ground @ (axis if axis[1] >= 0 else -axis))
    place = np.stack(sides, 1)
    place = (place - place.min(0)) / np.maximum(np.ptp(place, axis=0), 1e-12)
    board = np.minimum((place * _SQUARES).astype(np.int64), _SQUARES - 1)
    walls = []
    for side in range(3):
        near = place[:, side] > 1 - _THICKNESS
        squares = np.delete(board, side, axis=1)[near] @ [_SQUARES, 1]
        covered = len(np.unique(squares)) / _SQUARES**2
        if _POINTS < near.mean() < _FLAT and covered > _COVERED:
            walls.append(near)
    return ~np.any(walls, axis=0) if len(walls) >= 2 else np.ones(len(points), dtype=bool)
