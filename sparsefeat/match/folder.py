"""Many scans in, one frame out: every pair is matched, and a pose graph makes the poses agree."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from sparsefeat.checks import checked_share
from sparsefeat.data.fragments import FRAGMENT_SUFFIXES
from sparsefeat.data.orientation import Viewpoints
from sparsefeat.errors import InputError, opening
from sparsefeat.extract import FeatureExtractor
from sparsefeat.match.posegraph import Edge, PoseGraph, optimise_poses
from sparsefeat.match.register import SCALES, Registration, register_scans
from sparsefeat.match.scans import Scan, check_choice, choose_extractor, describe_scan, open_view

# Found in a folder, a txt is rarely a cloud: data sets keep their lists and notes in such files.
_SUFFIXES = tuple(suffix for suffix in FRAGMENT_SUFFIXES if suffix != ".txt")


@dataclass(frozen=True, eq=False)
class FolderMatches:
    """What :func:`match_folder` found, n scans.

    Attributes:
        files: the scans, in the order of all indices.
        scans: described, in the same order.
        pairs: (i, j) with i < j -> the registration of scan j onto scan i, of every pair.
        edges: the pairs with a credible pose, as they went into the graph.
        graph: optimised poses; ``graph.kept`` says which edges agree with them.
    """

    files: list[Path]
    scans: list[Scan]
    pairs: dict[tuple[int, int], Registration]
    edges: list[Edge]
    graph: PoseGraph


def match_folder(
    folder: str | os.PathLike | Sequence[str | os.PathLike],
    extractor: FeatureExtractor | str | os.PathLike | None = None,
    *,
    viewpoint: Sequence[float] | None = None,
    viewpoints: Viewpoints | None = None,
    scales: Sequence[float] = SCALES,
    points: int = 5000,
    min_confidence: float = 0.5,
    device: str | None = None,
    seed: int = 0,
    unit: str | None = None,
    progress: Callable[[str, float, int, str], None] | None = None,
) -> FolderMatches:
    """Register every pair of scans and find poses of all that agree.

    The time grows with the square of the number of scans.

    Args:
        folder: of scan files (txt excepted), in the order of the numbers in their names; or the
            files themselves.
        extractor, scales, points, min_confidence, device, seed, unit: as in
            :func:`sparsefeat.register`.
        viewpoint: (3,) where the sensor stood, in the frame of every file that is not in
            ``viewpoints``. None: what each file says, or estimated.
        viewpoints: of single files, see :func:`sparsefeat.data.orientation.read_viewpoints`.
        progress: called with (stage, done, in all, name).

    Raises:
        InputError: fewer than two scans, what is no file, or what :func:`sparsefeat.register` refuses.
    """
    check_choice(points, seed)
    checked_share(min_confidence, "min_confidence")
    files = _listed(folder)
    if len(files) < 2:
        raise InputError(
            f"{folder}: {len(files)} scans, expected at least 2 ({', '.join(_SUFFIXES)})"
        )
    if viewpoints is not None:
        viewpoints.warn_of_unused(files)
    tell = progress or (lambda *_: None)
    views = []
    for k, path in enumerate(files):
        tell("reading", k, len(files), path.name)
        views.append(open_view(path, viewpoint=viewpoint, viewpoints=viewpoints))
    extractor = choose_extractor(extractor, device, unit)
    scans = []
    for k, view in enumerate(views):
        tell("describing", k, len(files), files[k].name)
        scans.append(describe_scan(view, extractor, scales, points, seed))
    pairs, edges = {}, []
    every = list(combinations(range(len(files)), 2))
    for done, (i, j) in enumerate(every):
        tell("matching", done, len(every), f"{files[j].name} onto {files[i].name}")
        result = register_scans(scans[j], scans[i], min_confidence=min_confidence)
        pairs[i, j] = result
        if result.transform is not None:
            edges.append(Edge(i, j, result.transform, result.confidence))
    centres = np.stack([scan.points.mean(0) for scan in scans])
    radius = float(
        np.median(
            [
                np.linalg.norm(scan.points - centre, axis=1).mean()
                for scan, centre in zip(scans, centres, strict=True)
            ]
        )
    )
    graph = optimise_poses(
        len(files),
        edges,
        2 * extractor.voxel_size,
        max(radius, extractor.voxel_size),
        centres=centres,
    )
    return FolderMatches(files, scans, pairs, edges, graph)


def _listed(folder: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    if isinstance(folder, (str, os.PathLike)):
        return list_scans(folder)
    given = list(folder) if isinstance(folder, Iterable) else [folder]
    for path in given:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(
                f"match_folder: {type(path).__name__}, expected a folder or files of scans"
            )
    return [Path(path) for path in given]


def list_scans(folder: str | os.PathLike) -> list[Path]:
    """The scan files of a folder, in the order of the numbers in their names. Hidden files are none.

    Raises:
        InputError: no such folder, or a file.
    """
    if Path(folder).is_file():
        raise InputError(
            f"{folder}: is a file, expected a folder of scans, or a list of at least 2 files"
        )
    with opening(folder):
        found = [
            path
            for path in Path(folder).iterdir()
            if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
        ]

    def natural(path: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    # 01.ply and 1.ply are alike by number.
    return sorted(found, key=lambda path: (natural(path), path.name))
