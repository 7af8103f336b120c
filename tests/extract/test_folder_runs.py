"""A run over many files: one that fails is its own affair, and names of results are the files'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import small_network

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.cli import extract, voxelize
from sparsefeat.errors import InputError
from sparsefeat.extract.files import find_inputs
from sparsefeat.io.pointcloud import write_ply

OFF = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def refuse(path: Path, error: Exception) -> None:
    raise AssertionError(f"{path}: {error}")


def names(files: list[Path], output: Path) -> list[str]:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return [str(name) for name in find_inputs(files, output, refuse).values()]


def test_files_that_lie_side_by_side_are_told_apart_by_their_suffix(tmp_path):
    files = [tmp_path / "a" / name for name in ("torus.obj", "torus.ply", "cube.obj")]
    assert names(files, tmp_path / "out") == ["torus_obj", "torus_ply", "cube"]
    files = [tmp_path / "b" / name for name in ("t.obj", "t.ply", "t_obj.ply", "T.off")]
    assert names(files, tmp_path / "out") == ["t_obj_", "t_ply", "t_obj", "T_off"]


def test_files_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    files = [tmp_path / "c" / place for place in ("one/x.ply", "two/x.ply", "two/x.obj")]
    assert names(files, tmp_path / "out") == ["x", "x_ply", "x_obj"]
    files = [tmp_path / "c" / place for place in ("one/x.ply", "three/x.ply")]
    assert names(files, tmp_path / "out") == ["one/x", "three/x"]


def test_an_output_that_is_the_folder_of_the_inputs_is_refused_with_that_reason(tmp_path):
    write_ply(tmp_path / "a.ply", np.zeros((3, 3)))
    with pytest.raises(InputError, match="is the folder of the inputs"):
        find_inputs([tmp_path], tmp_path, refuse)
    with pytest.raises(InputError, match=r"a\.ply: its result would overwrite"):
        find_inputs([tmp_path / "a.ply"], tmp_path, refuse)
    # Above or below it there is room.
    assert list(find_inputs([tmp_path], tmp_path / "out", refuse)) == [tmp_path / "a.ply"]
    assert list(find_inputs([tmp_path], tmp_path.parent, refuse)) == [tmp_path / "a.ply"]


@pytest.mark.parametrize(
    "error", [ValueError("odd"), MemoryError(), RuntimeError("first\nsecond"), KeyError("x")]
)
def test_whatever_a_mesh_raises_belongs_to_it(tmp_path, monkeypatch, capsys, error):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.off").write_text(OFF)
    from sparsefeat.extract import voxelize_files

    real = voxelize_files.read_mesh

    def read(path):
        if Path(path).stem == "b":
            raise error
        return real(path)

    monkeypatch.setattr(voxelize_files, "read_mesh", read)
    code = voxelize.main(
        [str(tmp_path), "--voxel-size", "0.1", "--no-image", "--output", str(tmp_path / "out")]
    )
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out.splitlines()[-1] == f"1 of 3 failed: {tmp_path / 'b.off'}"
    assert f"{tmp_path / 'b.off'}: " in printed.err and "Traceback" not in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npz", "c.npz"]


def test_whatever_a_cloud_raises_belongs_to_it(tmp_path, capsys):
    save_checkpoint(tmp_path / "net.safetensors", small_network(), 0.05)
    (tmp_path / "in").mkdir()
    points = np.random.default_rng(0).random((300, 3)) * [1, 1, 0.01]
    write_ply(tmp_path / "in/a.ply", points)
    (tmp_path / "in/b.ply").write_text("not a cloud")
    write_ply(tmp_path / "in/c.ply", points * 1000)
    command = [
        str(tmp_path / "in"),
        "--checkpoint",
        str(tmp_path / "net.safetensors"),
        "--no-image",
        "--output",
    ]
    assert extract.main([*command, str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"1 of 3 failed: {tmp_path / 'in/b.ply'}"
    warned = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and "for coordinates in mm give unit 'mm'" in warned[0]
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"a.npz", "a.ply", "c.npz", "c.ply"}
    # The same run twice writes the same bytes.
    extract.main([*command, str(tmp_path / "again")])
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_a_voxel_size_that_means_too_many_voxels_says_how_many(tmp_path, capsys):
    (tmp_path / "a.off").write_text(OFF)
    code = voxelize.main(
        [str(tmp_path / "a.off"), "--voxel-size", "1e-6", "--output", str(tmp_path / "out")]
    )
    assert code == 2 and "about 7.5e+11 voxels of 1e-06" in capsys.readouterr().err
