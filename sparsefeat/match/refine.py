"""A pose made more exact by the surfaces themselves: a few steps of point-to-plane ICP."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation


def refine_pose(
    transform: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    distance: float,
    steps: int = 10,
    neighbours: int = 12,
) -> np.ndarray:
    """Move the source so that its points come to lie on the target's tangent planes.

    Every point of the source takes the nearest of the target within ``distance``; distances from
    that point's
    plane are weighed by Tukey's function, and the pose of least squares is one linear step.
    Sources: Chen,
    Medioni, "Object modelling by registration of multiple range images", 1992; Low, "Linear
    least-squares
    optimization for point-to-plane ICP", 2004.

    Args:
        transform: Shape (4, 4), where to start; maps source to target.
        source: Shape (N, 3).
        target: Shape (M, 3).
        distance: points further apart do not pull, in the unit of the points; halved towards the
            end.
        steps: at most; fewer once nothing moves.
        neighbours: of the target's points that its planes are fitted to.

    Returns:
        (4, 4) float64; ``transform`` itself where fewer than 6 points are in reach or the
        surfaces leave a
        direction open, as one plane does.
    """
    if len(target) < neighbours:
        return transform
    tree = cKDTree(target)
    normals = surface_normals(target, tree, neighbours)
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
        off = ((points - target[nearest[near]]) * normal).sum(1)
        weights = (1 - (apart[near] / reach) ** 2) ** 2
        rows = np.hstack([np.cross(points - centre, normal), normal])
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


def surface_normals(points: np.ndarray, tree: cKDTree, neighbours: int) -> np.ndarray:
    """Unit normals, of either sign, of the planes through the nearest points. Shape: (N, 3)."""
    near = points[tree.query(points, neighbours)[1]]
    near = near - near.mean(1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
