"""Attention on a coarse level: what it sees, what it does not mind, and how far it looks."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.extract import FeatureExtractor
from sparsefeat.models import context, create_model
from sparsefeat.models.context import CELLS, RADIAL, RELATIONS, Context
from sparsefeat.models.voxel_cloud import join, voxelize
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.config import ModelConfig
from sparsefeat.sparse.portable import export_network

SMALL = {
    "channels": [4, 4],
    "tr_channels": [4, 8],
    "depth": 1,
    "out_channels": 8,
    "conv1_kernel_size": 5,
    "kernels": "pair",
    "oriented": True,
    "in_channels": 6,
}
ORIGIN = torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)


def network(blocks: int = 2, seed: int = 0) -> torch.nn.Module:
    """A network whose attention matters: of a new one the last layer is zero."""
    torch.manual_seed(seed)
    model = create_model("ResUNetBN2C", context=blocks, **SMALL).double().eval()
    if blocks:
        torch.nn.init.normal_(model.context.leave.weight)
        for block in model.context.blocks:
            torch.nn.init.normal_(block.relation_bias)
    return model


def lump(count: int = 900, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """One point in each of many voxels of edge 1, and unit vectors. Shape: (V, 3) each, float64"""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, dtype=torch.float64, generator=generator) * 4
    cells = points.floor().unique(dim=0)
    points = cells + torch.rand(len(cells), 3, dtype=torch.float64, generator=generator)
    return points, F.normalize(points + 1)


def features(model, points, normals) -> torch.Tensor:
    cloud = voxelize(points, 1.0, normals=normals)
    return cloud.read_off(model(model.inputs(cloud)).features)


def test_turns_by_the_grid_change_nothing_and_a_mirror_does():
    model, (points, normals) = network(), lump()
    expected = features(model, points, normals)
    for turn in (torch.eye(3)[[1, 2, 0]], torch.diag(torch.tensor([1.0, -1.0, -1.0]))):
        turn = turn.double()
        torch.testing.assert_close(
            features(model, points @ turn.T, normals @ turn.T), expected, atol=1e-8, rtol=0
        )
    assert (features(model, -points, -normals) - expected).abs().max() > 1e-3
    plain = network(0)
    torch.testing.assert_close(
        features(plain, -points, -normals), features(plain, points, normals), atol=1e-8, rtol=0
    )


def test_the_relations_of_two_points_are_those_that_are_documented():
    position = torch.tensor([[0.0, 0, 0], [3.0, 0, 0]]).double().t()
    normal = torch.tensor([[0.0, 0, 1], [0.6, 0.8, 0]]).double().t()
    points = context._Points(position, normal, torch.ones(2).double())
    functions, sight = context.relations(points.at(torch.tensor([0])), points)
    assert functions.shape == (1, 2, RADIAL * RELATIONS)
    # Itself: the first hat, no direction, its own normal.
    expected = torch.zeros(RADIAL, RELATIONS).double()
    expected[0, 0] = expected[0, 3] = 1
    torch.testing.assert_close(functions[0, 0].view(RADIAL, RELATIONS), expected, atol=1e-5, rtol=0)
    # Three cells off, on the third hat: ray (1, 0, 0), normals at right angles, triple product ray . (z x n) = -0.8.
    expected = torch.zeros(RADIAL, RELATIONS).double()
    expected[2] = torch.tensor([1.0, 0.0, 0.6, 0.0, -0.8])
    torch.testing.assert_close(functions[0, 1].view(RADIAL, RELATIONS), expected)
    torch.testing.assert_close(
        sight.exp(), torch.tensor([[1.0, (1 - (3 / CELLS) ** 2) ** 2]]).double()
    )


def test_pieces_of_a_large_cloud_add_up_to_the_whole(monkeypatch):
    model, (points, normals) = network(), lump()
    # A row of lumps, longer than a point sees: cubes of points that see a part of the others.
    row = torch.cat([points + torch.tensor([60.0 * k, 0, 0]).double() for k in range(5)])
    expected = features(model, row, normals.repeat(5, 1))
    monkeypatch.setattr(context, "_AT_ONCE", 500)
    torch.testing.assert_close(
        features(model, row, normals.repeat(5, 1)), expected, atol=1e-9, rtol=0
    )


def test_points_are_paired_with_those_in_sight_alone(monkeypatch):
    seen = []
    relations = context.relations
    monkeypatch.setattr(
        context, "relations", lambda a, b: (seen.append((a, b)), relations(a, b))[1]
    )
    monkeypatch.setattr(context, "_AT_ONCE", 100)
    line = torch.zeros(3, 400).double()
    line[0] = torch.arange(400.0)
    points = context._Points(line, line, torch.ones(400).double())
    rows = torch.cat([piece.rows for piece in context._Pieces(points)])
    assert torch.equal(rows.sort().values, torch.arange(400))
    assert max(b.weight.shape[0] for _, b in seen) <= 3 * CELLS
    for a, b in seen:
        for x in a.position[0].tolist():
            near = [y for y in range(400) if abs(x - y) < CELLS]
            assert set(near) <= set(b.position[0].tolist())


def test_a_cloud_has_the_same_features_alone_and_in_a_batch():
    model = network()
    clouds = [voxelize(p, 1.0, normals=n) for p, n in (lump(seed=1), lump(400, seed=2))]
    both = model(model.inputs(join(clouds))).features
    alone = torch.cat([model(model.inputs(cloud)).features for cloud in clouds])
    torch.testing.assert_close(both, alone, atol=1e-9, rtol=0)


def test_a_feature_depends_on_all_points_within_reach_and_on_none_beyond():
    model = network(1)
    points, normals = lump(300)
    radius = (model.receptive_field - 1) // 2
    assert radius == (network(0).receptive_field - 1) // 2 + CELLS
    row = int((points - ORIGIN).norm(dim=1).argmin())
    alone = features(model, points, normals)[row]

    def beside(distance: float) -> torch.Tensor:
        aside = torch.tensor([distance, 0, 0], dtype=torch.float64)
        return features(model, torch.cat([points, points + aside]), torch.cat([normals, normals]))[
            row
        ]

    assert (beside(1024.0) - alone).abs().max() < 1e-9
    near = points[:, 0].max() - points[:, 0].min() + 2
    assert near < radius and (beside(float(near.ceil())) - alone).abs().max() > 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sees_the_same_wherever_a_shape_lies(dtype):
    model, (points, normals) = network().float(), (part.float() for part in lump(300))
    pair = torch.cat([points, points + torch.tensor([4096.0, 0, 0])]), torch.cat([normals] * 2)
    expected = features(model, *pair)
    with torch.autocast("cpu", dtype):
        found = features(model, *pair).float()
    here, there = found.split(len(points))
    # Features of size 1; a place that is rounded to half precision makes them differ by 0.3 and 0.03.
    assert (here - there).abs().mean() < 0.01
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
    # Weights of half precision, without autocast.
    assert (features(model.to(dtype), *pair).float() - expected).abs().max() < 0.1


def test_gradients_by_the_places_are_as_good_in_float32_as_in_float64():
    points, normals = lump()

    def slope(dtype: torch.dtype) -> torch.Tensor:
        place = (points / 2).t().to(dtype).requires_grad_()
        level = context._Points(place, normals.t().to(dtype), torch.ones(len(points), dtype=dtype))
        functions, _ = context.relations(level, level)
        weight = torch.linspace(-1, 1, functions.shape[-1]).to(dtype)
        of_each = torch.linspace(0, 1, len(points)).to(dtype)[:, None]
        (gradient,) = torch.autograd.grad(((functions @ weight) * of_each).sum(), place)
        return gradient.double()

    error = slope(torch.float32) - slope(torch.float64)
    assert error.norm() < 1e-5 * slope(torch.float64).norm()


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_cloud_and_one_voxel_have_features(count):
    model, (points, normals) = network(), lump()
    few = points[:count], normals[:count]
    found = features(model, *few)
    assert found.shape == (count, 8) and found.isfinite().all()
    clouds = [voxelize(p, 1.0, normals=n) for p, n in (few, (points, normals), few)]
    both = model(model.inputs(join(clouds))).features
    alone = torch.cat([model(model.inputs(cloud)).features for cloud in clouds])
    torch.testing.assert_close(both, alone, atol=1e-9, rtol=0)


def test_a_pickled_network_computes_the_same():
    model, (points, normals) = network(), lump()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(features(again, points, normals), features(model, points, normals))


def test_tiles_have_the_features_of_the_whole():
    model = network(1).float()
    model.voxel_size = 1.0
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2000, 3, generator=generator) * torch.tensor([300.0, 4, 1])
    normals = F.normalize(torch.randn(2000, 3, generator=generator), dim=1)
    extractor = FeatureExtractor(model, voxel_size=1.0)
    assert len(voxelize(points, 1.0)) > 1.5 * 500
    whole = extractor(points, normals=normals)
    tiled = extractor(points, normals=normals, max_voxels=500)
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_export_names_what_it_cannot_express():
    model, (points, normals) = network(), lump(100)
    with pytest.raises(ValueError, match=r"sparsefeat\.\w+\.default is not in the operators"):
        export_network(model, model.inputs(voxelize(points, 1.0, normals=normals)))


def test_a_voxel_of_no_weight_is_as_good_as_not_there():
    model, (points, normals) = network(), lump()
    gone = torch.arange(len(points)) % 7 == 0
    cloud, fewer = (
        voxelize(points[rows], 1.0, normals=normals[rows])
        for rows in (torch.ones_like(gone), ~gone)
    )
    weight = torch.ones(len(cloud), 1, dtype=torch.float64)
    weight[cloud.inverse[gone]] = 0
    weighted = model.inputs(cloud, torch.cat([model.inputs(cloud).features, weight], 1))
    got = model(weighted).features[cloud.inverse[~gone]]
    expected = model(model.inputs(fewer)).features[fewer.inverse]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_a_network_that_is_given_attention_computes_what_it_did_before(tmp_path):
    torch.manual_seed(0)
    plain = create_model("ResUNetBN2C", **SMALL)
    save_checkpoint(tmp_path / "plain.safetensors", plain, 0.05)
    options = {"init": str(tmp_path / "plain.safetensors"), "kernels": "pair", "oriented": True}
    model = build_model(ModelConfig(**options, context=2, chiral=True))
    points, normals = (part.float() for part in lump())
    expected, got = (features(m.eval(), points, normals) for m in (plain, model))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    save_checkpoint(tmp_path / "more.safetensors", model, 0.05)
    assert from_pretrained(tmp_path / "more.safetensors").config["context"] == 2
    with pytest.raises(ValueError, match=r"context = 2, model\.context says 1"):
        options["init"] = str(tmp_path / "more.safetensors")
        build_model(ModelConfig(**options, context=1, chiral=True))


def test_what_a_pretrained_network_cannot_be_given_is_refused_by_its_name(tmp_path):
    grid = SMALL | {"kernels": "grid", "oriented": False, "in_channels": 1}
    save_checkpoint(tmp_path / "grid.safetensors", create_model("ResUNetBN2C", **grid), 0.05)
    with pytest.raises(ValueError, match=r"model\.init .*grid\.safetensors: .*needs oriented"):
        build_model(ModelConfig(init=str(tmp_path / "grid.safetensors"), context=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": -1}, "context must be an integer of at least 0"),
        ({"context": 1, "oriented": False, "in_channels": 3}, "context needs oriented"),
        ({"context": 1, "depth": 0}, "depth of at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("ResUNetBN2C", **(SMALL | options))


def test_the_width_is_one_of_whole_heads():
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        Context(8, 1, 100)
