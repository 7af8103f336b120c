"""Wrong input leaves nothing behind: no file, no folder, whatever the verb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import small_network

from sparsefeat import save_checkpoint
from sparsefeat.cli.main import VERBS, main

STUDY = """
task: study
data: {name: folder, root: absent}
networks: {ours: net.safetensors}
labels: {parts: null}
joined: {}
output: out/study
"""
AXIS = """
task: axis
base: quickstart
settings: {one: {}, two: {changes: [optimizer.lr=0.01]}}
shapes: {people: {data: {name: folder, root: absent}, labels: {parts: null}, shots: [1], joined: {}}}
output: out/study
"""
MAPS = "task: maps\ndata: {name: folder, root: absent, normalize: area}\ncache: null\n"
TRANSFER = """
data: {name: folder, root: absent}
features: {checkpoint: net.safetensors}
methods: [tuned]
cache: null
"""
PRETRAIN = "data: {root: absent}\nsteps: 2\nepochs: null\n"

OUT = ["--output", "out/deep"]
NETWORK = ["--checkpoint", "net.safetensors"]
WRONG = {
    "extract, no such file": ["extract", "absent.ply", *NETWORK, *OUT],
    "extract, no cloud": ["extract", "bad.ply", *NETWORK, *OUT],
    "extract, no checkpoint": ["extract", "good.xyz", "--checkpoint", "absent.pth", *OUT],
    "voxelize, no such file": ["voxelize", "absent.off", "--resolution", "8", *OUT],
    "voxelize, no mesh": ["voxelize", "bad.off", "--resolution", "8", *OUT],
    "match, no such file": ["match", "good.xyz", "absent.ply", *NETWORK, *OUT],
    "match, no cloud": ["match", "good.xyz", "bad.ply", *NETWORK, *OUT],
    "match, no checkpoint": ["match", "good.xyz", "good.xyz", "--checkpoint", "no", *OUT],
    "match, no viewpoints": ["match", "good.xyz", "good.xyz", "--viewpoints", "absent", *OUT],
    "match, a folder without scans": ["match", "empty", *NETWORK, *OUT],
    "match, a folder of no clouds": ["match", "wrong", *NETWORK, *OUT],
    "match, no such shape": ["match", "good.off", "absent.off", "--shapes", *NETWORK, *OUT],
    "match, no shape": ["match", "good.off", "bad.off", "--shapes", *NETWORK, *OUT],
    "match, no labels": [
        "match", "good.off", "good.off", "--shapes", "--transfer", "absent.txt", *NETWORK, *OUT
    ],
    "match, labels of another shape": [
        "match", "good.off", "good.off", "--shapes", "--transfer", "labels.txt", *NETWORK, *OUT
    ],
    "match, no checkpoint for shapes": [
        "match", "good.off", "good.off", "--shapes", "--checkpoint", "no", *OUT
    ],
    "view, no such file": ["view", "absent.ply", "--html", "out.html"],
    "view, no cloud": ["view", "bad.ply", "--html", "out.html"],
    "view, no labels": ["view", "good.xyz", "--labels", "absent.txt", "--html", "out.html"],
    "pretrain, no data": ["pretrain", "pretrain.yaml", *OUT],
    "pretrain, no weights": ["pretrain", "pretrain.yaml", "model.init=absent.pth", *OUT],
    "transfer, no shapes": ["transfer", "transfer.yaml", *OUT, "--json", "t.json"],
    "transfer, no labels": ["transfer", "transfer.yaml", "data.root=shapes", *OUT, "--result", "a"],
    "transfer, no shapes for a study": ["transfer", "study.yaml", *OUT, "--result", "a"],
    "transfer, no network of a study": [
        "transfer", "study.yaml", "networks.ours=absent", "data.root=shapes", *OUT
    ],
    "transfer, no shapes for an axis": ["transfer", "axis.yaml", *OUT, "--result", "a"],
    "transfer, no shapes for maps": ["transfer", "maps.yaml", *OUT, "--result", "a"],
    "evaluate, no data": [
        "evaluate", "matching", "--data", "absent", *NETWORK, "--plots", "out/plots", "--result", "a"
    ],
    "evaluate, a damaged fragment": [
        "evaluate", "matching", "--data", "scans", *NETWORK, "--plots", "out/plots", "--json", "e.json"
    ],
    "evaluate, no checkpoint": [
        "evaluate", "matching", "--data", "scans", "--checkpoint", "no", "--json", "e.json"
    ],
    "make-data, no such folder": ["make-data", "fuse", "absent", *OUT],
    "make-data, no pictures": ["make-data", "fuse", "frames", *OUT],
    "make-data, damaged pictures": ["make-data", "fuse", "damaged", *OUT],
    "make-data, no rooms": ["make-data", "rooms", "--rooms", "0", *OUT],
    "make-data, no creatures": ["make-data", "creatures", "--count", "0", *OUT],
    "benchmark, no such case": ["benchmark", "absent", "--json", "b.json", "--result", "a"],
    "benchmark, no such engine": ["benchmark", "--engines", "absent", "--plot", "b.png"],
    "results, no such result": ["results", "check", "matching/absent"],
}  # fmt: skip


def ball() -> str:
    """A closed surface of 80 vertices as off."""
    height, angle = np.linspace(-0.95, 0.95, 8), np.linspace(0, 2 * np.pi, 10, endpoint=False)
    radius = np.sqrt(1 - height**2)[:, None]
    z = np.repeat(height[:, None], 10, 1)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1).reshape(-1, 3)
    row, column = (part.ravel() for part in np.mgrid[:7, :10])
    corner, right = row * 10 + column, row * 10 + (column + 1) % 10
    faces = [*zip(corner, right, corner + 10), *zip(right, right + 10, corner + 10)]
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0", *(f"{x} {y} {z}" for x, y, z in vertices)]
    return "\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in faces)]) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with inputs, good ones and bad ones, as the working folder."""
    monkeypatch.chdir(tmp_path)
    model = small_network(8, seed=2, kernels="pair", normalize_feature=True)
    save_checkpoint(tmp_path / "net.safetensors", model, 0.05)
    points = np.random.default_rng(0).random((200, 3))
    np.savetxt("good.xyz", points)
    mesh = ball()
    for name, text in {
        "good.off": mesh,
        "bad.ply": "no cloud\n",
        "bad.off": "OFF\n9 9 0\n0 0\n",
        "labels.txt": "0\n1\n",
        "wrong/a.ply": "no cloud\n",
        "wrong/b.ply": "no cloud\n",
        "shapes/off/a.off": mesh,
        "shapes/off/b.off": mesh,
        "scans/room/cloud_bin_0.ply": "no cloud\n",
        "scans/room/cloud_bin_1.ply": "no cloud\n",
        "scans/room-evaluation/gt.log": "0 1 2\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",
        "frames/notes.txt": "nothing\n",
        "damaged/camera-intrinsics.txt": "500 0 320\n0 500 240\n0 0 1\n",
        "study.yaml": STUDY,
        "axis.yaml": AXIS,
        "maps.yaml": MAPS,
        "transfer.yaml": TRANSFER,
        "pretrain.yaml": PRETRAIN,
    }.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for k in range(4):
        Path(f"damaged/frame-{k:06d}.depth.png").write_bytes(b"no picture")
        np.savetxt(f"damaged/frame-{k:06d}.pose.txt", np.eye(4))
    Path("empty").mkdir()
    return tmp_path


def test_every_verb_is_tried():
    assert {words[0].replace("-", "_") for words in WRONG.values()} == set(VERBS)


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_input_leaves_nothing(words, folder, capfd):
    before = sorted(folder.rglob("*"))
    code = main(words)
    captured = capfd.readouterr()
    assert code == 2, captured
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_was_there_stays(folder):
    Path("out/deep").mkdir(parents=True)
    Path("out/deep/mine.txt").write_text("mine")
    assert main(WRONG["match, no cloud"]) == 2
    assert [path.name for path in Path("out/deep").iterdir()] == ["mine.txt"]
    Path("out/deep/mine.txt").unlink()
    assert main(WRONG["match, no cloud"]) == 2
    assert Path("out/deep").is_dir(), "an empty one too"
