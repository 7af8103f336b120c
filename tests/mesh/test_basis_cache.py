"""A damaged entry of the Laplace cache counts as absent, whatever is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from surfaces import sphere

from sparsefeat.heads import laplace_basis
from sparsefeat.mesh.basis_cache import BasisCache


@pytest.fixture
def entry(tmp_path):
    vertices, faces = (np.asarray(a) for a in sphere(2))
    basis = laplace_basis(vertices, faces, 5, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    return vertices, faces, basis, path


def test_bytes_that_changed_anywhere_give_the_same_basis(entry, tmp_path):
    vertices, faces, basis, path = entry
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        again = laplace_basis(vertices, faces, 5, cache=tmp_path)
        np.testing.assert_allclose(again.eigenvalues, basis.eigenvalues, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"not an archive"])
def test_another_file_or_an_empty_one_is_written_anew(entry, tmp_path, content):
    vertices, faces, _, path = entry
    whole = path.read_bytes()
    path.write_bytes(content)
    laplace_basis(vertices, faces, 5, cache=tmp_path)
    assert path.read_bytes() == whole


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / ".laplace-1.sparsefeat-abcdefgh.npz").write_bytes(b"half")
    BasisCache(tmp_path)
    assert list(tmp_path.iterdir()) == []
