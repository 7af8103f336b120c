"""Point feature histograms against their definition, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparsefeat.errors import InputError
from sparsefeat.mesh.fpfh import BINS, ball_means, fpfh, multi_scale_fpfh


def cloud(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return rng.uniform(0, 1, (count, 3)), normals


def by_definition(points: np.ndarray, normals: np.ndarray, radius: float) -> np.ndarray:
    """Literal: a loop over points and their neighbours."""
    n = len(points)
    simple, near = np.zeros((n, 3 * BINS)), [[] for _ in range(n)]
    for p in range(n):
        for q in range(n):
            distance = np.linalg.norm(points[q] - points[p])
            if p == q or distance > radius:
                continue
            near[p].append((q, distance))
            source, target = p, q
            line = (points[q] - points[p]) / distance
            angle = [math.acos(abs(np.dot(normals[k], line))) for k in (p, q)]
            if angle[1] < angle[0]:
                source, target, line = q, p, -line
            u = normals[source]
            v = np.cross(line, u)
            v /= np.linalg.norm(v)
            w = np.cross(u, v)
            alpha, phi = np.dot(v, normals[target]), np.dot(u, line)
            theta = math.atan2(np.dot(w, normals[target]), np.dot(u, normals[target]))
            for k, share in enumerate(
                ((alpha + 1) / 2, (phi + 1) / 2, (theta + math.pi) / (2 * math.pi))
            ):
                simple[p, k * BINS + min(BINS - 1, int(share * BINS))] += 1
        if near[p]:
            simple[p] /= len(near[p])
    full = simple.copy()
    for p in range(n):
        if near[p]:
            weight = np.array([1 / distance for _, distance in near[p]])
            full[p] += weight @ simple[[q for q, _ in near[p]]] / weight.sum()
    return full / 2


def test_histograms_are_those_of_the_definition():
    points, normals = cloud()
    points[0] = 10.0  # alone
    ours, literal = fpfh(points, normals, 0.35), by_definition(points, normals, 0.35)
    np.testing.assert_allclose(ours, literal, atol=1e-6)
    assert not ours[0].any()
    np.testing.assert_allclose(ours[1:].reshape(-1, 3, BINS).sum(2), 1, atol=1e-5)


def test_neither_pose_nor_unit_nor_order_matters():
    points, normals = cloud(200)
    turn = Rotation.from_rotvec([0.3, 1.1, -0.4]).as_matrix()
    order = np.random.default_rng(1).permutation(200)
    first = fpfh(points, normals, 0.3)
    second = fpfh(7 * points[order] @ turn.T + 5, normals[order] @ turn.T, 2.1)
    # A value on the border of two bins may fall to either side.
    assert np.mean(np.abs(first[order] - second) > 1e-5) < 0.01


def test_several_radii_and_their_means_stand_side_by_side():
    points, normals = cloud(100)
    wide = multi_scale_fpfh(points, normals, 2.0, radii=(0.1, 0.2), context=(0.3,))
    plain = np.concatenate([fpfh(points, normals, 0.2), fpfh(points, normals, 0.4)], 1)
    assert wide.shape == (100, 2 * 66)
    np.testing.assert_array_equal(wide[:, :66], plain)
    inside = np.linalg.norm(points - points[3], axis=1) <= 0.6
    np.testing.assert_allclose(wide[3, 66:], plain[inside].mean(0), rtol=1e-5)
    np.testing.assert_allclose(ball_means(points, plain, 1e-9), plain)


def test_what_does_not_fit_is_refused():
    points, normals = cloud(5)
    with pytest.raises(InputError, match="5 points and 4 normals"):
        fpfh(points, normals[:4], 0.1)
    for radius in (0.0, np.nan, "a"):
        with pytest.raises(
            InputError, match=f"fpfh: radius {radius!r}, expected a positive number"
        ):
            fpfh(points, normals, radius)
    with pytest.raises(InputError, match="points: row 0 is not finite"):
        fpfh(points * np.nan, normals, 1.0)


def test_the_length_of_normals_does_not_matter():
    rng = np.random.default_rng(0)
    points, normals = rng.random((200, 3)), rng.normal(size=(200, 3))
    longer = normals * rng.uniform(0.1, 3, (200, 1))
    np.testing.assert_allclose(
        multi_scale_fpfh(points, longer, 1.0), multi_scale_fpfh(points, normals, 1.0)
    )
