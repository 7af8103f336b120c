"""The functional-map head: its maps, its losses, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsefeat.errors import InputError
from sparsefeat.heads import FunctionalMapHead, laplace_basis, map_from_points, zoomout
from sparsefeat.heads.functional_map import spread_samples


@pytest.fixture(scope="module")
def pair():
    """A bumpy ball, and the same with its vertices in another order: row k is row ``order[k]`` of the first."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    from scipy.spatial import ConvexHull

    faces = ConvexHull(points).simplices.astype(np.int64)
    corners = points[faces]
    inwards = (np.linalg.det(corners)) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    vertices = points * (1 + 0.3 * points[:, :1] ** 3 + 0.2 * points[:, 1:2])
    order = rng.permutation(len(vertices))
    place = np.argsort(order)
    bases = [
        laplace_basis(v, f, 60, kind="cotangent").at_unit_area().to(dtype=torch.float32)
        for v, f in ((vertices, faces), (vertices[order], place[faces]))
    ]
    features = torch.from_numpy(np.concatenate([vertices, vertices**2], 1)).float()
    return features, features[order], bases[0], bases[1], torch.from_numpy(order), vertices


def test_a_head_maps_a_permuted_copy_onto_itself(pair):
    features, other, basis_a, basis_b, order, _ = pair
    head = FunctionalMapHead(6, features=16, width=16, blocks=1, size=20, weight=1e-3)
    of_a, of_b = head(features, basis_a), head(other, basis_b)
    torch.testing.assert_close(of_b, of_a[order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(of_a.norm(dim=1), torch.ones(len(of_a)))
    points = head.points(of_a, basis_a, of_b, basis_b, refined=50)
    assert (points == order).float().mean() > 0.95


def test_losses_vanish_for_true_maps_and_fall_in_training(pair):
    features, other, basis_a, basis_b, order, _ = pair
    head = FunctionalMapHead(6, features=16, width=16, blocks=1, size=15, weight=0.1)
    head.standardize.fit([features])
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    samples = torch.arange(0, 400, 4)
    totals = []
    for _ in range(15):
        of_a, of_b = head(features, basis_a), head(other, basis_b)
        losses = head.losses(of_a, basis_a, of_b, basis_b, order[samples], samples, True)
        assert losses.bijective.item() == losses.coupling.item() == 0
        optimizer.zero_grad()
        losses.total().backward()
        optimizer.step()
        totals.append(float(losses.total().detach()))
    assert np.mean(totals[-3:]) < 0.8 * totals[0]
    of_a, of_b = head(features, basis_a), head(other, basis_b)
    free = head.losses(of_a, basis_a, of_b, basis_b, samples, samples, False)
    free.total().backward()
    assert free.map.item() == free.points.item() == 0
    assert min(free.bijective.item(), free.orthogonal.item(), free.coupling.item()) > 0


def test_the_layer_does_not_depend_on_how_many_channels_there_are(pair):
    features, _, basis_a, basis_b, _, _ = pair
    head = FunctionalMapHead(6, size=5, weight=0.5)
    twice = torch.cat([features, features], 1)
    torch.testing.assert_close(
        head.functional_map(features, basis_a, features, basis_b),
        head.functional_map(twice, basis_a, twice, basis_b),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="expected a size of at least 2, weight and temperature"):
        FunctionalMapHead(3, size=1)


def test_descriptors_of_other_channels_and_unequal_samples_are_refused(pair):
    features, _, basis, _, _, _ = pair
    head = FunctionalMapHead(6, features=8, width=8, blocks=1, size=20)
    for columns in (1, 2):
        expected = rf"got \(400, {columns}\), expected a tensor \(N, 6\)"
        with pytest.raises(InputError, match=expected):
            head(features[:, :columns], basis)
    with pytest.raises(InputError, match="got ndarray, expected a tensor"):
        head(features.numpy(), basis)
    of_a = head(features, basis)
    rows = torch.arange(33)
    with pytest.raises(InputError, match="samples: 33 of a and 5 of b, expected equal numbers"):
        head.losses(of_a, basis, of_a, basis, rows, rows[:5], supervised=True)


def test_zoomout_on_samples_finds_the_map_and_rectangles_are_allowed(pair):
    _, _, basis_a, basis_b, order, vertices = pair
    start = map_from_points(order, basis_a.truncate(10), basis_b.truncate(10))
    rows = torch.from_numpy(spread_samples(vertices, 120))
    every = torch.arange(len(order))
    matrix, points = zoomout(start, basis_a, basis_b, 50, 8, (every, rows))
    assert matrix.shape == (50, 50) and (points == order).float().mean() > 0.95
    matrix, points = zoomout(start[:8], basis_a, basis_b, (40, 50), 8)
    assert matrix.shape == (40, 50) and (points == order).float().mean() > 0.9
    with pytest.raises(InputError, match="20 and 120 samples, expected at least 50 and 50"):
        zoomout(start, basis_a, basis_b, 50, 8, (every[:20], rows))


def test_zoomout_goes_where_it_is_allowed(pair):
    _, _, basis_a, basis_b, order, _ = pair
    every = torch.arange(len(order))
    right = torch.zeros(len(order), len(order), dtype=torch.bool)
    right[every, torch.as_tensor(order)] = True
    nonsense = torch.zeros(10, 10)
    _, points = zoomout(nonsense, basis_a, basis_b, 50, 8, (every, every), right)
    assert (points == order).float().mean() > 0.95
    _, points = zoomout(nonsense, basis_a, basis_b, 50, 8, (every, every))
    assert (points == order).float().mean() < 0.5


def test_samples_are_spread(pair):
    vertices = pair[-1]
    rows = spread_samples(vertices, 50)
    assert len(rows) == 50 and (np.diff(rows) > 0).all()
    near = np.linalg.norm(vertices[:, None] - vertices[rows], axis=2).min(1).max()
    random = np.random.default_rng(0).permutation(len(vertices))[:50]
    assert near < np.linalg.norm(vertices[:, None] - vertices[random], axis=2).min(1).max()
    assert np.array_equal(spread_samples(vertices[:7], 50), np.arange(7))


def test_samples_of_repeated_vertices_are_as_many_as_asked_for():
    places = np.random.default_rng(0).normal(size=(20, 3))
    rows = spread_samples(np.repeat(places, 3, 0), 30)
    assert len(rows) == 30 and (np.diff(rows) > 0).all()
    assert set(rows // 3) == set(range(20)), "every place first"


@pytest.mark.parametrize(
    "vertices, count, message",
    [
        (np.full((9, 3), np.nan), 5, "vertices: row 0 is not finite"),
        (np.zeros((9, 3)), -1, "count -1, expected a whole number of at least 1"),
        (np.zeros((9, 3)), 2.5, "count 2.5, expected a whole number of at least 1"),
    ],
)
def test_samples_of_nothing_are_refused(vertices, count, message):
    with pytest.raises(InputError, match=message):
        spread_samples(vertices, count)
