"""Transfer experiments: one configuration, from shapes on disk to a table, JSON and pictures."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import small_network

from sparsefeat import FeatureExtractor, save_checkpoint
from sparsefeat.data.shapes import Shape, ShapeData, ShapeDataset, load_dataset
from sparsefeat.errors import InputError
from sparsefeat.extract.surfaces import surface_points, vertex_features
from sparsefeat.heads import HeadTraining, MLPHead
from sparsefeat.io.config import load_config
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.receptive_field import ProbeObjective, RoundTripObjective, tune_receptive_field
from sparsefeat.transfer import AdapterConfig, TransferConfig, format_table, run_transfer
from sparsefeat.transfer.adapter import (
    AdapterComparison,
    AdapterDraw,
    GridPoint,
    TunedPoint,
    _divide,
    _points,
)
from sparsefeat.transfer.config import (
    CorrespondenceConfig,
    DataConfig,
    FeatureConfig,
    FinetuneConfig,
    HeadConfig,
)
from sparsefeat.transfer.correspondence import choose_pairs, landmark_metric
from sparsefeat.transfer.features import Backbone, Coordinates, tuning_objective, vertex_labels
from sparsefeat.transfer.finetune import Finetuned
from sparsefeat.transfer.labelling import _fit_head, score_labels
from sparsefeat.transfer.page import write_page
from sparsefeat.transfer.report import to_json
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, damaged, drawn

ROOT = Path(__file__).resolve().parents[2]
# faust_maps.yaml is of another task: tests/transfer/test_maps.py.
CONFIGS = [
    p for p in sorted((ROOT / "configs" / "transfer").glob("*.yaml")) if "maps" not in p.stem
]


def peanut(seed, ratio=1.0):
    """A closed surface of revolution with two bulbs, bent a little, its own triangulation; part of each vertex."""
    rng = np.random.default_rng(seed)
    rings, sides = 24 + seed % 3, 20 + seed % 2
    t = np.linspace(0.02, 0.98, rings)
    radius = np.sin(math.pi * t) * (0.35 + 0.2 * ratio * np.cos(2 * math.pi * t))
    angle = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    bend = 0.2 * rng.random()
    x = radius[:, None] * np.cos(angle) + bend * ((t - 0.5) ** 2)[:, None]
    y = radius[:, None] * np.sin(angle)
    z = np.broadcast_to(2 * t[:, None] - 1, x.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    row, column = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    corner = (row * sides + column).ravel()
    right = (row * sides + (column + 1) % sides).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, right, corner + sides], 1),
            np.stack([right, right + sides, corner + sides], 1),
        ]
    )
    labels = np.repeat((np.abs(t - 0.5) < 0.2).astype(int), sides)
    return vertices, faces, labels


def write_off(path, vertices, faces):
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(f"{c:.6f}" for c in v) for v in vertices] + [
        f"3 {a} {b} {c}" for a, b, c in faces
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = small_network(8, kernels="pair", normalize_feature=True)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(path, model, 0.05)
    return path


@pytest.fixture(scope="module")
def peanuts(tmp_path_factory):
    """Six shapes without classes, with labels and landmarks."""
    root = tmp_path_factory.mktemp("peanuts")
    for seed in range(6):
        vertices, faces, labels = peanut(seed)
        write_off(root / "off" / f"p{seed}.off", vertices, faces)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"p{seed}.txt").write_text(
            "\n".join(map(str, labels)) + "\n", encoding="utf-8"
        )
        (root / "corres").mkdir(exist_ok=True)
        rings, sides = 24 + seed % 3, 20 + seed % 2
        marks = [round(a * (rings - 1)) * sides + 1 for a in np.linspace(0, 1, 12)]
        (root / "corres" / f"p{seed}.vts").write_text(
            "\n".join(map(str, marks)) + "\n", encoding="utf-8"
        )
    return root


@pytest.fixture(scope="module")
def nuts_and_balls(tmp_path_factory):
    """Two classes of four shapes."""
    root = tmp_path_factory.mktemp("classes")
    for seed in range(4):
        for name, ratio in (("nut", 1.0), ("ball", -0.3)):
            write_off(root / name / f"{name}{seed}.off", *peanut(seed, ratio)[:2])
    return root


def config_of(checkpoint, root, output, **changes):
    config = TransferConfig(
        output=output, cache=None, seeds=[0], methods=["tuned", "xyz", "hks"], shots=[2]
    )
    config.features.checkpoint = str(checkpoint)
    config.features.keypoints = 150
    config.features.scales = [1.0]
    config.features.start = 0.1
    config.data.root = root
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def test_segmentation_scores_every_method_given_and_turned(checkpoint, peanuts, tmp_path):
    result = run_transfer(config_of(checkpoint, peanuts, tmp_path, rungs=2))
    assert [s.method for s in result.scores] == ["tuned", "xyz", "hks"]
    for score in result.scores:
        assert score.confusion.sum() == sum(len(p) for p in score.predictions.values())
        assert score.accuracy == pytest.approx(np.trace(score.confusion) / score.confusion.sum())
        assert 0 <= score.accuracy_rotated <= 1
    tuned, xyz, hks = result.scores
    assert hks.accuracy == hks.accuracy_rotated, "signatures do not feel a rotation"
    assert tuned.voxel_size == result.tunings["tuned"][0].voxel_size
    assert [p.voxel_size for p in result.curve] == pytest.approx(
        [tuned.voxel_size * 2**k for k in (-0.25, 0.25)]
    )
    table = format_table(result)
    assert "tuned" in table and "2 shapes, rotated" in table


def test_damaged_copies_of_the_test_shapes_are_scored_beside_them(checkpoint, peanuts, tmp_path):
    config = config_of(
        checkpoint, peanuts, tmp_path, methods=["xyz", "hks"], test_damage=["cut"], rotate=False
    )
    result = run_transfer(config)
    assert all(0 <= score.accuracy_damaged["cut"] <= 1 for score in result.scores)
    hks = result.scores[1]
    assert hks.accuracy_damaged["cut"] < hks.accuracy, "a cut changes how heat spreads everywhere"
    head, *lines = format_table(result).splitlines()
    assert head.split("   ")[-2:] == ["2 shapes, cut", "voxel size"] and len(lines) == 2


def test_the_adapter_is_held_against_a_grid_search(checkpoint, peanuts, tmp_path):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["tuned"], rotate=False)
    config.adapter = AdapterConfig(
        shots=2, validation=1, scored=1, held_share=0.3, rungs=3, starts=[1.0], draws=[0, 1]
    )
    result = run_transfer(config, output=tmp_path / "kept")
    assert [draw.seed for draw in result.adapter.draws] == [0, 1]
    # What is there is not made again.
    config.adapter.draws = [1, 0]
    said = []
    again = run_transfer(config, said.append, output=tmp_path / "kept")
    assert again.adapter.draws == result.adapter.draws[::-1]
    assert not [line for line in said if line.startswith("draw")]
    config.adapter.shots = 1
    with pytest.raises(ValueError, match=r"adapter_draws\.json: the result of another"):
        run_transfer(config, output=tmp_path / "kept")
    for draw in result.adapter.draws:
        assert len(draw.grid) == 3 and len(draw.tuned) == 1
        assert (draw.shots, draw.validation, draw.scored) == (2, 1, 1)
        start = draw.grid[1].voxel_size
        tuned = draw.tuned[0]
        assert tuned.start == start and tuned.cost_share > 0
        assert abs(2 * math.log2(tuned.scanned / start) % 1) < 1e-9, "a rung, or halfway"
    assert "adapter less grid" in format_table(result)


def test_a_comparison_of_the_adapter_is_summed_up_over_draws():
    def draw(seed, accuracy, ends):
        grid = [GridPoint(1.0, 0.5, 10), GridPoint(2.0, 0.6, 5)]
        tuned = [TunedPoint(1.0, end, value, 2.0, value - 0.01, 0.2) for end, value in ends]
        return AdapterDraw(seed, grid, accuracy, tuned, 1, 1, 1)

    draws = [
        draw(0, 0.70, [(2.0, 0.71), (2.2, 0.69)]),
        draw(1, 0.80, [(2.0, 0.78), (3.0, 0.80)]),
    ]
    assert draws[0].best.voxel_size == 2.0
    assert draws[1].rungs_off(draws[1].tuned[1]) == pytest.approx(2 * math.log2(1.5))
    found = AdapterComparison(draws).summary()
    # Differences 0.01, -0.01 and -0.02, 0: means 0 and -0.01 of the draws.
    assert found["difference"] == pytest.approx(-0.005)
    assert found["difference_error"] == pytest.approx(0.01 / math.sqrt(2) / math.sqrt(2))
    assert found["worst"] == pytest.approx(-0.02) and found["over_scan"] == pytest.approx(0.01)
    assert found["agreeing"] == 0.5 and found["cost_share_most"] == pytest.approx(0.2)
    assert AdapterComparison(draws[:1]).to_json()["summary"]["difference_error"] is None


def test_groups_of_the_adapter_share_nobody():
    dataset = ShapeDataset(
        "people",
        tuple(Shape(f"{k}", None, lambda: None, individual=k // 3) for k in range(24)),
        {"train": tuple(range(24))},
    )
    config = TransferConfig(adapter=AdapterConfig(shots=12, validation=6, scored=6))
    for seed in range(3):
        parts = _divide(dataset, config, seed)
        who = [{shape.individual for shape in part} for part in parts]
        assert [len(part) for part in parts] == [12, 6, 6]
        assert [len(group) for group in who] == [4, 2, 2] and len(set.union(*who)) == 8


def test_the_curve_is_of_the_heads_and_maps_of_the_table(checkpoint, peanuts, tmp_path):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["tuned"], rungs=1, rotate=False)
    # Given: the middle of the curve is the size of the table.
    config.features.voxel_size, config.damage = 0.1, ["cut", "cloud"]
    result = run_transfer(config)
    assert result.curve[0].score == result.scores[0].accuracy
    plain = run_transfer(replace(config, damage=[])).scores[0].accuracy
    assert plain != result.scores[0].accuracy, "heads that learn on copies too are others"

    config.task, config.damage = "correspondence", []
    config.data.options = {"train_share": 0.5}
    config.correspondence = CorrespondenceConfig(pairs=2, eigenpairs=8, zoomout=0, metric=3)
    result = run_transfer(config)
    assert result.curve[0].score == result.maps[0].error
    config.correspondence.metric = 0
    assert run_transfer(config).maps[0].error != result.maps[0].error


def test_the_adapter_heeds_the_span_and_the_damages(checkpoint, peanuts, tmp_path, monkeypatch):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["tuned"], rotate=False)
    config.features.span, config.damage = 1.5, ["cut"]
    config.adapter = AdapterConfig(
        shots=2, validation=1, scored=1, held_share=0.3, rungs=1, starts=[1 / 3, 1.0]
    )
    bounds, learned = [], []

    def watched_tuning(*arguments, **options):
        bounds.append(options["bounds"])
        return tune_receptive_field(*arguments, **options)

    def watched_scores(method, source, shots, *others, **options):
        learned.append([shape.original for shape in shots])
        return score_labels(method, source, shots, *others, **options)

    monkeypatch.setattr("sparsefeat.transfer.adapter.tune_receptive_field", watched_tuning)
    monkeypatch.setattr("sparsefeat.transfer.adapter.score_labels", watched_scores)
    run_transfer(config)
    expected = [(start / 1.5, start * 1.5) for start in (0.1 / 3, 0.1)]
    np.testing.assert_allclose(bounds, expected)
    assert all(len(who) == 4 and who.count(None) == 2 for who in learned)


def test_the_adapter_counts_the_points_that_go_through_the_network(
    checkpoint, peanuts, monkeypatch
):
    extractor = FeatureExtractor.from_pretrained(checkpoint)
    store = ShapeStore(load_dataset("folder", peanuts), "none", None)
    shape = store(store.dataset.shapes[0])
    ran = []

    def watched(points, voxel_size, **options):
        cloud = voxelize(points, voxel_size, **options)
        ran.append(len(points))
        return cloud

    monkeypatch.setattr("sparsefeat.extract.extractor.voxelize", watched)
    for scales in ([1.0], [0.57, 1.0, 1.71]):
        ran.clear()
        Backbone("at", extractor, FeatureConfig(voxel_size=0.1, scales=scales), 1.0)(shape)
        assert sum(ran) == pytest.approx(_points(shape, 0.1, scales), rel=0.01)


def test_fine_tuning_changes_a_copy(checkpoint, peanuts, tmp_path):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["tuned", "finetuned"])
    config.finetune.steps = 3
    before, after = (run_transfer(config).scores for _ in range(2))
    assert [s.accuracy for s in before] == [s.accuracy for s in after], (
        "the same run gives the same numbers"
    )
    assert before[0].accuracy != before[1].accuracy


def with_labels(shape, **labels):
    return replace(
        shape, data=replace(shape.data, **{"vertex_labels": None, "face_labels": None} | labels)
    )


@pytest.fixture
def finetuned(checkpoint):
    extractor = FeatureExtractor.from_pretrained(checkpoint)
    source = Backbone("fixed", extractor, FeatureConfig(voxel_size=0.1, scales=[1.0]), 2.0)
    return Finetuned(source, 2, "segmentation", 0)


def test_fine_tuning_learns_from_labelled_shapes_alone(finetuned, peanuts):
    store = ShapeStore(load_dataset("folder", peanuts), "none", None)
    good, other = (store(shape) for shape in store.dataset.shapes[:2])
    none = with_labels(other, vertex_labels=np.full(len(other.vertices), -1))
    losses = finetuned.train([good, none], FinetuneConfig(steps=8))
    assert len(losses) == 8 and np.isfinite(losses).all()
    with pytest.raises(InputError, match="finetuned: no shape has a label"):
        finetuned.train([none], FinetuneConfig(steps=1))
    with pytest.raises(InputError, match="finetuned: the loss of step 1 is nan"):
        finetuned.train([good], FinetuneConfig(steps=3, learning_rate=1e30))


def test_a_fine_tuned_network_labels_clouds(checkpoint, finetuned, peanuts, tmp_path, monkeypatch):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["finetuned"], rotate=False)
    config.finetune.steps, config.test_damage = 2, ["cloud"]
    config.features.voxel_size = 0.1
    assert 0 <= run_transfer(config).scores[0].accuracy_damaged["cloud"] <= 1
    # Its normals turn with it.
    store = ShapeStore(load_dataset("folder", peanuts), "none", None)
    cloud = damaged(store(store.dataset.shapes[0]), "cloud", 0)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    seen = []

    def watched(points, faces, voxel_size, rng, normals):
        seen.append(normals)
        return surface_points(points, faces, voxel_size, rng, normals)

    monkeypatch.setattr("sparsefeat.transfer.finetune.surface_points", watched)
    assert finetuned._scores(cloud, np.random.default_rng(0), turn).shape == (
        len(cloud.vertices),
        2,
    )
    np.testing.assert_array_equal(seen[0], cloud.normals @ turn.T)


def test_a_vertex_has_the_label_of_any_labelled_face():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [5, 5, 5.0]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    shape = Shape("square", None, lambda: None)
    for labels, expected in (([1, -1], [1, 1, 1, -1, -1]), ([-1, 2], [-1, 2, 2, 2, -1])):
        square = LoadedShape(shape, ShapeData(vertices, faces, face_labels=np.array(labels)))
        assert vertex_labels(square).tolist() == expected
        assert vertex_labels(square, np.array([3, 3])).tolist() == [3, 3, 3, 3, -1]
    square = LoadedShape(shape, ShapeData(vertices, faces, np.arange(5)))
    assert vertex_labels(square, np.ones(5)).tolist() == [1] * 5


def test_a_page_shows_labels_of_faces(checkpoint, tmp_path):
    for seed in range(4):
        vertices, faces, labels = peanut(seed)
        write_off(tmp_path / f"p{seed}.off", vertices, faces)
        of_faces = "\n".join(map(str, labels[faces[:, 0]]))
        (tmp_path / f"p{seed}.flabels.txt").write_text(of_faces + "\n")
    config = config_of(checkpoint, tmp_path, tmp_path / "out", methods=["xyz"], rotate=False)
    page = tmp_path / "page.html"
    assert write_page(run_transfer(config), str(page)) == [page]
    assert "predicted from xyz" in page.read_text(encoding="utf-8")


def test_correspondence_of_a_shape_with_itself_is_exact(checkpoint, peanuts, tmp_path):
    config = config_of(
        checkpoint, peanuts, tmp_path, task="correspondence", methods=["tuned"], rotate=False
    )
    config.data.test = "all"
    config.correspondence.pairs, config.correspondence.eigenpairs, config.correspondence.zoomout = (
        2,
        8,
        12,
    )
    result = run_transfer(config)
    assert {m.map for m in result.maps} == {"nearest", "functional"} and len(result.pairs) == 2
    assert all(np.isfinite(m.error) and m.error >= 0 for m in result.maps)
    dataset = load_dataset("folder", peanuts)
    store = ShapeStore(dataset, "none", None)
    from sparsefeat.transfer.correspondence import MapScorer
    from sparsefeat.transfer.features import Coordinates

    scorer = MapScorer(dataset, store, [(0, 0)], config.correspondence)
    assert scorer(Coordinates(), False)[0].error == 0


def test_classification_pools_features_of_whole_shapes(checkpoint, nuts_and_balls, tmp_path):
    config = config_of(
        checkpoint, nuts_and_balls, tmp_path, task="classification", methods=["tuned", "hks"]
    )
    config.data.normalize = "radius"
    config.data.options = {"train_share": 0.5}
    result = run_transfer(config)
    assert all(s.confusion.shape == (2, 2) and s.confusion.sum() == 4 for s in result.scores)
    numbers = to_json(result)
    assert numbers["scores"][0]["shots"] == 2 and numbers["config"]["task"] == "classification"


def test_every_seed_may_have_a_split_of_its_own(checkpoint, nuts_and_balls, tmp_path):
    config = config_of(
        checkpoint,
        nuts_and_balls,
        tmp_path,
        task="classification",
        methods=["hks"],
        seeds=[0, 1, 2],
    )
    config.data.options, config.data.resplit = {"train_share": 0.5}, True
    tested = {frozenset(score.predictions) for score in run_transfer(config).scores}
    assert len(tested) > 1 and all(len(names) == 4 for names in tested)


def test_a_snapped_voxel_size_is_on_the_ladder_of_the_start(checkpoint, peanuts, tmp_path):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["tuned"], rungs=3, rotate=False)
    config.features.snap, config.features.span = True, 2.0
    result = run_transfer(config)
    tuned, found = result.scores[0].voxel_size, result.tunings["tuned"][0].voxel_size
    rung = 2 * math.log2(tuned / config.features.start)
    assert rung == pytest.approx(round(rung)) and abs(math.log2(tuned / found)) <= 0.25 + 1e-9
    assert 0.05 <= found <= 0.2, "tuning stays within the span"
    assert result.curve[1].score == result.scores[0].accuracy, (
        "the middle of the curve is the tuned size"
    )


def test_tuning_sees_no_more_shapes_than_asked_for_and_two_of_a_class(nuts_and_balls):
    from sparsefeat.transfer.features import _spread

    store = ShapeStore(load_dataset("folder", nuts_and_balls), "none", None)
    shapes = [store(shape) for shape in store.dataset.shapes]
    for count in (1, 2, 3, 4, 6):
        chosen = _spread(shapes, count)
        labels = [shape.shape.label for shape in chosen]
        assert 1 <= len(chosen) <= count
        assert count < 2 or min(labels.count(label) for label in set(labels)) >= 2


def test_coordinates_are_turned_while_a_head_learns():
    from sparsefeat.transfer.features import Coordinates

    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    first, second = (Coordinates.augment(points, generator) for _ in range(2))
    assert not torch.allclose(first, second, atol=0.1)
    for turned in (first, second):
        torch.testing.assert_close(
            torch.cdist(turned, turned), torch.cdist(points, points), atol=1e-6, rtol=0
        )
        turn = torch.linalg.lstsq(points, turned).solution
        assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-4), "no reflection"


def test_coordinates_of_whole_shapes_are_turned_before_they_are_pooled(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [
        SimpleNamespace(
            name=f"s{k}", original=None, vertices=rng.normal(size=(30, 3)) * (1, 2, 3),
            shape=SimpleNamespace(label=k % 2), labels_faces=False,
        )
        for k in range(4)
    ]  # fmt: skip

    class Swapped(Coordinates):
        @staticmethod
        def augment(features, generator):
            return features[:, [1, 2, 0]]

    seen, forward = [], MLPHead.forward

    def watched(head, features):
        seen.append(features.detach())
        return forward(head, features)

    monkeypatch.setattr(MLPHead, "forward", watched)
    head = HeadConfig(name="mlp", training=HeadTraining(steps=4))
    predicted = _fit_head(Swapped(), shapes, "classification", head, 2, 0, "cpu")
    rows = [torch.from_numpy(Coordinates()(shape)).float()[:, [1, 2, 0]] for shape in shapes]
    expected = {tuple(torch.cat([x.mean(0), x.amax(0)]).tolist()) for x in rows}
    assert {tuple(x.flatten().tolist()) for x in seen} == expected
    assert predicted(shapes[0], False).shape == (1,)


def test_a_diffusion_head_does_not_depend_on_the_unit_of_the_shapes(checkpoint, peanuts, tmp_path):
    accuracies = []
    for normalize in ("area", "radius"):
        config = config_of(checkpoint, peanuts, tmp_path, methods=["hks"], rotate=False)
        config.head.name, config.head.width, config.head.training.steps = "diffusion", 8, 30
        config.data.normalize = normalize
        accuracies.append(run_transfer(config).scores[0].accuracy)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)


@pytest.mark.parametrize("head", ["knn", "mlp", "diffusion"])
def test_heads_are_one_word_away(checkpoint, peanuts, tmp_path, head):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["hks"])
    config.head.name, config.head.training.steps, config.head.width = head, 3, 8
    assert 0 <= run_transfer(config).scores[0].accuracy <= 1


@pytest.mark.parametrize("normalize", ["none", "radius", "area"])
def test_vertices_that_no_face_names_do_not_decide_the_scale(normalize):
    vertices, faces, _ = peanut(0)
    clean = Shape("clean", None, lambda: ShapeData(vertices, faces))
    more = np.concatenate([vertices, [[1e3, 0.0, 0.0]]])
    stray = Shape("stray", None, lambda: ShapeData(more, faces))
    store = ShapeStore(ShapeDataset("two", (clean, stray), {}), normalize, None)
    np.testing.assert_allclose(store(stray).vertices[:-1], store(clean).vertices, rtol=1e-12)
    assert store.median_extent([stray]) == pytest.approx(store.median_extent([clean]))


def test_scaled_shapes_have_unit_size(peanuts):
    dataset = load_dataset("folder", peanuts)
    by_radius = ShapeStore(dataset, "radius", None)(dataset.shapes[0])
    assert np.linalg.norm(by_radius.vertices, axis=1).max() == pytest.approx(1)
    by_area = ShapeStore(dataset, "area", None)(dataset.shapes[0])
    corners = by_area.vertices[by_area.faces]
    area = (
        np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        ).sum()
        / 2
    )
    assert area == pytest.approx(1)
    np.testing.assert_allclose(
        np.linalg.norm(by_area.turned.vertices, axis=1), np.linalg.norm(by_area.vertices, axis=1)
    )


def test_the_tool_writes_table_json_and_pictures(checkpoint, peanuts, tmp_path):
    config = tmp_path / "experiment.yaml"
    config.write_text(
        f"task: segmentation\nmethods: [tuned, xyz]\nshots: [2]\nseeds: [0]\nrungs: 2\ncache: null\n"
        f"features: {{checkpoint: {checkpoint}, start: 0.1, keypoints: 100}}\ndata: {{name: folder, root: {peanuts}}}\n",
        encoding="utf-8",
    )
    page = tmp_path / "page.html"
    outputs = ["--output", tmp_path / "out", "--json", tmp_path / "numbers.json", "--html", page]
    done = run_tool(config, *outputs)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout and "xyz" in done.stdout
    assert "predicted from tuned" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "numbers.json").read_text())["scores"][0]["method"] == "tuned"
    for name in (
        "tuning.png",
        "receptive_field.png",
        "confusion.png",
        "segmentation.png",
        "config.yaml",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 100
    before = (tmp_path / "numbers.json").read_bytes()
    other = run_tool(config, "methods=[xyz]", "rungs=0", *outputs)
    assert other.returncode == 2
    assert "config.yaml: the result of another configuration; remove it" in other.stderr
    assert (tmp_path / "numbers.json").read_bytes() == before
    again = run_tool(config, *outputs)
    assert again.returncode == 0, again.stderr


def test_the_page_of_a_correspondence_has_the_map_of_its_first_pair(checkpoint, peanuts, tmp_path):
    config = tmp_path / "maps.yaml"
    config.write_text(
        f"task: correspondence\nmethods: [xyz]\nseeds: [0]\ncache: null\n"
        "correspondence: {pairs: 1, eigenpairs: 8, zoomout: 12}\n"
        f"features: {{checkpoint: {checkpoint}}}\ndata: {{name: folder, root: {peanuts}, test: all}}\n",
        encoding="utf-8",
    )
    page = tmp_path / "page.html"
    done = run_tool(config, "--output", tmp_path / "out", "--html", page)
    assert done.returncode == 0, done.stderr
    assert str(page) in done.stdout.splitlines()
    data = re.search(r"\{.*\}", page.read_text(encoding="utf-8").replace("\n", " "))
    names = {path.stem for path in Path(peanuts).rglob("*.off")}
    assert sum(f'"{name}"' in data.group() for name in names) == 2


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("task: study\n", None),
        ("task: axis\n", None),
        ("task: classification\n", None),
        ("task: segmentation\n", "task=classification"),
    ],
)
def test_a_page_of_charts_alone_is_refused_in_one_line(
    tmp_path, monkeypatch, capsys, text, override
):
    from sparsefeat.cli.transfer import main

    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text, encoding="utf-8")
    arguments = ["run.yaml", *([override] if override else []), "--html", "page.html"]
    assert main([*arguments, "--output", "out"]) == 2
    task = (override or text.strip().replace(": ", "=")).split("=")[1]
    expected = f"--html: {task} draws charts alone; a page shows shapes"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.root=/nowhere", "nowhere"),
        ("metods=[tuned]", "methods"),
        ("shots=[]", "must not be empty"),
        ("features.checkpoint=/nowhere.safetensors", "nowhere"),
        ("task=classification", "has no class"),
        ("shots=[99]", "not 99"),
        ("features.span=0.5", "span must be above 1"),
        ("features.views=0", "at least 1 shape, 2 keypoints and 1 view"),
        ("features.start=-1", "start must be positive"),
        ("rungs=3", "tuned, which is not among them"),
    ],
)
def test_wrong_input_gets_one_line(checkpoint, peanuts, tmp_path, override, message):
    config = tmp_path / "experiment.yaml"
    config.write_text(
        f"features: {{checkpoint: {checkpoint}}}\ndata: {{root: {peanuts}}}\nmethods: [xyz]\nseeds: [0]\nshots: [1]\n",
        encoding="utf-8",
    )
    done = run_tool(config, override, "--output", tmp_path / "out")
    last = [
        line
        for line in done.stderr.splitlines()
        if line and "it/s" not in line and "part" not in line
    ]
    assert done.returncode == 2, done.stderr
    assert len(last) == 1 and message in last[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 0]}, "seeds: expected each of them once"),
        ({"seeds": [0, -1]}, "seeds: expected at least 0"),
        ({"methods": ["hks", "hks"]}, "methods: expected each of them once"),
        ({"shots": [2, 2]}, "shots: expected each of them once"),
        ({"test_damage": ["cut", "cut"]}, "test_damage: expected each of them once"),
        ({"task": "correspondence", "adapter": AdapterConfig()}, "adapter: for segmentation and"),
        (
            {"task": "correspondence", "data": DataConfig(max_test=3)},
            "data.max_test: correspondence is scored on pairs; set correspondence.pairs",
        ),
    ],
)
def test_experiments_that_would_count_twice_or_ignore_an_option_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TransferConfig(**changes)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (CorrespondenceConfig, {"eigenpairs": 30, "zoomout": 20}, "zoomout: expected 0, or at lea"),
        (CorrespondenceConfig, {"metric": 1}, "metric: expected 0, or 2 shapes or more, got 1"),
        (CorrespondenceConfig, {"pairs": 0}, "pairs: expected at least 1, got 0"),
        (AdapterConfig, {"draws": [1, 1]}, "draws: expected each of them once"),
        (AdapterConfig, {"starts": [1.0, 1.0]}, "starts: expected each of them once"),
        (AdapterConfig, {"draws": [-1]}, "draws: expected at least 0"),
        (DataConfig, {"max_test": 0}, "max_test: expected at least 1, got 0"),
        (FeatureConfig, {"voxel_size": math.inf}, "voxel_size must be positive, got inf"),
    ],
)
def test_sections_that_cannot_be_are_refused(section, changes, message):
    with pytest.raises(InputError, match=message):
        section(**changes)


def test_what_is_drawn_is_seeded_in_order_and_no_more_than_there_is():
    some = drawn("abcdefgh", 3, 0)
    assert len(set(some)) == 3 and some == sorted(some) and some == drawn("abcdefgh", 3, 0)
    assert len({tuple(drawn("abcdefgh", 3, seed)) for seed in range(9)}) > 1
    assert drawn("abc", None, 0) == drawn("abc", 9, 0) == ["a", "b", "c"]


def test_correspondence_without_landmarks_is_refused(nuts_and_balls):
    dataset = load_dataset("folder", nuts_and_balls)
    store = ShapeStore(dataset, "none", None)

    with pytest.raises(ValueError, match="no landmarks"):
        tuning_objective(
            "correspondence", "correspondence", [store(shape) for shape in dataset.shapes[:2]]
        )
    with pytest.raises(ValueError, match="no correspondence"):
        dataset.corresponding(*choose_pairs(dataset, "all", 1, 0)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ["xyz"]},
        {"task": "correspondence", "correspondence": CorrespondenceConfig(metric=3)},
        {"task": "correspondence", "features.objective": "correspondence"},
    ],
)
def test_nothing_is_learned_from_shapes_that_are_scored(checkpoint, peanuts, tmp_path, changes):
    config = config_of(checkpoint, peanuts, tmp_path)
    for name, value in changes.items():
        *sections, last = name.split(".")
        setattr(config.features if sections else config, last, value)
    config.data.test = "all"
    with pytest.raises(InputError, match="data.train and data.test share 5 shapes, such as p"):
        run_transfer(config)


def test_landmarks_of_other_templates_are_not_learned_from(checkpoint, tmp_path):
    for kind in ("a", "b"):
        for seed in range(4):
            write_off(tmp_path / kind / f"{kind}{seed}.off", *peanut(0)[:2])
            (tmp_path / kind / "corres").mkdir(exist_ok=True)
            (tmp_path / kind / "corres" / f"{kind}{seed}.vts").write_text("1\n40\n99\n")
    dataset = load_dataset("folder", tmp_path)
    shapes = [ShapeStore(dataset, "none", None)(shape) for shape in dataset.shapes]
    message = "the landmarks of a0 and b0 do not correspond".replace("a0", "a/a0").replace(
        "b0", "b/b0"
    )
    with pytest.raises(InputError, match=f"objective correspondence: {message}"):
        tuning_objective("correspondence", "correspondence", shapes)
    with pytest.raises(InputError, match=f"correspondence.metric: {message}"):
        landmark_metric(Coordinates(), shapes)
    assert landmark_metric(Coordinates(), shapes[:4])(shapes[0].vertices).shape[0] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": [1, 50]}, "not 50"),
        ({"adapter": AdapterConfig(held_share=0.49)}, "too few individuals"),
        ({"adapter": AdapterConfig()}, "adapter_draws.json: the result of another configuration"),
    ],
)
def test_what_cannot_be_is_found_out_before_any_work(
    checkpoint, peanuts, tmp_path, changes, message
):
    (tmp_path / "adapter_draws.json").write_text('{"config": {}, "records": []}')
    config = config_of(checkpoint, peanuts, tmp_path, **changes)
    if "individuals" in message:
        config.data.options, output = {"train_share": 0.3}, None
    else:
        output = tmp_path
    said = []
    with pytest.raises(InputError, match=message):
        run_transfer(config, said.append, output=output)
    assert not said


def test_shapes_of_no_split_need_no_labels_and_test_shapes_do(checkpoint, tmp_path):
    for seed in range(5):
        vertices, faces, labels = peanut(seed)
        write_off(tmp_path / f"p{seed}.off", vertices, faces)
        if seed < 4:
            (tmp_path / f"p{seed}.vlabels.txt").write_text("\n".join(map(str, labels)) + "\n")
    splits = "train: [p0, p1]\ntest: [p2, p3]\n"
    (tmp_path / "splits.yaml").write_text(splits)
    config = config_of(checkpoint, tmp_path, tmp_path / "out", methods=["xyz"], rotate=False)
    assert run_transfer(config).scores[0].confusion.shape == (2, 2)
    said = []
    (tmp_path / "splits.yaml").write_text(splits.replace("p3]", "p3, p4]"))
    with pytest.raises(InputError, match="p4: it has no part labels"):
        run_transfer(config, said.append)
    (tmp_path / "splits.yaml").write_text(splits)
    for seed in (2, 3):
        (tmp_path / f"p{seed}.vlabels.txt").write_text("-1\n" * len(peanut(seed)[0]))
    with pytest.raises(InputError, match="no test shape has a label, such as p2, p3"):
        run_transfer(config, said.append)
    assert not said


@pytest.mark.parametrize(
    ("task", "shots", "expected"),
    [
        ("segmentation", 5, ProbeObjective),
        ("segmentation", 4, RoundTripObjective),
        ("segmentation", 1, RoundTripObjective),
        ("classification", 5, RoundTripObjective),
    ],
)
def test_only_enough_labelled_surfaces_are_tuned_by_a_probe(peanuts, task, shots, expected):
    dataset = load_dataset("folder", peanuts)
    store = ShapeStore(dataset, "none", None)
    assert (
        type(tuning_objective("auto", task, [store(shape) for shape in dataset.shapes[:shots]]))
        is expected
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_read(path):
    config = load_config(TransferConfig, path)
    assert config.data.name and config.output.parts[:2] == ("runs", "transfer")


def test_every_vertex_gets_a_feature_however_the_voxels_lie(checkpoint):
    extractor = FeatureExtractor.from_pretrained(checkpoint)
    vertices, faces, _ = peanut(0)
    for voxel_size in (0.02, 0.1, 5.0):
        features = vertex_features(extractor, vertices, faces, voxel_size=voxel_size)
        assert features.shape == (len(vertices), 3 * 8) and np.isfinite(features).all()
    assert extractor.voxel_size == 0.05, "the extractor itself stays at its own size"
    assert extractor.at(0.1).model is extractor.model
    points = surface_points(vertices, faces, 0.1, seed=3).points
    np.testing.assert_array_equal(points[: len(vertices)], vertices)
    np.testing.assert_array_equal(points, surface_points(vertices, faces, 0.1, seed=3).points)


def run_tool(*arguments):
    command = [sys.executable, ROOT / "tools" / "transfer.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
