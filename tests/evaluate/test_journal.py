"""An evaluation that was stopped goes on where it was, with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefeat.cli import evaluate
from sparsefeat.errors import InputError
from sparsefeat.evaluate.journal import PairJournal
from sparsefeat.evaluate.matching import TAU1_CURVE, Matches, PairResult
from sparsefeat.io.gtlog import write_info, write_log
from sparsefeat.io.pointcloud import write_ply

SETTINGS = {"data": "here", "seed": 0}


def result(i: int, error: float | None = None) -> PairResult:
    matches = Matches(7, 3, np.arange(len(TAU1_CURVE)))
    return PairResult("scene", i, i + 1, matches, matches, error)


def same(a: PairResult, b: PairResult) -> bool:
    plain = [
        (r.scene, r.i, r.j, r.registration_error, r.nearest.count, r.mutual.inliers) for r in (a, b)
    ]
    return plain[0] == plain[1] and np.array_equal(a.nearest.closer, b.nearest.closer)


@pytest.mark.parametrize("error", [None, 0.1 + 0.2, float("inf")])
def test_pairs_come_back_as_they_were_kept(tmp_path, error):
    with PairJournal(tmp_path / "a.part", SETTINGS, resume=False) as journal:
        journal.keep("net", result(0, error))
    with PairJournal(tmp_path / "a.part", SETTINGS, resume=True) as journal:
        assert same(journal.known["net"]["scene", 0, 1], result(0, error))


def test_a_cut_or_damaged_line_costs_its_pair_alone(tmp_path):
    path = tmp_path / "a.part"
    with PairJournal(path, SETTINGS, resume=False) as journal:
        for i in range(4):
            journal.keep("net", result(i))
    lines = path.read_text().splitlines()
    lines[2] = "{}"
    path.write_text("\n".join(lines)[:-9])
    with PairJournal(path, SETTINGS, resume=True) as journal:
        assert sorted(i for _, i, _ in journal.known["net"]) == [0, 2]


def test_pairs_of_other_settings_and_pairs_that_nobody_asked_for_are_refused(tmp_path):
    path = tmp_path / "a.part"
    with PairJournal(path, SETTINGS, resume=False) as journal:
        journal.keep("net", result(0))
    before = path.read_bytes()
    with pytest.raises(InputError, match="other settings: seed 0 and not 1"):
        PairJournal(path, SETTINGS | {"seed": 1}, resume=True)
    with pytest.raises(InputError, match="1 pairs that were measured before; --resume"):
        PairJournal(path, SETTINGS, resume=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("first", [None, "", "[]", "notes of somebody"])
def test_a_file_that_has_lost_its_first_line_is_left_alone(tmp_path, first, resume):
    path = tmp_path / "a.part"
    with PairJournal(path, SETTINGS, resume=False) as journal:
        journal.keep("net", result(0))
    pair = path.read_text().splitlines()[1]
    path.write_text("".join(f"{line}\n" for line in (first, pair) if line is not None))
    before = path.read_bytes()
    message = "its first line is damaged" if resume else "1 pairs that were measured before"
    with pytest.raises(InputError, match=message):
        PairJournal(path, SETTINGS, resume)
    assert path.read_bytes() == before
    path.write_text("notes of somebody\n")
    with pytest.raises(InputError, match="its first line is damaged, expected settings; delete it"):
        PairJournal(path, SETTINGS, resume)


def test_a_setting_that_is_off_may_be_missing_in_the_file_of_an_earlier_version(tmp_path):
    path = tmp_path / "a.part"
    with PairJournal(path, SETTINGS | {"seed": 0}, resume=False) as journal:
        journal.keep("net", result(0))
    with pytest.raises(InputError, match="other settings: salient None and not True"):
        PairJournal(path, SETTINGS | {"salient": True}, resume=True)
    for off in (False, None):
        with PairJournal(path, SETTINGS | {"salient": off}, resume=True) as journal:
            assert list(journal.known) == ["net"]
    # A number is not a switch.
    with pytest.raises(InputError, match="other settings: seed 0 and not None"):
        PairJournal(path, SETTINGS | {"seed": None}, resume=True)


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """Three pairs of noisy fragments, described by their coordinates."""

    class Positions:
        voxel_size = 0.05
        model = torch.nn.Identity()

        def __call__(self, points, **options):
            return points

    monkeypatch.setattr("sparsefeat.checkpoint.weights_digest", lambda name: name)
    monkeypatch.setattr(
        "sparsefeat.evaluate.descriptors.checkpoint_descriptor", lambda *args: Positions()
    )
    root = tmp_path / "data"
    (root / "scene").mkdir(parents=True)
    (root / "scene-evaluation").mkdir()
    rng = np.random.default_rng(0)
    points = rng.random((400, 3)) * [3, 2, 2]
    for k in range(3):
        write_ply(root / "scene" / f"cloud_bin_{k}.ply", points + rng.normal(0, 0.08, points.shape))
    pairs = [(0, 1), (0, 2), (1, 2)]
    write_log(root / "scene-evaluation" / "gt.log", [(i, j, 3, np.eye(4)) for i, j in pairs])
    write_info(
        root / "scene-evaluation" / "gt.info", [(i, j, 3, np.eye(6) * 100) for i, j in pairs]
    )
    return ["matching", "--checkpoint", "x", "--data", str(root), "--json"]


def test_a_stopped_evaluation_resumes_to_the_same_bytes(command, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    assert evaluate.main([*command, str(whole)]) == 0
    from sparsefeat.evaluate import matching

    measure, asked = matching._evaluate_pair, []

    def stop_at_the_third(*args):
        asked.append(args[0])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(matching, "_evaluate_pair", stop_at_the_third)
    assert evaluate.main([*command, str(parts)]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not parts.exists() and len(Path(f"{parts}.part").read_text().splitlines()) == 3
    assert evaluate.main([*command, str(parts)]) == 2  # not by accident
    assert evaluate.main([*command, str(parts), "--resume"]) == 0
    assert len(asked) == 4, "the first two pairs were not measured again"
    assert parts.read_bytes() == whole.read_bytes()
    assert evaluate.main([*command, str(parts), "--resume", "--points", "50"]) == 2
    assert "parts.json is complete, with points" in capsys.readouterr().err
    asked.clear()
    assert evaluate.main([*command, str(parts), "--resume"]) == 0
    assert "parts.json is complete" in capsys.readouterr().out and not asked
    monkeypatch.setattr("sparsefeat.checkpoint.weights_digest", lambda checkpoint: "trained on")
    assert evaluate.main([*command, str(parts), "--resume"]) == 2
    assert "parts.json is complete, with weights" in capsys.readouterr().err
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "parts.json", "whole.json"]
    assert json.loads(whole.read_text())["n_pairs"] == 3


def test_a_run_that_is_stopped_after_its_report_goes_on_with_its_pictures(
    command, tmp_path, monkeypatch
):
    from sparsefeat.evaluate import matching, pictures

    report, plots = tmp_path / "a.json", ["--plots", str(tmp_path / "plots")]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(pictures, "plot_thresholds", stop)
        assert evaluate.main([*command, str(report), *plots]) == 130
    monkeypatch.setattr(matching, "_evaluate_pair", stop)
    assert evaluate.main([*command, str(report), *plots, "--resume"]) == 0
    assert (tmp_path / "plots" / "matches_scene.png").is_file()
    assert not Path(f"{report}.part").exists()


def test_pairs_of_another_list_of_viewpoints_are_refused(command, tmp_path, monkeypatch, capsys):
    listed, report = tmp_path / "viewpoints.txt", tmp_path / "a.json"
    part = tmp_path / "a.json.part"
    command += [str(report), "--viewpoints", str(listed)]
    keep = PairJournal.keep

    def keep_one(journal, name, result):
        keep(journal, name, result)
        raise KeyboardInterrupt

    listed.write_text("cloud_bin_*.ply 0 0 0\n")
    with monkeypatch.context() as patched:
        patched.setattr(PairJournal, "keep", keep_one)
        assert evaluate.main(command) == 130
    kept = part.read_bytes()
    listed.write_text("cloud_bin_*.ply 5 5 5\n")
    assert evaluate.main([*command, "--resume"]) == 2
    assert "other settings: viewpoints_sha256" in capsys.readouterr().err
    assert part.read_bytes() == kept
    # An earlier version kept the path alone.
    header, *pairs = kept.decode().splitlines()
    settings = json.loads(header)
    del settings["viewpoints_sha256"]
    part.write_text("\n".join([json.dumps(settings), *pairs]) + "\n")
    assert evaluate.main([*command, "--resume"]) == 0
    assert json.loads(report.read_text())["n_pairs"] == 3


@pytest.mark.parametrize("change", [["--seed", "-1"], ["--tau2", "1"], ["--device", "foo"]])
def test_wrong_numbers_are_found_before_anything_is_read(
    command, tmp_path, monkeypatch, capsys, change
):
    monkeypatch.setattr(
        "sparsefeat.data.threedmatch.test_pairs", lambda *args: pytest.fail("data was read")
    )
    assert evaluate.main([*command, str(tmp_path / "a.json"), *change]) == 2
    assert change[1] in capsys.readouterr().err
