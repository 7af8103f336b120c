"""Features of many files: what tools/extract.py does."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsefeat.data.orientation import Orientation, Viewpoints, load_orientation
from sparsefeat.errors import InputError, naming, opening
from sparsefeat.extract import DEFAULT_MAX_VOXELS, FeatureExtractor, check_options
from sparsefeat.io.arrays import Npz
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.lock import output_folder
from sparsefeat.io.pointcloud import POINT_SUFFIXES, read_points, write_ply
from sparsefeat.visualize import PcaColors, render_points

PICTURE_NAME = "features.png"

# Found in a folder, a txt is rarely a cloud: data sets keep their lists and notes in such files.
_FOLDER_SUFFIXES = tuple(suffix for suffix in POINT_SUFFIXES if suffix != ".txt")
_RESULT_KEYS = ("features", "checkpoint")
"""Arrays by which an npz of :func:`extract_files` is known."""
_BASIS_ROWS = 200_000
_PICTURE_POINTS = 100_000
_ROWS_AT_A_TIME = 1 << 18


@dataclass
class Extraction:
    """What :func:`extract_files` did.

    Attributes:
        written: input -> its npz.
        failed: input -> why it has none.
        picture: the PNG, or None if there is none.
    """

    written: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    picture: Path | None = None


def extract_files(
    extractor: FeatureExtractor,
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    checkpoint: str = "",
    interpolation: str = "nearest",
    views: int = 1,
    scales: Sequence[float] = (1.0,),
    viewpoint: Sequence[float] | None = None,
    viewpoints: Viewpoints | None = None,
    max_voxels: int = DEFAULT_MAX_VOXELS,
    halo: int | None = None,
    drop_invalid: bool = False,
    image: bool = True,
    max_panels: int = 12,
    report: Callable[[str], None] | None = None,
    progress: Callable[[str, float, int, str], None] | None = None,
    closed: bool = False,
) -> Extraction:
    """Write the features of each input, as numbers and as colours, and one picture of all.

    Each input gives ``<name>.npz`` with points (N, 3) float64, features (N, C) float32, voxel_size and
    checkpoint (and rows (M,), if ``drop_invalid`` left points out), and ``<name>.ply`` with the points in
    colours of a PCA basis that is common to all inputs; then ``features.png`` shows the first of them.
    A file that cannot be read or written is reported, and the others are done all the same.

    Args:
        extractor: used for all inputs.
        inputs: files, and folders that are searched for files with a known suffix (txt excepted) at any
            depth; what lies in a folder keeps its sub-folder.
        output: folder, made if it is absent.
        checkpoint: where the network came from, kept in each npz.
        interpolation, views, scales, max_voxels, halo: see FeatureExtractor.
        viewpoint: where the sensor stood, in the frame of every file that is not in ``viewpoints``; None: what each
            file says, see :func:`sparsefeat.data.orientation.load_orientation`. For oriented networks.
        viewpoints: of single files, see :func:`sparsefeat.data.orientation.read_viewpoints`.
        drop_invalid: leave out points with NaN or infinite coordinates instead of refusing the file.
        image: whether to draw ``features.png``.
        max_panels: clouds in the picture.
        report: called with one line for each input that failed.
        progress: called with (stage, files done, files in all, name); a share of a file counts.
        closed: where the outer side is estimated: the clouds cover shapes from all sides and are no scans.

    Raises:
        InputError: an option is wrong, nothing was found, the output folder cannot be made, or an input or another
            file that is no result of an earlier call would be overwritten.
    """
    check_options(interpolation, max_voxels, halo, views, scales)
    output = Path(output)
    result = Extraction()

    def fail(path: Path, error: Exception) -> None:
        result.failed[path] = failure(path, error)
        if report:
            report(result.failed[path])

    targets = find_inputs(inputs, output, fail)
    if image:
        check_picture(output / PICTURE_NAME)

    def one(path: Path, name: Path, tell: Callable[[float, int], None]) -> tuple[Path, np.ndarray]:
        passes, finished = views * len(scales), 0

        def of_pass(done: int, total: int) -> None:
            nonlocal finished
            tell(finished + done / total, passes)
            finished += done == total

        cloud = read_points(path, drop_invalid)
        known = Orientation()
        if extractor.oriented:
            known = load_orientation(path, cloud.points, cloud.normals, viewpoints, viewpoint)
        with naming(str(path)):
            features = extractor(
                cloud.points,
                interpolation,
                normals=known.normals,
                viewpoint=known.viewpoint,
                closed=closed,
                views=views,
                scales=scales,
                max_voxels=max_voxels,
                halo=halo,
                progress=of_pass,
            )
        target = output / f"{name}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"points": cloud.points, "features": features}
        arrays |= {"voxel_size": extractor.voxel_size, "checkpoint": str(checkpoint)}
        if cloud.rows is not None:
            arrays["rows"] = cloud.rows
        with atomic_write(target) as temporary:
            np.savez(temporary, **arrays)
        return target, cast(np.ndarray, features)

    with output_folder(output):
        samples: list[np.ndarray] = []
        rng = np.random.default_rng(0)
        for index, (path, name) in enumerate(targets.items()):

            def tell(done: float, total: int, index: int = index, name: Path = name) -> None:
                if progress:
                    progress("features", index + done / total, len(targets), str(name))

            tell(0, 1)
            try:
                target, features = one(path, name, tell)
            except Exception as error:  # whatever it is: it belongs to its file, the others go on
                fail(path, error)
                continue
            result.written[path] = target
            samples.append(_sample(features, _BASIS_ROWS // len(targets) + 1, rng))
            del features  # for a large scan, most of the memory
            tell(1, 1)

        panels = _write_colors(result, samples, max_panels if image else 0, fail, progress)
        if panels:
            result.picture = output / PICTURE_NAME
            titles = [str(path.relative_to(output).with_suffix("")) for path, _, _ in panels]
            render_points(
                [p for _, p, _ in panels],
                [c for _, _, c in panels],
                result.picture,
                titles=titles,
                cut_open=True,
            )
    return result


def failure(path: Path, error: Exception) -> str:
    """One line for a file that failed; of a bug it names the kind too."""
    text = "; ".join(line for line in str(error).splitlines() if line.strip())
    if not isinstance(error, (InputError, OSError)):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if text.startswith(str(path)) else f"{path}: {text}"


def failed_line(failed: Iterable[Path], total: int) -> str:
    """``3 of 120 failed: a.ply, b.ply, c.ply``."""
    names = [str(path) for path in failed]
    return f"{len(names)} of {total} failed: {', '.join(names)}"


def find_inputs(
    inputs: Iterable[str | os.PathLike],
    output: Path,
    fail: Callable[[Path, Exception], None],
    suffixes: Sequence[str] = _FOLDER_SUFFIXES,
    results: Sequence[str] = (".npz", ".ply"),
    kind: str = "files",
    keys: Sequence[str] = _RESULT_KEYS,
) -> dict[Path, Path]:
    """Return file -> name of its results, relative to the output folder and without a suffix.

    Files whose names agree are told apart by their folders, and files of one folder by their suffixes.

    Args:
        inputs: files, and folders that are searched at any depth.
        output: where results go; what lies in it is no input of a folder around it.
        fail: called for a folder with nothing in it.
        suffixes: that files in folders must have, in lower case.
        results: suffixes of what will be written.
        kind: what is looked for, in messages.
        keys: of the arrays by which the npz of an earlier call is known; its results may be overwritten.

    Raises:
        InputError: there is no file at all, or the results would overwrite an input or another file that is no result.
    """
    paths = [Path(path) for path in inputs]
    roots: dict[Path, Path] = {}
    seen: set[str] = set()
    empty: list[Path] = []
    for given in paths:
        with opening(given):
            folder = given.is_dir()
            found = (
                sorted(p for p in _walk(given, fail) if _is_input(p, given, output, suffixes))
                if folder
                else [given]
            )
        if folder and os.path.realpath(given) == os.path.realpath(output):
            raise InputError(
                f"{output}: is the folder of the inputs; results go elsewhere, choose another output folder"
            )
        if not found:
            empty.append(given)
        for path in found:
            place = os.path.realpath(path)
            if place not in seen:
                seen.add(place)
                roots[path] = given if folder else path.parent
    if not roots:
        shown = ", ".join(map(str, paths)) or "(nothing)"
        raise InputError(f"{shown}: no {kind} found, expected some of {', '.join(suffixes)}")
    for given in empty:
        fail(given, InputError(f"no {kind} in it, expected {', '.join(suffixes)}"))
    names = _distinct_names(roots)
    for path, name in names.items():
        targets = [output / f"{name}{suffix}" for suffix in results]
        if not _is_result(output / f"{name}.npz", keys):
            seen |= {os.path.realpath(target) for target in targets if target.is_file()}
        for target in targets:
            if os.path.realpath(target) in seen:
                raise InputError(
                    f"{path}: its result would overwrite {target}, choose another folder"
                )
    return names


def check_picture(path: Path, keys: Sequence[str] = _RESULT_KEYS) -> None:
    """Refuse to replace a picture that is not beside results of an earlier call.

    Args:
        path: of the picture, in the output folder.
        keys: of the arrays by which the npz of an earlier call is known.

    Raises:
        InputError: a file is there, and the folder has no such npz at any depth.
    """
    if path.is_file() and not any(_is_result(found, keys) for found in path.parent.rglob("*.npz")):
        raise InputError(f"{path}: is no result and would be overwritten, choose another folder")


def _is_result(path: Path, keys: Sequence[str]) -> bool:
    """Whether a file is an npz with these arrays."""
    try:
        with Npz(path) as archive:
            return all(key in archive for key in keys)
    except (OSError, InputError):
        return False


def _walk(root: Path, fail: Callable[[Path, Exception], None]) -> Iterator[Path]:
    """The files below a folder, at any depth, also in linked folders; each folder once, whatever links to it."""
    top = root.resolve()
    real, seen = [root], set()
    linked: list[Path] = []
    while real or linked:
        # Real folders first, so that a file has the name of its own folder where a link leads there too.
        folder = real.pop() if real else linked.pop(0)
        resolved = folder.resolve()
        above = folder != root and top.is_relative_to(resolved)
        if resolved in seen or above:
            continue
        seen.add(resolved)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            fail(folder, InputError(f"cannot be read ({error.strerror or error})"))
            continue
        for entry in entries:
            if not entry.is_dir():
                yield entry
            else:
                (linked if entry.is_symlink() else real).append(entry)


def _is_input(path: Path, root: Path, output: Path, suffixes: Sequence[str]) -> bool:
    if path.suffix.lower() not in suffixes or not path.is_file():
        return False
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    # The results of an earlier call, where the output folder lies inside the input folder.
    results = Path(os.path.realpath(output))
    result = results.is_relative_to(os.path.realpath(root)) and Path(
        os.path.realpath(path)
    ).is_relative_to(results)
    return not hidden and not result


def _distinct_names(roots: dict[Path, Path]) -> dict[Path, Path]:
    names = {path: path.relative_to(root).with_suffix("") for path, root in roots.items()}
    # Of files that lie side by side, such as a.obj and a.glb, no folder tells one from the other.
    folders: dict[Path, list[Path]] = {}
    for path in roots:
        folders.setdefault(Path(os.path.realpath(path)).parent, []).append(path)
    for beside in folders.values():
        for path, name in zip(beside, _distinct_stems(beside), strict=True):
            names[path] = names[path].with_name(name)
    # Each round puts one more folder before the names that still agree.
    for _ in range(max(len(folder.parts) for folder in folders)):
        for path in _clashes(names):
            above = Path(os.path.realpath(path)).parent.parts[1:]
            names[path] = Path(
                *above[max(0, len(above) - len(names[path].parts)) :], names[path].name
            )
    return names


def _distinct_stems(paths: list[Path]) -> list[str]:
    """Names of the files of one folder: stems, with the suffix where these agree."""
    stems = [path.stem.lower() for path in paths]
    counts = Counter(stems)
    names, taken = [], {stem for stem in stems if counts[stem] == 1}
    for path, stem in zip(paths, stems, strict=True):
        name = path.stem
        if stem not in taken:
            name = path.name.replace(".", "_")
            while name.lower() in taken:  # there is a file of that very name
                name += "_"
            taken.add(name.lower())
        names.append(name)
    return names


def _clashes(names: dict[Path, Path]) -> list[Path]:
    # Compared as a file system without upper and lower case would.
    groups: dict[str, list[Path]] = {}
    for path, name in names.items():
        groups.setdefault(str(name).lower(), []).append(path)
    return [path for group in groups.values() if len(group) > 1 for path in group]


def _write_colors(
    result: Extraction,
    samples: list[np.ndarray],
    max_panels: int,
    fail: Callable[[Path, Exception], None],
    progress: Callable[[str, float, int, str], None] | None,
) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    """Write a ply beside each npz; return (npz, points, colours) of those to be drawn, thinned out."""
    samples = [rows for rows in samples if len(rows)]
    basis = PcaColors.fit(samples) if samples else None
    rng = np.random.default_rng(0)
    panels: list[tuple[Path, np.ndarray, np.ndarray]] = []
    for index, (path, target) in enumerate(list(result.written.items())):
        if progress:
            progress("colours", index, len(result.written), target.stem)
        try:
            # Read again, and in parts, since the features of all files together may not fit into memory.
            with np.load(target, allow_pickle=False) as archive:
                points = archive["points"]
            colors = np.empty((len(points), 3), dtype=np.uint8)
            start = 0
            for part in _parts(target, "features"):
                assert basis is not None  # a file with rows gave a sample
                colors[start : start + len(part)] = np.rint(basis(part) * 255)
                start += len(part)
            write_ply(target.with_suffix(".ply"), points, colors)
        except Exception as error:
            fail(path, error)
            continue
        if len(panels) < max_panels and len(points):
            shown = _sample(np.arange(len(points)), _PICTURE_POINTS, rng)
            panels.append((target, points[shown], colors[shown] / 255))
    if progress and result.written:
        progress("colours", len(result.written), len(result.written), "")
    return panels


def _parts(path: Path, name: str) -> Iterator[np.ndarray]:
    """The rows of an array of float32 in an npz that ``np.savez`` wrote, some at a time."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        np.lib.format.read_magic(file)
        (rows, columns), by_columns, kind = np.lib.format.read_array_header_1_0(file)
        if by_columns:
            raise InputError(f"{path}: {name} is stored column by column, expected row by row")
        for start in range(0, rows, _ROWS_AT_A_TIME):
            count = min(_ROWS_AT_A_TIME, rows - start)
            yield np.frombuffer(file.read(count * columns * kind.itemsize), kind).reshape(
                count, columns
            )


def _sample(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return rows[np.sort(rng.choice(len(rows), most, replace=False))]
