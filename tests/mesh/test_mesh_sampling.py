"""Samples lie on the surface, as dense as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from sparsefeat.mesh import read_mesh, sample_surface


def uneven_mesh() -> tuple[np.ndarray, np.ndarray]:
    """Triangles of very different sizes, one of them without area, and a vertex in none."""
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(41, 3))
    faces = np.concatenate(
        [
            rng.permutation(40)[:39].reshape(13, 3),
            [[0, 1, 1]],
            rng.permutation(40)[:6].reshape(2, 3),
        ]
    )
    vertices[faces[0]] *= 6
    vertices[faces[1]] *= 0.1
    return vertices, faces


def areas(vertices, faces) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def check_on_surface(samples, vertices, faces) -> None:
    corners = vertices[faces[samples.faces]]
    scale = np.abs(vertices).max()
    offsets = ((samples.points - corners[:, 0]) * samples.normals).sum(1)
    assert np.abs(offsets).max() < 1e-13 * scale
    assert (samples.barycentric >= 0).all()
    np.testing.assert_allclose(samples.barycentric.sum(1), 1, atol=1e-14)
    np.testing.assert_allclose(
        np.einsum("sk,skd->sd", samples.barycentric, corners), samples.points, atol=1e-13 * scale
    )
    np.testing.assert_allclose(np.linalg.norm(samples.normals, axis=1), 1)


def test_samples_lie_on_their_triangles():
    vertices, faces = uneven_mesh()
    samples = sample_surface(vertices, faces, 5000, seed=1)
    assert samples.points.shape == (5000, 3) and samples.faces.shape == (5000,)
    check_on_surface(samples, vertices, faces)
    assert 13 not in samples.faces


def test_triangles_get_samples_in_proportion_to_their_area():
    vertices, faces = uneven_mesh()
    count = 20_000
    got = np.bincount(sample_surface(vertices, faces, count, seed=2).faces, minlength=len(faces))
    expected = count * areas(vertices, faces) / areas(vertices, faces).sum()
    seen = expected > 5
    statistic = ((got - expected)[seen] ** 2 / expected[seen]).sum()
    # A true sampler fails one time in a million; the seed is fixed.
    assert statistic < chi2.isf(1e-6, seen.sum())


def test_within_a_triangle_samples_are_uniform():
    samples = sample_surface(np.eye(3) * [1, 2, 3], [[0, 1, 2]], 16_000, seed=3)
    # The four triangles of the middles of the sides, and each of those again, have equal areas.
    u = samples.barycentric
    first = np.where((u < 0.5).all(1), 3, u.argmax(1))
    inner = np.where((first == 3)[:, None], 1 - 2 * u, 2 * u - np.eye(4)[first, :3])
    second = np.where((inner < 0.5).all(1), 3, inner.argmax(1))
    got = np.bincount(4 * first + second, minlength=16)
    assert ((got - 1000) ** 2 / 1000).sum() < chi2.isf(1e-6, 15)


def test_spacing_gives_one_sample_per_square():
    vertices, faces = uneven_mesh()
    samples = sample_surface(vertices, faces, spacing=0.5)
    assert len(samples.points) == math.ceil(areas(vertices, faces).sum() / 0.25)


def test_a_seed_decides_and_a_generator_goes_on():
    mesh = uneven_mesh()
    one, again, other = (sample_surface(*mesh, 100, seed=seed).points for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(sample_surface(*mesh, 100, seed=rng).points, one)
    assert (sample_surface(*mesh, 100, seed=rng).points != one).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, f: sample_surface(v, f), "count None and spacing None, expected one"),
        (lambda v, f: sample_surface(v, f, 5, spacing=1.0), "expected one of them"),
        (lambda v, f: sample_surface(v, f, -1), "count -1, expected a whole number"),
        (lambda v, f: sample_surface(v, f, 1.5), "count 1.5, expected a whole number"),
        (lambda v, f: sample_surface(v, f, spacing=0.0), "spacing 0.0, expected a positive number"),
        (
            lambda v, f: sample_surface(v, f, spacing=1e-9),
            "spacing 1e-09 needs .* points, expected at most",
        ),
        (lambda v, f: sample_surface(v * 0, f, 3), "area 0, expected a positive one"),
        (lambda v, f: sample_surface(v, [[0, 1, 7]], 3), "expected 0 to 2"),
        (lambda v, f: sample_surface(v, f, 5, seed=-1), "seed -1, expected a whole number"),
    ],
)
def test_what_cannot_be_sampled_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.eye(3), [[0, 1, 2]])


def test_no_samples_are_an_empty_result():
    samples = sample_surface(np.eye(3), [[0, 1, 2]], 0)
    assert samples.points.shape == (0, 3) and samples.normals.shape == (0, 3)


def test_a_real_body(dataset):
    mesh = read_mesh(dataset("faust") / "registrations" / "tr_reg_001.ply")
    check_on_surface(
        sample_surface(mesh.vertices, mesh.faces, spacing=0.05), mesh.vertices, mesh.faces
    )
