"""A mesh whose vertices are doubled along seams is the same surface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from surfaces import sphere

from sparsefeat.mesh.geodesic import geodesic_distances
from sparsefeat.mesh.laplacian import laplace_basis
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.mesh.seams import first_at_place, sew
from sparsefeat.synthetic.damage import bridges


def soup() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A bumpy sphere, and its triangles with corners of their own: vertices (3F, 3), faces (F, 3)."""
    vertices, faces = sphere(3)
    vertices = vertices * (1 + 0.2 * np.sin(3 * vertices[:, :1] + vertices[:, 1:2]))
    return vertices, faces, vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)


def test_the_first_vertex_of_each_place():
    places = np.array(
        [[1, 0, 0], [0, 0, 0], [1, 0, 0], [-0.0, 0, 0], [1, 0, 1e-12], [np.nan, 0, 0]]
    )
    assert first_at_place(places).tolist() == [0, 1, 0, 1, 4, 5]
    assert first_at_place(np.zeros((0, 3))).tolist() == []


def test_two_sheets_back_to_back_stay_two():
    vertices, faces = sphere(2)
    n = len(vertices)
    order = np.random.default_rng(0).permutation(len(faces))
    both = np.concatenate([vertices, vertices])
    sheets = np.concatenate([faces, faces[order, ::-1] + n])
    sewn, first = sew(both, sheets)
    np.testing.assert_array_equal(sewn, sheets)
    np.testing.assert_array_equal(first, np.arange(2 * n))
    normals = outer_normals(both, sheets)[1]
    np.testing.assert_allclose(np.abs((normals[:n] * vertices).sum(1)), 1, atol=0.01)
    np.testing.assert_allclose(normals[n:], -normals[:n], atol=1e-12)


def test_a_vertex_of_faces_of_both_sides_has_no_normal():
    vertices, faces = sphere(2)
    normals = outer_normals(vertices, np.concatenate([faces, faces[:, ::-1]]))[1]
    assert (normals == 0).all()


def test_a_seam_is_no_rim_and_no_bridge_ends_at_a_double():
    vertices, faces = sphere(3)
    n, west = len(vertices), vertices[faces][:, :, 0].mean(1) < 0
    split = np.where(west[:, None], faces + n, faces)
    both = np.concatenate([vertices, vertices])
    sewn = sew(both, split)[0]
    edges = np.sort(np.concatenate([sewn[:, [0, 1]], sewn[:, [1, 2]], sewn[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    ends = [(np.flatnonzero(both[:, 2] > 0.95), np.flatnonzero(both[:, 2] < -0.95))]
    bridged = bridges(both, split, np.random.default_rng(0), ends)
    corners = bridged.vertices[bridged.faces[len(split) :]]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    assert len(area) == 8 and (area > 1e-3).all()


def test_eigenfunctions_and_gradients_run_across_seams():
    vertices, faces, split, triangles = soup()
    whole, sewn = laplace_basis(vertices, faces, 20), laplace_basis(split, triangles, 20)
    assert torch.allclose(whole.eigenvalues, sewn.eigenvalues, rtol=1e-9, atol=1e-9)
    assert sewn.area.item() == pytest.approx(whole.area.item())
    corners = torch.from_numpy(faces.ravel())
    for k in range(1, 4):
        alike = (whole.eigenvectors[corners, k] - sewn.eigenvectors[:, k]).abs().max()
        turned = (whole.eigenvectors[corners, k] + sewn.eigenvectors[:, k]).abs().max()
        assert min(alike, turned) < 1e-8
    function = torch.from_numpy(vertices[:, :1].copy())
    steepness = [
        torch.sparse.mm(basis.gradient_x, values).square()
        + torch.sparse.mm(basis.gradient_y, values).square()
        for basis, values in ((whole, function), (sewn, function[corners]))
    ]
    assert torch.allclose(steepness[0][corners], steepness[1], atol=1e-9)


def test_distances_run_across_seams():
    vertices, faces, split, triangles = soup()
    source = 100
    expected = geodesic_distances(vertices, faces, [source])[0][faces.ravel()]
    found = geodesic_distances(split, triangles, [np.flatnonzero(faces.ravel() == source)[-1]])[0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("winding", [1, -1])
def test_a_split_mesh_knows_its_outer_side(winding):
    vertices, faces, split, triangles = soup()
    expected = outer_normals(vertices, faces)
    outwards, normals = outer_normals(split, triangles[:, ::winding])
    assert outwards == winding * expected[0]
    np.testing.assert_allclose(normals, expected[1][faces.ravel()], atol=1e-12)


def sheets_of(faces: np.ndarray) -> int:
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(faces.max() + 1,) * 2)
    return len(np.unique(connected_components(graph, directed=False)[1][np.unique(faces)]))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_soup_of_faces_and_their_backs_is_two_sheets(seed):
    vertices, faces = sphere(2)
    both = np.concatenate([faces, faces[:, ::-1]])
    both = both[np.random.default_rng(seed).permutation(len(both))]
    corners, triangles = vertices[both].reshape(-1, 3), np.arange(both.size).reshape(-1, 3)
    sewn, first = sew(corners, triangles)
    assert len(np.unique(first)) == 2 * len(vertices)
    assert sheets_of(sewn) == 2
    np.testing.assert_array_equal(corners[first], corners)
    assert np.isfinite(geodesic_distances(corners, triangles, [0])).sum() == both.size // 2
    assert (laplace_basis(corners, triangles, 3).eigenvalues < 1e-6).tolist() == [True, True, False]


def test_a_face_that_is_there_twice_stays_in_its_surface():
    vertices, faces = sphere(2)
    again = np.concatenate([faces, np.roll(faces[:1], 1, axis=1)])
    corners, triangles = vertices[again].reshape(-1, 3), np.arange(again.size).reshape(-1, 3)
    sewn, first = sew(corners, triangles)
    assert len(np.unique(first)) == len(vertices) and sheets_of(sewn) == 1


def test_one_face_with_a_back_leaves_its_surface_whole():
    vertices, faces = sphere(2)
    again = np.concatenate([faces, faces[:1, ::-1]])
    corners, triangles = vertices[again].reshape(-1, 3), np.arange(again.size).reshape(-1, 3)
    sewn, _ = sew(corners, triangles)
    assert sheets_of(sewn[: len(faces)]) == 1 and sheets_of(sewn) == 2
