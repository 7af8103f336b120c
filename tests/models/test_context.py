"""Attention on a coarse level: what it sees, what it does not mind, and how far it looks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.models import context, create_model
from sparsefeat.models.context import CELLS, RADIAL, RELATIONS, Context
from sparsefeat.models.voxel_cloud import join, voxelize
from sparsefeat.pretrain.config import ModelConfig
from sparsefeat.pretrain.loop import build_model

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
    functions, sight = context.relations(points, 0, 1)
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
    expected = features(model, points, normals)
    monkeypatch.setattr(context, "_AT_ONCE", 500)
    torch.testing.assert_close(features(model, points, normals), expected, atol=1e-12, rtol=0)


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
