"""The benchmark of voxelisation counts what the contenders find on the same grid."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparsefeat.benchmark.voxelization import bumpy_torus, run


def test_the_mesh_is_closed():
    vertices, faces = bumpy_torus(200)
    edges = {tuple(e) for f in faces.tolist() for e in zip(f, f[1:] + f[:1], strict=True)}
    assert len(faces) == 200 and len(edges) == 600 and all((b, a) in edges for a, b in edges)
    assert np.isfinite(vertices).all() and np.ptp(vertices, axis=0).min() > 0.5


def test_trimesh_on_the_same_grid_misses_some_voxels_and_invents_none():
    result = run(*bumpy_torus(200), 12, runs=1, seconds=1.0)
    ours, theirs = result["contenders"]["sparsefeat"], result["contenders"]["trimesh"]
    assert result["triangles"] == 200 and result["voxels"] > 100 and ours["times"]["median_s"] > 0
    assert theirs["voxels"] == result["voxels"] - theirs["missing"] and theirs["extra"] == 0


def test_others_can_be_left_out_and_what_is_no_mesh_is_refused():
    assert list(run(*bumpy_torus(50), 6, runs=1, compare=False)["contenders"]) == ["sparsefeat"]
    with pytest.raises(ValueError, match="expected 0 to 2"):
        run(np.eye(3), np.array([[0, 1, 3]]), 6)


def test_the_command_writes_a_result_that_a_page_can_show(tmp_path, monkeypatch, capsys):
    from sparsefeat.benchmark import voxelization
    from sparsefeat.cli.main import main
    from sparsefeat.results import compare, fill, find_result

    def one_size(progress):
        progress("one size")
        return [run(*bumpy_torus(200), 12, runs=1, seconds=1.0)]

    monkeypatch.setattr(voxelization, "run_sizes", one_size)
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "--voxelization", "--result", "here", "--json", "here.json"]) == 0
    assert capsys.readouterr().out.startswith("one size\n")
    published = find_result(tmp_path, "voxelization/here")
    assert json.loads((tmp_path / "here.json").read_text()) == published["numbers"]
    text = fill("<!-- results: voxels voxelization/here -->\n<!-- /results -->\n", tmp_path)
    found = published["numbers"]["results"][0]
    lacking = found["contenders"]["trimesh"]["missing"]
    assert f"| 200 | 12 | {found['voxels']:,} |" in text and f"(-{lacking}, +0) |" in text
    again = compare(published, published["numbers"])
    assert again and all(comparison.agrees for comparison in again)
