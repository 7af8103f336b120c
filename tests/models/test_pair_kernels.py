"""Pair kernels: the same features in every orientation, exact gradients, checkpoints as for any network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from networks import small_network

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.models import create_model
from sparsefeat.models.levels import PointFrames, PointTensor
from sparsefeat.models.pairs import PairConvolution
from sparsefeat.models.reach import measure_reach
from sparsefeat.sparse import Kernel, SparseTensor, operators
from sparsefeat.sparse.weighted import PairWeights, weighted_convolution, weighted_sums


def network(**options):
    shape = {"in_channels": 3, "channels": [4, 4, 6], "depth": 2, "out_channels": 8}
    return small_network(
        **shape | {"conv1_kernel_size": 5, "kernels": "pair", "normalize_feature": True} | options
    )


def ellipsoid(count: int = 900) -> torch.Tensor:
    """Points on an ellipsoid, one per voxel. Shape: (V, 3) float64, in voxels."""
    points = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points = (
        points
        / points.norm(dim=1, keepdim=True)
        * torch.tensor([8.0, 5.0, 4.0], dtype=torch.float64)
    )
    _, rows = np.unique(points.floor().numpy(), axis=0, return_index=True)
    return points[torch.from_numpy(rows)]


def features(model, points: torch.Tensor) -> torch.Tensor:
    cells = points.floor()
    coordinates = torch.nn.functional.pad(cells.int(), (1, 0))
    return model(
        SparseTensor((points - cells - 0.5).to(points.dtype), coordinates, reduce="error")
    ).features


def cube_rotations() -> list[torch.Tensor]:
    """The 24 rotations and 24 reflections that map the grid onto itself."""
    return [
        torch.eye(3, dtype=torch.float64)[list(order)] * torch.tensor(signs, dtype=torch.float64)
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]


def test_features_are_the_same_in_all_orientations_of_the_grid():
    model, points = network().double(), ellipsoid()
    model.train()
    expected = features(model, points)
    assert expected.std(0).min() > 0.01
    for turn in cube_rotations():
        torch.testing.assert_close(features(model, points @ turn.T), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=["float32", "float64"]
)
def test_a_batch_gives_what_its_clouds_give_alone(dtype, tolerance):
    """The second cloud lies a kilometre away from the first."""
    model, points = network().to(dtype), ellipsoid().to(dtype)
    other = points[: len(points) // 2] + 3
    cells = torch.cat([points, other]).floor()
    offsets = torch.cat([points, other]) - cells - 0.5
    batch = torch.cat([torch.zeros(len(points), 1), torch.ones(len(other), 1)])
    place = torch.cat([batch, cells], 1).int()
    place[len(points) :, 1] += 2**14
    together = model(SparseTensor(offsets, place, reduce="error")).features
    torch.testing.assert_close(
        together[: len(points)], features(model, points), atol=tolerance, rtol=0
    )
    torch.testing.assert_close(
        together[len(points) :], features(model, other), atol=tolerance, rtol=0
    )


def in_batch(clouds: list[torch.Tensor], places: list[int]) -> SparseTensor:
    """Clouds of points in voxels, each moved by so many voxels along the first axis."""
    cells = [points.floor() for points in clouds]
    coordinates = []
    for number, (cell, place) in enumerate(zip(cells, places)):
        moved = torch.nn.functional.pad(cell.int(), (1, 0), value=number)
        moved[:, 1] += place
        coordinates.append(moved)
    offsets = torch.cat([points - cell - 0.5 for points, cell in zip(clouds, cells)])
    return SparseTensor(offsets, torch.cat(coordinates), reduce="error")


@pytest.mark.parametrize("oriented", [False, True], ids=["plain", "oriented"])
@pytest.mark.parametrize("place", [2**14, 10**7, -(10**7)])
def test_a_cloud_of_a_batch_may_lie_anywhere(place, oriented):
    model = network(oriented=oriented, in_channels=6 if oriented else 3).eval()
    points = ellipsoid().float()
    other = points[: len(points) // 2] + 3
    x = in_batch([points, other], [0, place])
    if oriented:
        normals = torch.nn.functional.normalize(torch.cat([points, other - 3]), dim=1)
        x = x.replace(torch.cat([x.features, normals], 1))
    together, count = model(x).features, len(points)
    for rows, cloud in ((slice(0, count), points), (slice(count, None), other)):
        alone = in_batch([cloud], [0])
        found = model(alone.replace(x.features[rows])).features
        torch.testing.assert_close(together[rows], found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("place", [(-(10**7), 0, 0), (0, 0, 10**7), (-5000, 10**6, -(10**8))])
def test_a_stray_point_far_away_changes_no_other_feature(place):
    model, points = network().eval(), ellipsoid().float()
    alone = in_batch([points], [0])
    expected = model(alone).features
    stray = torch.tensor([[0, *place]], dtype=torch.int32)
    x = SparseTensor(
        torch.cat([alone.features, torch.zeros(1, 3)]),
        torch.cat([alone.coordinates, stray]),
        reduce="error",
    )
    torch.testing.assert_close(model(x).features[:-1], expected, atol=1e-4, rtol=0)


def test_a_cloud_that_is_too_long_for_its_places_is_told_of():
    cells = torch.arange(0, 140_000, 1000)
    coordinates = torch.stack([cells * 0, cells, cells * 0, cells * 0], 1).int()
    x = SparseTensor(torch.zeros(len(cells), 3), coordinates)
    with pytest.warns(InputWarning, match="reaches over 139000 voxels without a gap of 1024"):
        network().eval()(x)


def test_features_do_not_depend_on_the_default_type():
    points = ellipsoid()
    torch.set_default_dtype(torch.float64)
    try:
        model = network()
        assert all(p.dtype == torch.float64 for p in model.parameters())
        wide, narrow = features(model, points), features(model.float(), points.float())
    finally:
        torch.set_default_dtype(torch.float32)
    assert wide.dtype == torch.float64 and narrow.dtype == torch.float32
    torch.testing.assert_close(features(model, points.float()), narrow, rtol=0, atol=1e-6)
    torch.testing.assert_close(features(model.double(), points), wide, rtol=0, atol=1e-5)


def test_gradients_are_exact():
    model, points = network(depth=1, channels=[2, 2], tr_channels=[2, 2]).double(), ellipsoid(60)
    parameters = [p for name, p in model.named_parameters() if "kernel" in name]

    def loss(*values):
        swapped = dict(zip([n for n, _ in model.named_parameters() if "kernel" in n], values))
        cells = points.floor()
        x = SparseTensor(
            points - cells - 0.5, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="error"
        )
        return torch.func.functional_call(model, swapped, (x,)).features.square()[:, 0].sum()

    inputs = tuple(p.detach().clone().requires_grad_() for p in parameters[:2])
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_features_are_differentiable_by_the_points_and_their_weights():
    model, points = network(depth=1, channels=[2, 2], tr_channels=[2, 2]).double(), ellipsoid(60)
    cells = points.floor()
    coordinates = torch.nn.functional.pad(cells.int(), (1, 0))
    mix = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def outcome(offsets, weight):
        x = SparseTensor(torch.cat([offsets, weight], 1), coordinates, reduce="error")
        return model.run(model.point_frames(x)).features @ mix

    offsets = (points - cells - 0.5).requires_grad_()
    weight = (
        torch.rand(len(points), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        + 0.5
    )
    assert torch.autograd.gradcheck(
        outcome, (offsets, weight.requires_grad_()), fast_mode=True, atol=1e-6
    )


def test_a_voxel_of_no_weight_is_as_good_as_not_there():
    model, points = network().double(), ellipsoid()
    faint = torch.cat([points, points[::7] * 1.15])
    _, rows = np.unique(faint.floor().numpy(), axis=0, return_index=True)
    faint = faint[torch.from_numpy(rows)]
    there = torch.from_numpy(rows < len(points))
    cells = faint.floor()
    given = torch.cat([faint - cells - 0.5, there[:, None].double()], 1)
    x = SparseTensor(given, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="error")
    torch.testing.assert_close(
        model.run(model.point_frames(x)).features[there],
        features(model, faint[there]),
        atol=1e-9,
        rtol=0,
    )
    assert not there.all()


def test_the_same_voxels_may_hold_other_points_in_the_next_pass():
    model, points = network(), ellipsoid().float()
    cells = points.floor()
    x = SparseTensor(
        points - cells - 0.5, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="error"
    )
    first = model(x).features
    moved = x.features * 0.3
    again = model(x.replace(moved)).features
    assert not torch.allclose(again, first, atol=1e-3)
    torch.testing.assert_close(again, features(model, cells + 0.5 + moved), atol=1e-5, rtol=0)


def test_half_precision_is_close_to_single():
    model, points = network().train(), ellipsoid().float()
    expected = features(model, points)
    with torch.autocast("cpu", torch.bfloat16):
        found = features(model, points)
    assert (found.float() - expected).norm(dim=1).mean() < 0.1


def test_weighted_sums_and_their_gradients_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(2)
    coordinates = torch.unique(torch.randint(0, 4, (40, 3), generator=generator), dim=0)
    x = SparseTensor(
        torch.ones(len(coordinates), 1), torch.nn.functional.pad(coordinates.int(), (1, 0))
    )
    plan = x.manager.kernel_map(x.key, x.manager.stride(x.key, 2), Kernel.of(3))
    weight = torch.randn(len(x), plan.n_out, 3, dtype=torch.float64, generator=generator)
    weights = PairWeights.of(plan, lambda pairs: weight[pairs.rows, pairs.targets].t())
    given = torch.randn(len(x), 5, dtype=torch.float64, generator=generator, requires_grad=True)
    meets = torch.zeros(len(x), plan.n_out, dtype=torch.float64)
    meets[plan.in_rows, plan.out_rows] = 1
    expected = torch.einsum("iow,ic->owc", weight * meets[:, :, None], given)
    torch.testing.assert_close(weighted_sums(given, weights), expected)
    assert torch.autograd.gradcheck(lambda f: weighted_sums(f, weights), given)
    assert torch.autograd.gradgradcheck(lambda f: weighted_sums(f, weights), given)

    def by_weight(values):
        own = PairWeights.of(plan, lambda pairs: values[pairs.rows, pairs.targets].t())
        return weighted_sums(given.detach(), own)

    assert torch.autograd.gradcheck(by_weight, weight.requires_grad_())


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("back", [False, True])
def test_a_weighted_convolution_and_its_derivatives_are_those_of_the_definition(
    channels, back, monkeypatch
):
    # Products before sums or after them, by the numbers of rows and channels on either side; pairs in several blocks.
    monkeypatch.setattr("sparsefeat.sparse.weighted._PAIRS_AT_ONCE", 16)
    generator = torch.Generator().manual_seed(2)
    coordinates = torch.unique(torch.randint(0, 4, (40, 3), generator=generator), dim=0)
    x = SparseTensor(
        torch.ones(len(coordinates), 1), torch.nn.functional.pad(coordinates.int(), (1, 0))
    )
    plan = x.manager.kernel_map(x.key, x.manager.stride(x.key, 2), Kernel.of(3))
    plan = plan.transpose if back else plan
    weight = torch.randn(plan.n_in, plan.n_out, 2, dtype=torch.float64, generator=generator)
    # Three weights of two factors: each of them, and their product.
    products = [(0,), (1,), (0, 1)]
    weights = PairWeights.of(plan, lambda pairs: weight[pairs.rows, pairs.targets].t(), products)
    given = torch.randn(plan.n_in, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(
        3, 3, channels, dtype=torch.float64, generator=generator, requires_grad=True
    )
    meets = torch.zeros(plan.n_in, plan.n_out, dtype=torch.float64)
    meets[plan.in_rows, plan.out_rows] = 1
    each = torch.cat([weight, weight.prod(2, keepdim=True)], 2) * meets[:, :, None]
    expected = torch.einsum("iow,ic,wcd->od", each, given, kernel)
    torch.testing.assert_close(weighted_convolution(given, kernel, weights), expected)
    assert torch.autograd.gradcheck(
        lambda f, k: weighted_convolution(f, k, weights), (given, kernel)
    )
    assert torch.autograd.gradgradcheck(
        lambda f, k: weighted_convolution(f, k, weights), (given, kernel)
    )

    def by_weight(values):
        own = PairWeights.of(plan, lambda pairs: values[pairs.rows, pairs.targets].t(), products)
        return weighted_convolution(given.detach(), kernel.detach(), own)

    assert torch.autograd.gradcheck(by_weight, weight.requires_grad_())


@pytest.mark.skipif(not operators.AVAILABLE, reason="needs torch 2.4")
def test_weighted_sums_as_operators_are_registered_as_torch_wants_them():
    coordinates = torch.unique(
        torch.randint(0, 4, (40, 3), generator=torch.Generator().manual_seed(2)), dim=0
    )
    x = SparseTensor(
        torch.ones(len(coordinates), 1), torch.nn.functional.pad(coordinates.int(), (1, 0))
    )
    plan = x.manager.kernel_map(x.key, x.key, Kernel.of(3))
    factors = torch.rand(2, plan.n_pairs, dtype=torch.float64, requires_grad=True)
    rows = torch.rand(len(x), 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.rand(3, 3, 4, dtype=torch.float64, requires_grad=True)
    ops, handle, opcheck = torch.ops.sparsefeat, plan.handles[1], torch.library.opcheck
    products = [0, -1, 0, 1]  # two weights: a factor, and the product of both
    others = (handle, products, False, True)
    opcheck(ops.weighted_convolution, (rows, kernel, factors, *others, len(x)))
    opcheck(
        ops.weighted_convolution,
        (rows, kernel, factors.detach(), handle, products, True, True, len(x)),
    )
    given = [each.detach() for each in (rows, kernel, factors)]
    grad = torch.rand(len(x), 4, dtype=torch.float64)
    for needs in ((True, True, True), (False, True, False), (True, False, False)):
        opcheck(ops.weighted_convolution_gradients, (*given, grad, *others, *needs))


def test_an_output_does_not_keep_the_points_of_its_pass():
    model, points = network().double(), ellipsoid()
    cells = points.floor()
    x = SparseTensor(
        points - cells - 0.5, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="error"
    )
    assert type(model(x)) is SparseTensor and type(model.point_frames(x)) is PointTensor


def test_the_number_of_voxels_that_a_surface_occupies_does_not_matter():
    """A plane askew in the grid fills more voxels than one along it; means over neighbours do not notice."""
    rng = np.random.default_rng(3)
    plane = torch.from_numpy(rng.uniform(-12, 12, (8000, 3)) * (1, 1, 0) + (0, 0, 0.4)).float()
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0]).float()
    layer = PairConvolution(1, 1).requires_grad_(False)
    layer.kernel.fill_(1)
    outputs = []
    for points in (plane, plane @ turn.T):
        cells = points.floor()
        x = SparseTensor(
            points - cells - 0.5, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="average"
        )
        x = PointFrames()(x)
        inside = x.coordinates[:, 1:].float().norm(dim=1) < 8
        outputs.append(layer(x.replace(torch.ones(len(x), 1))).features[inside])
    assert len(outputs[1]) > 1.2 * len(outputs[0])
    means = [float(y.mean()) for y in outputs]
    assert abs(means[0] - means[1]) < 0.05 * means[0]


def test_lone_voxels_and_empty_clouds_give_finite_features():
    model = network()
    for count in (0, 1, 2):
        points = torch.full((count, 3), 0.4) + 100 * torch.arange(count)[:, None]
        assert features(model, points).shape == (count, 8)
        assert features(model, points).isfinite().all()


def test_a_checkpoint_gives_the_same_network(tmp_path):
    model, points = network(), ellipsoid().float()
    save_checkpoint(tmp_path / "pairs.safetensors", model, 0.05, {})
    again = from_pretrained(tmp_path / "pairs.safetensors")
    assert again.config["kernels"] == "pair"
    assert torch.equal(features(again, points), features(model, points))


def test_weights_of_grid_kernels_do_not_load(tmp_path):
    save_checkpoint(tmp_path / "grid.safetensors", network(kernels="grid"), 0.05, {})
    with pytest.raises(ValueError, match="conv1.kernel"):
        from_pretrained(tmp_path / "grid.safetensors", kernels="pair")


def test_the_reach_is_that_of_the_windows():
    reach = measure_reach(network(), 3)
    assert reach.stride == 4
    assert reach.layers > 10
    model, points = network(), ellipsoid(3000) * 3
    whole = features(model, points.float())
    near = (points[:, 0] < points[:, 0].min() + 2 + reach.radius).nonzero()[:, 0]
    part = features(model, points[near].float())
    kept = points[near, 0] < points[:, 0].min() + 2
    torch.testing.assert_close(part[kept], whole[near][kept], atol=1e-4, rtol=0)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="pair kernels take 3 input channels"):
        network(in_channels=1)
    with pytest.raises(ValueError, match="kernels must be one of grid, pair, got 'round'"):
        network(kernels="round")
    with pytest.raises(ValueError, match="three spatial dimensions"):
        network(D=2)
    with pytest.raises(ValueError, match="stride of 1 or 2"):
        PairConvolution(2, 2, stride=3)
    coordinates = torch.zeros(1, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match="positions of the points"):
        PairConvolution(1, 1)(SparseTensor(torch.ones(1, 1), coordinates))


def framed(chiral: bool = False) -> PointTensor:
    """An ellipsoid whose points are known, with normals."""
    points = ellipsoid(200).float()
    cells = points.floor()
    given = torch.cat([points - cells - 0.5, torch.nn.functional.normalize(points)], 1)
    x = SparseTensor(given, torch.nn.functional.pad(cells.int(), (1, 0)), reduce="error")
    return PointFrames(3, oriented=True, chiral=chiral)(x)


def test_windows_of_two_sizes_on_one_level_have_weights_of_their_own():
    narrow, wide = (PairConvolution(8, 4, edge) for edge in (5, 7))
    expected = wide(framed()).features
    x = framed()
    narrow(x)
    torch.testing.assert_close(wide(x).features, expected)


@pytest.mark.parametrize("chiral", [False, True])
def test_a_chiral_convolution_needs_chiral_frames_and_the_other_way_round(chiral):
    with pytest.raises(InputError, match=f"chiral is {not chiral}, expected {chiral} as in Point"):
        PairConvolution(8, 4, chiral=not chiral)(framed(chiral))
    assert PairConvolution(8, 4, chiral=chiral)(framed(chiral)).features.shape[1] == 4


def test_a_network_survives_pickling_and_is_the_same():
    import pickle

    model = create_model(
        "ResUNetBN2C", in_channels=6, out_channels=4, kernels="pair", oriented=True
    ).eval()
    again = pickle.loads(pickle.dumps(model))
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
