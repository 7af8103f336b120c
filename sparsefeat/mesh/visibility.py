"""What can be seen from where: lines of sight among the cells that points occupy."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_NEIGHBOURS = 8
_SAMPLE = 2000
_MAX_CELLS = 1 << 26


def surface_spacing(points: np.ndarray) -> float:
    """Edge of the square of surface that a point has for itself, of discs that reach to the eighth neighbour.

    Shape: (N, 3) -> a length in the unit of the points, the median over a sample; 0 for a single place.
    """
    chosen = points[:: max(1, len(points) // _SAMPLE)]
    count = min(_NEIGHBOURS, len(points) - 1)
    if count < 1:
        return 0.0
    reach = cKDTree(points).query(chosen, count + 1)[0][:, -1]
    return float(np.median(reach) * np.sqrt(np.pi / count))


class FreeSpace:
    """The cells that points occupy; a line of sight is free if it meets none of them.

    Stray points far away from all others occupy none.

    Args:
        points: Shape (N, 3).
        cell: edge of a cell; should have a point or more where there is a surface.
        margin: empty cells on each side of the points; lines start within.
    """

    def __init__(self, points: np.ndarray, cell: float, margin: int = 1):
        points = points[_together(points)]
        extent = np.ptp(points, axis=0)
        self.cell = max(float(cell), 1e-6 * float(extent.max()), 1e-12)
        # Coarser cells rather than more than fit into memory.
        while np.prod(extent / self.cell + 2 * margin + 1) > _MAX_CELLS:
            self.cell *= 1.25
        self.low = points.min(0) - margin * self.cell
        cells = np.floor((points - self.low) / self.cell).astype(np.int64)
        self.shape = cells.max(0) + 1 + margin
        taken = np.zeros(self.shape, dtype=bool)
        taken[tuple(cells.T)] = True
        self._taken = taken.ravel()

    def sees(self, start: np.ndarray, end: np.ndarray, skip: np.ndarray) -> np.ndarray:
        """Which lines are free, looked at in steps of a cell.

        Args:
            start, end: of the lines. Shape: (R, 3).
            skip: cells from the start that do not count: it lies on a surface itself. Shape: (R,).

        Returns:
            Shape (R,) bool.
        """
        outside = np.flatnonzero(~self._holds((start - self.low) / self.cell))
        if len(outside):
            start, skip = start.copy(), skip.copy()
            start[outside], skip[outside] = self._entered(
                start[outside], end[outside], skip[outside]
            )
        place = ((start - self.low) / self.cell).astype(np.float32)
        line = ((end - start) / self.cell).astype(np.float32)
        length = np.linalg.norm(line, axis=1)
        step = line / np.maximum(length, 1e-6)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            border = np.where(step > 0, self.shape - 1 - place, -place) / step
        border = np.where(step == 0, np.inf, border).min(1)
        count = np.ceil(np.minimum(length - 1, border) - skip).clip(0).astype(np.int64)
        free = np.ones(len(start), dtype=bool)
        rows = np.flatnonzero(count > 0)
        place = place[rows] + step[rows] * skip[rows, None].astype(np.float32)
        step, count = step[rows], count[rows]
        rest = np.array([self.shape[1] * self.shape[2], self.shape[2], 1], dtype=np.int64)
        done = 0
        while len(rows):
            hit = self._taken[place.astype(np.int64) @ rest]
            free[rows[hit]] = False
            done += 1
            left = np.flatnonzero(~hit & (count > done))
            rows, step, count = rows[left], step[left], count[left]
            place = place[left] + step
        return free

    def _holds(self, place: np.ndarray) -> np.ndarray:
        inside: np.ndarray = ((place >= 0) & (place < self.shape)).all(1)
        return inside

    def _entered(
        self, start: np.ndarray, end: np.ndarray, skip: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lines from outside of the box from where they enter it, and the cells left to skip; ``end`` for those that
        do not."""
        place, line = (start - self.low) / self.cell, (end - start) / self.cell
        length = np.linalg.norm(line, axis=1)
        step = line / np.maximum(length, 1e-6)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(step > 0, -place, self.shape - 1 - place) / step
        # A hair more, so that rounding does not leave them outside.
        steps = np.where(step == 0, 0, steps).max(1).clip(0) * (1 + 1e-12) + 1e-3
        meets = self._holds(place + steps[:, None] * step) & (steps < length)
        entered = start + (steps * self.cell)[:, None] * step
        return np.where(meets[:, None], entered, end), (skip - steps).clip(0)


def _together(points: np.ndarray) -> np.ndarray:
    """Which points are at most four times as far from the middle 98 % as these extend. Shape: (N, 3) -> (N,) bool."""
    # The nearest points inside: between two points, one of few could be halfway to a stray one.
    low = np.quantile(points, 0.01, axis=0, method="higher")
    high = np.quantile(points, 0.99, axis=0, method="lower")
    reach = 4 * float(np.linalg.norm(high - low))
    if reach == 0:
        return np.ones(len(points), dtype=bool)
    inside: np.ndarray = ((points >= low - reach) & (points <= high + reach)).all(1)
    return inside
