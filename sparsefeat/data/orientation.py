"""What files say about the outer side of their surfaces, and a list of viewpoints beside them."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.data.fragments import load_viewpoint
from sparsefeat.errors import InputError, warn
from sparsefeat.io.meshes import has_faces, read_mesh
from sparsefeat.io.text import read_lines
from sparsefeat.mesh.normals import outer_normals

UNKNOWN = "unknown"
"""In place of the numbers of a viewpoint: whatever the file says, it is not known."""

LEAST_AGREEMENT = 0.9
"""Share of neighbours with nearly parallel normals that must point to the same side, or a file's normals are not used:
fitted normals that nobody turned agree by half."""

_SAMPLE = 5000


class Orientation(NamedTuple):
    """What is known of the outer side: at most one of the two.

    Attributes:
        normals: (N, 3) float64 vectors to it, or None.
        viewpoint: (3,) or (K, 3) float64, from where it was seen, or None.
    """

    normals: np.ndarray | None = None
    viewpoint: np.ndarray | None = None


class Viewpoints:
    """Viewpoints of files, as a list of them says.

    Args:
        listed: name or pattern, without ``./`` and doubled slashes -> (K, 3), or None where it is not known.
        source: the list, for messages.
        lines: name or pattern -> its first line there.
    """

    def __init__(
        self,
        listed: dict[str, np.ndarray | None],
        source: str = "viewpoints",
        lines: dict[str, int] | None = None,
    ):
        self._listed = listed
        self._source = source
        self._lines = lines or {}

    def of(self, path: str | os.PathLike) -> tuple[bool, np.ndarray | None]:
        """Whether a file is in the list, and its viewpoints (K, 3), or None where they are not known.

        A name fits the end of a path, by whole folders: ``a.ply`` and ``room/a.ply`` both fit ``scans/room/a.ply``.
        The longest name that fits is taken, or else the first pattern.
        """
        for name in _ends(path):
            if name in self._listed:
                return True, self._listed[name]
        for pattern, places in self._listed.items():
            if _fits(pattern, path):
                return True, places
        return False, None

    def warn_of_unused(self, paths: Iterable[str | os.PathLike]) -> None:
        """Issue an InputWarning that names the lines which fit none of these files, as one with a slip does."""
        paths = list(paths)
        ends = {name for path in paths for name in _ends(path)}
        unused = [
            f"{name} (line {self._lines[name]})" if name in self._lines else name
            for name in self._listed
            if name not in ends and not any(_fits(name, path) for path in paths)
        ]
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            warn(f"{self._source}: no input fits {', '.join(unused[:3])}{more}")


def read_viewpoints(path: str | os.PathLike) -> Viewpoints:
    """Read a list of viewpoints: a text with ``NAME X Y Z`` in each line, in the frame of that file.

    Several lines of one name are several viewpoints of one cloud. ``NAME unknown`` says that there is none. A name may
    have folders before it, and may be a pattern such as ``*.ply``. Lines that begin with ``#`` are comments.

    Raises:
        InputError: no such file, a line that is neither, or a name with a viewpoint and with none. The line is named.
    """
    listed: dict[str, list[np.ndarray] | None] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, values = _split(line)
        name = name and PurePath(name).as_posix()
        lines.setdefault(name, number)
        if name and values == [UNKNOWN]:
            if listed.get(name) is not None:
                raise InputError(_contradiction(path, name, lines[name], number))
            listed[name] = None
            continue
        try:
            place = np.array([float(value) for value in values])
        except ValueError:
            place = np.empty(0)
        if not name or place.shape != (3,) or not np.isfinite(place).all():
            raise InputError(
                f"{path}, line {number}: expected NAME X Y Z or NAME {UNKNOWN}, got {line.strip()!r}"
            )
        if name in listed and listed[name] is None:
            raise InputError(_contradiction(path, name, lines[name], number))
        listed[name] = [*(listed.get(name) or []), place]
    if not listed:
        raise InputError(f"{path}: no line NAME X Y Z")
    return Viewpoints(
        {name: None if places is None else np.stack(places) for name, places in listed.items()},
        os.fspath(path),
        lines,
    )


def load_orientation(
    path: str | os.PathLike,
    points: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    viewpoints: Viewpoints | None = None,
    viewpoint: Sequence[float] | np.ndarray | None = None,
) -> Orientation:
    """What is known of the outer side of a file's surface.

    In this order: the list, the viewpoint of all files, the file's own normals, the file's own viewpoint, see
    :func:`sparsefeat.data.fragments.load_viewpoint`, and its faces, see :func:`sparsefeat.mesh.normals.outer_normals`.
    Normals that do not agree with their neighbours', as fitted ones that nobody turned, are not used, and an InputWarning
    says so.

    Args:
        path: the file.
        points, normals: what was read from it, (N, 3) each; normals None: it has none.
        viewpoints: a list that goes before what the file says.
        viewpoint: (3,), that of every file that is not in the list.

    Raises:
        InputError: the file's viewpoint is not three finite numbers.
    """
    if viewpoints is not None:
        listed, places = viewpoints.of(path)
        if listed:
            return Orientation(viewpoint=places)
    if viewpoint is not None:
        return Orientation(viewpoint=np.asarray(viewpoint, dtype=np.float64))
    if points is not None and normals is not None and len(normals):
        if _can_be_used(path, "normals", points, normals):
            return Orientation(normals=normals)
        normals = None
    own = load_viewpoint(path)
    if own is None and points is not None:
        normals = _of_faces(path, len(points))
        if normals is not None and not _can_be_used(path, "faces", points, normals):
            normals = None
    return Orientation(normals, own)


def _of_faces(path: str | os.PathLike, count: int) -> np.ndarray | None:
    """Normals of a mesh's vertices to the outer side (N, 3); None if the file is none, or points of it were left out."""
    # Points do without faces, even where these are malformed.
    with contextlib.suppress(InputError):
        if has_faces(path):
            mesh = read_mesh(path)
            if len(mesh.vertices) == count:
                return outer_normals(mesh.vertices, mesh.faces)[1]
    return None


def _can_be_used(
    path: str | os.PathLike, what: str, points: np.ndarray, normals: np.ndarray
) -> bool:
    """Whether nearly all points have a normal, and neighbours the same side; if not, an InputWarning says so."""
    given = float((np.linalg.norm(normals, axis=1) > 1e-12).mean())
    if given < LEAST_AGREEMENT:
        warn(
            f"{path}: its {what} are not used: {1 - given:.0%} of its points get no normal from them"
        )
        return False
    share = agreement(points, normals)
    if share < LEAST_AGREEMENT:
        warn(
            f"{path}: its {what} are not used: of neighbours with parallel normals {share:.0%} point to the same side, "
            f"expected {LEAST_AGREEMENT:.0%}"
        )
    return share >= LEAST_AGREEMENT


def agreement(points: np.ndarray, normals: np.ndarray) -> float:
    """Share of nearest neighbours with nearly parallel normals that point to the same side; 1 if there are none.

    Shape: (N, 3), (N, 3) -> from 0 to 1, of a sample where there are many.
    """
    if len(points) < 2:
        return 1.0
    rows = np.arange(0, len(points), max(1, len(points) // _SAMPLE))
    near = cKDTree(points).query(points[rows], 2)[1]
    # Of two points in one place either may come first.
    other = np.where(near[:, 0] == rows, near[:, 1], near[:, 0])
    product = np.einsum("ni,ni->n", _unit(normals[rows]), _unit(normals[other]))
    parallel = np.abs(product) > 0.9
    return float((product[parallel] > 0).mean()) if parallel.any() else 1.0


def _contradiction(path: str | os.PathLike, name: str, first: int, second: int) -> str:
    return f"{path}: {name} has a viewpoint and is {UNKNOWN} in lines {first} and {second}, expected one of them"


def _split(line: str) -> tuple[str, list[str]]:
    """A name, which may have blanks, and the last words."""
    count = 1 if line.split()[-1] == UNKNOWN else 3
    name, *values = line.strip().rsplit(None, count)
    return (name, values) if len(values) == count else ("", [name, *values])


def _ends(path: str | os.PathLike) -> list[str]:
    """The path and its ends by whole folders, longest first."""
    parts = PurePath(path).parts
    return [PurePath(*parts[start:]).as_posix() for start in range(len(parts))]


def _fits(pattern: str, path: str | os.PathLike) -> bool:
    """Whether the end of a path, by whole folders, fits a pattern."""
    end = PurePath(*PurePath(path).parts[-len(PurePath(pattern).parts) :]).as_posix()
    return fnmatch.fnmatchcase(end, pattern)


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return unit
