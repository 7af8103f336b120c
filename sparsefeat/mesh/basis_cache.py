"""Laplace bases kept in a folder, by the content of the mesh."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write, sweep

_VERSION = 3  # of what is computed as much as of the layout: raise it whenever either changes

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, sp.csr_matrix, sp.csr_matrix]


class BasisCache:
    """A folder with one file per mesh, number of eigenpairs and kind of Laplacian.

    A file that is damaged, of another version or does not fit the mesh counts as absent: what is in a
    cache can always be computed again.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        with opening(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder, deep=False)

    def path(self, vertices: np.ndarray, faces: np.ndarray | None, k: int, kind: str) -> Path:
        """Where the basis of this mesh is or would be."""
        digest = hashlib.sha256(f"{_VERSION} {k} {kind} {vertices.shape} ".encode())
        digest.update(np.ascontiguousarray(vertices).astype("<f8").tobytes())
        digest.update(
            b"cloud" if faces is None else np.ascontiguousarray(faces).astype("<i8").tobytes()
        )
        return self.folder / f"laplace-{digest.hexdigest()[:40]}.npz"

    def read(
        self, vertices: np.ndarray, faces: np.ndarray | None, k: int, kind: str
    ) -> Arrays | None:
        """What :meth:`write` was given for the same mesh, or None."""
        try:
            with np.load(self.path(vertices, faces, k, kind), allow_pickle=False) as file:
                if int(file["version"]) != _VERSION:
                    return None
                values, vectors, mass = (file[name] for name in ("values", "vectors", "mass"))
                gradients = [_read_sparse(file, name, len(vertices)) for name in ("x", "y")]
        except FileNotFoundError:
            return None
        except (
            Exception
        ):  # what a damaged archive raises is not bounded: zip, header, compression, memory
            return None
        n, count = len(vertices), len(values)
        fits = (
            values.shape == (count,)
            and 1 <= count <= k
            and vectors.shape == (n, count)
            and mass.shape == (n,)
            and all(a.dtype == np.float64 and np.isfinite(a).all() for a in (values, vectors, mass))
        )
        return (values, vectors, mass, *gradients) if fits else None

    def write(
        self, arrays: Arrays, vertices: np.ndarray, faces: np.ndarray | None, k: int, kind: str
    ) -> None:
        """Keep ``arrays`` (eigenvalues, eigenvectors, mass, gradients) for this mesh.

        Raises:
            InputError: the folder cannot be written.
        """
        values, vectors, mass, x, y = arrays
        target = self.path(vertices, faces, k, kind)
        with opening(target), atomic_write(target) as path:
            np.savez(
                path,
                version=_VERSION,
                values=values,
                vectors=vectors,
                mass=mass,
                **{f"x_{part}": getattr(x, part) for part in ("data", "indices", "indptr")},
                **{f"y_{part}": getattr(y, part) for part in ("data", "indices", "indptr")},
            )


def _read_sparse(file: np.lib.npyio.NpzFile, name: str, n: int) -> sp.csr_matrix:
    parts = tuple(file[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    if parts[0].dtype != np.float64 or not np.isfinite(parts[0]).all():
        raise InputError("not the values of an operator")
    matrix = sp.csr_matrix(parts, shape=(n, n))
    matrix.check_format(full_check=True)
    return matrix
