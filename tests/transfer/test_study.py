"""The study of who wins where, on shapes of revolution; joined features and damages in a transfer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_transfer import checkpoint, config_of, peanut, peanuts, write_off  # noqa: F401

from sparsefeat.cli.transfer import main
from sparsefeat.errors import InputError
from sparsefeat.io.config import load_config
from sparsefeat.transfer import format_table, run_transfer
from sparsefeat.transfer.config import CorrespondenceConfig, DataConfig
from sparsefeat.transfer.labelling import score_labels
from sparsefeat.transfer.records import read_records
from sparsefeat.transfer.study import run_study
from sparsefeat.transfer.study_config import StudyConfig
from sparsefeat.transfer.study_samples import StudyShapes


def study_of(checkpoint, root, output, **changes):  # noqa: F811
    options = dict(  # noqa: C408
        data=DataConfig(root=root, normalize="area"),
        networks={"ours": str(checkpoint), "random": "random"},
        joined={"hks + wks": ["hks", "wks"], "ours joined": ["ours", "fpfh_context", "hks"]},
        scales=[1.0, 2.0], views=1, voxel_size=0.06, damages=["clean", "cut", "cloud"], shots=[1, 2], damaged_shots=[2],
        copies=["cut", "remeshed"], copy_rows=100,
        seeds=[0], rows=150, test_rows=200, max_iterations=30, workers=1, cache=None, output=output,
    )  # fmt: skip
    return StudyConfig(**{**options, **changes})


@pytest.fixture(scope="module")
def studied(checkpoint, peanuts, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("study") / "result.json"
    return path, run_study(study_of(checkpoint, peanuts, path.parent), path)


def test_every_regime_and_method_has_a_number(studied):
    _, (config, records) = studied
    regimes = {(r["damage"], r["learned"], r["shots"]) for r in records}
    assert regimes == {
        ("clean", "clean", 1), ("clean", "clean", 2), ("cut", "clean", 1), ("cut", "clean", 2), ("cut", "same", 2),
        ("cloud", "clean", 1), ("cloud", "clean", 2), ("cloud", "same", 2),
        ("clean", "copies", 2), ("cut", "copies", 2), ("cloud", "copies", 2),
    }  # fmt: skip
    for regime in regimes:
        here = [r for r in records if (r["damage"], r["learned"], r["shots"]) == regime]
        assert [r["method"] for r in here] == config.methods
        assert all(0 <= r["accuracy"] <= 1 for r in here)
    best = max(r["accuracy"] for r in records if r["damage"] == "clean" and r["shots"] == 2)
    assert best > 0.8, "the bulbs of a peanut are easily told from its middle"


def test_what_is_there_is_not_measured_again(studied, checkpoint, peanuts):  # noqa: F811
    path, result = studied
    before = json.loads(path.read_text())
    assert before["records"] == result.records
    kept = [r for r in before["records"] if (r["damage"], r["learned"]) != ("cut", "same")]
    kept[0] = {**kept[0], "accuracy": -1.0}  # would not survive a measurement
    path.write_text(json.dumps({**before, "records": kept}))
    said = []
    again = run_study(study_of(checkpoint, peanuts, path.parent), path, said.append)
    assert [text.split(":")[0] for text in said] == ["cut", "cut"]
    assert again.records[0]["accuracy"] == -1.0
    key = lambda r: (r["damage"], r["learned"], r["shots"], r["method"])  # noqa: E731
    new, old = (
        {key(r): r["accuracy"] for r in records if r is not records[0]}
        for records in (again.records, result.records)
    )
    assert new == old
    with pytest.raises(InputError, match="another configuration"):
        run_study(study_of(checkpoint, peanuts, path.parent, rows=151), path)
    path.write_text("[]")
    with pytest.raises(InputError, match="not a result that could be continued"):
        run_study(study_of(checkpoint, peanuts, path.parent), path)


def test_the_tool_writes_one_json_one_table_and_one_figure(checkpoint, peanuts, tmp_path, capsys):  # noqa: F811
    root = tmp_path / "other"
    root.mkdir()
    for file in (peanuts / "labels").iterdir():
        (root / file.name).write_text(file.read_text())
    (root / "parts.json").write_text(json.dumps({"names": ["bulb", "middle"], "mirror": [1, 0]}))
    file = tmp_path / "study.yaml"
    file.write_text(f"""
task: study
data: {{name: folder, root: {peanuts}, normalize: area, options: {{train_share: 0.5}}}}
labels: {{mirrored: {root}}}
networks: {{ours: {checkpoint}}}
hand_made: [hks, wks]
joined: {{all: [ours, hks, wks]}}
voxel_size: 0.1
views: 1
damages: [clean, remeshed]
shots: [1]
seeds: [0]
rows: 100
test_rows: 100
correspondence: {{pairs: 1, eigenpairs: 10, zoomout: 0, metric: 2}}
workers: 1
cache: null
""")
    assert main([str(file), "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "mirrored, remeshed, learned on the same" in table and "functional, metric" in table
    assert "accuracy up to mirror images, 1 labelled shape" in table and "*" in table
    assert (tmp_path / "out" / "study.png").stat().st_size > 5000
    records = json.loads((tmp_path / "out" / "result.json").read_text())["records"]
    assert all(r["mirrored"] == 1 for r in records if "mirrored" in r), (
        "each part is the mirror image of the other"
    )


def test_a_study_that_cannot_be_is_refused(checkpoint, peanuts, tmp_path):  # noqa: F811
    for changes, message in (
        ({"joined": {"x": ["ours", "shot"]}}, "expected two or more of ours"),
        ({"joined": {"hks": ["ours", "wks"]}}, "name of a member"),
        ({"networks": {"a": "random"}, "joined": {}}, "first is random"),
        ({"shots": []}, "must not be empty"),
        ({"held_out": 1.0}, "held_out"),
        ({"scales": []}, "scales: expected one positive factor"),
        ({"scales": [0.0]}, "scales: expected one positive factor"),
        ({"views": 0}, "views: expected at least 1"),
        ({"voxel_size": -1.0}, "voxel_size must be positive"),
        ({"labels": {}}, "labels and damages must not be empty"),
        ({"damages": []}, "labels and damages must not be empty"),
        ({"seeds": [-1]}, "seeds: expected at least 0"),
        ({"seeds": [1, 1]}, "seeds: expected each of them once"),
        ({"shots": [0]}, "shots: expected at least 1"),
        ({"damaged_shots": [2, 2]}, "damaged_shots: expected each of them once"),
        ({"damaged_shots": []}, "copies: heads learn on them with damaged_shots, which is empty"),
        ({"clean_only": ["lables"]}, "clean_only 'lables': expected one of labels"),
        ({"hand_made": ["hks", "hks"], "joined": {}}, "members: expected each of them once"),
        ({"networks": {"hks": "x"}, "joined": {}}, "members: expected each of them once"),
        ({"absolute": True, "data": DataConfig()}, "absolute: expected data.normalize area"),
        ({"data": DataConfig(resplit=True)}, "data.resplit: a study has one division"),
    ):
        with pytest.raises(InputError, match=message):
            study_of(checkpoint, peanuts, tmp_path, **changes)


def test_a_study_finds_out_what_cannot_be_before_any_work(checkpoint, peanuts, tmp_path):  # noqa: F811
    everyone = DataConfig(root=peanuts, normalize="area", test="all")
    with_metric = CorrespondenceConfig(metric=9)
    for changes, message in (
        ({"data": everyone}, "data.train and data.test share 5 shapes"),
        ({"shots": [1, 9]}, "not 9"),
        ({"damaged_shots": [9]}, "not 9"),
        ({"held_out": 0.5, "correspondence": with_metric}, "not 9"),
        # One test shape makes no pair.
        ({"correspondence": CorrespondenceConfig()}, "no pair with a known correspondence"),
    ):
        said = []
        with pytest.raises(InputError, match=message):
            run_study(
                study_of(checkpoint, peanuts, tmp_path, **changes), tmp_path / "x.json", said.append
            )
        assert not said


def test_an_accuracy_needs_a_labelled_test_shape(checkpoint, peanuts, tmp_path):  # noqa: F811
    labels = tmp_path / "labels"
    shutil.copytree(peanuts / "labels", labels)
    options = {"labels": {"own": str(labels)}, "damages": ["clean"], "copies": [], "shots": [2]}
    study = study_of(checkpoint, peanuts, tmp_path, **options)
    for shape in StudyShapes(study).test:
        file = labels / f"{shape.name}.txt"
        file.write_text("-1\n" * len(file.read_text().split()))
    with pytest.raises(InputError, match="labels own: no vertex of the test shapes has a label"):
        run_study(study, tmp_path / "x.json")


def test_labels_of_faces_are_no_labels_of_vertices(checkpoint, peanuts, tmp_path):  # noqa: F811
    root = tmp_path / "faces"
    shutil.copytree(peanuts, root)
    shutil.rmtree(root / "labels")
    # A closed surface of genus 0 has more faces than vertices: a wrong row would be there.
    for seed in range(6):
        count = len(peanut(seed)[1])
        (root / "off" / f"p{seed}.flabels.txt").write_text("0\n" * count)
    setting = StudyShapes(study_of(checkpoint, root, tmp_path))
    with pytest.raises(InputError, match="p0: its labels are of faces"):
        setting.labels("p0", "labels")
    assert len(setting.loaded("p0", "cut")[1]) > 0, "labels of one's own need none of these"


def test_label_files_are_those_of_their_shape(checkpoint, tmp_path):  # noqa: F811
    root, files = tmp_path / "shapes", tmp_path / "labels"
    counts = {}
    for kind in "ab":
        for seed in range(3):
            vertices, faces, _ = peanut(seed)
            write_off(root / kind / f"{seed}.off", vertices, faces)
            counts[f"{kind}/{seed}"] = len(vertices)
    write_off(root / "b" / "own.off", *peanut(0)[:2])
    counts["b/own"] = counts["a/0"]
    for name, value in (("a/0", 1), ("b/0", 2), ("1", 3), ("own", 0)):
        path = files / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n" * counts.get(name, counts["a/1"]))
    (files / "own.txt").write_text("0\n" * counts["b/own"])
    config = study_of(checkpoint, root, tmp_path, labels={"own": str(files)})
    setting = StudyShapes(config)
    assert [set(setting.labels(name, "own")) for name in ("a/0", "b/0", "b/own")] == [{1}, {2}, {0}]
    with pytest.raises(InputError, match=r"a/1.txt: not found; 1.txt could be of a/1 or b/1"):
        setting.labels("a/1", "own")
    for text, message in (
        ("0\n" * (counts["b/own"] + 1), r"own.txt: \d+ labels, expected one for each of the \d+"),
        ("0\n" * (counts["b/own"] - 1), r"own.txt: \d+ labels, expected one for each of the \d+"),
        ("-2\n" * counts["b/own"], "own.txt: labels from -2 to -2, expected parts from 0, or -1"),
    ):
        (files / "own.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            setting.labels("b/own", "own")
    (files / "parts.json").write_text('{"mirror": [1, 0]}')
    with pytest.raises(InputError, match=r"0.txt: labels from 2 to 2, expected parts from 0 to 1,"):
        StudyShapes(config).labels("b/0", "own")
    for text in (
        "not json",
        '{"names": ["x"]}',
        '["mirror"]',
        '{"mirror": [1, 2]}',
        '{"mirror": 1}',
    ):
        (files / "parts.json").write_text(text)
        with pytest.raises(InputError, match="parts.json: "):
            StudyShapes(config)


def test_the_shipped_studies_can_be_read():
    for path in sorted((Path(__file__).parents[2] / "configs" / "study").glob("shapes*.yaml")):
        assert load_config(StudyConfig, path).task == "study"


def test_joined_features_and_damaged_copies_in_a_transfer(
    checkpoint,  # noqa: F811
    peanuts,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    config = config_of(checkpoint, peanuts, tmp_path, methods=["joined", "hks"], rotate=False)
    config.features.voxel_size = 0.1
    config.features.scales = [1.0, 2.0]
    plain = run_transfer(config)
    assert [s.method for s in plain.scores] == ["joined", "hks"] and "joined" in format_table(plain)
    assert plain.scores[0].accuracy > plain.scores[1].accuracy - 0.05
    config.damage = ["cut", "cloud"]
    learned = []

    def watched(method, source, shots, *others):
        learned.append([shape.name for shape in shots])
        return score_labels(method, source, shots, *others)

    monkeypatch.setattr("sparsefeat.transfer.run.score_labels", watched)
    damaged = run_transfer(config)
    assert len(learned[0]) == 6 and sum(name.endswith(" cut 0") for name in learned[0]) == 2
    assert damaged.scores[0].accuracy > 0.8


def test_a_metric_from_training_shapes_in_correspondence(checkpoint, peanuts, tmp_path):  # noqa: F811
    config = config_of(
        checkpoint,
        peanuts,
        tmp_path,
        task="correspondence",
        methods=["joined", "wks"],
        rotate=False,
    )
    config.features.voxel_size = 0.1
    config.data.options = {"train_share": 0.5}
    config.correspondence = CorrespondenceConfig(pairs=2, eigenpairs=10, zoomout=0, metric=3)
    maps = run_transfer(config).maps
    assert len(maps) == 4 and all(np.isfinite(m.error) for m in maps)


def test_copies_of_a_shape_are_described_once_more_and_told_from_what_is_scored(
    checkpoint,  # noqa: F811
    peanuts,  # noqa: F811
    tmp_path,
):
    setting = StudyShapes(study_of(checkpoint, peanuts, tmp_path))
    name = setting.test[0].name
    scored, again, copy = (setting.loaded(name, "cut", seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(scored, again) and not np.array_equal(scored, copy)


@pytest.mark.parametrize("records", [None, {}, [1], "none"])
def test_a_file_without_a_list_of_records_is_no_result(tmp_path, records):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"config": {}, "records": records}))
    with pytest.raises(InputError, match=r"result\.json: not a result that could be continued"):
        read_records(path, {})
