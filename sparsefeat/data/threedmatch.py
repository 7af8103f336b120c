"""3DMatch as users have it on disk: FCGF's training layout and the benchmark's test layout.

Training: ``<scene>@<seq>_<k>.npz`` and per sequence an overlap list ``<scene>@<seq>-0.30.txt`` with lines
``a.npz b.npz overlap``; all fragments of a sequence are in one frame, so the true pose is the identity.
Test: ``<scene>/cloud_bin_<k>.ply`` and ``<scene>-evaluation/gt.log``, ``gt.info`` (3DLoMatch:
``<scene>-evaluation-lo``). Nothing here writes into a data folder, save the writers that are called so.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparsefeat.data.fragments import FRAGMENT_SUFFIXES
from sparsefeat.data.layouts import contents, open_folder
from sparsefeat.errors import InputError, opens_path
from sparsefeat.io.gtlog import (
    read_info,
    read_log,
    read_overlaps,
)
from sparsefeat.io.text import read_lines

_EVALUATION = {"3DMatch": "-evaluation", "3DLoMatch": "-evaluation-lo"}
_OVERLAP_LIST = re.compile(r"(?P<sequence>.+)-(?P<overlap>[01]\.\d+)\.txt")
_FRAGMENT = re.compile(r"cloud_bin_(?P<index>\d+)(?P<suffix>\.\w+)")


@dataclass(frozen=True, eq=False)
class FragmentPair:
    """Two fragments of a scene and how they lie to each other.

    Attributes:
        scene: name of the scene.
        source: file of the fragment that is mapped.
        target: file of the fragment into whose frame it is mapped.
        transform: (4, 4) float64, maps source frame to target frame, metres.
        overlap: share of the fragments that both saw, from 0 to 1; NaN where the files do not say.
        information: (6, 6) float64 information matrix of registration recall, or None.
        i: index of the target in its scene (gt.log's i).
        j: index of the source in its scene (gt.log's j).
    """

    scene: str
    source: Path
    target: Path
    transform: np.ndarray
    overlap: float = math.nan
    information: np.ndarray | None = None
    i: int = -1
    j: int = -1


@opens_path
def train_pairs(
    root: str | os.PathLike, scenes: Sequence[str] | None = None, min_overlap: float = 0.3
) -> list[FragmentPair]:
    """List the pairs of FCGF's training layout.

    Args:
        root: the folder with the fragments and the overlap lists.
        scenes: names of scenes (``7-scenes-chess``) or of their sequences (``7-scenes-chess@seq-01``), or
            any part of a name that fits one scene only; None takes all. See ``read_scene_list``.
        min_overlap: pairs of less overlap are left out.

    Returns:
        The pairs, ordered by sequence and then as listed; at least one.

    Raises:
        InputError: the folder is absent or holds another layout, a scene is unknown, a line of a list is
            malformed or names an absent file, or no pair is left. File and line are named.
    """
    root = _folder(
        root, "fragments '<scene>@<seq>_<k>.npz' and overlap lists '<scene>@<seq>-0.30.txt'"
    )
    present = {entry.name for entry in os.scandir(root)}
    lists: dict[str, tuple[float, str]] = {}
    for name in sorted(present):
        match = _OVERLAP_LIST.fullmatch(name)
        if match:
            # Of several lists of a sequence the one with the lowest threshold contains the others.
            entry = (float(match["overlap"]), name)
            lists[match["sequence"]] = min(entry, lists.get(match["sequence"], entry))
    if not lists:
        hint = "; this is the test layout, which test_pairs reads" if _test_scenes(root) else ""
        raise InputError(
            f"{root}: no overlap list '<scene>@<seq>-0.30.txt' here, {contents(root)}{hint}"
        )
    sequences = sorted(lists)
    if scenes is not None:
        known = {name.split("@")[0] for name in sequences} | set(sequences)
        chosen = set(_choose(scenes, known, root))
        sequences = [name for name in sequences if name in chosen or name.split("@")[0] in chosen]
    pairs = [
        pair for name in sequences for pair in _listed_pairs(root / lists[name][1], name, present)
    ]
    kept = [pair for pair in pairs if pair.overlap >= min_overlap]
    if not kept:
        largest = max((pair.overlap for pair in pairs), default=None)
        reason = "they are empty" if largest is None else f"the largest overlap is {largest:g}"
        raise InputError(
            f"{root}: no pair of overlap {min_overlap:g} or more in {len(sequences)} overlap lists; {reason}"
        )
    return kept


@opens_path
def test_pairs(
    root: str | os.PathLike,
    scenes: Sequence[str] | None = None,
    pairs: Literal["3DMatch", "3DLoMatch"] = "3DMatch",
) -> dict[str, list[FragmentPair]]:
    """List the pairs of the 3DMatch test layout.

    Args:
        root: the folder of the scenes' folders.
        scenes: names of scenes, or any part of a name that fits one scene only; None takes all.
        pairs: which list: overlap above 30 % (3DMatch) or from 10 to 30 % (3DLoMatch).

    Returns:
        For each scene its pairs in the order of gt.log: ``source`` is fragment j, ``target`` fragment i.
        Overlaps come from gt_overlap.log and information matrices from gt.info where these exist.

    Raises:
        InputError: the folder is absent or holds another layout, a scene is unknown, a file is cut off
            or malformed, gt.log and gt.info disagree, an index is out of range or a fragment is absent.
            File and line are named.
    """
    if pairs not in _EVALUATION:
        raise InputError(
            f"unknown list of pairs {pairs!r}, expected one of {', '.join(_EVALUATION)}"
        )
    root = _folder(
        root, f"scenes: '<scene>/cloud_bin_<k>.ply' and '<scene>{_EVALUATION[pairs]}/gt.log'"
    )
    names = _test_scenes(root)
    if not names:
        lists = any(_OVERLAP_LIST.fullmatch(entry.name) for entry in os.scandir(root))
        hint = "; this is the training layout, which train_pairs reads" if lists else ""
        raise InputError(
            f"{root}: no scene here, expected folders '<scene>' with fragments cloud_bin_<k>.ply and "
            f"'<scene>{_EVALUATION[pairs]}' with gt.log; {contents(root)}{hint}"
        )
    if scenes is not None:
        names = _choose(scenes, set(names), root)
    else:
        # A scene may have no pairs of this list, and then has no folder of it.
        names = [name for name in names if (root / f"{name}{_EVALUATION[pairs]}").is_dir()] or names
    return {name: _scene_pairs(root, name, _EVALUATION[pairs]) for name in names}


@opens_path
def find_pairs(
    root: str | os.PathLike, scenes: Sequence[str] | None = None, min_overlap: float = 0.3
) -> list[FragmentPair]:
    """List the pairs of a folder in either layout, for training.

    Of the test layout both lists are read where they exist, so that a ``min_overlap`` below 0.3 finds
    the 3DLoMatch pairs too. Pairs of unknown overlap count as having enough.

    Args, returns, raises: as ``train_pairs``.
    """
    if not (Path(root).is_dir() and _test_scenes(Path(root))):
        return train_pairs(root, scenes, min_overlap)
    folder = Path(root)
    names = _test_scenes(folder)
    if scenes is not None:
        # Of those whose fragments are here without a single pair there is nothing to read.
        listed = [name for name in scenes if name in names or not (folder / name).is_dir()]
        names = _choose(listed or scenes, set(names), folder)
    found: list[FragmentPair] = []
    for name in names:
        known: set[tuple[int, int]] = set()
        for kind in ("3DMatch", "3DLoMatch"):
            # A scene may have no pairs of a list, and then has no folder of it.
            if (kind == "3DLoMatch" and min_overlap >= 0.3) or not (
                folder / f"{name}{_EVALUATION[kind]}"
            ).is_dir():
                continue
            more = _scene_pairs(folder, name, _EVALUATION[kind])
            found += [pair for pair in more if (pair.i, pair.j) not in known]
            known |= {(pair.i, pair.j) for pair in more}
    if not found:
        test_pairs(folder, scenes)  # says what is missing
    kept = [pair for pair in found if not pair.overlap < min_overlap]
    if not kept:
        largest = max(pair.overlap for pair in found)
        raise InputError(
            f"{root}: no pair of overlap {min_overlap:g} or more; the largest is {largest:g}"
        )
    return kept


def read_scene_list(path: str | os.PathLike) -> list[str]:
    """Read names of scenes, one a line, as in ``train_3dmatch.txt``; blank lines and # comments are skipped.

    Raises:
        InputError: the file cannot be read or names no scene.
    """
    names = [line.split("#")[0].strip() for line in read_lines(path)]
    names = [name for name in names if name]
    if not names:
        raise InputError(f"{path}: names no scene, expected one a line")
    return names


def _listed_pairs(path: Path, sequence: str, present: set[str]) -> list[FragmentPair]:
    """The pairs of one overlap list."""
    pairs, absent = [], {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        try:
            first, second, overlap = words[0], words[1], float(words[2])
        except (ValueError, IndexError):
            overlap = math.nan
        if len(words) != 3 or not 0 <= overlap <= 1:
            raise InputError(
                f"{path}, line {number}: expected 'a.npz b.npz overlap' with a share from 0 to 1, "
                f"got {line[:60]!r}"
            )
        for name in (first, second):
            if name not in present:  # also refuses paths out of the folder
                absent.setdefault(name, number)
        root = path.parent
        pairs.append(
            FragmentPair(
                sequence.split("@")[0],
                root / first,
                root / second,
                np.eye(4),
                overlap,
                i=_trailing_index(second),
                j=_trailing_index(first),
            )
        )
    if absent:
        raise InputError(
            f"{path}: names {_several(absent, 'file')} that {path.parent} does not have"
        )
    return pairs


def _scene_pairs(root: Path, scene: str, evaluation: str) -> list[FragmentPair]:
    """The pairs of one scene of the test layout."""
    log = root / f"{scene}{evaluation}" / "gt.log"
    if not log.is_file():
        raise InputError(f"{log}: no such file; the scene {scene} has no list of these pairs")
    blocks = read_log(log)
    files = _scene_fragments(root / scene)
    seen: dict[tuple[int, int], int] = {}
    absent: dict[str, int] = {}
    for block in blocks:
        where = f"{log}, line {block.line}"
        for index in (block.i, block.j):
            if not 0 <= index < block.n:
                raise InputError(
                    f"{where}: fragment {index} is out of range, the scene has {block.n} (0 to {block.n - 1})"
                )
            if index not in files:
                absent.setdefault(f"cloud_bin_{index}", block.line)
        if block.i == block.j:
            raise InputError(f"{where}: fragment {block.i} is paired with itself")
        if (block.i, block.j) in seen:
            before = seen[block.i, block.j]
            raise InputError(
                f"{where}: pair {block.i} {block.j} was given before, in line {before}"
            )
        seen[block.i, block.j] = block.line
    if absent:
        raise InputError(
            f"{log}: names {_several(absent, 'fragment')} that {root / scene} does not have"
        )
    information = _information(log, seen)
    listed = log.with_name("gt_overlap.log")
    overlaps = read_overlaps(listed) if listed.is_file() else {}
    return [
        FragmentPair(
            scene,
            files[block.j],
            files[block.i],
            block.matrix,
            overlaps.get((block.i, block.j), math.nan),
            information.get((block.i, block.j)),
            block.i,
            block.j,
        )
        for block in blocks
    ]


def _information(log: Path, pairs: dict[tuple[int, int], int]) -> dict[tuple[int, int], np.ndarray]:
    """The information matrices beside a gt.log, of the same pairs; none if there is no gt.info."""
    path = log.with_name("gt.info")
    if not path.is_file():
        return {}
    matrices: dict[tuple[int, int], np.ndarray] = {}
    for block in read_info(path):
        key = (block.i, block.j)
        if key in matrices:
            raise InputError(f"{path}, line {block.line}: pair {block.i} {block.j} is given twice")
        if key not in pairs:
            raise InputError(
                f"{path}, line {block.line}: pair {block.i} {block.j} is not in {log.name}"
            )
        matrices[key] = block.matrix
    missing = {f"{i} {j}": line for (i, j), line in pairs.items() if (i, j) not in matrices}
    if missing:
        raise InputError(f"{path}: lacks {_several(missing, 'pair')} of {log.name}")
    return matrices


def _scene_fragments(folder: Path) -> dict[int, Path]:
    """The fragment files of a scene by index; of several formats of one fragment the first in our order."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; it should hold the fragments cloud_bin_<k>.ply"
        )
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        match = _FRAGMENT.fullmatch(path.name)
        if not match or match["suffix"] not in FRAGMENT_SUFFIXES:
            continue
        index, rank = int(match["index"]), FRAGMENT_SUFFIXES.index(match["suffix"])
        if index not in files or rank < FRAGMENT_SUFFIXES.index(files[index].suffix):
            files[index] = path
    if not files:
        raise InputError(f"{folder}: no fragment 'cloud_bin_<k>.ply' here, {contents(folder)}")
    return files


def _test_scenes(root: Path) -> list[str]:
    """Names of the scenes that have an evaluation folder."""
    folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    names = set()
    for name in folders:
        for ending in ("-evaluation-lo", "-evaluation"):
            if name.endswith(ending):
                names.add(name.removesuffix(ending))
                break
    return sorted(names)


def _choose(wanted: Sequence[str], known: set[str], root: Path) -> list[str]:
    """The scenes and sequences that are meant by names or by parts of names, in the order of ``wanted``.

    A part that fits the name of a scene means the whole scene, and else the sequences that it fits.
    """
    if isinstance(wanted, str):
        wanted = [wanted]
    chosen = []
    for name in wanted:
        scenes = sorted({candidate.split("@")[0] for candidate in known if name in candidate})
        if name in known:
            chosen.append(name)
        elif len(scenes) == 1:
            fitting = [candidate for candidate in sorted(known) if name in candidate]
            chosen += scenes if name in scenes[0] else fitting
        elif scenes:
            several = ", ".join(scenes[:5])
            raise InputError(
                f"{root}: {name!r} fits {len(scenes)} scenes: {several}; name one in full"
            )
        else:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise InputError(
                f"{root}: no scene {name!r}, the nearest is {near[0]!r}; there are "
                f"{len({candidate.split('@')[0] for candidate in known})}"
            )
    if not chosen:
        raise InputError(f"{root}: the list of scenes is empty")
    return list(dict.fromkeys(chosen))


def _folder(root: str | os.PathLike, expected: str) -> Path:
    root = open_folder(root, expected)
    if not any(os.scandir(root)):
        raise InputError(f"{root}: the folder is empty, expected {expected}")
    return root


def _several(lines: dict[str, int], noun: str) -> str:
    """'3 files (a in line 1, b in line 4, ...)'."""
    shown = [f"{name} in line {line}" for name, line in list(lines.items())[:3]]
    more = ", ..." if len(lines) > 3 else ""
    return f"{len(lines)} {noun}{'s' if len(lines) > 1 else ''} ({', '.join(shown)}{more})"


def _trailing_index(name: str) -> int:
    match = re.search(r"(\d+)\.\w+$", name)
    return int(match[1]) if match else -1
