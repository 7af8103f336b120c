"""Training of maps: it goes on where it was cut, and scores what it learned."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import small_network

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.cli.transfer import main
from sparsefeat.errors import InputError
from sparsefeat.io.config import load_config
from sparsefeat.io.packaged import find_config
from sparsefeat.transfer.config import DataConfig
from sparsefeat.transfer.maps import MapHeadConfig, MapsConfig, run_maps
from sparsefeat.transfer.maps.report import format_maps

pytest.importorskip("robust_laplacian")


def lump(seed):
    """A closed surface of 14 x 12 vertices that differs from seed to seed, and the vertices in an order of its own."""
    rng = np.random.default_rng(seed)
    t, angle = np.linspace(0.03, 0.97, 14), np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radius = np.sin(np.pi * t) * (0.4 + 0.15 * np.cos(2 * np.pi * t))
    radius = radius[:, None] * (1 + 0.3 * np.cos(angle) + 0.1 * np.sin(2 * angle))
    height = (2 + 0.3 * rng.random()) * t[:, None] + np.zeros_like(radius)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1).reshape(-1, 3)
    rows, columns = np.meshgrid(np.arange(13), np.arange(12), indexing="ij")
    corner, right = (rows * 12 + columns).ravel(), (rows * 12 + (columns + 1) % 12).ravel()
    faces = [
        *np.stack([corner, right, corner + 12], 1),
        *np.stack([right, right + 12, corner + 12], 1),
    ]
    order = rng.permutation(len(vertices))
    place = np.argsort(order)
    return vertices[order], place[np.array(faces)], place


def write_lump(path, corres, seed, landmarks=None):
    """A mesh, and its first landmarks in another folder."""
    vertices, faces, place = lump(seed)
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(map(str, row)) for row in vertices]
    lines += [f"3 {a} {b} {c}" for a, b, c in faces]
    for folder in (path.parent, corres):
        folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    rows = "\n".join(str(k + 1) for k in place[:landmarks])
    (corres / f"{path.stem}.vts").write_text(rows + "\n")


@pytest.fixture(scope="module")
def lumps(tmp_path_factory):
    root = tmp_path_factory.mktemp("lumps")
    for seed in range(5):
        write_lump(root / "off" / f"l{seed}.off", root / "corres", seed)
    (root / "splits.yaml").write_text("train: [l0, l1, l2]\ntest: [l3, l4]\n")
    return root


@pytest.fixture
def config(lumps):
    return MapsConfig(
        data=DataConfig(name="folder", root=lumps, normalize="area"),
        inputs="wks",
        head=MapHeadConfig(features=8, width=8, blocks=1, eigenpairs=30, size=10),
        steps=6,
        samples=60,
        snapshots=2,
        save_every=2,
        zoomout=20,
        points=50,
        cache=None,
    )


def test_a_training_that_was_cut_gives_the_same_bits(config, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run_maps(config, whole)

    def interrupt(done, text):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_maps(config, cut, interrupt)
    assert torch.load(cut / "last.pt", weights_only=True)["step"] == 4
    found = run_maps(config, cut)
    assert [loss["total"] for loss in found.losses] == [loss["total"] for loss in expected.losses]
    errors = [[record["error"] for record in result.records] for result in (found, expected)]
    assert errors[0] == errors[1]
    kinds = [(r["step"], r["rotated"], r["map"]) for r in found.records]
    assert kinds == [
        (step, rotated, kind)
        for step, rotated in ((3, False), (6, False), (6, True))
        for kind in ("nearest", "functional", "refined")
    ]
    assert found.pairs == [("l3", "l4")] and found.picture[2].shape == (168,)
    # Wave kernel signatures do not feel a rotation.
    assert errors[0][3:6] == errors[0][6:]
    with pytest.raises(
        InputError, match=r"last.pt: was made with steps = 6, the configuration says 7"
    ):
        run_maps(replace(config, steps=7), cut)


def test_a_training_goes_on_with_the_features_that_it_began_with_alone(config, tmp_path):
    weights = tmp_path / "small.safetensors"
    save_checkpoint(weights, small_network(8), 0.05)
    config.features.checkpoint = str(weights)
    before = run_maps(config, tmp_path)
    assert run_maps(config, tmp_path).losses == before.losses
    # The same name, another network.
    save_checkpoint(weights, small_network(8, seed=1), 0.05)
    with pytest.raises(InputError, match=r"last.pt: was made with other weights of .*small"):
        run_maps(config, tmp_path)


@pytest.mark.parametrize("most", [10, 1000])
def test_families_may_have_other_numbers_of_landmarks(config, tmp_path, most):
    names = {"train": [], "test": []}
    for kind, count in (("few", 40), ("many", 168)):
        for seed in range(4):
            path = tmp_path / kind / f"{kind}{seed}.off"
            write_lump(path, tmp_path / kind / "corres", seed, count)
            names["train" if seed < 2 else "test"].append(f"{kind}/{kind}{seed}")
    lines = [f"{split}: [{', '.join(shapes)}]\n" for split, shapes in names.items()]
    (tmp_path / "splits.yaml").write_text("".join(lines))
    out = tmp_path / "out"
    out.mkdir()
    config.data.root, config.points, config.rotate = tmp_path, most, False
    result = run_maps(config, out)
    assert result.pairs == [("few/few2", "few/few3"), ("many/many2", "many/many3")]
    assert np.isfinite([record["error"] for record in result.records]).all()
    # In one family all have the same.
    write_lump(tmp_path / "few" / "few3.off", tmp_path / "few" / "corres", 3, 39)
    with pytest.raises(InputError, match="few/few3: it has 39 landmarks, few/few0 of the same"):
        run_maps(config, tmp_path / "other")


@pytest.mark.parametrize("inputs, supervision", [("xyz", "landmarks"), ("wks", "none")])
def test_other_inputs_and_no_labels(config, tmp_path, inputs, supervision):
    changed = replace(config, inputs=inputs, supervision=supervision, steps=2, snapshots=1)
    result = run_maps(changed, tmp_path)
    assert np.isfinite([record["error"] for record in result.records]).all()
    used = {"landmarks": "points", "none": "coupling"}[supervision]
    assert all(loss[used] > 0 for loss in result.losses)
    assert "turned" in format_maps(result)


def test_the_tool_writes_table_curve_and_pictures(lumps, tmp_path, capsys):
    text = (
        f"task: maps\ndata: {{name: folder, root: {lumps}, normalize: area}}\ninputs: wks\ncache: null\n"
        "head: {features: 8, width: 8, blocks: 1, eigenpairs: 30, size: 10}\nsteps: 2\nsnapshots: 1\n"
        "samples: 60\nzoomout: 20\npoints: 50\n"
    )
    path = tmp_path / "maps.yaml"
    path.write_text(text)
    page = tmp_path / "page.html"
    assert main([str(path), "--output", str(tmp_path / "out"), "--html", str(page)]) == 0
    assert "l3" in page.read_text(encoding="utf-8")
    names = {"result.json", "curve.png", "loss.png", "maps.png", "last.pt", "config.yaml"}
    assert names <= {file.name for file in (tmp_path / "out").iterdir()}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["pairs"] == [["l3", "l4"]] and len(result["records"]) == 6
    assert "error x100" in capsys.readouterr().out


def test_maps_learn_no_landmarks_of_shapes_that_are_scored(config, tmp_path):
    config.data = replace(config.data, train="test")
    with pytest.raises(InputError, match="data.train and data.test share 2 shapes, such as l3"):
        run_maps(config, tmp_path)
    # Without landmarks nothing is given away.
    config.supervision, config.steps, config.snapshots = "none", 1, 1
    assert run_maps(config, tmp_path).pairs == [("l3", "l4")]


def test_wrong_configurations_are_refused(config, tmp_path):
    for change, line in (
        ({"zoomout": 5}, "zoomout: expected 0, or at least head.size 10, got 5"),
        ({"shapes": 1}, "shapes: expected 2 or more, got 1"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"data": DataConfig()}, "data.normalize: expected area"),
        ({"pairs": 0}, "pairs: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"data": replace(config.data, max_test=3)}, "data.max_test: maps are scored on pairs"),
    ):
        with pytest.raises(InputError, match=line):
            replace(config, **change)
    with pytest.raises(InputError, match="shapes: 9, but there are 3 to train on"):
        run_maps(replace(config, shapes=9), tmp_path)
    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="last.pt: not the state of a training of maps"):
        run_maps(config, tmp_path)


def test_the_shipped_configuration_is_read():
    config = load_config(MapsConfig, find_config("faust_maps", "transfer"))
    assert (config.data.train, config.data.test, config.inputs) == ("train", "test", "joined")
