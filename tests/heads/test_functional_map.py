"""Functional maps against their definition, other implementations, and known correspondences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from surfaces import body

from sparsefeat.errors import InputError
from sparsefeat.heads import (
    commutativity_mask,
    functional_map,
    laplace_basis,
    load_diffusionnet,
    map_from_points,
    points_from_map,
    solve_functional_map,
    zoomout,
)
from sparsefeat.heads.commuting_map import common_functions, commuting_functional_map
from sparsefeat.mesh.geodesic import correspondence_error, surface_area


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def renumbered(k: int = 60):
    """A shape, the same one with its vertices in another order, and the true map from that to the first."""
    vertices, faces = body()
    order = np.random.default_rng(0).permutation(len(vertices))
    first = laplace_basis(vertices, faces, k=k)
    second = laplace_basis(vertices[order], np.argsort(order)[faces], k=k)
    return first, second, torch.from_numpy(order)


@pytest.mark.parametrize("kind", ["laplacian", "resolvent"])
def test_one_batched_solve_equals_the_loop_over_rows(kind):
    a, b = random(6, 9), random(7, 9, seed=1)
    values_a, values_b = (
        random(6, seed=2).abs().sort().values,
        random(7, seed=3).abs().sort().values,
    )
    mask = commutativity_mask(values_a, values_b, kind)
    found = solve_functional_map(a, b, mask, 0.1)
    assert found.shape == (7, 6)
    for i in range(7):
        row = torch.linalg.inv(a @ a.T + 0.1 * torch.diag(mask[i])) @ a @ b[i]
        torch.testing.assert_close(found[i], row)


def test_a_batch_of_pairs_is_solved_as_each_alone():
    a, b, mask = random(3, 5, 8), random(3, 4, 8, seed=1), random(3, 4, 5, seed=2).square()
    together = solve_functional_map(a, b, mask, 0.5)
    for i in range(3):
        torch.testing.assert_close(together[i], solve_functional_map(a[i], b[i], mask[i], 0.5))


def test_the_solution_minimises_the_energy():
    a, b, mask = random(5, 8), random(4, 8, seed=1), random(4, 5, seed=2).square()
    matrix = solve_functional_map(a, b, mask, 0.3).requires_grad_()
    energy = (matrix @ a - b).square().sum() + 0.3 * (mask * matrix.square()).sum()
    (gradient,) = torch.autograd.grad(energy, matrix)
    assert float(gradient.abs().max()) < 1e-10


def test_gradient_of_the_solve_is_that_of_its_function():
    a, b = random(4, 6).requires_grad_(), random(3, 6, seed=1).requires_grad_()
    mask = random(3, 4, seed=2).square()
    assert torch.autograd.gradcheck(lambda a, b: solve_functional_map(a, b, mask, 0.2), (a, b))


def test_masks_cost_nothing_where_eigenvalues_agree():
    values = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)
    for kind in ("laplacian", "resolvent"):
        mask = commutativity_mask(values, values, kind)
        assert (mask.diagonal() == 0).all() and mask[0, 2] > mask[0, 1] > 0
    scaled = [commutativity_mask(s * values, s * values, "resolvent") for s in (1.0, 100.0)]
    torch.testing.assert_close(*scaled)
    with pytest.raises(ValueError, match="there are laplacian, resolvent"):
        commutativity_mask(values, values, "slanted")


def test_resolvent_mask_is_the_distance_of_complex_resolvents():
    a, b = torch.tensor([0.0, 2.0, 5.0]), torch.tensor([0.5, 4.0])
    mask = commutativity_mask(a, b, "resolvent", gamma=0.5)
    for i, low in enumerate((b / 5).sqrt().tolist()):
        for j, high in enumerate((a / 5).sqrt().tolist()):
            difference = 1 / complex(low, 1) - 1 / complex(high, 1)
            assert float(mask[i, j]) == pytest.approx(abs(difference) ** 2, abs=1e-6)


def test_functions_of_a_renumbered_shape_give_its_map():
    first, second, order = renumbered(30)
    features = first.reconstruct(random(30, 40))
    matrix = functional_map(features, first, features[order], second, size=30, weight=1e-6)
    torch.testing.assert_close(matrix, map_from_points(order, first, second), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        matrix @ matrix.T, torch.eye(30, dtype=torch.float64), atol=1e-3, rtol=0
    )
    assert (points_from_map(matrix, first, second) == order).float().mean() > 0.99


def test_zoomout_recovers_a_permutation_from_a_rough_map():
    first, second, order = renumbered(60)
    rough = order.clone()
    wrong = torch.randperm(len(order), generator=torch.Generator().manual_seed(1))[
        : len(order) // 3
    ]
    rough[wrong] = wrong.flip(0) % len(order)  # a third of the points are sent astray
    start = map_from_points(rough, first.truncate(8), second.truncate(8))
    assert (points_from_map(start, first, second) == order).float().mean() < 0.9
    matrix, points = zoomout(start, first, second, size=60, step=4)
    assert matrix.shape == (60, 60) and bool((points == order).all())
    from_points = zoomout(rough, first, second, size=60)[1]
    assert bool((from_points == order).all())


def test_maps_equal_those_of_pyfmaps():
    spectral = pytest.importorskip("pyFM.spectral")
    refine = pytest.importorskip("pyFM.refine.zoomout")
    first, second, order = renumbered(40)
    a, b = first.eigenvectors.numpy(), second.eigenvectors.numpy()
    matrix = map_from_points(order, first.truncate(12), second.truncate(12))
    expected = spectral.p2p_to_FM(order.numpy(), a[:, :12], b[:, :12], A2=second.mass.numpy())
    np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-9)
    noisy = matrix + 0.05 * random(12, 12)
    expected = spectral.FM_to_p2p(noisy.numpy(), a, b)
    np.testing.assert_array_equal(points_from_map(noisy, first, second).numpy(), expected)
    their_map, their_points = refine.zoomout_refine(
        noisy.numpy(), a, b, nit=7, step=4, A2=second.mass.numpy(), return_p2p=True
    )
    our_map, our_points = zoomout(noisy, first, second, size=40, step=4)
    np.testing.assert_allclose(our_map.numpy(), their_map, atol=1e-8)
    np.testing.assert_array_equal(our_points.numpy(), their_points)


def test_wrong_shapes_are_refused():
    first, second, order = renumbered(10)
    with pytest.raises(ValueError, match="do not fit"):
        solve_functional_map(random(4, 6), random(3, 5), random(3, 4), 0.1)
    with pytest.raises(ValueError, match="at least 0"):
        solve_functional_map(random(4, 6), random(3, 6), random(3, 4), -1)
    with pytest.raises(ValueError, match="1 to 10 eigenpairs, got 30"):
        functional_map(random(len(first), 3), first, random(len(first), 3), second)
    with pytest.raises(ValueError, match="rows of a"):
        map_from_points(order[1:], first, second)
    for row, found in ((-1, "-1"), (len(first), str(len(first)))):
        order[3] = row
        for use in (map_from_points, partial(zoomout, size=10)):
            with pytest.raises(
                InputError, match=f"{found} among the rows of a, expected .* from 0"
            ):
                use(order, first, second)
    with pytest.raises(InputError, match="float64 among the rows of a"):
        map_from_points(order.double(), first, second)
    with pytest.raises(ValueError, match="a map of at most 5 x 5 eigenpairs"):
        zoomout(torch.eye(8, dtype=torch.float64), first, second, size=5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"features_a": random(9, 3)}, r"functions \(9, 3\), expected \(\d+, C\)"),
        ({"features_b": random(9)}, r"functions \(9,\), expected \(\d+, C\)"),
        ({"size": 10.0}, "1 to 20 eigenpairs, got 10.0"),
        ({"weight": np.nan}, "a weight of at least 0, got nan"),
    ],
)
def test_a_functional_map_refuses_what_does_not_fit(change, message):
    first, second, _ = renumbered(20)
    given = {"features_a": random(len(first), 3), "features_b": random(len(second), 3), "size": 10}
    given |= change
    with pytest.raises(InputError, match=message):
        functional_map(basis_a=first, basis_b=second, **given)


def test_features_of_a_map_that_are_not_finite_are_named():
    first, second, _ = renumbered(20)
    good, spoilt = random(len(first), 3), random(len(first), 3)
    spoilt[4, 1] = torch.nan
    with pytest.raises(InputError, match=r"features of b are not finite \(row 4\)"):
        functional_map(good, first, spoilt, second, 10)


def test_maps_of_other_number_types_are_those_of_the_same_numbers():
    first, second, order = renumbered(30)
    start = map_from_points(order, first.truncate(10), second.truncate(10))
    expected = zoomout(start, first, second, 30)
    for size in (np.int64(30), [30, 30]):
        matrix, points = zoomout(start.float(), first, second, size)
        torch.testing.assert_close(matrix, expected[0], atol=1e-5, rtol=0)
        assert torch.equal(points, expected[1])
    assert torch.equal(points_from_map(expected[0].float(), first, second), expected[1])
    narrow = torch.zeros(len(order), dtype=torch.uint8)
    torch.testing.assert_close(
        map_from_points(narrow, first, second), map_from_points(narrow.long(), first, second)
    )
    with pytest.raises(InputError, match="bool among the rows of a"):
        map_from_points(narrow.bool(), first, second)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step": 2.5}, "step 2.5, expected a whole number of at least 1"),
        ({"step": 0}, "step 0, expected a whole number of at least 1"),
        ({"size": 20.0}, "1 to 20 eigenpairs, got 20.0"),
        (
            {"samples": (np.arange(30) + 10**6, np.arange(30))},
            "samples: 1000000 among the rows of a",
        ),
        ({"samples": (np.arange(30), np.arange(30) - 1)}, "samples: -1 among the rows of b"),
        (
            {"allowed": torch.ones(3, 3, dtype=torch.bool)},
            r"allowed \(3, 3\) of torch.bool, expected",
        ),
    ],
)
def test_zoomout_refuses_what_does_not_fit(options, message):
    first, second, order = renumbered(20)
    with pytest.raises(InputError, match=message):
        zoomout(order, first, second, **{"size": 20} | options)


def test_common_functions_beyond_the_rank_of_the_features_are_zero():
    mix = random(2, 8, seed=2)
    found = torch.cat(common_functions([random(50, 2) @ mix, random(70, 2, seed=1) @ mix], 4))
    torch.testing.assert_close(found.std(0)[:2], torch.ones(2, dtype=torch.float64))
    assert found[:, 2:].abs().max() < 1e-12


def test_common_functions_are_as_many_as_asked_for_of_fewer_channels_too():
    found = common_functions([random(50, 3), random(70, 3, seed=1)], 5)
    assert [each.shape for each in found] == [(50, 5), (70, 5)]
    assert torch.cat(found)[:, 3:].abs().max() == 0
    torch.testing.assert_close(torch.cat(found).std(0)[:3], torch.ones(3, dtype=torch.float64))


def test_a_commuting_map_is_made_on_the_device_of_its_bases():
    basis = renumbered(10)[0].to("meta")
    features = torch.empty(len(basis), 3, dtype=torch.float64, device="meta")
    found = commuting_functional_map(
        features, basis, features, basis, features, features, 10, multiplication=0, orientation=0
    )
    assert found.device.type == "meta" and found.shape == (10, 10)


def test_features_that_leave_a_map_undetermined_are_refused():
    basis, _, _ = renumbered(10)
    nothing = torch.zeros(len(basis), 4, dtype=torch.float64)
    with pytest.raises(InputError, match="features leave it undetermined"):
        functional_map(nothing, basis, nothing, basis, size=10)
    with pytest.raises(InputError, match="features leave it undetermined"):
        commuting_functional_map(nothing, basis, nothing, basis, nothing, nothing, 10)
    few = random(len(basis), 4)
    with pytest.raises(InputError, match="4 functions and a weight of 0 .* expected 10 functions"):
        functional_map(few, basis, few, basis, size=10, weight=0.0)


@pytest.mark.slow
def test_published_features_match_bodies_they_never_saw(dataset):
    import trimesh

    folder = dataset("faust_r") / "vtx_5k"
    net = load_diffusionnet(dataset("checkpoints") / "diffusionnet_fmap_faust_xyz.pth").double()
    shapes = []
    for name in ("tr_reg_080", "tr_reg_091"):
        mesh = trimesh.load(folder / f"{name}.off", process=False)
        vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
        vertices = (vertices - vertices.mean(0)) / np.sqrt(surface_area(vertices, faces))
        landmarks = np.loadtxt(folder / "corres" / f"{name}.vts", dtype=int) - 1
        basis = laplace_basis(vertices, faces)
        with torch.no_grad():
            shapes.append(
                (vertices, faces, basis, net(torch.from_numpy(vertices), basis), landmarks)
            )
    (vertices, faces, a, features_a, true), (_, _, b, features_b, landmarks) = shapes
    matrix = functional_map(features_a, a, features_b, b, size=30)
    some = slice(None, None, 10)
    errors = [
        correspondence_error(vertices, faces, points.numpy()[landmarks][some], true[some]).mean()
        for points in (points_from_map(matrix, a, b), zoomout(matrix, a, b, 120, 10)[1])
    ]
    assert errors[0] < 3.2 and errors[1] < errors[0]
