"""Two scans in, a pose out: arrays, tensors and files, many scans, the command line, and what
says no."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import sparsefeat
from sparsefeat.cli.match import main
from sparsefeat.data.orientation import Viewpoints
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.extract import FeatureExtractor
from sparsefeat.io.gtlog import read_log, write_info, write_log
from sparsefeat.io.pointcloud import read_points, write_ply
from sparsefeat.match import calibrate, measure_registration
from sparsefeat.match.files import write_merged
from sparsefeat.match.folder import list_scans, match_folder
from sparsefeat.match.scans import (
    CHECKPOINT,
    choose_extractor,
    describe_scan,
    open_view,
)


def box(rng, low, high, count):
    """Points on the faces of a box."""
    points = rng.uniform(0, 1, (count, 3))
    points[np.arange(count), np.arange(count) % 3] = rng.integers(0, 2, count)
    return low + points * (np.asarray(high) - low)


def furnished_room(seed, density=1.0):
    """A corner of a room with boxes of many sizes in it, metres."""
    rng = np.random.default_rng(seed)
    walls = rng.uniform(0, 1, (int(9000 * density), 3)) * [3.6, 3.0, 1.6]
    walls[np.arange(len(walls)), np.arange(len(walls)) % 3] = 0
    parts = [walls]
    for _ in range(14):
        low = rng.uniform(0, 1, 3) * [3.0, 2.4, 0.8]
        parts.append(box(rng, low, low + rng.uniform(0.15, 0.7, 3), int(700 * density)))
    return np.concatenate(parts)


def pose(seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def apply(transform, points):
    return points @ transform[:3, :3].T + transform[:3, 3]


def off(transform, truth):
    difference = np.linalg.inv(truth) @ transform
    return np.degrees(Rotation.from_matrix(difference[:3, :3]).magnitude()), np.linalg.norm(
        difference[:3, 3]
    )


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor.from_pretrained("sparsefeat/rooms-5cm-v1")


@pytest.fixture(scope="module")
def scans():
    """Two parts of one room that share most of it, the second in a frame of its own, and the
    pose of it."""
    room = furnished_room(0)
    truth = pose(1)
    source, target = room[room[:, 0] < 2.9], room[room[:, 0] > 0.7]
    return apply(np.linalg.inv(truth), source), target, truth


def test_a_pose_of_scans_in_millimetres_is_in_millimetres(extractor, scans):
    source, target, truth = scans
    result = sparsefeat.register(source * 1000, target * 1000, extractor, unit="mm")
    scaled = truth.copy()
    scaled[:3, 3] *= 1000
    turned, moved = off(result.transform, scaled)
    assert turned < 0.5 and moved < 20  # degrees, millimetres


def test_parts_of_a_room_are_brought_together(scans, extractor):
    source, target, truth = scans
    result = sparsefeat.register(source, torch.from_numpy(target), extractor)
    degrees, metres = off(result.transform, truth)
    assert result.found and degrees < 1 and metres < 0.03
    assert result.transform.dtype == np.float64 and 0.5 <= result.confidence <= 1
    apart = np.linalg.norm(
        apply(truth, source[result.matches[:, 0]]) - target[result.matches[:, 1]], axis=1
    )
    assert result.inliers.shape == (len(result.matches),)
    assert (apart[result.inliers] < 0.15).all() and (apart[~result.inliers] > 0.05).all()
    assert len(result.hypotheses.transforms) == len(result.hypotheses.scores) >= 1
    again = sparsefeat.register(source, torch.from_numpy(target), extractor)
    np.testing.assert_array_equal(again.transform, result.transform)


def test_turning_either_input_turns_the_pose(scans, extractor):
    source, target, truth = scans
    turn = pose(5)
    moved = sparsefeat.register(apply(turn, source), target, extractor)
    degrees, metres = off(moved.transform, truth @ np.linalg.inv(turn))
    assert degrees < 1 and metres < 0.04
    moved = sparsefeat.register(source, apply(turn, target), extractor)
    degrees, metres = off(moved.transform, turn @ truth)
    assert degrees < 1 and metres < 0.04


def test_scans_of_different_rooms_have_no_pose(extractor):
    result = sparsefeat.register(
        furnished_room(0), furnished_room(7)[:, [2, 0, 1]] * [1, -1, 1], extractor
    )
    assert not result.found and result.transform is None and result.confidence < 0.5
    assert not result.inliers.any()
    assert len(result.hypotheses) > 0
    forced = sparsefeat.register(
        furnished_room(0), furnished_room(7)[:, [2, 0, 1]] * [1, -1, 1], extractor, min_confidence=0
    )
    np.testing.assert_array_equal(forced.transform, result.hypotheses.transforms[0])


def test_real_fragments_register_from_files(dataset):
    folder = dataset("threedmatch_test") / "7-scenes-redkitchen"
    (block,) = [b for b in read_log(f"{folder}-evaluation/gt.log") if (b.i, b.j) == (0, 2)]
    result = sparsefeat.register(folder / "cloud_bin_2.ply", folder / "cloud_bin_0.ply")
    degrees, metres = off(result.transform, block.matrix)
    assert degrees < 5 and metres < 0.15 and result.confidence > 0.5


def test_what_cannot_be_registered_is_named(scans, extractor, tmp_path):
    source, target, _ = scans
    with pytest.raises(InputError, match=r"source: shape \(4, 2\)"):
        sparsefeat.register(np.ones((4, 2)), target, extractor)
    with pytest.raises(InputError, match="target: no points"):
        sparsefeat.register(source, np.zeros((0, 3)), extractor)
    with pytest.raises(InputError, match="absent.ply"):
        sparsefeat.register(tmp_path / "absent.ply", target, extractor)
    with pytest.raises(InputError, match="min_confidence 2"):
        sparsefeat.register(source, target, extractor, min_confidence=2)
    for points in (2, 50.5):
        expected = f"points {points}, expected a whole number of at least 3"
        with pytest.raises(InputError, match=expected):
            sparsefeat.register(source, target, extractor, points=points)
    with pytest.raises(InputError, match="seed -1, expected a whole number of at least 0"):
        sparsefeat.register(source, target, extractor, seed=-1)
    # Options are checked before what takes long: there is no such extractor.
    with pytest.raises(InputError, match="min_confidence '1', expected a number from 0 to 1"):
        sparsefeat.register(source, target, 3, min_confidence="1")
    with pytest.raises(InputError, match="checkpoint 3, expected a path"):
        sparsefeat.register(source, target, 3)
    with pytest.raises(InputError, match="source: tuple that is no array"):
        sparsefeat.register((source, np.zeros((4, 3))), target, extractor)
    for viewpoint in ("0 0 0", ("a", "b", "c"), (0, 0), (0, 0, np.nan)):
        with pytest.raises(InputError, match="target: viewpoint .* expected three finite numbers"):
            sparsefeat.register(source, target, extractor, target_viewpoint=viewpoint)
    file = tmp_path / "a.npy"
    np.save(file, source)
    with pytest.raises(InputError, match="a.npy: is a file, expected a folder of scans"):
        match_folder(file, extractor)
    for scans_given, kind in (([source, target], "ndarray"), (None, "NoneType"), ([None], "None")):
        with pytest.raises(InputError, match=f"{kind}.*, expected a folder or files of scans"):
            match_folder(scans_given, extractor)
    with pytest.raises(InputError, match="device"):
        sparsefeat.register(source, target, device=["cpu"])
    tiny = sparsefeat.register(source[:1], target, extractor)
    assert not tiny.found and tiny.confidence == 0


def test_the_released_checkpoint_is_taken_unless_another_is_given(extractor):
    assert choose_extractor(None).oriented
    assert choose_extractor(None) is choose_extractor(None)
    assert choose_extractor(CHECKPOINT).oriented
    assert choose_extractor(extractor) is extractor


def test_a_list_of_viewpoints_goes_before_a_file_and_before_one_for_all(tmp_path):
    np.savez(tmp_path / "a.npz", pcd=np.eye(3), viewpoint=np.float32([1, 2, 3]))
    listed = Viewpoints({"a.npz": np.ones((1, 3))})
    assert open_view(tmp_path / "a.npz").viewpoint.tolist() == [1, 2, 3]
    assert open_view(tmp_path / "a.npz", viewpoint=(4, 5, 6)).viewpoint.tolist() == [4, 5, 6]
    tensor = torch.tensor([4.0, 5, 6], requires_grad=True)
    assert open_view(np.eye(3), viewpoint=tensor).viewpoint.tolist() == [4, 5, 6]
    known = open_view(tmp_path / "a.npz", viewpoint=(4, 5, 6), viewpoints=listed)
    assert known.viewpoint.tolist() == [[1, 1, 1]] and known.normals is None


def test_warnings_and_errors_name_the_scan(extractor):
    sparse = open_view(np.random.default_rng(0).random((400, 3)) * 40, name="hall.ply")
    with pytest.warns(InputWarning, match=r"^hall.ply: \d+% of 400 voxels"):
        describe_scan(sparse, extractor)
    wide = open_view(1e7 * np.eye(3), name="hall.ply")
    with pytest.raises(InputError, match="^hall.ply: coordinates: beyond the key range"):
        describe_scan(wide, extractor)


def test_the_confidence_is_fitted_on_raw_predictors():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 4)) * [1, 10, 0.1, 1] + 5
    logits = 2 * (values[:, 0] - 5) + 0.3 * (values[:, 1] - 5) - 0.5 * (values[:, 3] - 5)
    right = rng.random(4000) < 1 / (1 + np.exp(-logits))
    intercept, coefficients = calibrate.fit(values, right)
    assert coefficients[:2] == pytest.approx([2, 0.3], rel=0.15)
    assert coefficients[3] == 0  # what speaks against a pose here is no statistic of the regression
    assert intercept + coefficients @ np.full(4, 5.0) == pytest.approx(0, abs=0.3)


def test_registration_is_measured_under_each_condition(scans, tmp_path, monkeypatch):
    source, target, truth = scans
    monkeypatch.chdir(tmp_path)
    evaluation = tmp_path / "rooms" / "room-evaluation"
    for folder in (tmp_path / "rooms" / "room", evaluation):
        folder.mkdir(parents=True)
    for k, points in ((0, target), (1, target), (2, source)):
        write_ply(tmp_path / "rooms" / "room" / f"cloud_bin_{k}.ply", points)
    pairs = [(0, 1, 3, np.eye(4)), (0, 2, 3, truth)]
    write_log(evaluation / "gt.log", pairs)
    write_info(evaluation / "gt.info", [(i, j, n, 100 * np.eye(6)) for i, j, n, _ in pairs])
    chosen = "as recorded;each scan turned at random;half of the points"
    options = ["--scenes", "room", "--conditions", chosen, "--json", "n.json", "--result", "r"]
    assert measure_registration.main(["rooms", *options]) == 0
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["n_pairs"] == {"room": 1}, "neighbours in the recording do not count"
    assert list(numbers["conditions"]) == chosen.split(";")
    for found in numbers["conditions"].values():
        assert found["RR"] == found["scenes"]["room"] == found["found"] == found["truth_kept"] == 1
        assert found["inlier_ratio"] > 0.1 and found["matches"] > 20
    written = json.loads((tmp_path / "results" / "matching" / "r.json").read_text())
    assert written["numbers"] == numbers
    (tmp_path / "n.json").write_text(json.dumps(numbers | {"conditions": {"noise of 1 cm": "x"}}))
    assert (
        measure_registration.main(["rooms", *options[:3], "as recorded", *options[4:6], "--resume"])
        == 0
    )
    resumed = json.loads((tmp_path / "n.json").read_text())["conditions"]
    assert list(resumed) == ["noise of 1 cm", "as recorded"] and resumed["noise of 1 cm"] == "x"
    with pytest.raises(InputError, match="was measured with other settings"):
        measure_registration.main(["rooms", *options[:6], "--seed", "1", "--resume"])
    with pytest.raises(InputError, match="--conditions: expected some of as recorded; "):
        measure_registration.main(["rooms", "--conditions", "fog"])


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"conditions": [1]}'])
def test_damaged_numbers_are_not_gone_on_with(tmp_path, content):
    path = tmp_path / "numbers.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="numbers.json: damaged, or no numbers"):
        measure_registration.measured_before(str(path), {})
    path.write_text('{"seed": 0, "conditions": {"as recorded": {}}}')
    assert measure_registration.measured_before(str(path), {"seed": 0}) == {"as recorded": {}}


def test_so_many_pairs_are_measured_as_are_asked_for():
    pair = SimpleNamespace(i=0, j=3, overlap=0.5, information=np.eye(6))
    assert len(measure_registration.spread_pairs([pair] * 9, 4)) == 4
    for count in (0, -1):
        with pytest.raises(InputError, match=f"pairs {count}, expected a whole number"):
            measure_registration.spread_pairs([pair] * 9, count)


def test_nothing_to_fit_the_confidence_to_is_said(monkeypatch):
    monkeypatch.setattr(calibrate, "listed_pairs", lambda root: [])
    monkeypatch.setattr(calibrate, "choose_extractor", lambda name: None)
    with pytest.raises(InputError, match="rooms: no pair of scans with a pose"):
        calibrate.main(["rooms"])
    with pytest.raises(InputError, match="--most 0, expected a whole number"):
        calibrate.main(["rooms", "--most", "0"])


def test_conditions_change_scans_as_they_say():
    view = open_view(np.random.default_rng(0).random((1000, 3)), viewpoint=(1.0, 2.0, 3.0))
    seen, turn = measure_registration.Condition(viewpoint_error=3.0).seen(view, [1])
    assert np.linalg.norm(seen.viewpoint - view.viewpoint) == pytest.approx(3)
    assert np.array_equal(turn, np.eye(4)) and np.array_equal(seen.points, view.points)
    fewer = measure_registration.Condition(points=0.25, viewpoint=False).seen(view, [1])[0]
    assert len(fewer.points) == 250 and fewer.viewpoint is None
    moved, turn = measure_registration.Condition(turned=True).seen(view, [1])
    np.testing.assert_allclose(moved.points, apply(turn, view.points))
    np.testing.assert_allclose(moved.viewpoint, apply(turn, view.viewpoint[None])[0])


# ---- the command line


def test_two_files_give_a_pose_on_disk(scans, tmp_path, capsys):
    source, target, truth = scans
    write_ply(tmp_path / "a.ply", source)
    write_ply(tmp_path / "b.ply", target)
    output, page = tmp_path / "out", tmp_path / "page.html"
    files = [str(tmp_path / "a.ply"), str(tmp_path / "b.ply")]
    assert main([*files, "--output", str(output), "--html", str(page)]) == 0
    assert "a.ply" in page.read_text(encoding="utf-8")
    assert "a.ply onto b.ply: confidence 0." in capsys.readouterr().out.replace(
        "confidence 1.", "confidence 0."
    )
    degrees, metres = off(np.loadtxt(output / "transform.txt"), truth)
    assert degrees < 1 and metres < 0.03
    report = json.loads((output / "match.json").read_text())
    assert report["found"] is True and report["inliers"] > 10
    merged = read_points(output / "aligned.ply")
    assert len(merged) == len(source) + len(target) and len(np.unique(merged.colors, axis=0)) == 2
    np.testing.assert_allclose(merged.points[-len(target) :], target, atol=1e-5)
    assert np.load(output / "matches.npz")["matches"].shape == (report["matches"], 2)
    assert (output / "matches.png").stat().st_size > 0


def test_two_meshes_without_a_pose_are_told_of_shapes(tmp_path, capsys):
    for number, name in enumerate("ab"):
        points = np.random.default_rng(number).uniform(0, 1, (500, 3))
        lines = [" ".join(map(str, point)) for point in points]
        (tmp_path / f"{name}.off").write_text("\n".join(["OFF", "500 1 0", *lines, "3 0 1 2", ""]))
        write_ply(tmp_path / f"{name}.ply", points)
    for suffix, hint in (
        ("off", " Both have faces: --shapes maps shapes that deform."),
        ("ply", ""),
    ):
        files = [str(tmp_path / f"{name}.{suffix}") for name in "ab"]
        assert main([*files, "--output", str(tmp_path / suffix)]) == 0
        printed = capsys.readouterr()
        assert f"do the scans overlap?{hint}\n" in printed.out
        assert printed.err.count("its faces are not used") == (2 if hint else 0)


def test_files_that_are_no_results_are_never_overwritten(scans, tmp_path, capsys):
    for name, points in zip("ab", scans, strict=False):
        write_ply(tmp_path / f"{name}.ply", points[::20])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "transform.txt").write_text("mine")
    files = [str(tmp_path / "a.ply"), str(tmp_path / "b.ply")]
    assert main([*files, "--output", str(tmp_path / "out")]) == 2
    assert "transform.txt: is no result and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / "transform.txt").read_text() == "mine"


def test_results_of_another_kind_do_not_stay_beside_new_ones(scans, tmp_path, monkeypatch):
    for name, points in zip("ab", scans, strict=False):
        write_ply(tmp_path / f"{name}.ply", points[::20])
    monkeypatch.setattr(
        "sparsefeat.match.register.register_scans",
        lambda source, target, min_confidence: SimpleNamespace(
            transform=None,
            matches=np.zeros((0, 2), int),
            inliers=np.zeros(0, bool),
            found=False,
            confidence=0.0,
            hypotheses=SimpleNamespace(scores=[], transforms=[]),
        ),
    )
    output = tmp_path / "out"
    arguments = [str(tmp_path / "a.ply"), str(tmp_path / "b.ply"), "--output", str(output)]
    arguments += ["--points", "50", "--checkpoint", "sparsefeat/rooms-5cm-v1"]
    output.mkdir()
    others = ("poses.log", "merged.ply", "map.npz", "carried_labels.txt", "notes.txt")
    for name in others:
        (output / name).write_text("earlier")
    written = {"match.json", "matches.npz", "matches.png"}
    # Nothing says that they are of an earlier match.
    assert main(arguments) == 2
    assert {path.name for path in output.iterdir()} == {*others}
    (output / "match.json").write_text("{}")
    assert main(arguments) == 0
    assert {path.name for path in output.iterdir()} == written.union({"notes.txt"})


def test_a_folder_gives_poses_of_all(tmp_path, capsys):
    room = furnished_room(0)
    truth = [np.eye(4), pose(1), pose(2)]
    parts = [room[room[:, 0] < 2.9], room[room[:, 0] > 0.6], room[room[:, 1] < 2.6]]
    for k, (part, frame) in enumerate(zip(parts, truth, strict=True)):
        write_ply(tmp_path / f"scan_{k}.ply", apply(np.linalg.inv(frame), part))
    write_ply(tmp_path / "scan_10.ply", furnished_room(7)[:, [2, 0, 1]] * [1, -1, 1])
    output, page = tmp_path / "out", tmp_path / "out.html"
    assert main([str(tmp_path), "--output", str(output), "--html", str(page)]) == 0
    assert "scan_2.ply" in page.read_text(encoding="utf-8")
    assert "3 of 4 scans are in one frame" in capsys.readouterr().out
    blocks = {(b.i, b.j): b.matrix for b in read_log(output / "est.log")}
    assert set(blocks) == {(0, 1), (0, 2), (1, 2)}
    for (i, j), matrix in blocks.items():
        degrees, metres = off(matrix, np.linalg.inv(truth[i]) @ truth[j])
        assert degrees < 1 and metres < 0.04
    poses = read_log(output / "poses.log")
    assert [b.i for b in poses] == [0, 1, 2]  # the other scan has no pose in this frame
    frames = [b.matrix for b in poses]
    np.testing.assert_allclose(np.linalg.inv(frames[1]) @ frames[2], blocks[1, 2], atol=1e-6)
    assert len(read_points(output / "merged.ply")) == sum(map(len, parts))
    assert json.loads((output / "match.json").read_text())["component"] == [0, 0, 0, 1]


def test_poses_of_a_folder_do_not_depend_on_the_origin_of_the_scans(tmp_path, monkeypatch):
    """Pairs that are off by degrees agree or not, wherever the files have their origin."""
    room = furnished_room(0, 0.05)
    found = {}
    for name, away in (("near", np.zeros(3)), ("far", np.array([50.0, 80.0, 0.0]))):
        (tmp_path / name).mkdir()
        for k in range(4):
            write_ply(tmp_path / name / f"scan_{k}.ply", room + away)
        rng = np.random.default_rng(0)

        def registered(source, target, min_confidence, rng=rng, away=away):
            noise = np.eye(4)
            noise[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.01).as_matrix()
            noise[:3, 3] = away - noise[:3, :3] @ away
            return SimpleNamespace(transform=noise, confidence=0.9)

        monkeypatch.setattr("sparsefeat.match.folder.register_scans", registered)
        monkeypatch.setattr("sparsefeat.match.folder.describe_scan", lambda view, *_: view)
        monkeypatch.setattr(
            "sparsefeat.match.folder.choose_extractor", lambda *_: SimpleNamespace(voxel_size=0.05)
        )
        graph = match_folder(tmp_path / name).graph
        assert graph.kept.all()
        found[name] = [apply(pose, room + away) - away for pose in graph.poses]
    np.testing.assert_allclose(found["far"], found["near"], atol=1e-4)


def test_wrong_input_is_one_line_and_two(tmp_path, capsys):
    cases = {
        "expected two scans or one folder": ["a.ply"],
        "absent.ply": [str(tmp_path / "absent.ply"), str(tmp_path / "absent2.ply")],
        "0 scans, expected at least 2": [str(tmp_path / "empty")],
        "--transfer: for --shapes alone": ["a.off", "b.off", "--transfer", "labels.txt"],
        "--up: for --shapes alone": ["a.off", "b.off", "--up", "z"],
        "--up: invalid choice: 'q'": ["a.off", "b.off", "--shapes", "--up", "q"],
        "--points: for scans alone": ["a.off", "b.off", "--shapes", "--points", "9"],
        "--unit: for scans alone, not with --shapes; maps need no unit": [
            *("a.off", "b.off", "--shapes", "--unit", "mm"),
        ],
        "--seed: for scans alone": ["a.off", "b.off", "--shapes", "--seed", "0"],
        "--min-confidence: for scans alone": [
            "a.off",
            "b.off",
            "--shapes",
            "--min-confidence",
            "1",
        ],
        "--min-confidence 2, expected 0 to 1": ["a.ply", "b.ply", "--min-confidence", "2"],
    }
    (tmp_path / "empty").mkdir()
    for line, inputs in cases.items():
        try:
            code = main([*inputs, "--output", str(tmp_path / "out")])
        except SystemExit as error:
            code = error.code
        assert code == 2
        printed = capsys.readouterr()
        assert line in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_a_list_of_viewpoints_that_fits_no_scan_is_said(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("a.ply 0 0 0\nb.pyl 0 0 0\n")
    inputs = [str(tmp_path / "a.ply"), str(tmp_path / "b.ply")]
    arguments = [*inputs, "--output", str(tmp_path / "out"), "--viewpoints"]
    assert main([*arguments, str(tmp_path / "list.txt")]) == 2  # the scans are absent
    assert "list.txt: no input fits b.pyl (line 2)" in capsys.readouterr().err


def test_an_interrupted_match_does_not_say_that_nothing_was_written(tmp_path, monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsefeat.cli.match.run_pair", interrupted)
    assert main(["a.ply", "b.ply", "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "interrupted; what is complete stays\n"


def test_results_do_not_replace_what_they_are_made_from(tmp_path, capsys):
    for name in ("aligned.ply", "b.ply"):
        write_ply(tmp_path / name, furnished_room(0))
    before = (tmp_path / "aligned.ply").read_bytes()
    for inputs, output in (
        ([str(tmp_path / "aligned.ply"), str(tmp_path / "b.ply")], tmp_path),
        ([str(tmp_path)], tmp_path),
    ):
        assert main([*inputs, "--output", str(output)]) == 2
        assert "its files would replace or join" in capsys.readouterr().err
    assert (tmp_path / "aligned.ply").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aligned.ply", "b.ply"]


def test_scans_are_sorted_by_number_whatever_their_names_and_hidden_files_are_none(tmp_path):
    for name in ("10.ply", "2.ply", "02.ply", "1\u00b23.ply", "._2.ply"):
        (tmp_path / name).write_text("")
    assert [path.name for path in list_scans(tmp_path)] == [
        "1\u00b23.ply",
        "02.ply",
        "2.ply",
        "10.ply",
    ]


def test_merged_points_far_from_the_origin_keep_their_place(tmp_path):
    far = np.array([500_000.0, 5_400_000.0, 300.0])
    points = np.random.default_rng(0).random((100, 3)) * 5 + far
    scan = SimpleNamespace(points=points)
    write_merged(tmp_path / "far.ply", [scan], [np.eye(4)])
    np.testing.assert_allclose(read_points(tmp_path / "far.ply").points, points, atol=1e-6)
    scan.points = points - far
    write_merged(tmp_path / "near.ply", [scan], [np.eye(4)])
    assert b"property float x" in (tmp_path / "near.ply").read_bytes()
