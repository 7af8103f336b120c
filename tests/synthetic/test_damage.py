"""Damaged surfaces: what is kept is said, and normals stay normals."""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.mesh.normals import fit_normals
from sparsefeat.synthetic import damage


def ball(count: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals * 0.5, normals


CASES = {
    "cut": lambda p, n, rng: damage.cut(p, n, rng, 0.6),
    "one_view": lambda p, n, rng: damage.one_view(p, n, rng, 0.03),
    "sparse_cloud": lambda p, n, rng: damage.sparse_cloud(p, n, rng, 700, 0.0),
    "noise": lambda p, n, rng: damage.noise(p, n, rng, 0.0, 0.2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rows_that_are_kept_are_those_of_the_points_that_are_left(name):
    points, normals = ball()
    out = CASES[name](points, normals, np.random.default_rng(1))
    assert np.array_equal(out.points, points[out.kept])
    assert (np.diff(out.kept) > 0).all()
    assert np.allclose(np.linalg.norm(out.normals, axis=1), 1)
    assert (out.normals * normals[out.kept]).sum(1).min() > 0
    again = CASES[name](points, normals, np.random.default_rng(1))
    assert all(np.array_equal(a, b) for a, b in zip(out, again))


def test_a_cut_keeps_its_share_on_one_side_of_a_plane():
    points, normals = ball()
    out = damage.cut(points, normals, np.random.default_rng(2), 0.6)
    assert len(out.kept) == round(0.6 * len(points))
    direction = -out.points.mean(0) / np.linalg.norm(out.points.mean(0))
    lost = np.setdiff1d(np.arange(len(points)), out.kept)
    # The mean of the kept side of a ball points away from the plane, but for sampling.
    assert np.quantile(points[lost] @ direction, 0.02) > np.quantile(out.points @ direction, 0.9) - 0.05


def test_one_view_sees_the_half_of_a_ball_that_faces_it():
    points, normals = ball(20_000)
    out = damage.one_view(points, normals, np.random.default_rng(3), 0.02)
    towards = out.points.mean(0) / np.linalg.norm(out.points.mean(0))
    assert (out.normals @ towards).min() > -0.1
    facing = normals @ towards > 0.3
    assert np.isin(np.flatnonzero(facing), out.kept).mean() > 0.99


def test_one_view_does_not_see_what_is_behind():
    # Two sheets that both face the camera of this seed, one behind the other.
    axes = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    flat = np.random.default_rng(0).uniform(-1, 1, (8000, 2))
    sheets = np.concatenate([flat @ axes[:2] + depth * axes[2] for depth in (0.0, 1.0)])
    normals = np.broadcast_to(-axes[2], sheets.shape)
    out = damage.one_view(sheets, normals, np.random.default_rng(4), 0.1)
    assert (out.kept < 8000).mean() > 0.99
    assert np.isin(np.arange(8000), out.kept).all()


def test_fitted_normals_of_a_ball_are_its_radii():
    points, normals = ball(6000)
    assert np.median(np.abs((fit_normals(points) * normals).sum(1))) > 0.995


def test_bending_carries_normals_along():
    points, normals = ball(500)
    tangents = np.cross(normals, np.random.default_rng(5).normal(size=normals.shape))
    step = 1e-5

    def bent(at: np.ndarray) -> damage.Damaged:
        return damage.bend(at, normals, np.random.default_rng(6), 0.4, 1.0)

    moved = (bent(points + step * tangents).points - bent(points - step * tangents).points) / (2 * step)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    out = bent(points)
    assert np.abs((moved * out.normals).sum(1)).max() < 1e-5
    assert np.abs(out.points - points).max() > 0.01
    assert np.array_equal(out.kept, np.arange(len(points)))
