"""tools/voxelize.py: meshes in; voxels and one picture out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from sparsefeat.cli import voxelize
from sparsefeat.errors import InputError
from sparsefeat.extract import voxelize_files as module
from sparsefeat.extract.voxelize_files import voxelize_files
from sparsefeat.mesh import read_mesh, voxelize_mesh
from sparsefeat.mesh.pictures import cubes, draw_voxels


def run_tool(*arguments: object) -> int:
    """Run the tool in this process; argparse ends it by itself if the arguments are wrong."""
    try:
        return voxelize.main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code


@pytest.fixture
def shapes(tmp_path) -> Path:
    """Two meshes of the same name in two folders, one of another kind, and files that are no meshes."""
    folder = tmp_path / "shapes"
    (folder / "sub").mkdir(parents=True)
    trimesh.creation.icosphere(2).export(folder / "ball.ply")
    trimesh.creation.torus(1.0, 0.3, 12, 8).export(folder / "sub" / "ball.off")
    trimesh.creation.box().export(folder / "sub" / "box.stl")
    (folder / "notes.txt").write_text("not a mesh")
    (folder / ".hidden.off").write_text("not a mesh")
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_gives_voxels_and_one_picture(shapes, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--voxel-size", 0.5, "--attributes", "area,normal,triangle"]
    page = tmp_path / "page.html"
    assert run_tool(shapes, "--output", out, *options, "--html", page) == 0
    assert "ball" in page.read_text(encoding="utf-8")
    assert files_below(out) == ["ball.npz", "sub/ball.npz", "sub/box.npz", "voxels.png"]
    mesh = read_mesh(shapes / "ball.ply")
    expected = voxelize_mesh(mesh.vertices, mesh.faces, 0.5, area=True, normal=True, triangle=True)
    with np.load(out / "ball.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {
            "coordinates",
            "voxel_size",
            "vertex_voxel",
            "area",
            "normal",
            "triangle",
        }
        assert archive["voxel_size"] == 0.5 and archive["coordinates"].dtype == np.int32
        for name in ("coordinates", "area", "normal", "triangle"):
            np.testing.assert_array_equal(archive[name], getattr(expected, name).numpy())
        cells = archive["coordinates"][archive["vertex_voxel"]]
        np.testing.assert_array_equal(cells, np.floor(mesh.vertices / 0.5))
    captured = capsys.readouterr()
    assert (
        "3 of 3 inputs" in captured.out
        and "box.stl: 36 corners of triangles welded to 8" in captured.err
    )
    picture = np.asarray(Image.open(out / "voxels.png").convert("RGB"))
    assert picture.shape[1] > 1000 and picture.std() > 20


def test_resolution_is_that_of_each_mesh(shapes, tmp_path):
    assert run_tool(shapes, "--output", tmp_path / "out", "--resolution", 20, "--no-image") == 0
    for name, side in (("ball", 2.0), ("sub/ball", 2.6), ("sub/box", 1.0)):
        with np.load(tmp_path / "out" / f"{name}.npz") as archive:
            assert archive["voxel_size"] == pytest.approx(side / 20, rel=1e-6)
            extent = np.ptp(archive["coordinates"], axis=0).max() + 1
            assert extent in (20, 21) and "area" not in archive.files
    assert not (tmp_path / "out" / "voxels.png").exists()


def test_one_bad_file_is_reported_and_the_others_are_written(shapes, tmp_path, capsys):
    (shapes / "bad.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n")
    np.savez(shapes / "point.npz", vertices=np.ones((3, 3)), faces=[[0, 1, 2]])
    assert run_tool(shapes, "--output", tmp_path / "out", "--resolution", 8, "--no-image") == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert "bad.off: 1 of 1 faces name a vertex that is not there" in lines[0]
    assert (
        "point.npz: all vertices are at one place" in lines[1] and "3 of 5 inputs" in captured.out
    )
    assert len(files_below(tmp_path / "out")) == 3


def test_results_of_an_earlier_call_are_no_input_and_inputs_stay(shapes):
    for _ in range(2):
        assert len(voxelize_files([shapes], shapes / "out", 0.5, image=False).written) == 3
    np.savez(shapes / "mesh.npz", vertices=np.eye(3), faces=[[0, 1, 2]])
    before = (shapes / "mesh.npz").read_bytes()
    with pytest.raises(ValueError, match="would overwrite"):
        voxelize_files([shapes / "mesh.npz"], shapes, 0.5)
    assert (shapes / "mesh.npz").read_bytes() == before


def test_files_that_are_no_results_are_never_overwritten(shapes):
    np.savez(shapes / "ball.npz", features=np.eye(3), checkpoint="of another command")
    before = (shapes / "ball.npz").read_bytes()
    with pytest.raises(InputError, match=r"would overwrite .*ball\.npz"):
        voxelize_files([shapes / "ball.ply"], shapes, 0.5, image=False)
    assert (shapes / "ball.npz").read_bytes() == before


def test_unreferenced_vertices_map_to_the_nearest_voxel(tmp_path):
    vertices = np.concatenate([np.eye(3), [[9.0, 0.1, 0.1]]])
    np.savez(tmp_path / "a.npz", vertices=vertices, faces=[[0, 1, 2]])
    voxelize_files([tmp_path / "a.npz"], tmp_path / "out", 0.5, image=False)
    with np.load(tmp_path / "out" / "a.npz") as archive:
        assert archive["coordinates"][archive["vertex_voxel"]].tolist() == [
            [2, 0, 0],
            [0, 2, 0],
            [0, 0, 2],
            [2, 0, 0],
        ]


def test_a_full_disk_leaves_no_half_written_file(shapes, tmp_path, monkeypatch):
    def full(path, **arrays):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    lines = []
    result = voxelize_files([shapes / "ball.ply"], tmp_path / "out", 0.5, report=lines.append)
    assert (
        not result.written
        and "No space left on device" in lines[0]
        and files_below(tmp_path / "out") == []
    )


def test_progress_ends_at_the_number_of_files(shapes, tmp_path):
    seen = []
    voxelize_files([shapes], tmp_path / "out", 2.0, progress=lambda *step: seen.append(step))
    assert [(s, d, t) for s, d, t, _ in seen if s == "voxels"] == [
        ("voxels", k, 3) for k in range(4)
    ]
    assert seen[-1][:3] == ("picture", 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--voxel-size", "-1"], "voxel size -1.0, expected a positive number"),
        (["--voxel-size", "nan"], "voxel size nan, expected a positive number"),
        (["--resolution", "0"], "resolution 0, expected 1 to"),
        (["--voxel-size", "1", "--resolution", "9"], "not allowed with"),
        ([], "one of the arguments --voxel-size --resolution is required"),
        (["--voxel-size", "1", "--device", "quantum"], "'quantum'"),
        (
            ["--voxel-size", "1", "--attributes", "area,colour"],
            "attribute 'colour', expected some of area, normal",
        ),
        (["--voxel-size", "1", "--up", "w"], "--up: invalid choice: 'w'"),
        (["--voxel-size", "1", "--output", os.devnull + "/out"], os.devnull),
        (["--voxel-size", "1e-12"], "voxels of 1e-12"),
    ],
)
def test_wrong_arguments_end_the_tool_with_2(shapes, tmp_path, capsys, options, message):
    assert run_tool(shapes / "ball.ply", "--output", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_missing_and_an_empty_folder_end_the_tool_with_2(tmp_path, capsys, kind):
    folder = tmp_path / "folder"
    if kind == "empty":
        folder.mkdir()
    assert run_tool(folder, "--output", tmp_path / "out", "--voxel-size", 1) == 2
    assert str(folder) in capsys.readouterr().err


def test_an_interrupted_tool_ends_with_130(shapes, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "voxelize_mesh", interrupt)
    assert run_tool(shapes, "--output", tmp_path / "out", "--voxel-size", 1) == 130
    assert "interrupted" in capsys.readouterr().err


def test_only_sides_that_are_free_and_face_the_viewer_are_drawn():
    towards = np.array([1.0, -1.0, 1.0])
    vertices, faces, colors = cubes(np.array([[5, 5, 5], [6, 5, 5]]), towards, np.ones(3))
    # Of two cubes side by side three sides each, less the one between them; with and without their rims.
    assert len(faces) == len(colors) == 2 * 2 * 5
    many = np.stack(np.meshgrid(*[np.arange(100)] * 2, [3], indexing="ij"), -1).reshape(-1, 3)
    vertices, faces, _ = cubes(many, towards, np.ones(3))
    assert len(faces) == 2 * (100 * 100 + 2 * 100)
    assert vertices.min() == 0 and vertices.max() == 100


@pytest.mark.parametrize("up", ["y", "-z"])
def test_a_picture_of_one_voxel(tmp_path, up):
    draw_voxels([torch.tensor([[0, 0, 0]])], tmp_path / "a.png", up=up)
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    inside = picture[
        picture.shape[0] // 4 : -picture.shape[0] // 4,
        picture.shape[1] // 3 : -picture.shape[1] // 3,
    ]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 3 and (picture[0, 0] == 255).all()


@pytest.mark.parametrize("cells", [np.zeros((0, 3), int), np.zeros(3, int), [[0.5, 0, 0]]])
def test_what_are_no_voxels_is_not_drawn(tmp_path, cells):
    with pytest.raises(ValueError, match=r"voxels: .* expected whole numbers \(V, 3\), V > 0"):
        draw_voxels([cells], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
