"""A run is not lost: beginning again, going on, damaged states and logs, options that are wrong."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small

from sparsefeat.checkpoint import read_checkpoint
from sparsefeat.cli.pretrain import main
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.io.config import config_from_dict, load_config, save_config
from sparsefeat.pretrain import PretrainConfig, pretrain
from sparsefeat.pretrain.build import build_model, build_optimizer
from sparsefeat.pretrain.log import read_log
from sparsefeat.pretrain.state import load_state, save_state

STEPS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PretrainConfig:
    """Four steps of a tiny network on three pieces of two bumpy sheets."""
    root = tmp_path_factory.mktemp("fragments")
    for scene in ("a", "b"):
        rng = np.random.default_rng(ord(scene))
        for k in range(3):
            xy = rng.uniform((0.2 * k, 0), (0.2 * k + 1, 1), (1500, 2))
            piece = np.column_stack([xy, 0.2 * np.sin(9 * xy[:, 0]) * np.cos(7 * xy[:, 1])])
            np.savez(root / f"{scene}@seq-01_{k}.npz", pcd=piece.astype(np.float32))
        lines = [
            f"{scene}@seq-01_{i}.npz {scene}@seq-01_{j}.npz 0.7\n"
            for i, j in ((0, 1), (1, 2), (0, 2))
        ]
        (root / f"{scene}@seq-01-0.30.txt").write_text("".join(lines))
    data = {
        "root": str(root),
        "scenes": ["a"],
        "validation_scenes": ["b"],
        "validation_pairs": 1,
        "workers": 0,
    }
    settings = {
        "data": data,
        "model": small(),
        "loss": {"points": 64},
        "optimizer": {"name": "adam", "lr": 1e-2, "schedule": "cosine"},
        "voxel_size": 0.1, "batch_size": 1, "epochs": None, "steps": STEPS, "validate_every": 0, "save_every": 2,
        "pictures": False,
    }  # fmt: skip
    return config_from_dict(PretrainConfig, settings, "test")


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pretrain(config, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_beginning_again_without_saying_so_is_refused_and_touches_nothing(config, run):
    before = content(run)
    with pytest.raises(
        InputError, match=rf"holds a run .* of {STEPS} steps; --resume .* --overwrite"
    ):
        pretrain(config, run)
    assert content(run) == before


def test_a_best_network_that_cannot_be_gone_on_from_is_not_overwritten_either(config, run):
    for name in ("last.pt", "last.safetensors"):
        (run / name).unlink()
    with pytest.raises(InputError, match=r"of 4 steps; --overwrite"):
        pretrain(config, run)


def test_a_folder_in_which_nothing_was_saved_yet_can_be_begun_in(config, run):
    for name in ("last.pt", "last.safetensors"):
        (run / name).unlink()
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text(
        "\n".join(lines[:2]) + "\n"
    )  # the validation before the first step, and that step
    assert pretrain(config, run).step == STEPS


def test_overwriting_gives_the_run_anew(config, run):
    before = content(run)
    (run / "last.safetensors").write_bytes(b"old")
    pretrain(config, run, overwrite=True)
    after = content(run)
    # The log has times. All others have the same bytes, headers included.
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in after if name != "log.jsonl")


@pytest.mark.parametrize(
    "change", [{"model__init": "last.safetensors"}, {"optimizer__only": ["absent"]}], ids=str
)
def test_what_cannot_begin_deletes_nothing(config, run, change):
    wrong = copy.deepcopy(config)
    for name, value in change.items():
        section, key = name.split("__")
        value = str(run / value) if key == "init" else value
        setattr(getattr(wrong, section), key, value)
    before = content(run)
    with pytest.raises(InputError, match=r"model.init .*: lies in the run|optimizer.only"):
        pretrain(wrong, run, overwrite=True)
    assert content(run) == before


def test_a_configuration_that_says_the_same_keeps_its_comments(config, tmp_path):
    save_config(tmp_path / "config.yaml", config)
    mine = "# my notes\n" + (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(mine)
    assert main([str(tmp_path / "config.yaml"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "config.yaml").read_text() == mine


def test_the_runs_own_options_do_not_replace_the_users_file(config, tmp_path, capsys):
    save_config(tmp_path / "config.yaml", config)
    before = content(tmp_path)
    assert main([str(tmp_path / "config.yaml"), "steps=2", "--output", str(tmp_path)]) == 2
    assert "the run would write its own options there" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_resuming_with_other_pairs_is_refused(config, run):
    other = copy.deepcopy(config)
    other.data.min_overlap = 0.5
    with pytest.raises(InputError, match=r"was made with data.min_overlap = 0.3, .* says 0.5"):
        pretrain(other, run, resume=True)


def test_the_configuration_of_a_resumed_run_is_the_one_that_it_goes_on_with(config, run):
    longer = replace(config, steps=STEPS + 2, save_every=1)
    pretrain(longer, run, resume=True)
    assert load_config(PretrainConfig, run / "config.yaml") == longer
    # A finished run stays as it is.
    before = content(run)
    pretrain(replace(config, steps=STEPS), run, resume=True)
    assert content(run) == before


@pytest.mark.parametrize("overfit", [False, True])
def test_a_run_on_one_batch_and_a_real_one_do_not_continue_each_other(config, tmp_path, overfit):
    run, longer = tmp_path / "run", replace(config, steps=STEPS + 1)
    pretrain(config, run, overfit=overfit)
    before = content(run)
    with pytest.raises(InputError, match=r"last.pt: was made with(out)? --overfit and is resumed"):
        pretrain(longer, run, resume=True, overfit=not overfit)
    assert content(run) == before
    assert pretrain(longer, run, resume=True, overfit=overfit).step == STEPS + 1


@pytest.mark.parametrize("overfit", [False, True])
def test_a_state_that_does_not_say_whether_it_is_of_one_batch_is_resumed(config, run, overfit):
    state = torch.load(run / "last.pt", weights_only=True)
    del state["overfit"]
    torch.save(state, run / "last.pt")
    assert pretrain(replace(config, steps=5), run, resume=True, overfit=overfit).step == 5


OTHER_PAIRS = {"validation_pairs": 2, "validation_points": 300, "validation_scenes": ["b@seq-01"]}


@pytest.mark.parametrize("changed", OTHER_PAIRS)
def test_validations_of_other_pairs_do_not_count_any_more(config, run, changed, capsys, tmp_path):
    state = torch.load(run / "last.pt", weights_only=True)
    state["best"] = 2.0  # that no validation reaches
    torch.save(state, run / "last.pt")
    data = replace(config.data, **{changed: OTHER_PAIRS[changed]})
    longer = replace(config, steps=STEPS + 1, data=data)
    save_config(tmp_path / "longer.yaml", longer)
    assert main([str(tmp_path / "longer.yaml"), "--output", str(run), "--resume"]) == 0
    shown = capsys.readouterr()
    assert "validates on other pairs than before" in shown.err
    table = [line.split()[0] for line in shown.out.splitlines() if line[:6] in ("before", "after ")]
    assert table == ["after"]
    assert [line["step"] for line in read_log(run)[1]] == [STEPS + 1]
    best = torch.load(run / "last.pt", weights_only=True)["best"]
    assert best == read_log(run)[1][0]["validation"]["IR"]
    assert read_checkpoint(run / "best.safetensors").extra["step"] == STEPS + 1
    # The lines of the log are kept.
    assert len((run / "log.jsonl").read_text().splitlines()) == STEPS + 1 + 3


def test_a_finished_run_is_not_compared_on_other_pairs(config, run, capsys, tmp_path):
    other = replace(config, data=replace(config.data, validation_pairs=2))
    save_config(tmp_path / "other.yaml", other)
    before = content(run)
    assert main([str(tmp_path / "other.yaml"), "--output", str(run), "--resume"]) == 0
    shown = capsys.readouterr()
    assert "validates on other pairs than before" in shown.err
    assert not any(line.startswith(("before", "after")) for line in shown.out.splitlines())
    assert content(run) == before


def test_a_run_that_stops_validating_keeps_its_best_network(config, run):
    kept = (run / "best.safetensors").read_bytes()
    data = replace(config.data, validation_pairs=0)
    pretrain(replace(config, steps=STEPS + 1, data=data), run, resume=True)
    assert (run / "best.safetensors").read_bytes() == kept
    assert [line["step"] for line in read_log(run)[1]] == [0, STEPS]


def test_moved_data_are_the_same_pairs(config, run, tmp_path):
    moved = shutil.copytree(config.data.root, tmp_path / "moved" / Path(config.data.root).name)
    state = torch.load(run / "last.pt", weights_only=True)
    state["best"] = 2.0
    torch.save(state, run / "last.pt")
    longer = replace(config, steps=STEPS + 1, data=replace(config.data, root=str(moved)))
    pretrain(longer, run, resume=True)
    assert torch.load(run / "last.pt", weights_only=True)["best"] == 2.0
    assert [line["step"] for line in read_log(run)[1]] == [0, STEPS, STEPS + 1]


def test_resume_and_overwrite_contradict_each_other(config, run):
    with pytest.raises(InputError, match="resume and overwrite"):
        pretrain(config, run, resume=True, overwrite=True)


def test_resuming_a_finished_run_says_so_prints_its_table_and_exits_0(
    config, run, tmp_path, capsys
):
    save_config(tmp_path / "config.yaml", config)
    before = content(run)
    assert main([str(tmp_path / "config.yaml"), "--output", str(run), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert f"this run is finished, all {STEPS} steps were done before" in printed
    table = [line.split() for line in printed.splitlines() if line.startswith(("before", "after"))]
    assert [row[0] for row in table] == ["before", "after"]
    logged = read_log(run)[1]
    assert [float(row[2]) for row in table] == [
        round(line["validation"]["IR"], 3) for line in logged
    ]
    assert content(run) == before


def test_resuming_nothing_makes_no_folder(config, tmp_path):
    with pytest.raises(InputError, match="nothing to resume from"):
        pretrain(config, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


# ---- damaged states


def _without(state: dict, *keys: str) -> dict:
    for key in keys[:-1]:
        state = state[key]
    del state[keys[-1]]
    return state


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: _without(s, "model"), "has no model"),
        (lambda s: _without(s, "model", next(iter(s["model"]))), "1 missing"),
        (lambda s: _without(s, "optimizer"), "has no optimizer"),
        (lambda s: _without(s["optimizer"], "state", 0), "exp_avg of parameter 0 is missing"),
        (
            lambda s: _without(s["optimizer"]["state"], 1, "exp_avg_sq"),
            "exp_avg_sq of parameter 1 is missing",
        ),
        (
            lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)),
            "exp_avg of parameter 0 has shape",
        ),
        (lambda s: _without(s["optimizer"], "param_groups"), "does not fit the run"),
        (lambda s: s.update(step="four"), "has a str for its step"),
        (lambda s: s.update(step=-1), "its step is -1"),
    ],
)
def test_a_state_with_something_missing_is_refused(config, run, damage, message):
    state = torch.load(run / "last.pt", weights_only=True)
    damage(state)
    torch.save(state, run / "last.pt")
    with pytest.raises(InputError, match=message) as raised:
        pretrain(config, run, resume=True)
    assert "last.pt" in str(raised.value)


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="needs torch 2.3")
def test_a_run_in_half_precision_that_skipped_every_step_so_far_is_resumed(config, tmp_path):
    def parts():
        model = build_model(config.model)
        return model, build_optimizer(model, config), torch.amp.GradScaler("cpu")

    model, optimizer, scaler = parts()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()
    save_state(tmp_path / "last.pt", config, model, optimizer, scaler, 1, -1.0, False)
    model, optimizer, again = parts()
    found = load_state(tmp_path / "last.pt", config, model, optimizer, again, False)
    assert found.step == 1 and again.get_scale() == scaler.get_scale() == 2**15
    # Without a scaler every step has moments.
    with pytest.raises(InputError, match="exp_avg of parameter 0 is missing"):
        off = torch.amp.GradScaler("cpu", enabled=False)
        load_state(tmp_path / "last.pt", config, *parts()[:2], off, False)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda path: path.write_text("steps: 4"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save({"weights": torch.zeros(3)}, path),
    ],
)
def test_another_file_or_a_cut_one_is_refused_in_one_line(config, run, make):
    make(run / "last.pt")
    with pytest.raises(InputError, match="last.pt: ") as raised:
        pretrain(config, run, resume=True)
    assert "\n" not in str(raised.value)


def test_a_damaged_log_line_costs_that_line_alone(config, run):
    lines = (run / "log.jsonl").read_text().splitlines()
    lines[2] = lines[2][:20]
    lines[3] = "[1, 2]"
    (run / "log.jsonl").write_text("\n".join([*lines, '{"step": 5, "lo']))
    with pytest.warns(InputWarning, match="is damaged") as caught:
        steps, _ = read_log(run)
    assert ["line 3" in str(w.message) or "line 4" in str(w.message) for w in caught] == [
        True,
        True,
    ]
    assert [line["step"] for line in steps] == [1, 4]


def test_a_run_resumes_past_a_damaged_log_line(config, tmp_path):
    asked = iter([False, False, False, True])
    pretrain(config, tmp_path / "run", should_stop=lambda: next(asked))
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    lines[1] = "damaged"
    (tmp_path / "run/log.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.warns(InputWarning, match="line 2 is damaged"):
        assert pretrain(config, tmp_path / "run", resume=True).step == STEPS
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [2, 3, 4]


# ---- wrong options are found before anything is made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("optimizer.lr=-1", "lr"),
        ("optimizer.momentum=1.5", "momentum"),
        ("optimizer.warmup_steps=-1", "warmup_steps"),
        ("optimizer.clip_norm=0", "clip_norm"),
        ("rotation.max_deg=200", "max_deg"),
        ("model.name=ResUNetBN9", "ResUNetBN9"),
        ("model.out_channels=0", "out_channels"),
        ("seed=-1", "seed"),
        ("validate_every=-1", "validate_every"),
        ("voxel_size=inf", "voxel_size"),
        ("data.workers=-1", "workers"),
        ("data.min_overlap=2", "min_overlap"),
        ("data.rooms.frames=1", "frames"),
        ("--device=foo", "foo"),
    ],
)
def test_wrong_options_make_nothing(tmp_path, capsys, given, message):
    (tmp_path / "config.yaml").write_text(
        f"data: {{root: {tmp_path}/rooms, rooms: {{rooms: 1}}}}\nmodel: {{}}\noptimizer: {{}}\nrotation: {{}}\n"
        "epochs: null\nsteps: 1\n"
    )
    assert main([str(tmp_path / "config.yaml"), given, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_killed_worker_is_one_line(config, tmp_path, monkeypatch):
    from sparsefeat.pretrain.pairs import PairDataset

    monkeypatch.setattr(
        PairDataset, "__getitem__", lambda self, request: os.kill(os.getpid(), signal.SIGKILL)
    )
    with_worker = replace(config, data=replace(config.data, workers=1, validation_pairs=0))
    with pytest.raises(InputError, match="a worker process was killed"):
        pretrain(with_worker, tmp_path / "run")
