"""tools/extract.py: files and folders in; npz, ply on a common colour basis and one picture out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small_network
from PIL import Image
from surfaces import body

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.cli import extract
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract import files as module
from sparsefeat.extract.files import extract_files
from sparsefeat.io.pointcloud import read_points, write_ply

CHANNELS = 8


def small_model() -> torch.nn.Module:
    return small_network(out_channels=CHANNELS, normalize_feature=True)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(small_model(), 0.1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:

    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, small_model(), 0.1, {})
    return path


def cloud(seed: int, points: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).random((points, 3)).astype(np.float32) * [2, 1, 0.5]


@pytest.fixture
def scene(tmp_path) -> Path:
    """Three readable clouds in two folders, two of them of the same name, and a file that is no cloud."""
    folder = tmp_path / "scene"
    (folder / "sub").mkdir(parents=True)
    write_ply(folder / "room.ply", cloud(0))
    np.savez(folder / "sub" / "room.npz", pcd=cloud(1))
    np.save(folder / "sub" / "desk.npy", cloud(2))
    (folder / "notes.txt").write_text("not a cloud")
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def run_tool(*arguments: object) -> int:
    """Run the tool in this process; argparse ends it by itself if the arguments are wrong."""
    try:
        return extract.main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code


def test_a_folder_gives_numbers_colors_and_one_picture(extractor, scene, tmp_path):
    result = extract_files(extractor, [scene], tmp_path / "out", checkpoint="some/name")
    names = ["room", "sub/desk", "sub/room"]
    expected = [f"{name}{suffix}" for name in names for suffix in (".npz", ".ply")] + [
        "features.png"
    ]
    assert files_below(tmp_path / "out") == sorted(expected)
    assert not result.failed and len(result.written) == 3
    with np.load(tmp_path / "out" / "room.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"points", "features", "voxel_size", "checkpoint"}
        np.testing.assert_array_equal(archive["points"], cloud(0).astype(np.float32))
        np.testing.assert_array_equal(archive["features"], extractor(archive["points"]))
        assert archive["features"].dtype == np.float32 and archive["features"].shape == (
            300,
            CHANNELS,
        )
        assert archive["voxel_size"] == 0.1 and archive["checkpoint"] == "some/name"
    colored = read_points(tmp_path / "out" / "room.ply")
    np.testing.assert_array_equal(colored.points, cloud(0).astype(np.float32))
    assert colored.colors.std(axis=0).min() > 10
    picture = np.asarray(Image.open(result.picture).convert("RGB"))
    assert picture.shape[0] > 100 and picture.std() > 5


def test_colors_are_comparable_between_files(extractor, tmp_path):
    write_ply(tmp_path / "a.ply", cloud(0))
    # The same cloud again, beside one that stretches the range of the features.
    write_ply(tmp_path / "b.ply", np.concatenate([cloud(0), cloud(5) * 20 + 100]))
    extract_files(
        extractor, [tmp_path / "a.ply", tmp_path / "b.ply"], tmp_path / "out", image=False
    )
    a, b = (read_points(tmp_path / "out" / f"{name}.ply").colors for name in "ab")
    np.testing.assert_array_equal(a, b[:300])
    assert "features.png" not in files_below(tmp_path / "out")


def test_colors_do_not_depend_on_how_many_points_are_in_memory_at_a_time(
    extractor, tmp_path, monkeypatch
):
    write_ply(tmp_path / "a.ply", cloud(0))
    colors = []
    for rows in (1000, 7):
        monkeypatch.setattr(module, "_ROWS_AT_A_TIME", rows)
        extract_files(extractor, [tmp_path / "a.ply"], tmp_path / str(rows), image=False)
        colors.append(read_points(tmp_path / str(rows) / "a.ply").colors.astype(int))
    assert np.abs(colors[0] - colors[1]).max() <= 1, "a rounding error at most"
    assert len(np.unique(colors[0], axis=0)) > 10


def test_one_bad_file_is_reported_and_the_others_are_written(extractor, scene, tmp_path):
    (scene / "cut.ply").write_bytes((scene / "room.ply").read_bytes()[:-100])
    np.save(scene / "nan.npy", np.full((5, 3), np.nan))
    lines = []
    inputs = [scene, tmp_path / "absent.ply"]
    result = extract_files(extractor, inputs, tmp_path / "out", report=lines.append, image=False)
    assert len(result.written) == 3 and len(result.failed) == 3
    assert "cut.ply: cut off" in lines[0] and "nan.npy: 5 of 5 points" in lines[1]
    assert "absent.ply: no such file" in lines[2] and not any("\n" in line for line in lines)
    written = set(files_below(tmp_path / "out"))
    assert {"room.npz", "room.ply"} <= written and not {"cut.npz", "nan.npz"} & written


def test_errors_of_the_extractor_name_the_file(extractor, tmp_path):
    np.save(tmp_path / "far.npy", np.array([[0, 0, 0], [1e15, 0, 0]]))
    lines = []
    extract_files(extractor, [tmp_path / "far.npy"], tmp_path / "out", report=lines.append)
    assert len(lines) == 1 and "far.npy: " in lines[0] and "along x" in lines[0]


def test_warnings_of_the_extractor_name_the_file(tmp_path):
    """Else the second of two equal warnings is not shown."""
    oriented = FeatureExtractor(small_network(kernels="pair", oriented=True), 0.1)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", 100 * cloud(0))
    with pytest.warns(InputWarning) as caught:
        extract_files(oriented, [tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "out")
    lines = [str(warning.message) for warning in caught]
    for name in ("a", "b"):
        here = f"{tmp_path / name}.npy: "
        assert any(line.startswith(f"{here}neither viewpoint nor normals") for line in lines)
        assert any(line.startswith(here) and "have a neighbour" in line for line in lines)


def test_a_cloud_of_a_whole_shape_is_not_taken_for_a_scan(tmp_path):
    points = body()[0]
    np.save(tmp_path / "ball.npy", points)
    network = small_network(kernels="pair", oriented=True)
    save_checkpoint(tmp_path / "net.safetensors", network, 0.1)
    arguments = ["--checkpoint", str(tmp_path / "net.safetensors"), "--no-image", "--closed"]
    assert extract.main([str(tmp_path / "ball.npy"), "--output", str(tmp_path), *arguments]) == 0
    found = np.load(tmp_path / "ball.npz")["features"]
    extractor = FeatureExtractor(network, 0.1)
    np.testing.assert_array_equal(found, extractor(points, closed=True))
    assert not np.array_equal(found, extractor(points))


def test_equal_names_are_told_apart(extractor, tmp_path):
    for path in ("a/scan.ply", "b/scan.ply", "b/Scan.npy", "b/other.ply"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        if path.endswith("ply"):
            write_ply(tmp_path / path, cloud(0, 20))
        else:
            np.save(tmp_path / path, cloud(0, 20))
    inputs = [tmp_path / "a" / "scan.ply", tmp_path / "b"]
    extract_files(extractor, [*inputs, inputs[0]], tmp_path / "out", image=False)
    names = {
        name.removesuffix(".npz") for name in files_below(tmp_path / "out") if name.endswith("npz")
    }
    assert names == {"scan", "scan_ply", "Scan_npy", "other"}


def test_empty_clouds_are_written_too(extractor, tmp_path):
    write_ply(tmp_path / "empty.ply", np.empty((0, 3)))
    result = extract_files(extractor, [tmp_path / "empty.ply"], tmp_path / "out")
    assert files_below(tmp_path / "out") == ["empty.npz", "empty.ply"] and result.picture is None
    with np.load(tmp_path / "out" / "empty.npz") as archive:
        assert archive["features"].shape == (0, CHANNELS)


def test_invalid_points_can_be_left_out(extractor, tmp_path):
    points = cloud(0, 20)
    points[3] = np.nan
    np.save(tmp_path / "a.npy", points)
    extract_files(extractor, [tmp_path / "a.npy"], tmp_path / "out", drop_invalid=True, image=False)
    with np.load(tmp_path / "out" / "a.npz") as archive:
        assert len(archive["points"]) == len(archive["features"]) == 19
        np.testing.assert_array_equal(archive["rows"], np.delete(np.arange(20), 3))


def test_the_results_of_an_earlier_call_are_no_input(extractor, scene):
    for _ in range(2):
        result = extract_files(extractor, [scene], scene / "out", image=False)
    assert len(result.written) == 3


def test_inputs_are_never_overwritten(extractor, scene):
    before = (scene / "room.ply").read_bytes()
    with pytest.raises(ValueError, match="would overwrite"):
        extract_files(extractor, [scene / "room.ply"], scene)
    assert (scene / "room.ply").read_bytes() == before


def test_a_picture_that_is_no_result_is_never_overwritten(extractor, scene, tmp_path):
    output = tmp_path / "mine"
    output.mkdir()
    (output / "features.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="features.png: is no result and would be overwritten"):
        extract_files(extractor, [scene / "room.ply"], output)
    assert [path.name for path in output.iterdir()] == ["features.png"]
    extract_files(extractor, [scene / "room.ply"], output, image=False)
    extract_files(extractor, [scene / "room.ply"], output)  # beside a result it is one, too
    assert (output / "features.png").read_bytes() != b"mine"


@pytest.mark.parametrize("name", ["notes.ply", "notes.npz"])
def test_files_that_are_no_results_are_never_overwritten(extractor, scene, name):
    np.savetxt(scene / "notes.txt", cloud(3))
    if name.endswith(".npz"):
        np.savez(scene / name, features=np.ones(3))
    else:
        write_ply(scene / name, cloud(4))
    before = (scene / name).read_bytes()
    with pytest.raises(InputError, match=f"notes.txt: its result would overwrite .*{name}"):
        extract_files(extractor, [scene / "notes.txt"], scene, image=False)
    assert (scene / name).read_bytes() == before
    # Results of an earlier call give way to new ones.
    (scene / name).unlink()
    for _ in range(2):
        result = extract_files(extractor, [scene / "notes.txt"], scene, image=False)
        assert list(result.written.values()) == [scene / "notes.npz"]


def test_a_full_disk_leaves_no_half_written_file(extractor, scene, tmp_path, monkeypatch):
    save = np.savez

    def full(path, **arrays):
        if "desk" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(path, **arrays)

    monkeypatch.setattr(module.np, "savez", full)
    lines = []
    result = extract_files(extractor, [scene], tmp_path / "out", report=lines.append, image=False)
    assert len(lines) == 1 and "No space left on device" in lines[0] and len(result.written) == 2
    assert files_below(tmp_path / "out") == ["room.npz", "room.ply", "sub/room.npz", "sub/room.ply"]


def test_progress_ends_at_the_number_of_files(extractor, scene, tmp_path):
    seen = []
    extract_files(
        extractor, [scene], tmp_path / "out", image=False, progress=lambda *step: seen.append(step)
    )
    for stage in ("features", "colours"):
        steps = [(done, total) for name, done, total, _ in seen if name == stage]
        assert steps[0] == (0, 3) and steps[-1] == (3, 3) and steps == sorted(steps)


def test_progress_counts_all_views_and_scales_of_a_file(extractor, scene, tmp_path):
    seen = []
    extract_files(
        extractor, [scene], tmp_path / "out", image=False, views=2, scales=[1.0, 2.0],
        progress=lambda stage, done, *_: stage == "features" and seen.append(done),
    )  # fmt: skip
    # Before the first pass of each file, after each of its four, and after it was written.
    assert seen == [k + share for k in range(3) for share in (0, 0.25, 0.5, 0.75, 1, 1)]


def test_the_tool_extracts_at_the_checkpoints_voxel_size(checkpoint, scene, tmp_path, capsys):
    assert run_tool(scene, "--checkpoint", checkpoint, "--output", tmp_path / "out") == 0
    assert "3 of 3" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "sub" / "desk.npz") as archive:
        assert archive["voxel_size"] == 0.1 and archive["checkpoint"] == str(checkpoint)
    assert (tmp_path / "out" / "features.png").is_file()


def test_the_tool_takes_its_options(checkpoint, scene, tmp_path):
    options = [
        "--voxel-size",
        0.2,
        "--interpolation",
        "trilinear",
        "--max-voxels",
        90,
        "--halo",
        1,
        "--device",
        "cpu",
    ]
    out = tmp_path / "out"
    page = tmp_path / "page.html"
    outputs = ["--output", out, "--no-image", "--html", page]
    assert run_tool(scene, "--checkpoint", checkpoint, *outputs, *options) == 0
    assert "room" in page.read_text(encoding="utf-8")
    assert not (out / "features.png").exists()
    with np.load(out / "room.npz") as archive:
        extract, points = FeatureExtractor(small_model(), 0.2), archive["points"]
        expected = extract(points, "trilinear", max_voxels=90, halo=1)
        np.testing.assert_allclose(archive["features"], expected, atol=1e-5)
        assert (
            np.abs(expected - extract(points, "trilinear")).max() > 1e-3
        )  # a halo this small shows


def test_the_tool_ends_with_2_after_one_bad_file(checkpoint, scene, tmp_path, capsys):
    (scene / "bad.ply").write_text("no cloud")
    assert (
        run_tool(scene, "--checkpoint", checkpoint, "--output", tmp_path / "out", "--no-image") == 2
    )
    captured = capsys.readouterr()
    assert "bad.ply: not a PLY file" in captured.err and len(captured.err.splitlines()) == 1
    assert "3 of 4" in captured.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--voxel-size", "-1"], "voxel size -1.0, expected a positive number"),
        (["--device", "quantum"], "'quantum'"),
        (["--max-voxels", "0"], "max_voxels 0"),
        (["--checkpoint", "absent.safetensors"], "absent.safetensors"),
        (["--output", os.devnull + "/out"], os.devnull),
        (["--interpolation", "cubic"], "cubic"),
    ],
)
def test_wrong_arguments_end_the_tool_with_2(checkpoint, scene, tmp_path, capsys, change, message):
    arguments = [scene, "--checkpoint", checkpoint, "--output", tmp_path / "out", *change]
    assert run_tool(*arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_missing_and_an_empty_folder_end_the_tool_with_2(checkpoint, tmp_path, capsys, kind):
    folder = tmp_path / "folder"
    if kind == "empty":
        folder.mkdir()
    assert run_tool(folder, "--checkpoint", checkpoint, "--output", tmp_path / "out") == 2
    assert str(folder) in capsys.readouterr().err


def test_an_interrupted_tool_ends_with_130(checkpoint, scene, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureExtractor, "__call__", interrupt)
    assert run_tool(scene, "--checkpoint", checkpoint, "--output", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_list_of_viewpoints_that_fits_no_input_is_said(scene, checkpoint, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("room.ply 0 0 0\nsub/*.npy 0 0 0\nsub/roam.npz 0 0 0\n")
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    assert extract.main([str(scene), *arguments, "--no-image", "--viewpoints", str(listed)]) == 0
    assert f"{listed}: no input fits sub/roam.npz (line 3)" in capsys.readouterr().err
