"""A pose made more exact by the surfaces and the matches: a few steps of point-to-plane ICP."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation


def refine_pose(
    transform: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    distance: float,
    matches: tuple[np.ndarray, np.ndarray] | None = None,
    match_distance: float | None = None,
    steps: int = 10,
    neighbours: int = 12,
) -> np.ndarray:
    """Move the source so that its points come to lie on the target's tangent planes, and matched points on each other.

    Every point of the source takes the nearest of the target within ``distance``. Distances from that point's plane are
    weighed by Tukey's function, and so are those of matched points. A match counts as much as a point. The pose of
    least squares is one linear step. Matches hold what surfaces leave open, as one floor does, and keep flat surfaces
    from sliding. Sources: Chen, Medioni, "Object modelling by registration of multiple range images", 1992; Low, "Linear
    least-squares optimization for point-to-plane ICP", 2004.

    Args:
        transform: Shape (4, 4), where to start; maps source to target.
        source: Shape (N, 3).
        target: Shape (M, 3).
        distance: points further apart do not pull, in the unit of the points; halved towards the end.
        matches: Shape (K, 3) twice, points of the source and what they match; None uses the surfaces alone.
        match_distance: matched points further apart do not pull; None is ``distance``.
        steps: at most; fewer once nothing moves.
        neighbours: of the target's points that its planes are fitted to.

    Returns:
        (4, 4) float64; ``transform`` itself where fewer than 6 points are in reach, or surfaces and matches leave a
        direction open.
    """
    if len(target) < neighbours:
        return transform
    tree = cKDTree(target)
    normals = surface_normals(target, tree, neighbours)
    matched, partners = (np.zeros((0, 3)),) * 2 if matches is None else matches
    match_reach = distance if match_distance is None else match_distance
    pose = np.array(transform, dtype=np.float64)
    for step in range(steps):
        reach = distance if step < steps // 2 else distance / 2
        moved = source @ pose[:3, :3].T + pose[:3, 3]
        apart, nearest = tree.query(moved, distance_upper_bound=reach)
        near = np.isfinite(apart)
        if near.sum() < 6:
            return np.array(transform, dtype=np.float64)
        points, normal = moved[near], normals[nearest[near]]
        centre = points.mean(0)
        ends = matched @ pose[:3, :3].T + pose[:3, 3]
        between = ends - partners
        rows = _rows(points - centre, normal)
        off = ((points - target[nearest[near]]) * normal).sum(1)
        weights = tukey(apart[near], reach)
        for axis in np.eye(3):
            rows = np.vstack([rows, _rows(ends - centre, np.broadcast_to(axis, ends.shape))])
            off = np.append(off, between @ axis)
            weights = np.append(weights, tukey(np.linalg.norm(between, axis=1), match_reach))
        system = (rows * weights[:, None]).T @ rows
        scale = np.sqrt(np.trace(system[:3, :3]) / max(np.trace(system[3:, 3:]), 1e-12))
        unit = np.array([1 / max(scale, 1e-12)] * 3 + [1.0] * 3)
        if np.linalg.cond(system * np.outer(unit, unit)) > 1e4:
            return np.array(transform, dtype=np.float64)
        motion = np.linalg.solve(system, -(rows * weights[:, None]).T @ off)
        update = np.eye(4)
        update[:3, :3] = Rotation.from_rotvec(motion[:3]).as_matrix()
        update[:3, 3] = centre + motion[3:] - update[:3, :3] @ centre
        pose = update @ pose
        if np.linalg.norm(motion[3:]) < 1e-4 * distance and np.linalg.norm(motion[:3]) < 1e-5:
            break
    return pose


def tukey(distance: np.ndarray, reach: float) -> np.ndarray:
    """Tukey's weights: 1 at no distance, 0 from ``reach`` on."""
    weights: np.ndarray = (1 - (distance / reach) ** 2).clip(0) ** 2
    return weights


def _rows(arms: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How rotation vectors and translations move points in directions. Shape: (N, 3), (N, 3) -> (N, 6)."""
    return np.hstack([np.cross(arms, directions), directions])


def surface_normals(points: np.ndarray, tree: cKDTree, neighbours: int) -> np.ndarray:
    """Unit normals, of either sign, of the planes through the nearest points. Shape: (N, 3)."""
    near = points[tree.query(points, neighbours)[1]]
    near = near - near.mean(1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
