"""One axis of pretraining at a time: settings, seeds, scores; stopped and continued; the table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from test_transfer import peanuts  # noqa: F401

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.cli.transfer import main
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.io.config import load_config
from sparsefeat.pretrain import PretrainConfig
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.log import read_log
from sparsefeat.transfer import axis
from sparsefeat.transfer.axis import AxisResult, run_axis
from sparsefeat.transfer.axis_config import AxisConfig, ScanScoreConfig, SettingConfig
from sparsefeat.transfer.axis_report import axis_values, format_axis, save_axis
from sparsefeat.visualize import plot_spreads

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Four steps of a tiny network on three pieces of each of two bumpy sheets."""
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
    file = root / "base.yaml"
    file.write_text(f"""
data: {{root: {root}, scenes: [a], validation_pairs: 0, workers: 0}}
model: {json.dumps(small())}
loss: {{points: 64}}
optimizer: {{name: adam, lr: 1.0e-2}}
voxel_size: 0.1
batch_size: 1
epochs: null
steps: 4
validate_every: 0
save_every: 2
""")
    return file


def text_of(base: Path, peanuts: Path) -> str:  # noqa: F811
    """Two settings, one seed."""
    return f"""
task: axis
base: {base}
settings:
  cycle: {{}}
  nce: {{changes: [loss.name=point_info_nce]}}
seeds: [0]
scans:
  held out: {{scenes: [b], pairs: 2, points: 100, voxel_size: 0.1}}
  seen: {{scenes: [a], pairs: 2, points: 100, voxel_size: 0.1}}
  absent: {{root: {base.parent / "nowhere"}}}
shapes:
  absent: {{data: {{root: {base.parent / "nowhere"}}}, shots: [2]}}
  peanuts: {{
    data: {{name: folder, root: {peanuts}, normalize: area}}, held_out: 0.4, shots: [2], damaged_shots: [], scales: [1.0],
    voxel_size: 0.1, views: 1, damages: [clean, cut], rows: 100, test_rows: 100, max_iterations: 20, workers: 1, cache: null}}
"""


@pytest.fixture
def config(base, peanuts, tmp_path) -> AxisConfig:  # noqa: F811
    file = tmp_path / "axis.yaml"
    file.write_text(text_of(base, peanuts))
    return load_config(AxisConfig, file)


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_the_tool_trains_and_scores_every_setting(base, peanuts, tmp_path, capsys):  # noqa: F811
    file, output = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(text_of(base, peanuts))
    assert main([str(file), "--output", str(output)]) == 0
    table = capsys.readouterr().out
    assert "held out FMR" in table and "peanuts cut" in table and "1 seed" in table
    assert (output / "axis.png").stat().st_size > 5000
    records = json.loads((output / "result.json").read_text())["records"]
    assert [(r["setting"], r["measure"]) for r in records] == [
        ("cycle", "training"), ("cycle", "held out"), ("cycle", "peanuts"),
        ("nce", "training"), ("nce", "held out"), ("nce", "peanuts"),
    ], "what is absent, and scenes that a setting was trained on, are left out"  # fmt: skip
    by = {(r["setting"], r["measure"]): r["values"] for r in records}
    assert by["cycle", "training"]["pairs"] == by["nce", "training"]["pairs"] == 4
    assert set(by["cycle", "held out"]) == {"FMR", "IR"}
    assert set(by["nce", "peanuts"]) == {"clean", "cut"} and by["nce", "peanuts"]["clean"] > 0.5
    trained = from_pretrained(output / "trainings" / "nce-0" / "last.safetensors")
    assert trained.config["depth"] == 1


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_a_stopped_study_goes_on_within_the_training_and_ends_the_same(
    config, tmp_path, monkeypatch
):
    whole = run_axis(config, tmp_path / "whole", tmp_path / "whole" / "result.json")

    output, path = tmp_path / "stopped", tmp_path / "stopped" / "result.json"
    pretrain = axis.run

    def stopped(stage, folder, **options):
        """Like a signal after the third step of the second training."""
        if Path(folder).name != "nce-0":
            return pretrain(stage, folder, **options)
        asked = []
        pretrain(stage, folder, should_stop=lambda: len(asked) == 3 or asked.append(1), **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(axis, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_axis(config, output, path)
    kept = json.loads(path.read_text())["records"]
    assert [r["setting"] for r in kept] == ["cycle"] * 3
    assert len(read_log(output / "trainings" / "nce-0")[0]) == 3

    resumed = []

    def watched(stage, folder, **options):
        resumed.append((Path(folder).name, options["resume"]))
        return pretrain(stage, folder, **options)

    monkeypatch.setattr(axis, "run", watched)
    said = []
    again = run_axis(config, output, path, said.append)
    assert resumed == [("nce-0", True)]
    assert said == [f"nce, seed 0: {measure}" for measure in ("training", "held out", "peanuts")]
    assert json.loads(path.read_text())["records"] == again.records

    def numbers(result):
        return [{k: v for k, v in r["values"].items() if k != "seconds"} for r in result.records]

    assert numbers(again) == numbers(whole), "on the CPU an interruption changes no bit"
    with pytest.raises(InputError, match="another configuration"):
        config.settings["nce"].changes.append("loss.temperature=0.1")
        run_axis(config, output, path)


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
@pytest.mark.parametrize(
    "change, differing",
    [
        # What a run of its own may be resumed with would be a network of other settings here.
        ("steps=2", "steps"),
        ("data.root={copy}", "data"),
        ("loss.points=32", "loss"),
    ],
)
def test_a_training_of_other_settings_is_not_taken_over(config, base, tmp_path, change, differing):
    config.settings, config.shapes = {"cycle": SettingConfig()}, {}
    run_axis(config, tmp_path, tmp_path / "result.json")
    trained = (tmp_path / "trainings" / "cycle-0" / "last.safetensors").read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(base.parent, copy)
    config.settings = {"cycle": SettingConfig([change.format(copy=copy)])}
    with pytest.raises(
        InputError, match=f"cycle-0: a training with other settings in {differing};"
    ):
        run_axis(config, tmp_path, tmp_path / "other.json")
    assert (tmp_path / "trainings" / "cycle-0" / "last.safetensors").read_bytes() == trained


def test_settings_whose_folders_would_be_one_are_refused(config):
    two = {name: SettingConfig() for name in ("people: made", "people, made")}
    with pytest.raises(InputError, match="'people: made' and 'people, made' would share"):
        AxisConfig(**{**vars(config), "settings": two})


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_a_second_stage_shares_the_steps_and_starts_from_the_first(config, tmp_path):
    config.settings = {"two": SettingConfig(then=["loss.name=hardest_contrastive"])}
    config.shapes = {}
    records = run_axis(config, tmp_path, tmp_path / "result.json").records
    folder = tmp_path / "trainings" / "two-0"
    assert len(read_log(folder)[0]) == len(read_log(folder / "stage1")[0]) == 2
    assert records[0]["values"]["pairs"] == 4
    second = load_config(PretrainConfig, folder / "config.yaml")
    assert second.loss.name == "hardest_contrastive"
    assert second.model.init == str(folder / "stage1" / "last.safetensors")


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_settings_that_differ_in_the_voxel_size_for_shapes_share_one_training(config, tmp_path):
    choices = {"given": 0.12, "thumb": "rule of thumb", "tuned": "tuned without labels"}
    config.settings = {name: SettingConfig(voxel_size=how) for name, how in choices.items()}
    config.scans, config.train_once, config.seeds = {}, True, [3, 4]
    result = run_axis(config, tmp_path, tmp_path / "result.json")
    assert [folder.name for folder in (tmp_path / "trainings").iterdir()] == ["given-3"]
    sizes = axis_values(result)["peanuts voxel size"]
    assert sizes["given"] == [0.12, 0.12]
    # 2 % of the diagonal of the boxes of peanuts of area 1, the same for all labelled shapes
    assert sizes["thumb"][0] == sizes["thumb"][1] and 0.01 < sizes["thumb"][0] < 0.05
    assert len(sizes["tuned"]) == 2 and all(0 < size < 1 for size in sizes["tuned"])


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_scores_of_networks_of_two_seeds_are_not_mixed(config, tmp_path):
    path = tmp_path / "result.json"
    config.settings, config.shapes = {"cycle": SettingConfig()}, {}
    config.train_once, config.seeds = True, [3]
    run_axis(config, tmp_path, path)
    # The network is that of the first seed: another one that is scored makes it another study.
    config.seeds = [4, 3]
    with pytest.raises(InputError, match="another configuration"):
        run_axis(config, tmp_path, path)
    config.seeds = [3, 4]
    assert [r["seed"] for r in run_axis(config, tmp_path, path).records] == [3, 3, 4, 4]


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_trainings_from_other_first_weights_are_another_study(config, base, tmp_path):
    path, first = tmp_path / "result.json", tmp_path / "first.safetensors"
    model = load_config(PretrainConfig, base).model
    save_checkpoint(first, build_model(model), 0.1)
    config.settings = {"begun": SettingConfig([f"model.init={first}"])}
    config.shapes = {}
    records = run_axis(config, tmp_path, path).records
    assert run_axis(config, tmp_path, path).records == records
    torch.manual_seed(1)
    save_checkpoint(first, build_model(model), 0.1)
    with pytest.raises(InputError, match="another configuration"):
        run_axis(config, tmp_path, path)


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_a_lost_network_is_trained_again_only_to_be_scored(config, tmp_path, monkeypatch):
    path, said = tmp_path / "result.json", []
    config.settings = {"cycle": SettingConfig()}
    config.shapes = {}
    run_axis(config, tmp_path, path)
    shutil.rmtree(tmp_path / "trainings")
    records = json.loads(path.read_text())["records"]
    assert run_axis(config, tmp_path, path, said.append).records == records
    assert said == [] and not (tmp_path / "trainings").exists()
    # A score is missing; the training for it is stopped after it saved its first two steps.
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "records": records[:1]}))
    pretrain = axis.run

    def stopped(stage, folder, **options):
        asked = []
        pretrain(stage, folder, should_stop=lambda: len(asked) == 2 or asked.append(1), **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(axis, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_axis(config, tmp_path, path)
    assert (tmp_path / "trainings" / "cycle-0" / "last.safetensors").is_file()
    monkeypatch.setattr(axis, "run", pretrain)
    again = run_axis(config, tmp_path, path, said.append)
    assert said == ["cycle, seed 0: training", "cycle, seed 0: held out"]
    assert again.records == records, "the same network has the same score"


def test_the_table_has_mean_and_sample_deviation_over_seeds(config, tmp_path):
    config.seeds = [0, 1, 2]
    config.settings = {"a": SettingConfig(), "b": SettingConfig(), "c": SettingConfig()}
    records = [
        {"setting": setting, "seed": seed, "measure": measure, "values": values}
        for setting, seed, measure, values in (
            ("a", 0, "training", {"pairs": 300, "loss": 1.0, "seconds": 9.0}),
            ("a", 0, "rooms", {"FMR": 0.5, "IR": 0.1}),
            ("a", 1, "rooms", {"FMR": 0.6, "IR": 0.1}),
            ("a", 2, "rooms", {"FMR": 0.7, "IR": 0.1}),
            ("b", 0, "rooms", {"FMR": 0.25, "IR": 0.3}),
        )
    ]
    result = AxisResult(config, records)
    assert axis_values(result) == {
        "rooms FMR": {"a": [0.5, 0.6, 0.7], "b": [0.25], "c": []},
        "rooms IR": {"a": [0.1, 0.1, 0.1], "b": [0.3], "c": []},
    }
    # of 0.5, 0.6, 0.7: the mean is 0.6, the deviation sqrt((0.01 + 0 + 0.01) / 2) = 0.1
    assert format_axis(result).splitlines() == [
        "mean ± standard deviation, 3 seeds      rooms FMR       rooms IR",
        "a                                   0.600 ± 0.100  0.100 ± 0.000",
        "b                                           0.250          0.300",
        "c",
    ]
    (picture,) = save_axis(result, tmp_path)
    assert picture.stat().st_size > 5000
    assert save_axis(AxisResult(config, []), tmp_path) == []


def test_what_cannot_be_is_refused_in_one_line(config, base, tmp_path):
    path = tmp_path / "result.json"
    for changes, message in (
        ({"changes": ["steps=null", "epochs=1"]}, "has epochs, expected steps"),
        ({"changes": ["loss.nme=cycle"]}, "did you mean"),
        ({"base": "nothing"}, "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            run_axis(AxisConfig(**{**vars(config), **changes}), tmp_path, path)
    only_absent = {"absent": config.shapes["absent"]}
    with pytest.raises(InputError, match=r"none of .*nowhere is there"):
        run_axis(AxisConfig(**{**vars(config), "shapes": only_absent}), tmp_path, path)
    for changes, message in (
        ({"settings": {}}, "must not be empty"),
        ({"scans": {}, "shapes": {}}, "must not be empty"),
        ({"seeds": [0, 0]}, "seeds: expected each of them once"),
        ({"seeds": [-1]}, "seeds: expected at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            AxisConfig(**{**vars(config), **changes})
    with pytest.raises(InputError, match="voxel_size must be positive"):
        SettingConfig(voxel_size=0.0)
    for changes in ({"voxel_size": 0.0}, {"pairs": 0}, {"min_overlap": 2.0}):
        with pytest.raises(InputError, match=next(iter(changes))):
            ScanScoreConfig(**changes)
    config.shapes["peanuts"].shots = [1, 2]
    with pytest.raises(InputError, match=r"shapes.peanuts: expected one kind of labels and one"):
        AxisConfig(**vars(config))


@pytest.mark.filterwarnings("ignore::sparsefeat.errors.InputWarning")
def test_shapes_that_cannot_be_learned_from_are_refused_before_a_training(config, tmp_path):
    study, said = config.shapes["peanuts"], []
    for change, message in (
        ({"shots": [9]}, "not 9"),
        ({"held_out": 0.0, "data": replace(study.data, test="all")}, "share 5 shapes"),
    ):
        config.shapes = {"peanuts": replace(study, **change)}
        with pytest.raises(InputError, match=message):
            run_axis(config, tmp_path, tmp_path / "result.json", said.append)
    assert not said


def test_scans_that_are_absent_are_left_out_with_a_warning(config, tmp_path):
    config.settings = {"cycle": SettingConfig()}
    config.shapes, config.scans = {}, {"absent": config.scans["absent"]}
    with pytest.warns(InputWarning, match="scans.absent: .*nowhere is not there"):
        records = run_axis(config, tmp_path, tmp_path / "result.json").records
    assert [r["measure"] for r in records] == ["training"]


@pytest.mark.parametrize("name", ["locality", "loss", "data", "receptive_field"])
def test_the_shipped_axes_can_be_read_and_all_settings_have_one_cost(name):
    config = load_config(AxisConfig, CONFIGS / "study" / f"{name}.yaml")
    costs = {
        sum(stage.steps * stage.batch_size for stage in axis._stages(config, setting))
        for setting in config.settings.values()
    }
    assert costs == {300} and len(config.seeds) == 3


def test_dilation_is_that_of_all_levels():
    config = load_config(AxisConfig, CONFIGS / "study" / "locality.yaml")
    stages = {name: axis._stages(config, setting) for name, setting in config.settings.items()}
    networks = {name: build_model(stage.model) for name, (stage,) in stages.items()}
    assert networks["dilation 2"].config["dilation"] == [2, 2, 2, 2]
    assert networks["recommended"].config["dilation"] == [1, 1, 1, 1]
    assert networks["depth 1"].config["depth"] == 1


def test_a_picture_needs_scores_of_the_same_settings(tmp_path):
    for scores in ({}, {"IR": {}}, {"IR": {"a": [1.0]}, "FMR": {"b": [1.0]}}):
        with pytest.raises(InputError, match="expected scores of the same settings"):
            plot_spreads(scores, tmp_path / "none.png")
