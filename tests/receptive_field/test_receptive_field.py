"""The receptive field as a parameter: gradients are those of the actual loss, and tuning finds the scale that matters."""

import math
from functools import partial

import networks
import numpy as np
import pytest
import torch
from local_grids import LocalGrids
from surfaces import body

from sparsefeat import FeatureExtractor, InputError
from sparsefeat.extract.surfaces import vertex_features
from sparsefeat.losses import CYCLE_FORMS
from sparsefeat.models.reach import measure_reach
from sparsefeat.receptive_field import (
    ContinuousDilation,
    CorrespondenceObjective,
    CycleObjective,
    DistributionObjective,
    Objective,
    PositiveParameter,
    ProbeObjective,
    RoundTripObjective,
    ScaleLadder,
    SoftNetwork,
    blend_weights,
    measure,
    search_receptive_field,
    tune_receptive_field,
)
from sparsefeat.receptive_field.dilation import DilatedNetwork
from sparsefeat.receptive_field.occupancy import gated, soft_voxels
from sparsefeat.receptive_field.shapes import SurfaceShape
from sparsefeat.sparse import SparseTensor

small_network = partial(networks.small_network, 8, normalize_feature=True)


def ellipsoid(count=1500, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * (1, 0.8, 0.5)


def central_difference(function, at, step):
    with torch.no_grad():
        return float(function(at + step) - function(at - step)) / (2 * step)


# Blending


def test_blend_weights_are_a_smooth_partition_of_unity():
    rungs = torch.arange(-3, 4, dtype=torch.float64)
    position = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    weights = blend_weights(position, rungs)
    torch.testing.assert_close(weights.sum(1), torch.ones(41, dtype=torch.float64))
    assert (weights >= 0).all()
    assert torch.autograd.gradcheck(lambda p: blend_weights(p, rungs), position)


def test_halfway_between_two_rungs_only_these_two_are_computed():
    asked = []
    ladder = ScaleLadder(lambda v, s, d: asked.append(v) or torch.full((1, 2, 3), v), 1, start=1.0)
    blended = ladder.features(torch.zeros(1, dtype=torch.float64), [0])
    assert len(asked) == 2 and math.prod(asked) == pytest.approx(1.0)
    torch.testing.assert_close(
        blended[0], torch.full((1, 2, 3), sum(asked) / 2, dtype=torch.float64)
    )
    ladder.features(torch.zeros(1, dtype=torch.float64), [0])
    assert len(asked) == 2, "a rung is computed once"


def test_the_gradient_of_a_ladder_is_that_of_its_value():
    table = torch.randn(
        40, 1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    ladder = ScaleLadder(
        lambda v, s, d: table[round(math.log2(v) * 2 + 20.5)] * d, 1, 1.0, normalize=True
    )
    target = torch.randn(5, 4, dtype=torch.float64)

    def loss(log_size, dilation):
        return (ladder.features(log_size, [0], dilation)[0] * target).sum()

    log_size = torch.tensor([0.23], dtype=torch.float64, requires_grad=True)
    dilation = torch.tensor([1.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (log_size, dilation))


def test_groups_have_voxel_sizes_of_their_own():
    ladder = ScaleLadder(lambda v, s, d: torch.full((1, 1, 1), v), 3, start=1.0)
    sizes = torch.log(torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True))
    first, second, third = (float(f.detach()) for f in ladder.features(sizes, [0, 1, 0]))
    assert first == third < 0.6 < 1.8 < second


# Soft voxels


def test_soft_voxels_become_the_ordinary_ones_as_they_sharpen():
    points = torch.from_numpy(ellipsoid(300)) * 7
    soft = soft_voxels(points, sharpness=1e-7)
    full = soft.occupancy > 0.999
    expected = torch.unique(torch.floor(points), dim=0)
    cells = soft.cells + torch.tensor(soft.origin)
    assert torch.equal(cells[full].double(), expected)
    assert soft.occupancy[~full].sum() < 0.5


def test_a_point_on_a_face_holds_both_cells_by_half():
    soft = soft_voxels(torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64))
    cells = soft.cells + torch.tensor(soft.origin)
    held = {tuple(c.tolist()): float(o) for c, o in zip(cells, soft.occupancy, strict=True)}
    assert held[0, 0, 0] == pytest.approx(0.5) and held[1, 0, 0] == pytest.approx(0.5)


def test_a_network_with_full_gates_is_the_network_itself():
    model = small_network(depth=2).double()
    cells = torch.unique(torch.floor(torch.from_numpy(ellipsoid(400)) * 6), dim=0)
    x = SparseTensor(
        torch.ones(len(cells), 1, dtype=torch.float64), torch.nn.functional.pad(cells, (1, 0)).int()
    )
    with gated(model, torch.ones(len(cells), dtype=torch.float64)):
        torch.testing.assert_close(model(x).F, model(x).F)
        full = model(x).F
    torch.testing.assert_close(full, model(x).F, atol=1e-5, rtol=1e-5)


def test_a_voxel_with_a_closed_gate_is_as_good_as_not_there():
    model = small_network(depth=2).double()
    cells = torch.unique(torch.floor(torch.from_numpy(ellipsoid(400)) * 6), dim=0)
    coordinates = torch.nn.functional.pad(cells, (1, 0)).int()
    here = torch.arange(len(cells)) % 7 != 3
    x = SparseTensor(torch.ones(len(cells), 1, dtype=torch.float64), coordinates)
    with gated(model, here.double()):
        found = model(x).F[here]
    alone = model(
        SparseTensor(torch.ones(int(here.sum()), 1, dtype=torch.float64), coordinates[here])
    ).F
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [SoftNetwork, LocalGrids])
@pytest.mark.parametrize("voxel_size", [0.16, 0.21])
def test_derivatives_by_the_voxel_size_are_those_of_the_actual_loss(kind, voxel_size):
    network = kind(small_network().double())
    points = torch.from_numpy(ellipsoid())
    queries, target = points[:10], torch.linspace(-1, 1, 8, dtype=torch.float64)

    def loss(log_size):
        return (network(points, log_size.exp(), queries) @ target).mean()

    log_size = torch.tensor([math.log(voxel_size)], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(log_size), log_size)
    # Voxels are chosen anew at either side of the difference: nothing is held fixed.
    assert float(gradient) == pytest.approx(central_difference(loss, log_size, 1e-4), rel=0.05)


@pytest.mark.parametrize("kind", [SoftNetwork, LocalGrids])
@pytest.mark.parametrize(
    "options", [{}, {"oriented": True, "in_channels": 6, "chiral": True, "context": 1}]
)
def test_pair_kernels_are_differentiable_by_the_points_themselves(kind, options):
    model = small_network(kernels="pair", **options).double()
    if options:
        torch.nn.init.normal_(model.context.leave.weight, std=0.1)
    network = kind(model)
    points = torch.from_numpy(ellipsoid(1000))
    queries, target = points[:4], torch.linspace(-1, 1, 8, dtype=torch.float64)
    given = {"normals": torch.nn.functional.normalize(points)} if options else {}

    def loss(log_size):
        return (network(points, log_size.exp(), queries, **given) @ target).mean()

    log_size = torch.tensor([math.log(0.2)], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(log_size), log_size)
    assert float(gradient) == pytest.approx(central_difference(loss, log_size, 1e-4), rel=0.05)


def test_a_query_away_from_the_points_is_refused():
    network = SoftNetwork(small_network().double())
    points = torch.from_numpy(ellipsoid(200))
    with pytest.raises(ValueError, match="1 of 1 points have no voxel around them"):
        network(points, torch.tensor(0.1), torch.full((1, 3), 9.0, dtype=torch.float64))


# Dilation


@pytest.mark.parametrize("pairs", [False, True])
def test_a_whole_dilation_is_the_network_built_with_it(pairs):
    options = dict(kernels="pair") if pairs else {}
    model = small_network(depth=0, **options).double()
    wider = small_network(depth=0, dilation=2, **options).double()
    wider.load_state_dict(model.state_dict())
    cells = torch.unique(torch.floor(torch.from_numpy(ellipsoid(400)) * 6), dim=0)
    inputs = torch.ones(len(cells), model.in_channels, dtype=torch.float64) * 0.3
    x = SparseTensor(inputs, torch.nn.functional.pad(cells, (1, 0)).int())
    before = model(x).F
    with ContinuousDilation(model).applied(torch.tensor([2.0])):
        torch.testing.assert_close(model(x).F, wider(x).F)
    torch.testing.assert_close(model(x).F, before)


def test_a_dilation_between_whole_ones_has_a_gradient():
    model = small_network(depth=0).double()
    dilation = ContinuousDilation(model, initial=1.5, per_layer=True)
    cells = torch.unique(torch.floor(torch.from_numpy(ellipsoid(300)) * 5), dim=0)
    x = SparseTensor(
        torch.ones(len(cells), 1, dtype=torch.float64), torch.nn.functional.pad(cells, (1, 0)).int()
    )
    target = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(factors):
        with dilation.applied(factors):
            return (model(x).F @ target).mean()

    factors = dilation().detach().requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (factors,))


def test_the_state_dict_does_not_know_of_dilation():
    model = small_network()
    keys = list(model.state_dict())
    with ContinuousDilation(model).applied():
        assert list(model.state_dict()) == keys


# Objectives and tuning


class Peak(Objective):
    """Smallest where a feature's first channel is 0, which planted features are at one voxel size."""

    def __call__(self, features, shapes):
        return torch.cat([f[..., 0].flatten() for f in features]).square().mean()


class PlantedExtractor:
    """Features that say log(voxel size / planted): an extractor whose best scale is known."""

    model = torch.nn.Identity()
    device = torch.device("cpu")

    def __init__(self, planted, voxel_size=1.0):
        self.planted, self.voxel_size = planted, voxel_size

    def __call__(self, points, interpolation, **options):
        return np.full((len(points), 1), math.log(self.voxel_size / self.planted))

    def at(self, voxel_size):
        return PlantedExtractor(self.planted, voxel_size)


@pytest.mark.parametrize("start", [0.1 / 3, 0.1, 0.1 * 3])
def test_tuning_finds_a_planted_scale_from_either_side(start):
    tuned = tune_receptive_field(PlantedExtractor(0.1), [ellipsoid(50)], Peak(), start=start)
    assert tuned.voxel_size == pytest.approx(0.1, rel=0.1)
    looks = [step.voxel_size[0] / start for step in tuned.history if step.descent == 0]
    np.testing.assert_allclose(looks, [8 / 2 ** (k / 2) for k in range(len(looks))])
    assert {step.descent for step in tuned.history} == {0, 1}
    # No more than a look beyond what is best, or beyond the usual size, was computed.
    usual = np.linalg.norm(np.ptp(ellipsoid(50), axis=0)) / 50
    assert looks[-1] * start > min(0.1, usual) / 2**0.75 / 1.01


def test_a_look_costs_one_pass_more_than_the_last_one():
    for start in np.random.default_rng(0).uniform(0.02, 0.5, 12):
        tuned = tune_receptive_field(
            PlantedExtractor(0.1), [ellipsoid(50)], Peak(), start=start, steps=1
        )
        looks = sum(step.descent == 0 for step in tuned.history)
        assert (
            tuned.cost.passes == looks + 1
        )  # the first lies between two rungs, each of the others adds one


class Cloud:
    """Points with normals, as Open3D has them."""

    def __init__(self, points, normals):
        self.points, self.normals, self.colors = points, normals, None


class Seen(Objective):
    """Keeps the features that it is asked about."""

    def __call__(self, features, shapes):
        self.features = features
        return torch.cat([f.flatten() for f in features]).square().mean()


def oriented_network():
    return small_network(kernels="pair", oriented=True)


@pytest.mark.filterwarnings("ignore:.*neither viewpoint nor normals")
@pytest.mark.parametrize("flip", [None, 1.0, -2.0])
def test_features_of_a_cloud_are_those_that_it_has_afterwards(flip):
    points = ellipsoid(600)
    cloud = points if flip is None else Cloud(points, flip * points / (1, 0.64, 0.25))
    extractor, objective = FeatureExtractor(oriented_network(), 1.0), Seen()
    search_receptive_field(extractor, [cloud], objective, [0.2], keypoints=600)
    expected = vertex_features(extractor, cloud, voxel_size=0.2, scales=(1.0,))
    np.testing.assert_allclose(objective.features[0][0], expected, atol=1e-5)


def test_a_pair_in_a_list_and_a_number_of_numpy_are_taken():
    vertices, faces = body()
    expected = SurfaceShape.of((vertices, faces), 40, seed=0)
    shape = SurfaceShape.of([vertices.tolist(), faces.tolist()], np.int64(40), seed=0)
    np.testing.assert_array_equal(shape.vertices, expected.vertices)
    np.testing.assert_array_equal(shape.faces, expected.faces)
    np.testing.assert_array_equal(shape.keypoints, expected.keypoints)
    with pytest.raises(InputError, match="faces name a vertex that is not there"):
        SurfaceShape.of((vertices, faces + 1), 40, seed=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: tune_receptive_field(PlantedExtractor(1), [ellipsoid(9)], Peak(), seed=seed),
        lambda seed: search_receptive_field(
            PlantedExtractor(1), [ellipsoid(9)], Peak(), [1.0], seed=seed
        ),
        lambda seed: measure(small_network(depth=0), seed=seed),
        lambda seed: CorrespondenceObjective([[0, 1], [0, 1]], seed=seed),
        lambda seed: DistributionObjective(np.eye(3), seed=seed),
    ],
)
def test_a_seed_is_a_whole_number_of_at_least_0(call):
    with pytest.raises(InputError, match="seed -1, expected a whole number of at least 0"):
        call(-1)


def test_vertices_that_no_face_names_decide_nothing():
    vertices, faces = body()
    clean = SurfaceShape.of((vertices, faces), 100, seed=0)
    stray = SurfaceShape.of((np.concatenate([vertices, [[1e3, 0, 0]] * 300]), faces), 100, seed=0)
    assert stray.extent == clean.extent
    np.testing.assert_array_equal(stray.keypoints, clean.keypoints)
    # Those in front shift the numbers alone.
    stray = SurfaceShape.of((np.concatenate([[[1e3, 0, 0]], vertices]), faces + 1), 100, seed=0)
    np.testing.assert_array_equal(stray.keypoints, clean.keypoints + 1)


def test_normals_of_a_cloud_go_with_its_points_into_every_view():
    points = ellipsoid(200) / (1, 0.8, 0.5)
    shape = SurfaceShape.of(Cloud(points, 3 * points), 10, seed=0)
    (seen, normals), rows = shape.view(1, 0.1, seed=0)
    assert len(seen) == len(normals) < 200
    # On a unit sphere about the origin, points and normals differ by where the view has put the centre.
    np.testing.assert_allclose(seen - normals, np.tile((seen - normals)[0], (len(seen), 1)))
    assert not np.allclose(normals[rows], points[shape.keypoints])
    with pytest.raises(InputError, match=r"normals of shape \(3, 3\), expected finite \(200, 3\)"):
        SurfaceShape.of(Cloud(points, np.eye(3)), 10, seed=0)


def test_the_soft_way_estimates_the_sides_of_a_cloud_too(monkeypatch):
    agreement = []
    forward = SoftNetwork.forward

    def watched(network, points, voxel_size, queries, normals=None):
        outwards = points - points.mean(0)
        agreement.append(float(((normals * outwards).sum(1) > 0).double().mean()))
        return forward(network, points, voxel_size, queries, normals)

    monkeypatch.setattr(SoftNetwork, "forward", watched)
    tune_receptive_field(
        FeatureExtractor(oriented_network(), 1.0), [ellipsoid(600)], CycleObjective(), method="soft", start=0.2,
        steps=1, keypoints=60,
    )  # fmt: skip
    assert len(agreement) == 2 and min(agreement) > 0.95


@pytest.fixture(scope="module")
def waves():
    """Three bumpy spheres whose labels say whether a fine ripple is there: computable at the ripple's scale alone."""
    shapes, labels = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sphere = rng.normal(size=(3000, 3))
        sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
        rippled = sphere @ rng.normal(size=3) > 0
        ripple = np.prod(np.sin(sphere * 16), axis=1)
        coarse = 0.08 * np.sin(3 * sphere[:, :1] + seed)
        shapes.append(sphere * (1 + coarse + 0.06 * np.where(rippled, ripple, 0)[:, None]))
        labels.append(rippled.astype(np.int64))
    return shapes, labels


def test_scaling_the_shapes_scales_the_chosen_voxel(waves):
    shapes, labels = waves
    extractor = FeatureExtractor(small_network(kernels="pair"), 1.0)
    found = {}
    for factor in (1 / 3, 1.0, 3.0):
        scaled = [shape * factor for shape in shapes]
        # The start stays where it is: rungs lie elsewhere on the scaled shapes.
        tuned = tune_receptive_field(
            extractor,
            scaled,
            ProbeObjective(labels),
            start=0.15,
            bounds=(0.015, 0.6),
            keypoints=300,
        )
        found[factor] = tuned.voxel_size / factor
    assert found[1 / 3] == pytest.approx(found[1.0], rel=0.1)
    assert found[3.0] == pytest.approx(found[1.0], rel=0.1)


def test_tuning_ends_where_a_grid_search_does(waves):
    shapes, labels = waves
    extractor = FeatureExtractor(small_network(kernels="pair"), 1.0)
    sizes = [0.06 * 2 ** (k / 2) for k in range(7)]
    grid = search_receptive_field(extractor, shapes, ProbeObjective(labels), sizes, keypoints=300)
    for start in (grid.best / 3, grid.best * 3):
        bounds = (grid.best / 4, grid.best * 4)
        objective = ProbeObjective(labels)
        tuned = tune_receptive_field(
            extractor, shapes, objective, start=start, bounds=bounds, keypoints=300
        )
        # A rung, and the half that a grid of whole rungs may itself be off.
        assert abs(math.log2(tuned.voxel_size / grid.best)) <= 0.75
    assert tuned.extractor.voxel_size == tuned.voxel_size
    assert tuned.cost.passes > 0 and tuned.to_json()["voxel_sizes"] == [tuned.voxel_size]


def test_a_probe_is_judged_on_the_shapes_it_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    labels = [np.arange(40) % 2 for _ in range(3)]
    shapes = [SurfaceShape(np.zeros((40, 3)), None, np.arange(40)) for _ in range(3)]
    objective = ProbeObjective(labels)
    objective.prepare(shapes)
    noise = [torch.randn(1, 40, 30, generator=generator, dtype=torch.float64) for _ in range(3)]
    telling = [torch.from_numpy(np.eye(2)[label])[None] for label in labels]
    assert objective(telling, range(3)) < 0.05
    assert objective(noise, range(3)) > 0.5, (
        "labels that features do not tell are not learned by heart"
    )


@pytest.mark.parametrize("value", [0.0, 0.5, -3e4])
def test_a_probe_on_features_that_do_not_vary_guesses_how_frequent_labels_are(value):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, 20) for _ in range(3)]
    objective = ProbeObjective(labels)
    objective.prepare([SurfaceShape(np.zeros((20, 3)), None, np.arange(20)) for _ in range(3)])
    found = objective([torch.full((1, 20, 4), value, dtype=torch.float64)] * 3, range(3))
    errors = []
    for k in range(3):
        others = np.concatenate([labels[j] for j in range(3) if j != k])
        frequent = np.bincount(others, minlength=3) / len(others)
        errors.append(((np.eye(3)[labels[k]] - frequent) ** 2).sum(1).mean())
    assert float(found) == pytest.approx(np.mean(errors), rel=1e-6)


def test_a_probe_of_whole_shapes_sees_their_mean():
    shapes = [SurfaceShape(np.zeros((5, 3)), None, np.arange(5)) for _ in range(6)]
    objective = ProbeObjective([0, 1] * 3)
    objective.prepare(shapes)
    features = [torch.full((1, 5, 2), float(k % 2), dtype=torch.float64) for k in range(6)]
    assert objective(features, range(6)) < 0.1


@pytest.mark.parametrize("labels", [np.array([0.0, np.nan]), None])
def test_labels_that_are_no_integers_are_refused(labels):
    with pytest.raises(ValueError, match="labels of shape 1 are .*, expected integers"):
        ProbeObjective([np.array([0, 1]), labels])


def test_a_probe_needs_two_folds():
    with pytest.raises(ValueError, match="two folds"):
        ProbeObjective([np.zeros(4, dtype=int)])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ProbeObjective([np.arange(30) % 2] * 3), "3 labels for 2 shapes"),
        (ProbeObjective([0, 1, 1]), "3 labels for 2 shapes"),
        (ProbeObjective([np.arange(30) % 2, np.arange(40) % 2]), r"labels of shape 1 .* \(40,\)"),
        (ProbeObjective([np.arange(30) % 2, np.full(30, -1)]), "1 of 2 shapes have labels"),
        (ProbeObjective([np.full(30, -1)] * 2), "0 of 2 shapes have labels"),
        (ProbeObjective([np.eye(30, dtype=int)[29] - 1] * 2), "0 of 2 shapes have labels"),
        (CorrespondenceObjective([np.arange(9)] * 3), "3 landmarks for 2 shapes"),
        (CorrespondenceObjective([[0, 1], [0, 30]]), "landmarks of shape 1: 30, expected .* 29"),
        (CorrespondenceObjective([[0, -1], [0, 1]]), "landmarks of shape 0: -1"),
        (DistributionObjective(np.eye(5)), "5 channels, those of the shapes 8"),
    ],
)
def test_objectives_that_do_not_fit_the_shapes_are_refused(objective, message):
    # The last vertex is no key point.
    shapes = [ellipsoid(30, seed) for seed in range(2)]
    extractor = FeatureExtractor(small_network(depth=0), 0.2)
    with pytest.raises(InputError, match=message):
        search_receptive_field(extractor, shapes, objective, [0.2], keypoints=10)
    with pytest.raises(InputError):
        tune_receptive_field(extractor, [*shapes, *shapes], objective, keypoints=10)


def test_a_step_of_the_soft_way_has_labels():
    objective = ProbeObjective([np.full(5, k % 2 - 1) for k in range(6)])
    objective.prepare([SurfaceShape(np.zeros((5, 3)), None, np.arange(5))] * 6)
    drawn = [objective.draw(2, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(rows) == 2 and set(rows) <= {1, 3, 5} for rows in drawn)


def test_an_objective_that_is_not_finite_is_refused():
    class Broken(Objective):
        def __call__(self, features, shapes):
            return features[0].sum() * (math.nan if features[0][0, 0, 0] > 0.8 else 0)

    for search in (
        lambda: search_receptive_field(PlantedExtractor(1), [ellipsoid(9)], Broken(), [1, 2, 4]),
        lambda: tune_receptive_field(PlantedExtractor(1), [ellipsoid(9)], Broken(), start=4),
    ):
        with pytest.raises(InputError, match="the objective is nan at voxel size"):
            search()


def test_objectives_prefer_features_that_serve_them():
    rng = np.random.default_rng(0)
    shapes = [SurfaceShape(rng.normal(size=(30, 3)), None, np.arange(30)) for _ in range(2)]
    unit = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(1, 30, 16))), dim=-1)
    other = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(1, 30, 16))), dim=-1)
    for objective, good, bad in (
        (CorrespondenceObjective([np.arange(30)] * 2), [unit, unit], [unit, other]),
        (CycleObjective(), [unit.repeat(2, 1, 1)] * 2, [torch.cat([unit, other])] * 2),
        (RoundTripObjective(), [unit.repeat(2, 1, 1)] * 2, [torch.cat([unit, other])] * 2),
        (RoundTripObjective([0, 1]), [unit.repeat(2, 1, 1)] * 2, [torch.cat([unit, other])] * 2),
        # Each shape agrees with itself, but not with the other.
        (
            RoundTripObjective(),
            [unit.repeat(2, 1, 1)] * 2,
            [unit.repeat(2, 1, 1), other.repeat(2, 1, 1)],
        ),
        (DistributionObjective(unit[0]), [unit, unit], [unit + 3, unit + 3]),
    ):
        objective.prepare(shapes)
        assert objective(good, [0, 1]) < objective(bad, [0, 1]), objective
        inputs = [f.clone().requires_grad_(True) for f in bad]
        objective(inputs, [0, 1]).backward()
        assert all(torch.isfinite(f.grad).all() for f in inputs)


def test_a_round_trip_is_the_product_of_two_hops():
    rng = np.random.default_rng(1)
    shapes = [SurfaceShape(rng.normal(size=(count, 3)), None, np.arange(count)) for count in (7, 9)]
    features = [torch.from_numpy(rng.normal(size=(2, len(shape.keypoints), 4))) for shape in shapes]
    objective = RoundTripObjective(radius=0.3, temperature=0.5)
    objective.prepare(shapes)

    expected = []
    for (start, end), (middle, _), shape in zip(features, reversed(features), shapes, strict=True):
        walk = (start @ middle.T / 0.5).softmax(1) @ (middle @ end.T / 0.5).softmax(1)
        gap = np.linalg.norm(shape.vertices[:, None] - shape.vertices[None], axis=-1)
        expected.append(-(walk * torch.from_numpy(gap < 0.3 * shape.extent)).sum(1).log().mean())
    assert torch.allclose(objective(features, [0, 1]), torch.stack(expected).mean())


def test_a_round_trip_serves_again_and_draws_someone_to_walk_to():
    objective = RoundTripObjective()
    for count in (2, 3):
        objective.prepare([SurfaceShape(np.eye(3), None, np.arange(3))] * count)
    grouped = RoundTripObjective([0, 1, 0, 1, 2])
    grouped.prepare([SurfaceShape(np.eye(3), None, np.arange(3))] * 5)
    for seed in range(8):
        drawn = grouped.draw(1, np.random.default_rng(seed))
        assert drawn in ([0, 2], [1, 3], [4])


def test_a_step_of_correspondence_compares_two_shapes():
    objective = CorrespondenceObjective([np.arange(3)] * 4)
    objective.prepare([SurfaceShape(np.eye(3), None, np.arange(3))] * 4)
    for count, expected in ((1, 2), (3, 3)):
        drawn = objective.draw(count, np.random.default_rng(0))
        assert len(set(drawn)) == expected and drawn == sorted(drawn)


@pytest.mark.parametrize("offset", [0.0, 5e6])
def test_how_far_a_shape_lies_from_the_origin_does_not_matter(offset):
    rng = np.random.default_rng(0)
    vertices = rng.random((200, 3))
    shape = SurfaceShape(vertices + (offset, offset, 0), None, np.arange(200))
    trip, cycle = RoundTripObjective(), CycleObjective(radius=0.05)
    for objective in (trip, cycle):
        objective.prepare([shape])
    apart = np.linalg.norm(vertices[:, None] - vertices, axis=2) / shape.extent
    near = trip._neighbours(0, torch.zeros(1, dtype=torch.float64)).to_dense().numpy()
    np.testing.assert_array_equal(near > 0, apart < 0.05)
    features = torch.from_numpy(rng.normal(size=(2, 200, 8)))
    features = torch.nn.functional.normalize(features, dim=-1)
    place = torch.from_numpy(vertices / shape.extent)
    expected = CYCLE_FORMS["anchored"](*features, place, place, 0.05, 0.07)
    torch.testing.assert_close(cycle([features], [0]), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CycleObjective(temperature=0), "temperature 0, expected a positive number"),
        (lambda: CycleObjective(radius=-1), "radius -1, expected a positive number"),
        (
            lambda: CorrespondenceObjective([[0, 1]] * 2, temperature=math.nan),
            "temperature nan, expected a positive number",
        ),
        (lambda: CorrespondenceObjective([[0, 1]] * 2, points=0), "2 points or more, got 0"),
        (
            lambda: DistributionObjective(np.concatenate([np.zeros((30, 3)), np.eye(3)])),
            "source features: the median distance of two of the 33 rows is 0",
        ),
    ],
)
def test_constants_of_objectives_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_round_trip_refuses_groups_that_do_not_fit():
    shapes = [SurfaceShape(np.eye(3), None, np.arange(3))] * 2
    with pytest.raises(ValueError, match="3 groups for 2 shapes"):
        RoundTripObjective([0, 1, 1]).prepare(shapes)
    with pytest.raises(ValueError, match="positive radius"):
        RoundTripObjective(radius=0)


def test_the_soft_way_moves_and_leaves_a_frozen_network_alone():
    model = small_network(depth=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = [ellipsoid(400, seed) for seed in range(2)]
    labels = [(shape[:, 0] > 0).astype(np.int64) for shape in shapes]
    tuned = tune_receptive_field(
        FeatureExtractor(model, 1.0), shapes, ProbeObjective(labels), method="soft", start=0.3, steps=4, keypoints=60,
    )  # fmt: skip
    assert len(tuned.history) == 4 and tuned.voxel_size != 0.3
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_soft_way_can_train_the_network_along():
    model = small_network(depth=0)
    before = model.conv1.kernel.detach().clone()
    shapes = [ellipsoid(300, seed) for seed in range(2)]
    labels = [(shape[:, 0] > 0).astype(np.int64) for shape in shapes]
    tune_receptive_field(
        FeatureExtractor(model, 1.0), shapes, ProbeObjective(labels), method="soft", start=0.3, steps=2, keypoints=60,
        backbone_learning_rate=1e-3, dilation=(1.0, 2.0),
    )  # fmt: skip
    assert not torch.equal(before, model.conv1.kernel)


def test_a_step_of_the_soft_way_always_has_a_shape_to_fit_to_and_one_to_hold_out():
    objective = ProbeObjective([np.zeros(5, dtype=int)] * 6, folds=[0, 0, 0, 0, 0, 1])
    objective.prepare([SurfaceShape(np.zeros((5, 3)), None, np.arange(5))] * 6)
    for seed in range(20):
        for count in (1, 3):
            drawn = objective.draw(count, np.random.default_rng(seed))
            assert 5 in drawn and len(drawn) == max(count, 2) and drawn == sorted(set(drawn))


def test_averaged_poses_give_a_smoother_objective(waves):
    shapes, labels = waves
    extractor = FeatureExtractor(small_network(kernels="pair"), 1.0)
    sizes = [0.1 * 2 ** (k / 8) for k in range(5)]
    bends = {}
    for views in (1, 4):
        found = search_receptive_field(
            extractor, shapes, ProbeObjective(labels), sizes, keypoints=300, views=views
        )
        bends[views] = np.abs(np.diff(found.objectives, n=2)).sum()
        assert found.cost.passes == views * 5 * 3
    assert bends[4] < bends[1]


def test_a_tuned_dilation_goes_with_the_extractor():
    model = small_network(depth=0)
    points = ellipsoid(300)
    # Wider is better: the objective is the size of the features' difference to those of the widest network.
    wide = FeatureExtractor(small_network(depth=0, dilation=2), 0.2)(points, "trilinear")

    class Wide(Objective):
        def __call__(self, features, shapes):
            return (
                (features[0][0] - torch.from_numpy(wide[self.shapes[0].keypoints])).square().sum()
            )

    tuned = tune_receptive_field(
        FeatureExtractor(model, 0.2, unit="mm"),
        [points],
        Wide(),
        start=0.2,
        bounds=(0.199, 0.201),
        dilation=(1.0, 2.0),
        steps=60,
    )
    assert tuned.dilation > 1.5
    plain = FeatureExtractor(model, tuned.voxel_size)
    features = tuned.extractor(points, "trilinear")
    assert np.abs(features - wide).mean() < 0.6 * np.abs(plain(points, "trilinear") - wide).mean()
    assert tuned.extractor.reach.radius == 2 * plain.reach.radius
    assert tuned.extractor.unit == "mm"
    with pytest.raises(ValueError, match="cannot be saved"):
        tuned.extractor.model.state_dict()
    with pytest.raises(ValueError, match="already"):
        ContinuousDilation(tuned.extractor.model)
    np.testing.assert_allclose(
        tuned.extractor(points, "trilinear", max_voxels=160), features, atol=1e-5
    )


@pytest.mark.parametrize("factor, widest", [(1.0, 1), (2.0, 2), (2.5, 3)])
def test_a_network_at_a_dilation_looks_as_far_as_one_built_with_it(factor, widest):
    network = DilatedNetwork(small_network(depth=1), factor)
    built = small_network(depth=1, dilation=widest)
    assert network.receptive_field == built.receptive_field
    assert measure_reach(network, 1) == measure_reach(built, 1)
    points = np.random.default_rng(0).random((3000, 3)) * (4, 0.5, 0.3)
    extractor = FeatureExtractor(network, 0.05)
    np.testing.assert_allclose(
        extractor(points, max_voxels=2000), extractor(points), atol=1e-5, rtol=0
    )


def test_a_better_dilation_behind_a_worse_blend_is_found():
    points = ellipsoid(300)
    narrow, wide = (
        FeatureExtractor(small_network(depth=0, dilation=d), 0.2)(points, "trilinear").astype(
            np.float64
        )
        for d in (1, 2)
    )
    # Worst at a fifth of the way from one to two, so that the gradient at one points back.
    worst = narrow + 0.2 * (wide - narrow)

    class Far(Objective):
        def __call__(self, features, shapes):
            return (
                -(features[0][0] - torch.from_numpy(worst[self.shapes[0].keypoints])).square().sum()
            )

    tuned = tune_receptive_field(
        FeatureExtractor(small_network(depth=0), 0.2), [points], Far(), start=0.2, bounds=(0.1999, 0.2001),
        dilation=(1.0, 2.0), steps=30,
    )  # fmt: skip
    first = [step for step in tuned.history if step.descent == 0]
    assert max(step.dilation for step in first) < 1.2 and tuned.dilation > 1.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "1 step and 1 key point or more"),
        ({"views": 0}, "expected 1 or more"),
        ({"views": 2, "method": "soft"}, "1 for soft"),
        ({"method": "grid"}, "expected ladder or soft"),
        ({"start": 1.0, "bounds": (2.0, 3.0)}, "start 1, bounds 2 to 3: expected"),
        ({"groups": [1]}, "groups"),
        ({"backbone_learning_rate": 0.1}, "needs method soft"),
        ({"dilation": (0.5, 2.0)}, "at least 1"),
        ({"method": "soft", "ratio": 0.5}, "ratio must be above 1, got 0.5"),
        ({"ratio": math.nan}, "ratio must be above 1, got nan"),
        (
            {"method": "soft", "shapes_per_step": 0},
            "shapes_per_step 0, expected a whole number of at least 1",
        ),
        ({"learning_rate": -1}, "positive learning_rate .*, got -1 and 0.0"),
        ({"method": "soft", "backbone_learning_rate": -1}, "got 0.25 and -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    extractor = FeatureExtractor(small_network(depth=0), 1.0)
    with pytest.raises(ValueError, match=message):
        tune_receptive_field(extractor, [ellipsoid(50)], CycleObjective(), **options)


def test_shapes_are_checked():
    extractor = FeatureExtractor(small_network(depth=0), 1.0)
    with pytest.raises(ValueError, match="no shapes"):
        tune_receptive_field(extractor, [], CycleObjective())
    with pytest.raises(ValueError, match="NaN"):
        tune_receptive_field(extractor, [np.full((5, 3), np.nan)], CycleObjective())
    with pytest.raises(ValueError, match="shape 1: its 5 vertices are all at one place"):
        tune_receptive_field(extractor, [ellipsoid(50), np.ones((5, 3))], CycleObjective())


def test_a_parameter_stays_within_its_bounds():
    parameter = PositiveParameter(1.0, 0.5, 2.0)
    with torch.no_grad():
        parameter.log += 10
    parameter.clamp_()
    assert float(parameter().detach()) == pytest.approx(2.0)


# Measurement


def test_the_effective_field_lies_within_the_theoretical_one(tmp_path):
    model = small_network(depth=1)
    measured = measure(model, probes=4)
    assert measured.theoretical >= model.receptive_field
    # A cube's corner is sqrt(3) further than its face.
    assert (
        1
        <= measured.effective[0]
        <= measured.effective[1]
        <= measured.effective[2]
        <= 1.8 * model.receptive_field
    )
    wider = measure(small_network(depth=1, dilation=2), probes=4)
    assert wider.effective[1] > measured.effective[1]
    measured.save_plot(tmp_path / "field.png")
    assert (tmp_path / "field.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voxel_size": 0}, "voxel size 0.0, expected a positive number"),
        ({"voxel_size": -1.0}, "voxel size -1.0, expected a positive number"),
        ({"probes": 0}, "probes 0, expected 1 or more"),
        ({"points": np.full((9, 3), np.nan)}, "points: NaN or infinite"),
        ({"points": np.zeros((0, 3))}, r"points: shape \(0, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        measure(small_network(depth=0), **options)


def test_outputs_that_do_not_follow_inputs_have_no_field():
    constant = networks.small_network(8, depth=0)
    for parameter in constant.parameters():
        torch.nn.init.zeros_(parameter)
    frozen = networks.small_network(8, depth=0)
    frozen.forward = lambda x: x.replace(torch.ones(len(x), 8))
    for network in (constant, frozen):
        with pytest.raises(InputError, match="outputs do not follow its inputs"):
            measure(network, ellipsoid(200) * 20)


@pytest.mark.parametrize("sizes", [[], [0.1, 0.0], [float("nan")]])
def test_a_search_needs_voxel_sizes_that_are_lengths(sizes):
    with pytest.raises(InputError, match="voxel_sizes .*expected at least one, all positive"):
        search_receptive_field(None, [], CycleObjective(), sizes)
