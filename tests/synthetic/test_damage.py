"""Damaged surfaces: what is kept is said, and normals stay normals."""

from __future__ import annotations

import numpy as np
import pytest
from surfaces import sphere

from sparsefeat.errors import InputError
from sparsefeat.mesh.geodesic import geodesic_distances, surface_area
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
    assert (
        np.quantile(points[lost] @ direction, 0.02)
        > np.quantile(out.points @ direction, 0.9) - 0.05
    )


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


def test_what_is_fused_stays_near_its_place_and_merges_with_what_it_touches():
    points, normals = ball(20_000)
    out = damage.fuse(points, normals, np.random.default_rng(5), 0.05)
    assert len(out.kept) > 0.99 * len(points)
    farther = np.linalg.norm(out.points, axis=1) - 0.5
    assert np.abs(farther).max() < 0.05 and 0.4 < farther.mean() / 0.05 < 0.7
    assert np.linalg.norm(out.points - points[out.kept], axis=1).max() < 0.08
    none = damage.fuse(points[:0], normals[:0], np.random.default_rng(5), 0.05)
    assert none.points.shape == (0, 3) and not len(none.kept)
    radii = out.points / np.linalg.norm(out.points, axis=1, keepdims=True)
    assert np.quantile((out.normals * radii).sum(1), 0.05) > 0.8
    # Two balls that touch: what lies between them is inside of what they become.
    both = np.concatenate([points, points + [1.0, 0, 0]])
    out = damage.fuse(both, np.concatenate([normals] * 2), np.random.default_rng(5), 0.05)
    between = np.linalg.norm(both - [0.5, 0, 0], axis=1)
    assert not np.isin(np.flatnonzero(between < 0.05), out.kept).any()
    assert np.isin(np.flatnonzero(between > 0.3), out.kept).mean() > 0.99


def test_fitted_normals_of_a_ball_are_its_radii():
    points, normals = ball(6000)
    assert np.median(np.abs((fit_normals(points) * normals).sum(1))) > 0.995


def test_bending_carries_normals_along():
    points, normals = ball(500)
    tangents = np.cross(normals, np.random.default_rng(5).normal(size=normals.shape))
    step = 1e-5

    def bent(at: np.ndarray) -> damage.Damaged:
        return damage.bend(at, normals, np.random.default_rng(6), 0.4, 1.0)

    moved = (bent(points + step * tangents).points - bent(points - step * tangents).points) / (
        2 * step
    )
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    out = bent(points)
    assert np.abs((moved * out.normals).sum(1)).max() < 1e-5
    assert np.abs(out.points - points).max() > 0.01
    assert np.array_equal(out.kept, np.arange(len(points)))


def dumbbell() -> tuple[np.ndarray, np.ndarray]:
    """Two arms that end in balls near to each other, as a bent tube: closed, 1.2 high."""
    t, angle = np.linspace(0, 1, 90), np.linspace(0, 2 * np.pi, 24, endpoint=False)
    middle = np.stack([0.5 * np.cos(5.2 * t), 0.5 * np.sin(5.2 * t), 0 * t], 1)
    along = np.gradient(middle, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0, 0, 1])
    radius = 0.12 * np.sin(np.pi * np.clip(t, 0.01, 0.99)) ** 0.3
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * np.array(
        [0, 0, 1.0]
    )
    vertices = (middle[:, None] + radius[:, None, None] * ring).reshape(-1, 3)
    row, column = np.meshgrid(np.arange(89), np.arange(24), indexing="ij")
    a, b = (row * 24 + column).ravel(), (row * 24 + (column + 1) % 24).ravel()
    faces = np.concatenate([np.stack([a, b, a + 24], 1), np.stack([b, b + 24, a + 24], 1)])
    return vertices, faces


@pytest.mark.parametrize("kind", damage.DAMAGES)
def test_a_damaged_mesh_carries_labels_and_landmarks(kind):
    vertices, faces = dumbbell()
    out = damage.damage_mesh(kind, vertices, faces, 3)
    count = len(out.vertices)
    assert (
        out.normals.shape == out.vertices.shape
        and out.kept.shape == (count,)
        and out.place.shape == (len(vertices),)
    )
    assert out.faces.size == 0 or (0 <= out.faces.min() and out.faces.max() < count)
    # A vertex is about where the one that it takes its label from is; a landmark likewise.
    assert np.linalg.norm(out.vertices - vertices[out.kept], axis=1).max() < 0.09
    there = out.place >= 0
    assert np.linalg.norm(out.vertices[out.place[there]] - vertices[there], axis=1).max() < 0.13
    assert there.all() or kind in ("cut", "one_view")
    again = damage.damage_mesh(kind, vertices, faces, 3)
    assert all(np.array_equal(a, b) for a, b in zip(out, again))
    if kind != "bridges":
        other = damage.damage_mesh(kind, vertices, faces, 4)
        assert other.vertices.shape != out.vertices.shape or not np.array_equal(
            other.vertices, out.vertices
        )


def test_every_damage_does_what_it_says():
    vertices, faces = dumbbell()
    done = {kind: damage.damage_mesh(kind, vertices, faces, 1) for kind in damage.DAMAGES}
    assert 0.45 < len(done["cut"].kept) / len(vertices) <= 0.61
    assert 0.2 < len(done["one_view"].kept) / len(vertices) < 0.6
    assert len(done["cloud"].vertices) == 3000 and not len(done["cloud"].faces)
    assert 900 < len(done["remeshed"].vertices) <= 1000
    # Closed: every edge has two faces; and of about the same area.
    edges = np.sort(
        np.concatenate([np.roll(done["remeshed"].faces, k, 1)[:, :2] for k in range(3)]), 1
    )
    assert np.mean(np.unique(edges, axis=0, return_counts=True)[1] == 2) > 0.9
    ratio = surface_area(done["remeshed"].vertices, done["remeshed"].faces) / surface_area(
        vertices, faces
    )
    assert 0.85 < ratio < 1.02


def test_a_bridge_makes_a_short_way_between_what_is_far_along_the_surface():
    vertices, faces = dumbbell()
    before = geodesic_distances(vertices, faces, [12])[0, -12]
    out = damage.damage_mesh("bridges", vertices, faces, 0)
    after = geodesic_distances(out.vertices, out.faces, [12])[0, -12]
    assert np.array_equal(out.vertices, vertices) and len(out.faces) > len(faces)
    assert after < 0.6 * before


def test_bridges_join_the_parts_that_are_named():
    vertices, faces = dumbbell()
    labels = np.repeat([0, 1, 2], [480, 1200, 480])
    ends = damage.part_ends(faces, labels, [0, 2], [0, 2])
    assert len(ends) == 1, "a pair is joined once"
    assert {tuple(np.unique(labels[rows])) for rows in ends[0]} == {(0,), (2,)}
    out = damage.damage_mesh("bridges", vertices, faces, 0, ends)
    added = out.faces[len(faces) :]
    assert len(added) == 8 and {0, 2} <= set(labels[added].ravel())


def test_bridges_leave_vertices_in_no_face_and_other_pieces_alone():
    vertices, faces = dumbbell()
    small, triangles = sphere(1)
    far = vertices.max(0) + 5
    # What has no face stands in the middle, beside a tip and far away; a ball is another piece.
    lone = np.stack([vertices.mean(0), vertices[12] + 1e-3, far])
    all_vertices = np.concatenate([vertices, lone, 0.1 * small + far])
    all_faces = np.concatenate([faces, triangles + len(vertices) + len(lone)])
    for here, there in damage.tip_ends(all_vertices, all_faces):
        assert max(here.max(), there.max()) < len(vertices)
    out = damage.damage_mesh("bridges", all_vertices, all_faces, 0)
    assert out.faces[len(all_faces) :].max() < len(vertices) and len(out.faces) > len(all_faces)
    rows = np.arange(len(all_vertices))
    given = [
        (rows[: len(vertices) + 3], rows[len(vertices) :]),
        (rows[-1:], rows[len(vertices) :][:3]),
    ]
    out = damage.damage_mesh("bridges", all_vertices, all_faces, 0, given)
    assert len(out.faces) == len(all_faces) + 8
    assert not np.isin(out.faces, len(vertices) + np.arange(3)).any()


def test_fusion_merges_what_comes_close():
    sheets, faces = [], []
    ball, triangles = sphere(3)
    for k in range(2):  # two balls that nearly touch
        sheets.append(0.5 * ball + [1.01 * k, 0, 0])
        faces.append(triangles + k * len(ball))
    out = damage.damage_mesh("fusion", np.concatenate(sheets), np.concatenate(faces), 0)
    distance = geodesic_distances(out.vertices, out.faces, [int(out.vertices[:, 0].argmin())])
    assert np.isfinite(distance).all()


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return float((np.cross(a, b) * c).sum() / 6)


@pytest.mark.parametrize("seed", range(5))
def test_fusion_fills_a_body_and_winds_its_faces_outwards(seed):
    # With seed 3 a voxel of the surface has no sample.
    vertices, faces = sphere(3)
    out = damage.damage_mesh("fusion", vertices * [1, 1, 2], faces, seed)
    assert signed_volume(out.vertices, out.faces) == pytest.approx(8 / 3 * np.pi, rel=0.15)


@pytest.mark.parametrize("name", ["cloud", "fusion"])
def test_a_vertex_in_no_face_does_not_count_as_size(name):
    vertices, faces = sphere(3)
    out = damage.damage_mesh(name, np.concatenate([vertices, [[100, 0, 0]]]), faces, 0)
    assert len(out.vertices) > 1000
    np.testing.assert_allclose(np.linalg.norm(out.vertices, axis=1), 1, atol=0.1)


@pytest.mark.parametrize("name", CASES)
def test_of_no_points_no_point_is_left(name):
    none, rng = np.zeros((0, 3)), np.random.default_rng(0)
    assert all(len(part) == 0 for part in CASES[name](none, none, rng))
    assert len(damage.sparse_cloud(*ball(10), rng, 0, 0.1).kept) == 0
    with pytest.raises(InputError, match="sparse_cloud: count -1, expected a whole number"):
        damage.sparse_cloud(*ball(10), rng, -1, 0.1)


def test_damages_refuse_what_they_cannot_do():
    vertices, faces = dumbbell()
    with pytest.raises(InputError, match="expected one of cut"):
        damage.damage_mesh("bitten", vertices, faces)
    with pytest.raises(InputError, match="damage cut: no faces, expected a triangle mesh"):
        damage.damage_mesh("cut", vertices, faces[:0])
    with pytest.raises(InputError, match="damage cut: 2160 of 2160 vertices have a NaN"):
        damage.damage_mesh("cut", vertices * np.nan, faces)
    with pytest.raises(InputError, match=r"damage cut: faces are .* expected \(F, 3\) whole"):
        damage.damage_mesh("cut", vertices, faces.astype(float))
    for seed in (-1, 0.5):
        with pytest.raises(InputError, match=f"seed {seed}, expected a whole number of at least 0"):
            damage.damage_mesh("cut", vertices, faces, seed)
    for name in damage.DAMAGES:
        with pytest.raises(InputError, match=f"damage {name}: all faces are without area"):
            damage.damage_mesh(name, vertices * [1, 0, 0], faces)
    with pytest.raises(InputError, match="damage cut: no face remains of a mesh of 3 vertices and"):
        damage.damage_mesh("cut", np.eye(3), np.array([[0, 1, 2]]))
