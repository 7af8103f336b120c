"""Heat and wave kernel signatures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from surfaces import body, sphere, square

from sparsefeat.heads import laplace_basis
from sparsefeat.mesh.signatures import heat_kernel_signature, wave_kernel_signature

SIGNATURES = [heat_kernel_signature, wave_kernel_signature]


def test_heat_kernel_is_the_sum_of_its_formula():
    basis = laplace_basis(*body(), k=20)
    times = torch.tensor([0.05, 0.7], dtype=torch.float64)
    found = heat_kernel_signature(basis, times=times)
    for row in (0, 17):
        for column, time in enumerate(times.tolist()):
            expected = sum(
                np.exp(-float(value) * time) * float(phi) ** 2
                for value, phi in zip(basis.eigenvalues, basis.eigenvectors[row], strict=True)
            )
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-10)


def test_heat_kernel_on_the_sphere_is_the_series_of_legendre():
    basis = laplace_basis(*sphere(4), k=36)
    found = heat_kernel_signature(basis, times=torch.tensor([0.4], dtype=torch.float64))[:, 0]
    degrees = np.arange(6)
    expected = ((2 * degrees + 1) * np.exp(-degrees * (degrees + 1) * 0.4)).sum() / (4 * np.pi)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.02)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_moving_and_scaling_a_shape_changes_nothing(signature):
    vertices, faces = body()
    rotation = trimesh.transformations.random_rotation_matrix(np.array([0.1, 0.7, 0.4]))[:3, :3]
    moved = 3.7 * vertices @ rotation.T + [5, -2, 1]
    first, second = (signature(laplace_basis(v, faces, k=60), 12) for v in (vertices, moved))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_bending_without_stretching_changes_little(signature):
    flat, faces = square(30)
    rolled = np.stack([np.sin(flat[:, 0]), flat[:, 1], np.cos(flat[:, 0])], 1)  # onto a cylinder
    first, second = (signature(laplace_basis(v, faces, k=40), 10) for v in (flat, rolled))
    assert float((first - second).abs().max()) < 0.01 * float(first.abs().max())


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_vertex_keeps_its_signature_when_vertices_are_renumbered(signature):
    vertices, faces = body()
    order = np.random.default_rng(0).permutation(len(vertices))
    place = np.argsort(order)
    first = signature(laplace_basis(vertices, faces, k=40), 8)
    second = signature(laplace_basis(vertices[order], place[faces], k=40), 8)
    torch.testing.assert_close(first[order], second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("count", [1, 2, 16, 100])
def test_signatures_have_the_count_and_type_asked_for(signature, count):
    basis = laplace_basis(*sphere(2), k=20).to(dtype=torch.float32)
    found = signature(basis, count)
    assert found.shape == (len(basis), count) and found.dtype == torch.float32
    assert bool(torch.isfinite(found).all()) and bool((found > 0).all())


def test_constants_of_components_do_not_set_the_scale():
    vertices, faces = sphere(2)
    twice = laplace_basis(
        np.concatenate([vertices, vertices + 5]),
        np.concatenate([faces, faces + len(vertices)]),
        k=40,
    )
    single = laplace_basis(vertices, faces, k=20)
    for signature in SIGNATURES:
        first = signature(twice, 8)[: len(vertices)]
        assert float(first.max()) < 10 * float(signature(single, 8).max())


@pytest.mark.parametrize("signature", SIGNATURES)
def test_wrong_counts_are_refused(signature):
    basis = laplace_basis(*sphere(1), k=9)
    with pytest.raises(ValueError, match="at least 1"):
        signature(basis, 0)
    with pytest.raises(ValueError, match="two different"):
        signature(basis.truncate(1), 4)


def test_times_must_be_positive():
    with pytest.raises(ValueError, match="positive times"):
        heat_kernel_signature(laplace_basis(*sphere(1), k=9), times=torch.tensor([0.0]))
