"""Laplace bases: spectra known in closed form, broken surfaces, the cache."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from surfaces import sphere, square

from sparsefeat.heads import laplace_basis
from sparsefeat.mesh import eigen
from sparsefeat.mesh.gradient import gradient_operators, tangent_axes, vertex_normals
from sparsefeat.mesh.laplacian import _cotangent_laplacian


def arrays(basis) -> list[np.ndarray]:
    values = [getattr(basis, field.name) for field in dataclasses.fields(basis)]
    return [v.coalesce().values().numpy() if v.is_sparse else v.numpy() for v in values]


@pytest.mark.parametrize("kind", ["robust", "cotangent"])
def test_eigenvalues_of_the_sphere_are_l_times_l_plus_one(kind):
    basis = laplace_basis(*sphere(4), k=36, kind=kind)
    expected = np.concatenate(
        [np.full(2 * degree + 1, degree * (degree + 1)) for degree in range(6)]
    )
    np.testing.assert_allclose(basis.eigenvalues.numpy(), expected, rtol=0.015, atol=1e-9)
    assert float(basis.area) == pytest.approx(4 * np.pi, rel=0.002)


def test_eigenvalues_of_a_rectangle_are_those_of_its_free_vibrations():
    basis = laplace_basis(*square(41, 1.0, 0.7), k=20)
    i, j = np.meshgrid(np.arange(12), np.arange(12))
    expected = np.sort((np.pi**2 * (i**2 + (j / 0.7) ** 2)).ravel())[:20]
    np.testing.assert_allclose(basis.eigenvalues.numpy(), expected, rtol=0.02, atol=1e-9)


def test_a_cloud_of_the_sphere_has_the_spectrum_of_the_sphere():
    points = np.random.default_rng(0).standard_normal((1500, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    basis = laplace_basis(points, None, k=16)
    expected = [0] + [2] * 3 + [6] * 5 + [12] * 7
    np.testing.assert_allclose(basis.eigenvalues.numpy(), expected, rtol=0.08, atol=1e-9)


def test_eigenvectors_are_orthonormal_and_solve_the_problem():
    vertices, faces = sphere(3)
    basis = laplace_basis(vertices, faces, k=100, kind="cotangent")
    phi, mass, values = (getattr(basis, n).numpy() for n in ("eigenvectors", "mass", "eigenvalues"))
    np.testing.assert_allclose(phi.T @ (mass[:, None] * phi), np.eye(100), atol=1e-10)
    stiffness, _ = _cotangent_laplacian(vertices, faces)
    residual = stiffness @ phi - mass[:, None] * phi * values
    assert np.abs(residual / np.sqrt(mass)[:, None]).max() < 1e-6 * values[-1]


@pytest.mark.parametrize("lost", [[], [3], [0, 1, 40, 41, 42]])
def test_eigenpairs_that_lanczos_overlooks_are_found(monkeypatch, lost):
    # Copies of repeated eigenvalues get lost on symmetric shapes; here some are lost for certain.
    stiffness, mass = _cotangent_laplacian(*sphere(3))
    dense = stiffness.toarray() / np.sqrt(mass) / np.sqrt(mass)[:, None]
    expected = scipy.linalg.eigh(dense, subset_by_index=[0, 59], eigvals_only=True)
    honest = eigen._lanczos

    def forgetful(operator, n, count, seed):
        values, vectors = honest(operator, n, count + len(lost), seed)
        if seed > 0:
            return values, vectors
        keep = np.setdiff1d(np.arange(len(values)), len(values) - 1 - np.array(lost, int))
        return values[keep], vectors[:, keep]

    monkeypatch.setattr(eigen, "_lanczos", forgetful)
    values, vectors = eigen.smallest_eigenpairs(stiffness, mass, 60)
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ (mass[:, None] * vectors), np.eye(60), atol=1e-7)


def test_a_count_spoilt_by_rounding_does_not_refuse_the_shape(monkeypatch):
    stiffness, mass = _cotangent_laplacian(*sphere(3))
    expected, _ = eigen.smallest_eigenpairs(stiffness, mass, 30)
    honest = eigen._number_below
    monkeypatch.setattr(eigen, "_number_below", lambda *arguments: honest(*arguments) + 1)
    values, _ = eigen.smallest_eigenpairs(stiffness, mass, 30)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)


def test_components_have_a_constant_each():
    vertices, faces = sphere(2)
    scales = (1.0, 2.0, 0.5)
    several = np.concatenate([vertices * s + 10 * i for i, s in enumerate(scales)])
    connected = np.concatenate([faces + i * len(vertices) for i in range(3)])
    basis = laplace_basis(several, connected, k=30)
    assert (basis.eigenvalues[:3] < 1e-9).all() and basis.eigenvalues[3] > 0.4
    single = laplace_basis(vertices, faces, k=60).eigenvalues.numpy()
    expected = np.sort(np.concatenate([single / s**2 for s in scales]))[:30]
    np.testing.assert_allclose(basis.eigenvalues.numpy(), expected, rtol=1e-8, atol=1e-9)
    constants = basis.eigenvectors[:, :3].reshape(3, -1, 3)
    assert (constants.std(1) < 1e-9).all()


def test_scaling_a_shape_scales_the_eigenvalues_by_one_over_area():
    vertices, faces = sphere(2)
    small, large = (laplace_basis(vertices * s, faces, k=40) for s in (1e-3, 1e3))
    np.testing.assert_allclose(
        (small.eigenvalues * 1e-6).numpy(), (large.eigenvalues * 1e6).numpy(), rtol=1e-6, atol=1e-6
    )


def test_cotangent_matrix_is_the_reference_implementations():
    reference = pytest.importorskip("potpourri3d")
    vertices, faces = sphere(2)
    vertices = vertices * [1.0, 1.4, 0.6]
    stiffness, mass = _cotangent_laplacian(vertices, faces)
    difference = stiffness - reference.cotan_laplacian(vertices, faces, denom_eps=0.0)
    assert abs(difference).max() < 1e-10
    np.testing.assert_allclose(mass, reference.vertex_areas(vertices, faces), rtol=1e-10)


def test_robust_and_cotangent_agree_on_a_good_mesh():
    robust, cotangent = (laplace_basis(*sphere(3), k=40, kind=k) for k in ("robust", "cotangent"))
    np.testing.assert_allclose(
        robust.eigenvalues.numpy(), cotangent.eigenvalues.numpy(), rtol=1e-4, atol=1e-9
    )


def test_broken_meshes_have_a_basis():
    vertices, faces = sphere(3)
    fin = np.array([[faces[0, 0], faces[0, 1], len(vertices)]])  # a third face on one edge
    flat = np.array([[faces[5, 0], faces[5, 1], faces[5, 0]], [7, 7, 7]])  # faces without area
    broken = np.concatenate([faces, fin, flat])
    extended = np.concatenate(
        [vertices, [[0.0, 0.0, 1.5]], [[3.0, 0.0, 0.0]]]
    )  # the last one is unused
    basis = laplace_basis(extended, broken, k=20)
    assert all(np.isfinite(a).all() for a in arrays(basis))
    assert basis.eigenvalues[1] > 0.5, "the unused vertex is no component"
    assert basis.mass[-1] == 0 and (basis.mass[:-1] > 0).all()
    nearest = np.linalg.norm(extended[:-1] - extended[-1], axis=1).argmin()
    assert torch.equal(basis.eigenvectors[-1], basis.eigenvectors[nearest])


def test_coinciding_points_of_a_cloud_have_a_basis():
    points, _ = sphere(3)
    basis = laplace_basis(np.concatenate([points, points[:40]]), None, k=9)
    np.testing.assert_allclose(
        basis.eigenvalues.numpy(), [0] + [2] * 3 + [6] * 5, rtol=0.05, atol=1e-6
    )
    assert all(np.isfinite(a).all() for a in arrays(basis))


def test_small_surfaces_have_as_many_eigenpairs_as_vertices():
    vertices, faces = sphere(0)
    assert len(laplace_basis(vertices, faces, k=128).eigenvalues) == 12


def test_projection_inverts_reconstruction_and_truncation_keeps_the_first():
    basis = laplace_basis(*sphere(2), k=30)
    coefficients = torch.randn(
        30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(basis.project(basis.reconstruct(coefficients)), coefficients)
    assert torch.equal(basis.truncate(7).eigenvectors, basis.eigenvectors[:, :7])
    with pytest.raises(ValueError, match="1 to 30"):
        basis.truncate(31)


def test_a_basis_at_some_vertices_has_their_rows_and_the_eigenvalues_of_all():
    basis, rows = laplace_basis(*sphere(2), k=30), torch.tensor([5, 0, 5])
    some = basis.at(rows)
    assert len(some) == 3 and torch.equal(some.eigenvalues, basis.eigenvalues)
    assert torch.equal(some.eigenvectors, basis.eigenvectors[[5, 0, 5]])
    assert torch.equal(some.mass, basis.mass[[5, 0, 5]])


def test_a_basis_at_unit_area_is_that_of_the_scaled_surface():
    vertices, faces = sphere(2)
    large = laplace_basis(7.0 * vertices, faces, k=20).at_unit_area()
    unit = laplace_basis(
        vertices / laplace_basis(vertices, faces, k=2).area.sqrt().numpy(), faces, k=20
    )
    assert float(large.area) == pytest.approx(1)
    torch.testing.assert_close(large.eigenvalues, unit.eigenvalues, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(large.mass, unit.mass)
    function = torch.from_numpy(vertices[:, :1])
    torch.testing.assert_close(
        large.reconstruct(large.project(function)),
        unit.reconstruct(unit.project(function)),
        rtol=1e-5,
        atol=1e-6,
    )
    gradients = [torch.sparse.mm(basis.gradient_x, function) for basis in (large, unit)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 1e3])
def test_the_gradient_does_not_depend_on_the_unit(radius):
    vertices, faces = sphere(3)
    basis = laplace_basis(radius * vertices, faces, k=2)
    height = torch.from_numpy(radius * vertices[:, 2:])
    steepness = sum(
        torch.sparse.mm(g, height).square() for g in (basis.gradient_x, basis.gradient_y)
    )
    equator = np.abs(vertices[:, 2]) < 0.1
    assert steepness[equator].sqrt().mean() == pytest.approx(0.99, abs=0.01)


def test_gradient_of_a_linear_function_is_its_slope():
    vertices, faces = square(12)
    x, y = gradient_operators(vertices, faces, regularization=0.0)
    across, along = tangent_axes(vertex_normals(vertices, faces))
    slope = np.array([2.0, -3.0, 0.0])
    function = vertices @ slope + 5
    recovered = (x @ function)[:, None] * across + (y @ function)[:, None] * along
    np.testing.assert_allclose(recovered, np.broadcast_to(slope, recovered.shape), atol=1e-9)
    constant = np.ones(len(vertices))
    assert np.abs(x @ constant).max() < 1e-9 and np.abs(y @ constant).max() < 1e-9


def test_gradient_equals_the_least_squares_loop_over_vertices():
    vertices, faces = sphere(1)
    vertices = vertices * [1.0, 1.3, 0.8]
    x, y = (m.toarray() for m in gradient_operators(vertices, faces))
    across, along = tangent_axes(vertex_normals(vertices, faces))
    for i in range(len(vertices)):
        near = np.setdiff1d(faces[(faces == i).any(1)], [i])
        edges = vertices[near] - vertices[i]
        plane = np.stack([edges @ across[i], edges @ along[i]], 1)
        difference = np.zeros((len(near), len(vertices)))
        difference[np.arange(len(near)), near] = 1
        difference[:, i] = -1
        expected = np.linalg.inv(plane.T @ plane + 1e-5 * np.eye(2)) @ plane.T @ difference
        np.testing.assert_allclose(np.stack([x[i], y[i]]), expected, atol=1e-10)


def test_gradient_of_a_cloud_lies_in_its_tangent_plane():
    points = np.random.default_rng(1).random((200, 3)) * [1, 1, 0]
    x, y = gradient_operators(points, None, regularization=0.0)
    function = points @ [1.0, 2.0, 0.0]
    np.testing.assert_allclose(np.hypot(x @ function, y @ function), np.sqrt(5), atol=1e-8)


def test_the_same_mesh_gives_the_same_bits():
    first, second = (laplace_basis(*sphere(3), k=30) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))


def test_a_cached_basis_is_the_computed_one(tmp_path):
    mesh = sphere(2)
    plain = laplace_basis(*mesh, k=20)
    written = laplace_basis(*mesh, k=20, cache=tmp_path / "new" / "folder")
    files = list((tmp_path / "new" / "folder").iterdir())
    assert len(files) == 1
    read = laplace_basis(*mesh, k=20, cache=tmp_path / "new" / "folder")
    for other in (written, read):
        assert all(np.array_equal(a, b) for a, b in zip(arrays(plain), arrays(other), strict=True))


def test_what_changes_the_basis_changes_the_cache_file(tmp_path):
    vertices, faces = sphere(1)
    laplace_basis(vertices, faces, k=9, cache=tmp_path)
    laplace_basis(vertices * 1.01, faces, k=9, cache=tmp_path)
    laplace_basis(vertices, faces[:, [1, 2, 0]], k=9, cache=tmp_path)
    laplace_basis(vertices, faces, k=10, cache=tmp_path)
    laplace_basis(vertices, faces, k=9, cache=tmp_path, kind="cotangent")
    laplace_basis(vertices, None, k=9, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "empty", "other version", "not finite", "pickle"]
)
def test_a_damaged_cache_file_is_computed_again(tmp_path, damage):
    mesh = sphere(2)
    expected = arrays(laplace_basis(*mesh, k=9, cache=tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        with np.load(file) as stored:
            parts = dict(stored)
        if damage == "other version":
            parts["version"] = np.array(-1)
        elif damage == "not finite":
            parts["vectors"] = parts["vectors"] * np.nan
        else:
            parts["vectors"] = np.array([object()])
        np.savez(file, **parts)
    again = arrays(laplace_basis(*mesh, k=9, cache=tmp_path))
    assert all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))
    assert file.read_bytes() == content, "the damaged file has been replaced"


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file"):
        laplace_basis(*sphere(1), k=5, cache=tmp_path / "file")


def test_wrong_input_is_refused():
    vertices, faces = sphere(1)
    with pytest.raises(ValueError, match=r"face 3 .*expected 0 to 41"):
        wrong = faces.copy()
        wrong[3, 1] = 42
        laplace_basis(vertices, wrong)
    with pytest.raises(ValueError, match="first vertex 5"):
        broken = vertices.copy()
        broken[5, 0] = np.nan
        laplace_basis(broken, faces)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        laplace_basis(vertices[:, :2], faces)
    with pytest.raises(ValueError, match="faces=None"):
        laplace_basis(vertices, faces[:0])
    with pytest.raises(ValueError, match="there are robust, cotangent"):
        laplace_basis(vertices, faces, kind="graph")
    with pytest.raises(ValueError, match=r"60 vertices span no surface \(.*\)$"):
        laplace_basis(np.linspace(0, 1, 60)[:, None] * [1.0, 2.0, 3.0], None)
    with pytest.raises(ValueError, match="no area|coincide"):
        laplace_basis(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="k 2.5, expected a whole number"):
        laplace_basis(vertices, faces, k=2.5)
    with pytest.raises(ValueError, match="1 of 126 values are masked"):
        laplace_basis(np.ma.array(vertices, mask=np.arange(126).reshape(42, 3) == 5), faces)
    with pytest.raises(ValueError, match="faces: list that is no array"):
        laplace_basis(vertices, [[0, 1, 2], [3, 4]])
