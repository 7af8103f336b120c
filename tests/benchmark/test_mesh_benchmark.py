"""The benchmark of voxelisation counts what the contenders find on the same grid."""

from __future__ import annotations

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
