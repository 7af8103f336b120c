"""Pretraining on deforming shapes: the pairs are right, seeded, and something is learned from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from torch.nn import functional as F

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.errors import InputError
from sparsefeat.io.config import save_config
from sparsefeat.losses import LossConfig, PairFeatures, pair_loss, point_info_nce
from sparsefeat.models import create_model
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.config import DataConfig, ModelConfig, OptimizerConfig, PretrainConfig
from sparsefeat.pretrain.data import _Overfit
from sparsefeat.pretrain.log import read_log
from sparsefeat.pretrain.loop import (
    _coarse_level,
    _coarse_side_losses,
    pretrain,
)
from sparsefeat.pretrain.pairs import collate_pairs, pair_features
from sparsefeat.pretrain.sampling import PairRequest
from sparsefeat.pretrain.shapes import (
    ShapePairDataset,
    ShapesConfig,
    fresh_pair,
    load_shapes,
    sides_of,
    surface_cloud,
)
from sparsefeat.pretrain.sources import ShapeSource
from sparsefeat.synthetic.creatures import make_creatures
from sparsefeat.synthetic.creatures.families import landmarks

ROOT = Path(__file__).resolve().parents[2]
SMALL = small(out_channels=8, conv1_kernel_size=5)
WHOLE = {"dropout": 0.0, "jitter": 0.0, "bent": 0.0, "damaged": 0.0}


@pytest.fixture(scope="module")
def hands(tmp_path_factory) -> str:
    """Four hands: two individuals in two poses."""
    root = tmp_path_factory.mktemp("creatures") / "hands"
    make_creatures(
        root,
        seed=3,
        count=4,
        poses=2,
        families=["hand"],
        vertices=2500,
        landmark_count=2500,
        triangulations=2,
        workers=1,
    )
    return str(root)


def config(root: str, **options) -> PretrainConfig:
    """A short run on a folder, validated on a copy of it."""
    held_out = f"{root}-held-out"
    if not Path(held_out).exists():
        shutil.copytree(root, held_out)
    shapes = ShapesConfig([root], validation_roots=[held_out], voxels=(0.05, 0.075))
    return PretrainConfig(
        data=DataConfig(shapes=shapes, validation_pairs=2, workers=options.pop("workers", 0)),
        model=ModelConfig(kernels="pair", oriented=True, **SMALL, **options.pop("model", {})),
        loss=LossConfig("point_info_nce", points=256, one_place=True),
        optimizer=OptimizerConfig("adam", 3e-3, weight_decay=0.0),
        voxel_size=0.05, voxel_points="mean", batch_size=1, epochs=None, pictures=False, validate_every=0,
        **({"steps": 6, "save_every": 3} | options),
    )  # fmt: skip


def test_a_request_gives_the_same_bits_again_and_another_one_others(hands):
    shapes = ShapesConfig([hands], damaged=1.0)
    dataset = ShapePairDataset(load_shapes(shapes, None), shapes, 0.05)
    first, again, other = (dataset[PairRequest(1, seed)] for seed in (5, 5, 6))
    for side in ("source", "target"):
        for name in ("points", "cells", "normal"):
            assert torch.equal(
                getattr(getattr(first, side), name), getattr(getattr(again, side), name)
            )
    assert torch.equal(first.matches, again.matches)
    assert not torch.equal(first.source.points[:50], other.source.points[:50])


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_stay_where_they_are_on_the_body_when_it_is_turned_and_damaged(hands, seed):
    shapes = ShapesConfig([hands], **WHOLE | {"damaged": 1.0, "dropout": 0.3})
    shape = load_shapes(shapes, None)[seed % 4]
    cloud = surface_cloud(shape, 0.03, shapes, np.random.default_rng(seed))
    left = np.flatnonzero(cloud.landmarks >= 0)
    assert 0 < len(left) < len(shape.landmarks)
    # A motion changes no distance; noise and sparse clouds move points by a fraction of a voxel.
    place = cloud.points[cloud.landmarks[left]]
    rest = shape.vertices[shape.landmarks[left]] / 0.03
    rows = np.random.default_rng(0).integers(len(left), size=(2, 200))
    apart = np.linalg.norm(place[rows[0]] - place[rows[1]], axis=1)
    assert np.abs(apart - np.linalg.norm(rest[rows[0]] - rest[rows[1]], axis=1)).max() < 2.0


def test_without_damage_landmarks_are_exact(hands):
    shapes = ShapesConfig([hands], **WHOLE)
    shape = load_shapes(shapes, None)[0]
    cloud = surface_cloud(shape, 0.03, shapes, np.random.default_rng(1))
    place, rest = cloud.points[cloud.landmarks], shape.vertices[shape.landmarks] / 0.03
    centred = [points - points.mean(0) for points in (place, rest)]
    u, _, v = np.linalg.svd(centred[1].T @ centred[0])
    assert np.linalg.det(u @ v) == pytest.approx(1)
    assert np.abs(centred[1] @ (u @ v) - centred[0]).max() < 1e-4


def test_matches_are_the_voxels_that_landmarks_are_in(hands):
    shapes = ShapesConfig([hands], voxels=(0.04, 0.0401), same_individual=1.0, **WHOLE)
    loaded = load_shapes(shapes, None)
    sample = ShapePairDataset(loaded, shapes, 0.05)[PairRequest(2, 3)]
    rng = np.random.default_rng(3)
    voxel = float(np.exp(rng.uniform(*np.log(shapes.voxels))))
    partner = ShapePairDataset(loaded, shapes, 0.05)._partner(2, rng)
    clouds = [surface_cloud(loaded[k], voxel, shapes, rng) for k in (2, partner)]
    expected = set()
    for places in zip(
        *(np.floor(cloud.points[cloud.landmarks]).astype(int) for cloud in clouds), strict=True
    ):
        expected.add((*places[0], *places[1]))
    found = [
        cloud.cells[sample.matches[:, side]].numpy() + np.array(cloud.origin)
        for side, cloud in enumerate((sample.source, sample.target))
    ]
    assert {(*first, *second) for first, second in zip(*found, strict=True)} == expected


def test_pairs_are_of_one_individual_as_often_as_asked_for(hands):
    shapes = load_shapes(ShapesConfig([hands]), None)
    for share in (0.0, 1.0):
        dataset = ShapePairDataset(shapes, ShapesConfig([hands], same_individual=share), 0.05)
        partners = [dataset._partner(0, np.random.default_rng(seed)) for seed in range(20)]
        assert all(
            (shapes[p].individual == shapes[0].individual) == (share == 1.0) and p != 0
            for p in partners
        )


def test_a_tiny_network_learns_from_two_shapes(hands, tmp_path):
    run = config(hands, steps=60, save_every=60)
    pretrain(run, tmp_path / "run")
    steps, validations = read_log(tmp_path / "run")
    loss = [line["loss"] for line in steps]
    assert np.mean(loss[-15:]) < np.mean(loss[:15]) - 0.3
    assert 0 <= validations[-1]["validation"]["hits"] <= 1
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_overfitting_is_validated_on_the_pairs_that_it_trains_on(hands, monkeypatch):
    run = replace(config(hands), batch_size=2)
    source = ShapeSource(run, overfit=True)
    asked, get = [], ShapePairDataset.__getitem__
    monkeypatch.setattr(
        ShapePairDataset, "__getitem__", lambda s, request: asked.append(request) or get(s, request)
    )
    source.validate(build_model(run.model))
    assert asked == _Overfit(source.count, 2, run.seed, 0, 1).batch(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_run_resumes_to_the_same_bits(hands, tmp_path, workers):
    run = config(hands, workers=workers)
    pretrain(run, tmp_path / "whole")
    calls = iter(range(100))
    pretrain(run, tmp_path / "cut", should_stop=lambda: next(calls) >= 3)
    pretrain(run, tmp_path / "cut", resume=True)
    whole, resumed = (torch.load(tmp_path / name / "last.pt")["model"] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_chiral_weights_that_start_from_others_change_nothing_yet(hands, tmp_path):
    torch.manual_seed(0)
    plain = create_model("ResUNetBN2C", in_channels=6, kernels="pair", oriented=True, **SMALL)
    save_checkpoint(tmp_path / "plain.safetensors", plain, 0.05)
    model = build_model(ModelConfig(init=str(tmp_path / "plain.safetensors"), kernels="pair", oriented=True,
                                    chiral=True))  # fmt: skip
    assert model.config["chiral"]
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 3)) * 4)
    cloud = voxelize(points, 1.0, normals=F.normalize(points))
    expected, got = (m.eval()(m.inputs(cloud)).features for m in (plain, model))
    assert torch.allclose(expected, got, atol=1e-5)
    save_checkpoint(tmp_path / "chiral.safetensors", model, 0.05)
    assert from_pretrained(tmp_path / "chiral.safetensors").config["chiral"]


def test_places_that_are_near_in_either_cloud_are_no_negatives():
    generator = torch.Generator().manual_seed(0)
    f, g = (F.normalize(torch.randn(6, 8, generator=generator)) for _ in range(2))
    itself = torch.eye(6, dtype=torch.bool)
    assert torch.allclose(point_info_nce(f, g, 0.1, itself), point_info_nce(f, g, 0.1))
    assert point_info_nce(f, g, 0.1, torch.ones(6, 6, dtype=torch.bool)).abs() < 1e-6
    x = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [5, 0, 0], [9, 0, 0]])
    y = torch.tensor([[0.0, 0, 0], [3, 0, 0], [7, 0, 0], [7.01, 0, 0]])
    near = itself[:4, :4].clone()
    near[0, 1] = near[1, 0] = near[2, 3] = near[3, 2] = True
    rows = torch.arange(4)[:, None].expand(-1, 2)
    pair = PairFeatures(f[:4], g[:4], x, y, rows, deformed=True)
    loss = pair_loss(
        pair, LossConfig("point_info_nce", 4, 0.1, one_place=True), 0.05, torch.Generator()
    )
    assert torch.allclose(loss, point_info_nce(f[:4], g[:4], 0.1, near))


@pytest.mark.parametrize("name", ["cycle", "hardest_contrastive"])
def test_other_losses_take_deformed_pairs_too(name):
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(40, 3, generator=generator)
    g = F.normalize(torch.randn(40, 16, generator=generator))
    turned = torch.randperm(40, generator=generator)
    # Cloud 0 is somewhere else altogether; its matched features are equal.
    matches = torch.stack([torch.arange(40), turned], 1)
    pair = PairFeatures(g[turned], g, torch.zeros(40, 3) + 100, y, matches, deformed=True)
    loss = LossConfig(name, 40, 0.02, positive_margin=0.0)
    wrong = pair._replace(features0=g)
    low, high = (pair_loss(p, loss, 0.05, torch.Generator().manual_seed(0)) for p in (pair, wrong))
    assert low < 0.5 * high


def test_wrong_shapes_are_refused_in_one_line(hands, tmp_path):
    with pytest.raises(ValueError, match="voxels is"):
        ShapesConfig([hands], voxels=(0.1, 0.05))
    with pytest.raises(ValueError, match="no shapes to train on"):
        pretrain(replace(config(hands), data=DataConfig(shapes=ShapesConfig([]))), tmp_path)
    with pytest.raises(ValueError, match="needs rigid motions"):
        replace(config(hands), loss=LossConfig("cycle", cycle_form="landing"))


def test_fresh_creatures_are_of_one_family_and_seeded():
    config = ShapesConfig(fresh=1.0, fresh_families=["hand"], same_individual=0.0)
    first, again = (fresh_pair(config, np.random.default_rng(4)) for _ in range(2))
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(first, again, strict=True))
    assert (
        len(first[0].landmarks) == len(first[1].landmarks)
        and first[0].individual != first[1].individual
    )
    for shape in first:
        corners = shape.vertices[shape.faces].astype(float)
        area = (
            np.linalg.norm(
                np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
            ).sum()
            / 2
        )
        assert area == pytest.approx(1, rel=1e-4) and shape.outwards == 1.0
    one, other = fresh_pair(replace(config, same_individual=1.0), np.random.default_rng(4))
    assert one.individual == other.individual and not np.array_equal(one.vertices, other.vertices)


def test_a_template_that_is_its_own_mirror_image_has_a_left_and_a_right():
    people, hand = (landmarks(family, 2500)[0] for family in ("figure", "hand"))
    sides = sides_of(people)
    assert set(sides) == {-1, 0, 1} and abs(int(sides.sum())) < 0.05 * len(sides)
    assert (sides[people[:, 0] > 0.3] == 1).all() and (sides[people[:, 0] < -0.3] == -1).all()
    assert (sides[np.abs(people[:, 0]) < 0.05] == 0).all()
    assert not sides_of(hand).any(), "a hand is no mirror image of itself"


def test_matches_are_on_the_side_of_their_landmarks(tmp_path):
    make_creatures(tmp_path / "people", seed=3, count=2, poses=1, families=["humanoid"], vertices=2500,
                   landmark_count=2500, triangulations=1, workers=1)  # fmt: skip
    shapes = ShapesConfig([str(tmp_path / "people")], voxels=(0.03, 0.03), **WHOLE)
    first, second = load_shapes(shapes, None)
    assert np.array_equal(first.sides, second.sides) and first.sides.any()
    # Without a pose between them: a shape and itself, where a landmark lies says on which side it is.
    upright = first._replace(sides=np.sign(first.vertices[first.landmarks, 0]).astype(np.int8))
    sample = ShapePairDataset([upright], shapes, 0.05)[PairRequest(0, 7, 0.0)]
    assert len(sample.sides) == len(sample.matches)
    x = sample.source.points[sample.matches[:, 0], 0]
    middle = (x.max() + x.min()) / 2
    far = (x - middle).abs() > 0.2 * (x.max() - x.min())
    assert far.any() and (sample.sides[far] == (x - middle).sign()[far]).all()
    # A pair that is made on the spot has them too, a hand has none.
    fresh = replace(shapes, fresh=1.0, fresh_families=["figure"])
    made = ShapePairDataset([first], fresh, 0.05)[PairRequest(0, 1)]
    assert {-1, 1} <= set(made.sides.tolist())


def test_sides_cost_something_until_they_are_known(tmp_path):
    make_creatures(tmp_path / "people", seed=5, count=2, poses=2, families=["humanoid"], vertices=2500,
                   landmark_count=2500, triangulations=1, workers=1)  # fmt: skip
    losses = {}
    for side in (0.0, 1.0):
        run = config(str(tmp_path / "people"), steps=2, model={"context": 1})
        run.loss = replace(run.loss, side=side)
        run.data.shapes.damaged = 0.0
        pretrain(run, tmp_path / str(side))
        losses[side] = [step["loss"] for step in read_log(tmp_path / str(side))[0]]
    # Of a new network both levels throw a coin: twice log 2, or more where it is sure.
    assert losses[1.0][0] - losses[0.0][0] > 1.9 * np.log(2)
    trained, plain = (torch.load(tmp_path / side / "last.pt")["model"] for side in ("1.0", "0.0"))
    assert not torch.equal(trained["context.side.weight"], plain["context.side.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("side", [0.0, 1.0])
def test_two_processes_with_attention_train_as_one_does(tmp_path, side):
    make_creatures(tmp_path / "people", seed=5, count=2, poses=2, families=["humanoid"], vertices=2500,
                   landmark_count=2500, triangulations=1, workers=1)  # fmt: skip
    run = config(str(tmp_path / "people"), steps=2, model={"context": 1}, workers=1)
    # Half of each shape is cut away at random: the two have sides of differing numbers of coarse points.
    run.data.shapes.damaged, run.data.validation_pairs = 1.0, 0
    run.loss = replace(run.loss, side=side)
    run.optimizer = OptimizerConfig("sgd", 1e-2, weight_decay=0.0)
    pretrain(replace(run, batch_size=2), tmp_path / "one")
    save_config(tmp_path / "config.yaml", run)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "tools/pretrain.py", tmp_path / "config.yaml", "--output", tmp_path / "two"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (read_log(tmp_path / name)[0] for name in ("one", "two"))
    assert [step["loss"] for step in two] == pytest.approx([step["loss"] for step in one], rel=1e-5)
    mine, theirs = (
        from_pretrained(tmp_path / name / "last.safetensors").state_dict()
        for name in ("one", "two")
    )
    for name, weights in mine.items():
        torch.testing.assert_close(
            theirs[name], weights, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_voxel_is_on_the_side_of_most_of_its_matches(hands):
    run = config(hands, model={"context": 1})
    shapes = run.data.shapes
    dataset = ShapePairDataset(load_shapes(shapes, None), shapes, 0.05)
    batch = collate_pairs([dataset[PairRequest(0, 1)]])
    # All matches are those of one voxel of the source, and what is last is not what is most.
    matches = torch.stack([torch.zeros(5, dtype=torch.long), torch.arange(5)], 1)
    sides = torch.tensor([1, 1, 1, -1, 0], dtype=torch.int8)
    batch = replace(batch, matches=matches, sides=sides, match_splits=[5])
    model = build_model(run.model).train()
    with _coarse_level(model) as coarse:
        pair_features(model, batch)
    level = coarse[0]
    # The level has the voxels of the input.
    assert max(level.tensor_stride) == 1
    level.side = (level.coordinates == batch.source.coordinates[0]).all(1) * 3.0
    found = _coarse_side_losses(level, batch)
    torch.testing.assert_close(found.min(), F.softplus(torch.tensor(-3.0)))


def test_new_parts_can_be_trained_alone(hands, tmp_path):
    run = config(hands, model={"context": 1}, steps=2)
    run.optimizer = replace(run.optimizer, only=["context."])
    run.loss = replace(run.loss, side=1.0)
    torch.manual_seed(run.seed)
    first = build_model(run.model).state_dict()
    pretrain(run, tmp_path / "run")
    last = torch.load(tmp_path / "run" / "last.pt")["model"]
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    weights = {name for name in moved if "running" not in name and "num_batches" not in name}
    assert weights and all(name.startswith("context.") for name in weights)
    # A stopped run goes on as one of all weights does.
    run.steps = 3
    assert pretrain(run, tmp_path / "run", resume=True).step == 3
    run.optimizer = replace(run.optimizer, only=["contxt"])
    with pytest.raises(ValueError, match=r"optimizer\.only has 'contxt', expected .*context"):
        pretrain(run, tmp_path / "other")


def test_shapes_that_are_trained_on_are_not_validated_on(hands, tmp_path):
    wrong = config(hands)
    wrong.data.shapes.validation_roots = [hands + "/."]
    with pytest.raises(InputError, match=r"data.shapes: .*hands would be trained and validated on"):
        pretrain(wrong, tmp_path)


def test_a_limit_of_voxels_needs_fragments(hands):
    with pytest.raises(InputError, match="max_voxels: for pairs of fragments, got data.shapes"):
        config(hands, max_voxels=100)
    mixed = config(hands)
    mixed.data.shapes.rooms = 0.5
    assert replace(mixed, max_voxels=100).max_voxels == 100
