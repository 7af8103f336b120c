"""Area, mean normal and nearest triangle of voxels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from mesh_oracle import clip, random_triangles

from sparsefeat.mesh import voxelize_mesh


def test_areas_add_up_and_are_those_of_the_clipped_triangles():
    triangles = random_triangles(10, 25, 4.0)
    vertices, faces = triangles.reshape(-1, 3), np.arange(75).reshape(-1, 3)
    voxels = voxelize_mesh(vertices, faces, 1.0, area=True)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert math.isclose(
        float(voxels.area.sum()), np.linalg.norm(normals, axis=1).sum() / 2, rel_tol=1e-12
    )
    for cell, area in list(zip(voxels.coordinates.tolist(), voxels.area.tolist(), strict=True))[
        ::7
    ]:
        expected = 0.0
        for triangle in triangles:
            part = [tuple(Fraction(float(x)) for x in corner) for corner in triangle]
            for a in range(3):
                part = clip(part, a, cell[a], cell[a] + 1)
            points = np.array(part, dtype=float).reshape(-1, 3)
            for k in range(1, len(points) - 1):
                expected += (
                    np.linalg.norm(np.cross(points[k] - points[0], points[k + 1] - points[0])) / 2
                )
        assert math.isclose(area, expected, rel_tol=1e-9, abs_tol=1e-12)


def test_area_of_a_triangle_on_a_grid_plane_counts_once():
    vertices = np.array([[0, 0, 1.0], [2, 0, 1], [0, 2, 1]])
    voxels = voxelize_mesh(vertices, [[0, 1, 2]], 1.0, area=True, normal=True)
    areas = dict(zip(map(tuple, voxels.coordinates.tolist()), voxels.area.tolist(), strict=True))
    expected = {
        (0, 0, 1): 1,
        (1, 0, 1): 0.5,
        (0, 1, 1): 0.5,
        (2, 0, 1): 0,
        (0, 2, 1): 0,
        (1, 1, 1): 0,
    }
    assert areas == pytest.approx(expected)
    length = voxels.normal.norm(dim=1)
    assert (
        torch.equal(length > 0, voxels.area > 0)
        and voxels.normal[voxels.area > 0].tolist() == [[0, 0, 1]] * 3
    )


def test_scale_changes_areas_by_its_square_and_normals_not():
    triangles = random_triangles(11, 20, 4.0)
    vertices, faces = triangles.reshape(-1, 3), np.arange(60).reshape(-1, 3)
    one = voxelize_mesh(vertices, faces, 0.5, area=True, normal=True, triangle=True)
    two = voxelize_mesh(vertices * 4, faces, 2.0, area=True, normal=True, triangle=True)
    assert torch.equal(one.coordinates, two.coordinates) and torch.equal(one.triangle, two.triangle)
    torch.testing.assert_close(two.area, one.area * 16)
    torch.testing.assert_close(two.normal, one.normal)


def test_opposite_sides_have_no_mean_normal():
    vertices = np.array([[0.1, 0.1, 0.1], [0.9, 0.2, 0.3], [0.3, 0.8, 0.7]])
    voxels = voxelize_mesh(vertices, [[0, 1, 2], [2, 1, 0]], 1.0, normal=True)
    assert len(voxels) == 1 and voxels.normal.tolist() == [[0, 0, 0]] and voxels.area is None


def distances(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, F) distances by trimesh."""
    import trimesh

    result = np.empty((len(points), len(triangles)))
    for k, triangle in enumerate(triangles):
        nearest = trimesh.triangles.closest_point(
            np.broadcast_to(triangle, (len(points), 3, 3)), points
        )
        result[:, k] = np.linalg.norm(points - nearest, axis=1)
    return result


@pytest.mark.parametrize("extent", [0.8, 3.0, 12.0])
def test_the_nearest_triangle_is_nearest_of_all(extent):
    rng = np.random.default_rng(12)
    triangles = random_triangles(12, 60, extent) / 3 + rng.normal(size=(60, 1, 3)) * 2
    voxels = voxelize_mesh(
        triangles.reshape(-1, 3), np.arange(180).reshape(-1, 3), 1.0, triangle=True
    )
    expected = distances(voxels.coordinates.numpy() + 0.5, triangles)
    chosen = expected[np.arange(len(voxels)), voxels.triangle.numpy()]
    np.testing.assert_allclose(chosen, expected.min(1), atol=1e-12)


def test_of_equally_near_triangles_the_first_is_taken():
    vertices = np.array(
        [[0.1, 0.1, 0.1], [0.9, 0.2, 0.3], [0.3, 0.8, 0.7], [5, 5, 5.0], [5.1, 5, 5], [5, 5.1, 5]]
    )
    faces = [[3, 4, 5], [0, 1, 2], [3, 4, 5], [0, 1, 2]]
    voxels = voxelize_mesh(vertices, faces, 1.0, triangle=True)
    assert voxels.triangle[0] == 1 and voxels.triangle[-1] == 0
