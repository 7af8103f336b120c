"""tools/evaluate.py matching: what it prints and writes, its baselines, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.cli import evaluate
from sparsefeat.evaluate.descriptors import baseline_descriptor, random_network
from sparsefeat.extract import FeatureExtractor
from sparsefeat.io.gtlog import write_info, write_log
from sparsefeat.io.pointcloud import write_ply
from sparsefeat.models import create_model


def small_network():
    config = {
        "in_channels": 1,
        "out_channels": 8,
        "conv1_kernel_size": 3,
        "normalize_feature": True,
    }
    return create_model("ResUNetBN2C", **config)


@pytest.fixture
def tool(monkeypatch):
    class Positions:
        voxel_size = 0.05
        model = torch.nn.Identity()

        def __call__(self, points, **options):
            return points

    monkeypatch.setattr("sparsefeat.checkpoint.weights_digest", lambda name: name)
    monkeypatch.setattr(
        "sparsefeat.evaluate.descriptors.checkpoint_descriptor", lambda *args: Positions()
    )
    return evaluate


@pytest.fixture
def scene_folder(tmp_path):
    """One scene in the test layout: three fragments of one cloud, all in the same frame."""
    root = tmp_path / "data"
    (root / "scene").mkdir(parents=True)
    (root / "scene-evaluation").mkdir()
    points = np.random.default_rng(0).random((400, 3)) * [3, 2, 2]
    for k in range(3):
        write_ply(root / "scene" / f"cloud_bin_{k}.ply", points)
    pairs = [(0, 1), (0, 2), (1, 2)]
    write_log(root / "scene-evaluation" / "gt.log", [(i, j, 3, np.eye(4)) for i, j in pairs])
    write_info(
        root / "scene-evaluation" / "gt.info", [(i, j, 3, np.eye(6) * 100) for i, j in pairs]
    )
    return root


def test_the_command_prints_a_table_and_writes_json_and_pictures(
    tool, scene_folder, tmp_path, capsys
):
    report = tmp_path / "out.json"
    code = tool.main(
        ["matching", "--checkpoint", "x", "--data", str(scene_folder), "--json", str(report)]
        + ["--plots", str(tmp_path / "plots"), "--max-pairs-per-scene", "2", "--scenes", "scene"]
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "1.0000 ± 0.0000" in printed and "FMR_mutual" in printed
    written = json.loads(report.read_text())
    assert written["pairs"] == "3DMatch" and written["FMR"] == 1 and written["n_pairs"] == 2
    assert written["baselines"] == {} and written["settings"]["tau1"] == 0.1
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {
        "fmr_over_tau1.png",
        "fmr_over_tau2.png",
        "ir_over_tau1.png",
        "matches_scene.png",
    } <= names


def test_the_command_reads_a_checkpoint_and_compares_it_with_random_weights(
    scene_folder, tmp_path, capsys
):
    save_checkpoint(tmp_path / "small.safetensors", small_network(), 0.2)
    report = tmp_path / "out.json"
    arguments = [
        "matching",
        "--checkpoint",
        str(tmp_path / "small.safetensors"),
        "--data",
        str(scene_folder),
    ]
    assert (
        evaluate.main(
            [
                *arguments,
                "--baselines",
                "random",
                "--rotate",
                "--salient",
                "--orientation",
                "unknown",
                "--json",
                str(report),
            ]
        )
        == 0
    )
    written = json.loads(report.read_text())
    assert written["settings"]["voxel_size"] == 0.2 and written["settings"]["rotate"] is True
    assert written["settings"]["salient"] is True
    assert written["settings"]["orientation"] == "unknown"
    assert (
        set(written["baselines"]) == {"random"} and written["baselines"]["random"]["n_pairs"] == 3
    )
    assert "checkpoint" in capsys.readouterr().out


def test_the_random_baseline_has_the_views_and_scales_of_the_checkpoint(
    scene_folder, tmp_path, monkeypatch
):
    save_checkpoint(tmp_path / "small.safetensors", small_network(), 0.2)
    asked = []
    call = FeatureExtractor.__call__

    def describe(extractor, points, interpolation="nearest", **options):
        asked.append((interpolation, options["views"], options["scales"]))
        return call(extractor, points, interpolation, **options)

    monkeypatch.setattr(FeatureExtractor, "__call__", describe)
    report = tmp_path / "out.json"
    command = ["matching", "--checkpoint", tmp_path / "small.safetensors", "--data", scene_folder]
    command += ["--baselines", "random", "--interpolation", "trilinear", "--views", "2"]
    command += ["--scales", "1", "2", "--points", "50", "--json", report]
    assert evaluate.main([*map(str, command)]) == 0
    assert asked == [("trilinear", 2, [1.0, 2.0])] * 6  # three fragments, each network
    assert json.loads(report.read_text())["settings"]["scales"] == [1.0, 2.0]


def test_the_report_never_replaces_an_input(tool, scene_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("listed.txt").write_text("*.ply 0 0 0\n")
    command = [
        "matching",
        "--checkpoint",
        "x",
        "--data",
        str(scene_folder),
        "--json",
        "data/../listed.txt",
    ]
    assert tool.main([*command, "--viewpoints", "listed.txt"]) == 2
    assert "data/../listed.txt: would replace an input" in capsys.readouterr().err
    assert Path("listed.txt").read_text() == "*.ply 0 0 0\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "/nowhere"], "/nowhere"),
        (["--scenes", "kitchen"], "kitchen"),
        (["--pairs", "3DLoMatch"], "gt.log"),
        (["--baselines", "sift"], "sift"),
        (["--max-pairs-per-scene", "0"], "max-pairs-per-scene"),
        (["--json", "/nowhere/x.json"], "/nowhere"),
        (["--points", "0"], "points"),
        (["--tau1", "-1"], "tau1"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(tool, scene_folder, capsys, change, message):
    assert tool.main(["matching", "--checkpoint", "x", "--data", str(scene_folder), *change]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1] and "Traceback" not in "".join(error)


def test_a_log_cut_in_the_middle_is_one_line_and_exit_2(tool, scene_folder, capsys):
    log = scene_folder / "scene-evaluation" / "gt.log"
    log.write_text(log.read_text()[:-90])
    assert tool.main(["matching", "--checkpoint", "x", "--data", str(scene_folder)]) == 2
    assert "gt.log" in capsys.readouterr().err


def test_interrupting_the_command_gives_130(tool, scene_folder, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsefeat.evaluate.matching.evaluate_matching", interrupt)
    assert tool.main(["matching", "--checkpoint", "x", "--data", str(scene_folder)]) == 130


# ---- the random baseline


def test_the_random_baseline_has_the_architecture_but_not_the_weights():
    torch.manual_seed(2)
    model = small_network()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    a, b, c = random_network(model, 0), random_network(model, 0), random_network(model, 1)
    assert (torch.get_rng_state() == state).all()
    weights = [dict(m.named_parameters()) for m in (model, a, b, c)]
    assert weights[0].keys() == weights[1].keys()
    key = next(k for k in weights[0] if k.endswith("kernel"))
    assert (weights[1][key] == weights[2][key]).all()
    assert (
        not (weights[1][key] == weights[3][key]).all()
        and not (weights[0][key] == weights[1][key]).all()
    )


def test_the_random_baseline_normalises_by_the_cloud_at_hand():
    points = np.random.default_rng(0).random((600, 3)) * [1, 1, 0.1]
    network = random_network(small_network())
    features = FeatureExtractor(network, 0.05)(points)
    again = FeatureExtractor(network, 0.05)(points)
    assert features.shape == (600, 8) and np.isfinite(features).all()
    assert (features == again).all()
    assert len(np.unique(features.round(4), axis=0)) > 100


def test_the_random_baseline_is_of_the_extractors_unit():
    extractor = FeatureExtractor(small_network(), 50.0, unit="mm")
    assert baseline_descriptor("random", extractor, 50.0).unit == "mm"


def test_a_list_of_viewpoints_that_fits_no_fragment_is_said(tool, scene_folder, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("scene/cloud_bin_?.ply 0 0 0\nscene/cloud_bin_9.ply 0 0 0\n")
    arguments = ["matching", "--checkpoint", "x", "--data", str(scene_folder)]
    assert tool.main([*arguments, "--max-pairs-per-scene", "1", "--viewpoints", str(listed)]) == 0
    assert f"{listed}: no input fits scene/cloud_bin_9.ply (line 2)" in capsys.readouterr().err


def test_pictures_show_the_turned_fragments_that_were_measured(
    tool, scene_folder, tmp_path, monkeypatch
):
    """Positions as features find their partners until fragments are turned."""
    drawn = {}

    def draw_matches(source, target, matches, inliers, path, clouds, **options):
        drawn["share"], drawn["clouds"], drawn["points"] = inliers.mean(), clouds, (source, target)

    monkeypatch.setattr("sparsefeat.evaluate.pictures.draw_matches", draw_matches)
    arguments = ["matching", "--checkpoint", "x", "--data", str(scene_folder), "--rotate"]
    arguments += ["--max-pairs-per-scene", "1", "--json", str(tmp_path / "out.json")]
    assert tool.main([*arguments, "--plots", str(tmp_path / "plots")]) == 0
    assert drawn["share"] < 0.5
    assert drawn["share"] == pytest.approx(json.loads((tmp_path / "out.json").read_text())["IR"])
    for cloud, points in zip(drawn["clouds"], drawn["points"], strict=True):
        assert {*map(tuple, points.round(9))} <= {*map(tuple, cloud.round(9))}
