"""The text files beside 3DMatch's fragments: gt.log (poses), gt.info (information matrices), overlaps.

A block of gt.log is ``i j n`` and a 4x4 matrix that maps fragment j into the frame of fragment i; a
block of gt.info is ``i j n`` and a 6x6 information matrix. Numbers are separated by any white space:
files in circulation use spaces, tabs, both, and a tab at the end of the line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.text import read_lines, whole

# Rotations in 3DMatch's own gt.log are orthogonal to 5e-4 at worst.
RIGID_TOLERANCE = 1e-2


class LogBlock(NamedTuple):
    """One block of a gt.log or gt.info file.

    Attributes:
        i: index of the fragment into whose frame the pose maps.
        j: index of the fragment that is mapped.
        n: number of fragments of the scene.
        matrix: (4, 4) pose or (6, 6) information matrix, float64.
        line: line of the block's header in the file, from 1; 0 if it was not read from a file.
    """

    i: int
    j: int
    n: int
    matrix: np.ndarray
    line: int = 0


def read_log(path: str | os.PathLike) -> list[LogBlock]:
    """Read poses: gt.log, or any trajectory in the same format.

    Args:
        path: the file.

    Returns:
        The blocks in the file's order, each with a rigid (4, 4) matrix. Indices are as they stand.

    Raises:
        InputError: the file is absent, cut off, not in this format, or has a matrix that is not a
            rigid motion; the message names the file and the line.
    """
    blocks = _read_blocks(path, 4)
    for block in blocks:
        problem = rigid_problem(block.matrix)
        if problem:
            where = f"{path}, line {block.line + 1}"
            raise InputError(f"{where}: the matrix of block '{_header(block)}' {problem}")
    return blocks


def read_info(path: str | os.PathLike) -> list[LogBlock]:
    """Read information matrices: gt.info.

    Args:
        path: the file.

    Returns:
        The blocks in the file's order, each with a (6, 6) matrix whose first entry is positive.

    Raises:
        InputError: the file is absent, cut off or not in this format; the file and line are named.
    """
    blocks = _read_blocks(path, 6)
    for block in blocks:
        if block.matrix[0, 0] <= 0:  # the registration error is divided by it
            raise InputError(
                f"{path}, line {block.line + 1}: the information matrix of block '{_header(block)}' begins "
                f"with {block.matrix[0, 0]:g}, expected the number of corresponding points, more than 0"
            )
    return blocks


def write_log(path: str | os.PathLike, blocks: Iterable[Sequence]) -> None:
    """Write poses as gt.log; the file appears whole or not at all.

    Args:
        path: the file; its folder must exist.
        blocks: ``LogBlock``, or tuples ``(i, j, n, matrix)`` with a rigid (4, 4) matrix.

    Raises:
        InputError: a matrix has the wrong shape or is not rigid, or the file cannot be created.
    """
    _write_blocks(path, blocks, 4)


def write_info(path: str | os.PathLike, blocks: Iterable[Sequence]) -> None:
    """Write information matrices as gt.info; the file appears whole or not at all.

    Args:
        path: the file; its folder must exist.
        blocks: ``LogBlock``, or tuples ``(i, j, n, matrix)`` with a (6, 6) matrix.

    Raises:
        InputError: a matrix has the wrong shape or invalid values, or the file cannot be created.
    """
    _write_blocks(path, blocks, 6)


def read_overlaps(path: str | os.PathLike) -> dict[tuple[int, int], float]:
    """Read gt_overlap.log: lines ``i,j,overlap``.

    Args:
        path: the file.

    Returns:
        The overlap, a share from 0 to 1, of each pair ``(i, j)``.

    Raises:
        InputError: the file is absent or a line is not in this format; the file and line are named.
    """
    overlaps = {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        i, j = (whole(word) for word in (words + ["", ""])[:2])
        try:
            overlap = float(words[2])
        except (ValueError, IndexError):
            overlap = math.nan
        if len(words) != 3 or i is None or j is None or not 0 <= overlap <= 1:
            raise InputError(
                f"{path}, line {number}: expected 'i,j,overlap' with a share from 0 to 1, "
                f"got {_shorten(line.split())}"
            )
        overlaps[i, j] = overlap
    return overlaps


def rigid_problem(matrix: np.ndarray) -> str | None:
    """Say why a (4, 4) matrix is not a rigid motion, or return None if it is."""
    rotation = matrix[:3, :3]
    if np.abs(rotation).max() > 2:  # far from one, and its square might be too large for a number
        return "is not a rigid motion: its rotation has a value above 2"
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        return f"is not a rigid motion: its last row is {matrix[3].tolist()}, expected 0 0 0 1"
    deviation = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if deviation > RIGID_TOLERANCE:
        return f"is not a rigid motion: its rotation is off orthogonal by {deviation:.2g}"
    if np.linalg.det(rotation) < 0:
        return "is not a rigid motion: its rotation is a reflection"
    return None


def _read_blocks(path: str | os.PathLike, size: int) -> list[LogBlock]:
    lines = [(number, line.split()) for number, line in enumerate(read_lines(path), 1)]
    lines = [(number, words) for number, words in lines if words]
    blocks = []
    for start in range(0, len(lines), size + 1):
        number, words = lines[start]
        header = [value for value in map(whole, words) if value is not None]
        if not len(header) == len(words) == 3:
            raise InputError(
                f"{path}, line {number}: expected a block header 'i j n' of three whole numbers, "
                f"got {_shorten(words)}"
            )
        i, j, n = header
        rows = lines[start + 1 : start + 1 + size]
        matrix = [_read_row(path, row, size, f"{i} {j} {n}") for row in rows]
        if len(rows) < size:
            raise InputError(
                f"{path}, line {lines[-1][0]}: the file ends inside block '{i} {j} {n}', "
                f"after {len(rows)} of {size} matrix rows"
            )
        blocks.append(LogBlock(i, j, n, np.array(matrix, dtype=np.float64), number))
    if not blocks:
        raise InputError(
            f"{path}: the file is empty, expected blocks of 'i j n' and a {size}x{size} matrix"
        )
    return blocks


def _read_row(
    path: str | os.PathLike, row: tuple[int, list[str]], size: int, header: str
) -> list[float]:
    number, words = row
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != size:
        raise InputError(
            f"{path}, line {number}: expected a matrix row of {size} numbers in block '{header}', "
            f"got {_shorten(words)}"
        )
    if not all(map(math.isfinite, values)):
        raise InputError(
            f"{path}, line {number}: NaN or infinity in the matrix of block '{header}'"
        )
    return values


def _write_blocks(path: str | os.PathLike, blocks: Iterable[Sequence], size: int) -> None:
    text = []
    for block in blocks:
        i, j, n, matrix = block[:4]
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (size, size):
            shapes = f"has shape {matrix.shape}, expected {size, size}"
            raise InputError(f"{path}: the matrix of block '{i} {j} {n}' {shapes}")
        if not np.isfinite(matrix).all():
            raise InputError(f"{path}: NaN or infinity in the matrix of block '{i} {j} {n}'")
        problem = rigid_problem(matrix) if size == 4 else None
        if problem:
            raise InputError(f"{path}: the matrix of block '{i} {j} {n}' {problem}")
        text.append(f"{int(i)}\t{int(j)}\t{int(n)}\n")
        # 17 significant digits bring a float64 back bit for bit.
        text.extend("\t".join(f"{value: .16e}" for value in row) + "\n" for row in matrix)
    with atomic_write(path) as temporary:
        temporary.write_text("".join(text), encoding="ascii")


def _header(block: LogBlock) -> str:
    return f"{block.i} {block.j} {block.n}"


def _shorten(words: list[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 60 else text[:57] + "...")
