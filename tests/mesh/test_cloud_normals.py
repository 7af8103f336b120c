"""The outer side of a surface of which only points are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from surfaces import sphere

import sparsefeat
from sparsefeat.errors import InputError
from sparsefeat.mesh.gradient import vertex_normals
from sparsefeat.mesh.normals import enclosed_volume, outer_normals
from sparsefeat.mesh.orientation import (
    _spread_rows,
    best_viewpoint,
    check_viewpoint,
    estimate_normals,
)
from sparsefeat.mesh.visibility import FreeSpace, surface_spacing


def sheet(low, high, spacing: float = 0.06) -> np.ndarray:
    """Points of an axis-aligned rectangle, jittered, from one corner to the opposite one."""
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    axes = [np.arange(a, b, spacing) if b > a else np.array([a]) for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, points.shape) * spacing * (high > low)
    return points + jitter


def box(low, high) -> tuple[np.ndarray, np.ndarray]:
    """The six sides of a box and their normals outwards."""
    points, normals = [], []
    for axis in range(3):
        for end, sign in ((low, -1.0), (high, 1.0)):
            a, b = np.array(low, dtype=float), np.array(high, dtype=float)
            a[axis] = b[axis] = end[axis]
            points.append(sheet(a, b))
            normals.append(np.tile(sign * np.eye(3)[axis], (len(points[-1]), 1)))
    return np.concatenate(points), np.concatenate(normals)


def corner_of_a_room() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a sensor sees of two walls, a floor and a chest on it: points, normals to it, and where it stood."""
    sensor = np.array([2.2, 2.0, 1.5])
    walls = [
        sheet((0, 0, 0), (3, 3, 0)),
        sheet((0, 0, 0), (0, 3, 2.4)),
        sheet((0, 0, 0), (3, 0, 2.4)),
    ]
    normals = [np.tile(n, (len(w), 1)) for n, w in zip(np.eye(3)[[2, 0, 1]], walls)]
    chest, outwards = box((0.6, 0.7, 0), (1.3, 1.5, 0.8))
    points, normals = np.concatenate([*walls, chest]), np.concatenate([*normals, outwards])
    facing = ((sensor - points) * normals).sum(1) > 0
    seen = FreeSpace(points, 0.09).sees(
        points, np.tile(sensor, (len(points), 1)), np.full(len(points), 4.0)
    )
    return points[facing & seen], normals[facing & seen], sensor


def right_share(found: np.ndarray, normals: np.ndarray) -> float:
    return float(((found * normals).sum(1) > 0).mean())


def test_a_line_of_sight_is_free_unless_it_meets_a_surface():
    space = FreeSpace(sheet((0, 0, 0), (2, 2, 0)), 0.1)
    start = np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    end = np.array([[1.0, 1, -1], [0.2, 1, 1], [1, 1, 9], [1, 1, 5]])
    assert space.sees(start, end, np.array([0.0, 0, 0, 2])).tolist() == [False, True, True, True]


def test_the_spacing_is_the_edge_of_the_square_that_a_point_has():
    assert surface_spacing(sheet((0, 0, 0), (3, 3, 0), 0.1)) == pytest.approx(0.1, rel=0.1)
    assert surface_spacing(np.zeros((5, 3))) == 0


def test_normals_of_a_shape_point_outwards():
    directions = np.random.default_rng(0).normal(size=(1500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = estimate_normals(directions * [1, 2, 0.6], closed=True)
    assert right_share(found, directions / [1, 2, 0.6]) > 0.99
    assert np.linalg.norm(found, axis=1).max() <= 1 + 1e-9


def test_normals_of_a_scan_face_the_side_that_its_sensor_saw_wherever_it_lies():
    points, normals, _ = corner_of_a_room()
    assert right_share(sparsefeat.estimate_normals(points), normals) > 0.95
    turn = Rotation.from_euler("xyz", [40, 160, 20], degrees=True).as_matrix()
    assert right_share(estimate_normals(points @ turn.T + 7), normals @ turn.T) > 0.95


def test_normals_face_a_given_viewpoint_and_of_several_the_one_that_sees_the_point():
    points, normals, sensor = corner_of_a_room()
    found = estimate_normals(points, sensor)
    assert right_share(found, normals) > 0.99  # where two walls meet, fitted normals are of neither
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    # A wall between two rooms, seen from either: a point of a side of the wall faces its own room.
    wall = np.concatenate([sheet((0, 0, -0.4), (3, 3, -0.4)), sheet((0, 0, 0.4), (3, 3, 0.4))])
    places = np.array([[1.5, 1.5, 2], [1.5, 1.5, -2]])
    upper = wall[:, 2] > 0
    # Past the edges of one side the other one is seen.
    assert (best_viewpoint(wall, places) == np.where(upper, 0, 1)).mean() > 0.95
    assert ((estimate_normals(wall, places)[:, 2] > 0) == upper).mean() > 0.95


@pytest.mark.parametrize("count", [2000, 20_000])
def test_of_viewpoints_around_a_shape_none_sees_through_its_points(count):
    directions = np.random.default_rng(0).normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = 10 * np.concatenate([np.eye(3), -np.eye(3)])
    found = estimate_normals(directions * [1, 1, 1.5], places)
    assert right_share(found, directions / [1, 1, 1.5]) > 0.995


def test_where_either_side_may_be_outside_normals_are_short():
    flat = sheet((0, 0, 0), (3, 3, 0))
    flat[:, 2] += np.random.default_rng(1).normal(0, 0.02, len(flat))
    assert np.linalg.norm(estimate_normals(flat), axis=1).mean() < 0.6
    points, _, _ = corner_of_a_room()
    assert np.linalg.norm(estimate_normals(points), axis=1).mean() > 0.7


def test_the_place_of_the_sensor_is_credible_and_one_behind_a_wall_is_not():
    points, _, sensor = corner_of_a_room()
    assert check_viewpoint(points, sensor).credible
    assert check_viewpoint(points, np.stack([sensor, sensor + 0.2])).credible
    for wrong in ([-2.0, 1.0, 1.0], [1.0, 1.0, -3.0], [1.0, 1.1, 0.4]):
        check = check_viewpoint(points, wrong)
        assert not check.credible and check.support < 0.6 and check.quality < 0.7 * check.best


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_points_have_normals_too(count):
    points = np.arange(3.0 * count).reshape(-1, 3)
    for closed in (False, True):
        assert estimate_normals(points, closed=closed).shape == (count, 3)
    assert estimate_normals(points, (0, 0, 9)).shape == (count, 3)
    assert check_viewpoint(points, (0, 0, 9)).credible
    assert np.isfinite(estimate_normals(np.zeros((count, 3)))).all()


@pytest.mark.parametrize("viewpoint", [(0, 0), "abc", (0, 0, np.nan), np.zeros((0, 3))])
def test_a_viewpoint_that_is_none_is_refused(viewpoint):
    with pytest.raises(InputError, match="three finite numbers"):
        estimate_normals(np.eye(3), viewpoint)
    with pytest.raises(InputError, match=r"expected numbers \(N, 3\)"):
        estimate_normals(np.ones((3, 2)))


def test_the_volume_of_a_mesh_with_holes_is_that_of_the_mesh_with_caps():
    vertices, faces = sphere(4)
    volume, closed = enclosed_volume(vertices, faces)
    assert closed and volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    upper = faces[(vertices[faces][:, :, 2] > -1e-9).all(1)]
    for shift in (0.0, 10.0):
        volume, closed = enclosed_volume(vertices + shift, upper)
        assert not closed and volume == pytest.approx(2 / 3 * np.pi, rel=0.03)
    assert enclosed_volume(vertices, upper[:, ::-1])[0] == pytest.approx(-volume)
    assert enclosed_volume(vertices, faces[:0]) == (0.0, True)


def test_a_cut_mesh_keeps_its_outer_side_however_it_is_wound():
    vertices, faces = sphere(3)
    # A long, bent piece, whose common centre lies outside of it.
    bent = vertices * [3, 0.4, 0.4]
    bent[:, 1] += 0.5 * bent[:, 0] ** 2
    cut = faces[(bent[faces][:, :, 0] > -1.5).all(1)]
    assert outer_normals(bent, cut)[0] == 1
    assert outer_normals(bent, cut[:, ::-1])[0] == -1


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32])
def test_normals_of_a_mesh_whatever_type_its_vertices_have(dtype):
    vertices, faces = sphere(3)
    vertices = np.round(50 * vertices + 60)
    for of in (lambda v: outer_normals(v, faces)[1], lambda v: vertex_normals(v, faces)):
        normals = of(vertices.astype(dtype))
        assert normals.dtype == np.float64
        np.testing.assert_allclose(normals, of(vertices), rtol=0, atol=1e-12)


def test_a_line_of_sight_may_begin_far_outside_of_the_cells():
    space = FreeSpace(np.concatenate([sheet((0, 0, 0), (2, 2, 0)), [[1e9, 1, 0.5]]]), 0.1)
    start = np.array([[1, 1, 1e7], [1, 1, 1e7], [1e7, 1, 0.5], [1e9, 1, 1e9], [1e9, 1, -1e9]])
    end = np.array([[1, 1, -1.0], [1, 1, 0.3], [0, 1, 0.5], [0, 1, -1], [0, 1, -1]])
    assert space.sees(start, end, np.zeros(5)).tolist() == [False, True, True, False, True]
    assert space.sees(start, end, np.full(5, 1e12)).all()


@pytest.mark.parametrize("count", [40, 300])
def test_a_stray_point_far_away_changes_nothing_for_the_others(count):
    """It also made the box of cells so long and coarse that all points lay in a few of them."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    stray = np.concatenate([points, [[1e9, 0, 0]]])
    without, with_stray = FreeSpace(points, 0.3, margin=2), FreeSpace(stray, 0.3, margin=2)
    assert with_stray.cell == 0.3 and (with_stray.shape == without.shape).all()
    start = np.repeat(points, 3, axis=0)
    end = np.tile([[0.0, 0, 0], [5, 0, 0], [1e9, 0, 0]], (count, 1))
    none = np.ones(len(start))
    np.testing.assert_array_equal(with_stray.sees(start, end, none), without.sees(start, end, none))
    assert np.isfinite(estimate_normals(stray)).all()


def test_a_shallow_piece_keeps_the_winding_that_it_has():
    vertices, faces = sphere(4)
    vertices = vertices * [1, 1, 0.2]
    cap = faces[(vertices[faces][:, :, 2] > 0.2 * 0.97).all(1)]
    for wound, sign in ((cap, 1), (cap[:, ::-1], -1)):
        outwards, normals = outer_normals(vertices, wound)
        assert outwards == 1
        used = np.unique(wound)
        assert (sign * (normals[used] * vertices[used]).sum(1) > 0).all()


def test_points_that_are_repeated_many_times_are_thinned_all_the_same():
    places = np.random.default_rng(0).random((600, 3))
    rows = _spread_rows(np.repeat(places, 12, axis=0), 400, 0)
    assert 100 < len(rows) <= 400
    assert len(np.unique(rows // 12)) == len(rows)  # no place twice
