"""Pretraining: it learns, resumes to the bit, survives interruption, and refuses what it cannot use."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small

import sparsefeat
from sparsefeat.checkpoint import read_checkpoint
from sparsefeat.errors import InputError
from sparsefeat.io.config import config_from_dict, load_config
from sparsefeat.pretrain import PretrainConfig, pretrain
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.config import DataConfig
from sparsefeat.pretrain.data import load_pairs
from sparsefeat.pretrain.loop import save_model
from sparsefeat.pretrain.schedule import largest_angle, set_learning_rate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fragments(tmp_path_factory) -> Path:
    """Two scenes in FCGF's training layout: pieces of a bumpy sheet with boxes on it."""
    root = tmp_path_factory.mktemp("fragments")
    for scene in ("a", "b"):
        rng = np.random.default_rng(ord(scene))
        boxes = [(*rng.uniform(0.2, 2.0, 2), rng.uniform(0.1, 0.4)) for _ in range(12)]
        for k, low in enumerate((0.0, 0.4, 0.8)):
            xy = rng.uniform((low, 0), (low + 1.5, 2.4), (6000, 2))
            height = 0.15 * np.sin(3 * xy[:, 0]) * np.cos(4 * xy[:, 1])
            for x, y, rise in boxes:
                height[np.abs(xy - (x, y)).max(1) < 0.15] += rise
            piece = np.column_stack([xy, height])
            np.savez(root / f"{scene}@seq-01_{k}.npz", pcd=piece.astype(np.float32))
        lines = [
            f"{scene}@seq-01_{i}.npz {scene}@seq-01_{j}.npz {o}"
            for i, j, o in ((0, 1, 0.7), (1, 2, 0.7), (0, 2, 0.4))
        ]
        (root / f"{scene}@seq-01-0.30.txt").write_text("\n".join(lines) + "\n")
    return root


def settings(root: Path, **changes) -> dict:
    config = {
        "data": {
            "root": str(root),
            "scenes": ["a"],
            "validation_scenes": ["b"],
            "validation_pairs": 2,
            "workers": 0,
        },
        "model": small(8),
        "loss": {"points": 128},
        "optimizer": {"name": "adam", "lr": 1e-2, "schedule": "cosine", "weight_decay": 0.0},
        "voxel_size": 0.05,
        "batch_size": 1,
        "epochs": None,
        "steps": 6,
        "validate_every": 0,
        "save_every": 2,
        "pictures": False,
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            config[section][key] = value
        else:
            config[section] = value
    return config


def make(root: Path, **changes) -> PretrainConfig:
    return config_from_dict(PretrainConfig, settings(root, **changes), "test")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return sparsefeat.from_pretrained(path).state_dict()


def assert_same_bits(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_writes_its_configuration_a_line_per_step_and_checkpoints(fragments, tmp_path):
    result = pretrain(make(fragments), tmp_path / "run")
    assert result.step == 6 and set(result.validations) == {0, 6}
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "validation" in line] == [0, 6]
    assert load_config(PretrainConfig, tmp_path / "run/config.yaml") == make(fragments)
    extractor = sparsefeat.FeatureExtractor.from_pretrained(tmp_path / "run/last.safetensors")
    assert extractor.voxel_size == 0.05
    assert extractor(np.random.default_rng(0).uniform(0, 1, (50, 3))).shape == (50, 8)


def test_a_stopped_run_resumes_to_the_same_bits(fragments, tmp_path):
    config = make(fragments)
    pretrain(config, tmp_path / "whole")
    asked = iter([False, False, False, True])
    assert pretrain(config, tmp_path / "parts", should_stop=lambda: next(asked)).step == 3
    assert pretrain(config, tmp_path / "parts", resume=True).step == 6
    assert_same_bits(tmp_path / "whole/last.safetensors", tmp_path / "parts/last.safetensors")
    steps = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_a_checkpoint_and_resumes_to_the_same_bits(
    fragments, tmp_path, sent
):
    from sparsefeat.io.config import save_config

    config = make(fragments, steps=60, data__validation_pairs=0, save_every=5)
    save_config(tmp_path / "config.yaml", config)
    command = [sys.executable, ROOT / "tools/pretrain.py", tmp_path / "config.yaml", "--output"]
    whole = subprocess.run([*command, tmp_path / "whole"], cwd=ROOT, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [*command, tmp_path / "parts"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "parts/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    errors = process.communicate(timeout=120)[1]
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in errors.splitlines()[-1]
    sparsefeat.from_pretrained(tmp_path / "parts/last.safetensors")
    assert torch.load(tmp_path / "parts/last.pt", weights_only=True)["step"] < 60
    again = subprocess.run(
        [*command, tmp_path / "parts", "--resume"], cwd=ROOT, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert_same_bits(tmp_path / "whole/last.safetensors", tmp_path / "parts/last.safetensors")


def test_overfitting_one_pair_finds_its_matches(fragments, tmp_path):
    config = make(fragments, steps=80, loss__points=256)
    pretrain(config, tmp_path / "run", overfit=True)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    loss = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(loss[-5:]) < 0.7 * np.mean(loss[:5])


def test_accumulated_batches_are_one_step(fragments, tmp_path):
    accumulated = make(fragments, steps=3)
    accumulated.optimizer.accumulate = 2
    result = pretrain(accumulated, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert result.step == 3
    assert [line["pairs"] for line in lines if "loss" in line] == [2, 2, 2]


def test_workers_do_not_change_the_result(fragments, tmp_path):
    pretrain(make(fragments, data__workers=0), tmp_path / "none")
    pretrain(make(fragments, data__workers=2), tmp_path / "two")
    assert_same_bits(tmp_path / "none/last.safetensors", tmp_path / "two/last.safetensors")


def test_the_limit_of_rotations_grows_over_the_share_that_is_asked_for(fragments):
    config = make(fragments, rotation={"start_deg": 30, "grow_share": 0.5})
    assert [largest_angle(config, step, 100) for step in (0, 25, 50, 99)] == [30, 105, 180, 180]


def test_the_rate_falls_where_an_epoch_ends_to_the_step(fragments):
    """Nine pairs in batches of seven: seven epochs end at step 9, which a quotient of floats puts a little before."""
    config = make(fragments, optimizer__schedule="exponential", optimizer__gamma=0.5)
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    rates = {}
    for step in (8, 9):
        set_learning_rate(optimizer, config, step, 100, 7, 9)
        rates[step] = optimizer.param_groups[0]["lr"] / config.optimizer.lr
    assert rates == {8: 0.5**6, 9: 0.5**7}


def test_endless_epochs_are_refused(fragments):
    with pytest.raises(InputError, match="epochs .* finite, got None and inf"):
        make(fragments, steps=None, epochs=math.inf)


def test_two_processes_under_torchrun_train_as_one_does_with_as_many_pairs(fragments, tmp_path):
    """Losses, weights and running statistics, although the pairs differ in voxels and in matches."""
    from sparsefeat.io.config import save_config

    # Not Adam: its first steps are as long for a gradient of rounding errors as for any other.
    options = {
        "steps": 3,
        "data__validation_pairs": 0,
        "optimizer__name": "sgd",
        "optimizer__lr": 1e-3,
    }
    alone = make(fragments, batch_size=2, **options)
    pretrain(alone, tmp_path / "one")
    save_config(tmp_path / "config.yaml", make(fragments, batch_size=1, **options))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "tools/pretrain.py", tmp_path / "config.yaml", "--output", tmp_path / "two"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [line["step"] for line in two] == [1, 2, 3]
    assert [line["pairs"] for line in two] == [line["pairs"] for line in one] == [2, 2, 2]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-5)
    assert len({line["loss"] for line in one}) == 3
    theirs = weights(tmp_path / "two/last.safetensors")
    for name, mine in weights(tmp_path / "one/last.safetensors").items():
        torch.testing.assert_close(
            theirs[name], mine, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def refusal(arguments: list, tmp_path: Path) -> str:
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tools/pretrain.py",
            *map(str, arguments),
            "--output",
            tmp_path / "run",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_wrong_input_gets_one_line_and_exit_code_2(fragments, tmp_path):
    from sparsefeat.io.config import save_config

    save_config(tmp_path / "config.yaml", make(fragments))
    config = tmp_path / "config.yaml"
    assert "nowhere" in refusal([config, "data.root=nowhere"], tmp_path)
    assert "did you mean 'lr'" in refusal([config, "optimizer.rl=0.1"], tmp_path)
    assert "would be trained and validated on" in refusal(
        [config, "data.validation_scenes=[a]"], tmp_path
    )
    assert "nothing to resume from" in refusal([config, "--resume"], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in refusal([config, f"data.root={empty}"], tmp_path)


def test_a_full_disk_while_saving_keeps_the_earlier_state(fragments, tmp_path, monkeypatch):
    config = make(fragments, data__validation_pairs=0)
    asked = iter([False, False, True])
    pretrain(config, tmp_path / "run", should_stop=lambda: next(asked))
    before = (tmp_path / "run/last.pt").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match="last.pt: cannot write the state .*No space left"):
        pretrain(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")) == []


def test_resuming_with_another_configuration_is_refused(fragments, tmp_path):
    pretrain(make(fragments, steps=2), tmp_path / "run")
    with pytest.raises(ValueError, match="optimizer"):
        pretrain(make(fragments, steps=2, optimizer__lr=0.5), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_configuration_loads_and_builds_its_network(path):
    from sparsefeat.pretrain.build import build_model, build_optimizer

    config = load_config(PretrainConfig, path)
    model = build_model(config.model)
    assert build_optimizer(model, config).param_groups[0]["lr"] == config.optimizer.lr


def test_the_tool_ends_in_a_table_and_pictures(fragments, tmp_path):
    from sparsefeat.io.config import save_config

    save_config(
        tmp_path / "config.yaml", make(fragments, steps=2, pictures=True, compare=["random"])
    )
    command = [
        sys.executable,
        ROOT / "tools/pretrain.py",
        tmp_path / "config.yaml",
        "--output",
        tmp_path / "run",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [
        line.split()
        for line in done.stdout.splitlines()
        if line.startswith(("before", "random", "after"))
    ]
    assert [row[0] for row in rows] == ["before", "random", "after"]
    assert all(0 <= float(share) <= 1 for row in rows for share in row[1:])
    for name in ("loss.png", "matching.png", "features.png", "matches.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_a_batch_whose_pairs_lost_all_matches_is_a_step_without_a_gradient(
    fragments, tmp_path, monkeypatch
):
    from sparsefeat.pretrain import pairs

    monkeypatch.setattr(pairs, "find_matches", lambda *arguments: np.empty((0, 2), dtype=np.int64))
    config = make(fragments, steps=2, data__validation_pairs=0)
    assert pretrain(config, tmp_path / "run").step == 2


def test_pair_kernels_learn_from_full_rotations_and_can_be_trained_on(fragments, tmp_path):
    pairs = {"model__kernels": "pair", "voxel_points": "mean"}
    result = pretrain(make(fragments, steps=30, save_every=30, **pairs), tmp_path / "first")
    assert result.validations[30].IR > result.validations[0].IR
    checkpoint = tmp_path / "first" / "last.safetensors"
    again = pretrain(
        make(fragments, steps=1, model__init=str(checkpoint), **pairs), tmp_path / "second"
    )
    assert again.validations[0].IR == result.validations[30].IR
    with pytest.raises(ValueError, match="kernels = pair"):
        pretrain(make(fragments, model__init=str(checkpoint)), tmp_path / "third")
    wider = make(fragments, model__init=str(checkpoint), model__out_channels=64, **pairs)
    with pytest.raises(
        ValueError, match=r"network has out_channels = \d+, model.out_channels says 64"
    ):
        pretrain(wider, tmp_path / "fourth")


def test_frozen_statistics_stay_while_all_weights_are_trained(fragments, tmp_path):
    pretrain(make(fragments, steps=2), tmp_path / "first")
    checkpoint = tmp_path / "first" / "last.safetensors"
    options = {"model__init": str(checkpoint), "optimizer__frozen_statistics": True}
    # A validation in between must not bring the batch's statistics back.
    pretrain(make(fragments, steps=2, validate_every=1, **options), tmp_path / "second")
    before, after = weights(checkpoint), weights(tmp_path / "second" / "last.safetensors")
    same = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics and same == statistics


def test_a_new_network_has_no_statistics_to_freeze(fragments):
    with pytest.raises(InputError, match=r"frozen_statistics: needs model\.init"):
        make(fragments, optimizer__frozen_statistics=True)


def test_further_folders_are_trained_on_too_but_never_validated_on(fragments):
    alone, _ = load_pairs(make(fragments).data, 0)
    both, _ = load_pairs(
        make(fragments, data__extra_roots=[str(fragments)], data__validation_pairs=0).data, 0
    )
    assert len(both) == len(alone) + 6
    with pytest.raises(ValueError, match="trained and validated on"):
        load_pairs(make(fragments, data__extra_roots=[str(fragments)]).data, 0)


def write_pairs(root: Path, scene: str, seed: int) -> str:
    root.mkdir(parents=True)
    names = [f"{scene}@seq-01_{k}.npz" for k in range(2)]
    for name in names:
        np.savez(root / name, pcd=np.random.default_rng(seed).random((20, 3)))
    (root / f"{scene}@seq-01-0.30.txt").write_text(f"{names[0]} {names[1]} 0.7\n")
    return str(root)


@pytest.mark.parametrize(
    ("scene", "seed", "shared"),
    [
        ("room-0000", 2, False),  # numbered in each folder
        ("room-0000", 1, True),  # a copy
        ("kitchen", 2, True),  # the name of a place: perhaps in another layout, or thinned
    ],
)
@pytest.mark.parametrize("extra", [False, True])
def test_scenes_of_two_folders_are_told_apart(tmp_path, scene, seed, shared, extra):
    roots = {
        "root": write_pairs(tmp_path / "train", scene, seed=1),
        "validation_root": write_pairs(tmp_path / "held_out", scene, seed),
    }
    if extra:
        other = write_pairs(tmp_path / "first", "room-0001", seed=5)
        roots |= {"root": other, "extra_roots": [roots["root"]]}
    data = DataConfig(**roots)
    if shared:
        with pytest.raises(InputError, match=f"data: {scene} would be trained and validated on"):
            load_pairs(data, 0)
    else:
        train, held_out = load_pairs(data, 0)
        assert len(train) == 1 + extra and list(held_out) == [scene]


def test_a_room_is_not_trained_and_validated_on(tmp_path):
    root = write_pairs(tmp_path / "rooms", "room-0000", seed=1)
    with pytest.raises(InputError, match="data: room-0000 would be trained and validated on"):
        load_pairs(DataConfig(root, validation_root=f"{root}/../rooms"), 0)


SHAPES = {"roots": ["data/hands", "data/people"], "validation_roots": ["data/held_out"]}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"root": "data/first"}, "first"),
        ({"root": "data/first", "extra_roots": ["data/second"]}, "first, second"),
        ({"shapes": SHAPES, "root": "data/unused"}, "hands, people"),
        (
            {"shapes": {**SHAPES, "rooms": 0.3}, "root": "data/first", "extra_roots": ["second"]},
            "hands, people, first, second",
        ),
    ],
)
def test_a_checkpoint_names_all_that_it_was_trained_on(tmp_path, data, named):
    config = config_from_dict(PretrainConfig, {"data": data, "model": small()}, "test")
    save_model(tmp_path / "a.safetensors", build_model(config.model), config, 3, None)
    assert read_checkpoint(tmp_path / "a.safetensors").extra["data"] == named
