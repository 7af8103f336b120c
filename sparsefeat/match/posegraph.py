"""Poses of many scans from poses of pairs, of which some are wrong: a robust pose graph.

The graph starts from the spanning tree of the most credible pairs. Gauss-Newton steps on SE(3)
then move all poses, while pairs that the others contradict lose their weight (Geman-McClure, its
scale lowered step by step: graduated non-convexity). Sources: Choi, Zhou, Koltun, "Robust
Reconstruction of Indoor Scenes", CVPR 2015; Yang, Antonante, Tzoumas, Carlone, "Graduated
Non-Convexity for Robust Spatial Perception", RA-L 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from sparsefeat.checks import as_array, as_points, checked_count, checked_positive, checked_share
from sparsefeat.errors import InputError
from sparsefeat.io.gtlog import rigid_problem


class Edge(NamedTuple):
    """A pair of scans whose pose to each other was estimated.

    Attributes:
        i: index of the scan into whose frame the pose maps.
        j: index of the scan that is mapped.
        transform: (4, 4) float64, maps scan j into the frame of scan i.
        confidence: that the pose is right, above 0 and up to 1.
    """

    i: int
    j: int
    transform: np.ndarray
    confidence: float


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """Optimised poses.

    Attributes:
        poses: (n, 4, 4) float64, each maps a scan into the frame of the first scan of its
            component.
        component: (n,) int64; scans with different numbers are not connected, and their poses do
            not compare.
        kept: (number of edges,) bool, whether the edge agrees with the optimised poses.
        errors: (number of edges,) float64, how far an edge is off the optimised poses, in the
            unit of the points.
    """

    poses: np.ndarray
    component: np.ndarray
    kept: np.ndarray
    errors: np.ndarray

    def between(self, i: int, j: int) -> np.ndarray | None:
        """The pose (4, 4) that maps scan j into the frame of scan i; None if they are not
        connected."""
        if self.component[i] != self.component[j]:
            return None
        pose: np.ndarray = np.linalg.inv(self.poses[i]) @ self.poses[j]
        return pose


def optimise_poses(
    count: int,
    edges: Sequence[Edge],
    tolerance: float = 0.1,
    radius: float = 1.5,
    steps: int = 30,
    centres: np.ndarray | None = None,
) -> PoseGraph:
    """Find poses of all scans that agree with as many credible edges as possible.

    Args:
        count: number of scans.
        edges: estimated pairs; at most one per pair of scans.
        tolerance: an edge that is off by more than twice this does not agree, in the unit of the
            points.
        radius: of a scan; a rotation by an angle counts as a displacement of the angle times this.
        steps: Gauss-Newton steps; meanwhile the scale of the robust loss falls from the largest
            residual to the tolerance.
        centres: (count, 3) the middle of each scan in its own frame; None: its origin. Errors are
            measured there, so that they do not depend on where a file has its origin.

    Raises:
        InputError: indices out of range, an edge from a scan to itself, a pair given twice, a
            transform that is not a rigid motion, a tolerance or radius that is not positive, or
            centres of another shape.
    """
    count = checked_count(count, "pose graph: count", 0)
    tolerance = checked_positive(tolerance, "pose graph: tolerance")
    radius = checked_positive(radius, "pose graph: radius")
    steps = checked_count(steps, "pose graph: steps")
    _check_edges(count, edges)
    middle = np.tile(np.eye(4), (count, 1, 1))
    if centres is not None:
        centres = as_points(centres, "pose graph: centres")
        if len(centres) != count:
            raise InputError(f"pose graph: {len(centres)} centres, expected {count}")
        middle[:, :3, 3] = centres
    if not edges:
        return PoseGraph(
            np.tile(np.eye(4), (count, 1, 1)), np.arange(count), np.zeros(0, bool), np.zeros(0)
        )
    i = np.array([edge.i for edge in edges])
    j = np.array([edge.j for edge in edges])
    transforms = np.stack([as_array(edge.transform, "transform") for edge in edges]).astype(
        np.float64
    )
    measured = np.linalg.inv(middle[i]) @ transforms @ middle[j]
    confidence = np.array([edge.confidence for edge in edges], dtype=np.float64)
    credible = confidence + _supporting_triangles(
        count, i, j, measured, confidence, 2 * tolerance, radius
    )
    poses, component, fixed = _tree_poses(count, i, j, measured, credible)
    start = max(
        float(np.linalg.norm(_residuals(poses, i, j, measured, radius), axis=1).max()) / tolerance,
        1,
    )
    scales = tolerance * np.concatenate(
        [start ** np.linspace(1, 0, steps - steps // 3), np.ones(steps // 3)]
    )
    for scale in scales:
        residuals = _residuals(poses, i, j, measured, radius)
        weights = confidence * (scale**2 / (scale**2 + (residuals**2).sum(1))) ** 2
        poses = _gauss_newton(poses, i, j, measured, weights, fixed, radius)
    errors = np.linalg.norm(_residuals(poses, i, j, measured, radius), axis=1)
    poses = poses @ np.linalg.inv(middle)
    for k in np.unique(component):
        members = component == k
        poses[members] = np.linalg.inv(poses[np.flatnonzero(members)[0]]) @ poses[members]
    return PoseGraph(poses, component, errors <= 2 * tolerance, errors)


def _check_edges(count: int, edges: Sequence[Edge]) -> None:
    seen: set[frozenset[int]] = set()
    for edge in edges:
        for row in edge.i, edge.j:
            checked_count(row, "pose graph: index of an edge", 0)
        if not (edge.i < count and edge.j < count) or edge.i == edge.j:
            raise InputError(
                f"pose graph: edge {edge.i} {edge.j}, expected two different indices below {count}"
            )
        if frozenset((edge.i, edge.j)) in seen:
            raise InputError(f"pose graph: the pair {edge.i} {edge.j} is given twice")
        what = f"pose graph: the transform of {edge.i} {edge.j}"
        matrix = as_array(edge.transform, what)
        if (
            matrix.shape != (4, 4)
            or matrix.dtype.kind not in "fiu"
            or not np.isfinite(matrix).all()
        ):
            raise InputError(f"{what} is not a finite (4, 4) matrix")
        problem = rigid_problem(matrix)
        if problem is not None:
            raise InputError(f"{what} {problem}")
        share = checked_share(edge.confidence, f"pose graph: confidence of {edge.i} {edge.j}")
        if share == 0:
            raise InputError(f"pose graph: confidence 0 of {edge.i} {edge.j}, expected more")
        seen.add(frozenset((edge.i, edge.j)))


def _supporting_triangles(
    count: int,
    i: np.ndarray,
    j: np.ndarray,
    measured: np.ndarray,
    confidence: np.ndarray,
    tolerance: float,
    radius: float,
) -> np.ndarray:
    """For every edge the sum over closed triangles of the product of the confidences of its
    other two edges.

    A wrong edge closes triangles by chance only, so that right edges outrank it where there are
    loops.
    """
    between: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
    for a, b, transform, belief in zip(i, j, measured, confidence, strict=True):
        between[a, b] = (transform, belief)
        between[b, a] = (np.linalg.inv(transform), belief)
    neighbours = [sorted({b for a, b in between if a == k}) for k in range(count)]
    result = np.zeros(len(i))
    for e, (a, b) in enumerate(zip(i, j, strict=True)):
        for c in set(neighbours[a]) & set(neighbours[b]):
            (first, belief0), (second, belief1) = between[a, c], between[c, b]
            loop = np.linalg.inv(measured[e]) @ first @ second
            if np.linalg.norm(_logarithm(loop[None], radius)[0]) < tolerance * 3**0.5:
                result[e] += belief0 * belief1
    return result


def _tree_poses(
    count: int, i: np.ndarray, j: np.ndarray, measured: np.ndarray, credible: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses along the most credible spanning tree, components, and the first scan of each."""
    # scipy takes a zero for an absent edge, so costs stay positive.
    cost = csr_matrix((1 + credible.max() - credible, (i, j)), shape=(count, count))
    tree = minimum_spanning_tree(cost)
    component = connected_components(tree, directed=False)[1].astype(np.int64)
    by_pair = {(a, b): transform for a, b, transform in zip(i, j, measured, strict=True)}
    around: list[list[int]] = [[] for _ in range(count)]
    for a, b in zip(*tree.nonzero(), strict=True):
        around[a].append(b)
        around[b].append(a)
    poses = np.tile(np.eye(4), (count, 1, 1))
    fixed = np.array([np.flatnonzero(component == k)[0] for k in np.unique(component)])
    waiting, placed = list(fixed), set(fixed.tolist())
    while waiting:
        a = waiting.pop()
        for b in around[a]:
            if b in placed:
                continue
            known = by_pair.get((a, b))
            step = known if known is not None else np.linalg.inv(by_pair[b, a])
            poses[b] = poses[a] @ step
            placed.add(b)
            waiting.append(b)
    return poses, component, fixed


def _logarithm(motion: np.ndarray, radius: float) -> np.ndarray:
    """Translation, and rotation vector times ``radius``. Shape: (E, 4, 4) -> (E, 6)."""
    return np.hstack(
        [motion[:, :3, 3], radius * Rotation.from_matrix(motion[:, :3, :3]).as_rotvec()]
    )


def _residuals(
    poses: np.ndarray, i: np.ndarray, j: np.ndarray, measured: np.ndarray, radius: float
) -> np.ndarray:
    return _logarithm(np.linalg.inv(measured) @ np.linalg.inv(poses[i]) @ poses[j], radius)


def _gauss_newton(
    poses: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    measured: np.ndarray,
    weights: np.ndarray,
    fixed: np.ndarray,
    radius: float,
) -> np.ndarray:
    """One step of all poses at once; the first pose of each component stays."""
    count, edges = len(poses), len(i)
    residuals = _residuals(poses, i, j, measured, radius)
    # With poses exp(d) @ pose about each scan's own origin (translation t + d_t, rotation
    # exp(d_r) R), to first
    # order the residual gains R_z^T R_i^T (d_t_j - d_t_i - d_r_i x (t_j - t_i)) and radius
    # R_j^T (d_r_j - d_r_i).
    turn = np.swapaxes(measured[:, :3, :3], 1, 2) @ np.swapaxes(poses[i, :3, :3], 1, 2)
    back = np.swapaxes(poses[j, :3, :3], 1, 2) * radius
    arm = _cross(poses[j, :3, 3] - poses[i, :3, 3])
    of_i, of_j = np.zeros((edges, 6, 6)), np.zeros((edges, 6, 6))
    of_i[:, :3, :3], of_j[:, :3, :3] = -turn, turn
    of_i[:, :3, 3:] = turn @ arm
    of_i[:, 3:, 3:], of_j[:, 3:, 3:] = -back, back
    root = np.sqrt(weights)[:, None]
    rows = np.arange(6 * edges).reshape(edges, 6, 1)
    entries, at_rows, at_columns = [], [], []
    for block, k in ((of_i, i), (of_j, j)):
        entries.append((block * root[..., None]).ravel())
        at_rows.append(np.broadcast_to(rows, block.shape).ravel())
        columns = 6 * k[:, None, None] + np.arange(6)
        at_columns.append(np.broadcast_to(columns, block.shape).ravel())
    place = (np.concatenate(at_rows), np.concatenate(at_columns))
    jacobian = coo_matrix((np.concatenate(entries), place), shape=(6 * edges, 6 * count)).tocsc()
    free = np.setdiff1d(np.arange(count), fixed)
    if not len(free):
        return poses
    columns = (6 * free[:, None] + np.arange(6)).ravel()
    jacobian = jacobian[:, columns]
    # An edge without weight leaves its scans where they are.
    normal = (jacobian.T @ jacobian).tocsc()
    normal.setdiag(normal.diagonal() + 1e-9)
    step = splu(normal).solve(-jacobian.T @ (residuals * root).ravel()).reshape(-1, 6)
    moved = poses.copy()
    moved[free, :3, 3] += step[:, :3]
    moved[free, :3, :3] = Rotation.from_rotvec(step[:, 3:]).as_matrix() @ poses[free, :3, :3]
    return moved


def _cross(vectors: np.ndarray) -> np.ndarray:
    """Matrices of the cross product. Shape: (E, 3) -> (E, 3, 3)."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
