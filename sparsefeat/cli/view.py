"""Look at clouds and meshes, their features and labels, in a browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from sparsefeat.cli.frame import ToolParser, run_tool
from sparsefeat.errors import InputError, opening

if TYPE_CHECKING:
    from sparsefeat.visualize.viewer import ReceptiveField
    from sparsefeat.visualize.viewer.shapes import Shape

_MEASURED_POINTS = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/view.py``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args)


def run(args: argparse.Namespace) -> int:
    """Show the inputs, or write the page."""
    # Imported here, so that --help answers at once.
    from sparsefeat.visualize.viewer import view
    from sparsefeat.visualize.viewer.shapes import as_shapes

    shapes = as_shapes(list(args.inputs))
    features: list[np.ndarray] | None = None
    field = None
    if args.features:
        _check_count("--features", args.features, shapes)
        features = [read_features(path) for path in args.features]
    elif args.checkpoint:
        features, field = _extract(args, shapes)
    labels = None
    if args.labels:
        _check_count("--labels", args.labels, shapes)
        labels = [read_labels(path) for path in args.labels]
    view(
        shapes,
        features,
        labels=labels,
        receptive_field=field,
        up=args.up,
        unit=args.unit,
        max_points=args.max_points,
        html=args.html,
        port=args.port,
    )
    if args.html:
        print(f"{args.html} written")
    return 0


def add_html_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--html FILE`` to a tool that calls :func:`sparsefeat.view` with ``html=args.html``."""
    parser.add_argument(
        "--html", metavar="FILE", help="write a page to look at the result, one file"
    )


def read_features(path: str) -> np.ndarray:
    """The features of an npz of tools/extract.py, or of an npy. Shape: (N, C)

    Raises:
        InputError: neither, or no matrix of numbers.
    """
    found = _load(path)
    if not isinstance(found, np.ndarray):
        if "features" not in found.files:
            keys = ", ".join(found.files) or "(none)"
            raise InputError(f"{path}: it has the keys {keys}, expected 'features'")
        found = found["features"]
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: {found.shape} of {found.dtype}, expected features (N, C)")
    return found


def read_labels(path: str) -> np.ndarray:
    """One label per point: lines of a text file, an npy, or 'labels' of an npz. Shape: (N,)

    Raises:
        InputError: the file cannot be read, or has more than one label per point.
    """
    if Path(path).suffix.lower() in (".npy", ".npz"):
        found = _load(path)
        if not isinstance(found, np.ndarray):
            key = "labels" if "labels" in found.files else next(iter(found.files), None)
            if key is None:
                raise InputError(f"{path}: an empty npz, expected labels (N,)")
            found = found[key]
        found = found.reshape(-1) if found.ndim == 2 and 1 in found.shape else found
        if found.ndim != 1:
            raise InputError(f"{path}: labels of shape {found.shape}, expected (N,)")
        return found
    with opening(path):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a text file, expected one label per line") from error
    words = np.array([line.strip() for line in lines])
    while len(words) and not words[-1]:
        words = words[:-1]
    try:
        return words.astype(np.int64)
    except ValueError:
        return words


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat view", description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="ply pcd npz npy xyz txt off obj stl glb; an npz of tools/extract.py brings its features",
    )
    add("--checkpoint", metavar="NAME", help="compute features: path, sparsefeat/NAME, or hub id")
    add(
        "--voxel-size",
        type=float,
        metavar="S",
        help="for --checkpoint, in the unit of the points; default: the checkpoint's",
    )
    add("--device", metavar="D", help="for --checkpoint: cpu, cuda, cuda:1, mps; default: cpu")
    add("--features", nargs="+", metavar="FILE", help="npz or npy with features, one per INPUT")
    add("--labels", nargs="+", metavar="FILE", help="one label per line, npy or npz, one per INPUT")
    add("--up", metavar="AXIS", help="x y z -x -y -z; default: y or z for meshes, -y for clouds")
    add("--unit", default="", metavar="U", help="shown beside lengths, such as m")
    add(
        "--max-points",
        type=int,
        default=300_000,
        metavar="N",
        help="points to draw of all inputs together (default: %(default)s)",
    )
    add("--html", metavar="FILE", help="write one self-contained file instead of serving the page")
    add("--port", type=int, default=0, metavar="P", help="on this machine; default: a free one")
    args = parser.parse_args(argv)
    if args.features and args.checkpoint:
        parser.error("--features and --checkpoint: expected one of them")
    return args


def _check_count(option: str, files: Sequence[str], shapes: Sequence[Shape]) -> None:
    if len(files) != len(shapes):
        raise InputError(
            f"{option}: {len(files)} files for {len(shapes)} inputs, expected one each"
        )


def _extract(
    args: argparse.Namespace, shapes: Sequence[Shape]
) -> tuple[list[np.ndarray], ReceptiveField]:
    """Features of all shapes, and how far those of the first one look."""
    from sparsefeat.data.orientation import Orientation, load_orientation
    from sparsefeat.extract import FeatureExtractor
    from sparsefeat.receptive_field.measurement import measure
    from sparsefeat.visualize.viewer import ReceptiveField

    extractor = FeatureExtractor.from_pretrained(args.checkpoint, args.voxel_size, args.device)
    features: list[np.ndarray] = []
    for path, shape in zip(args.inputs, shapes, strict=True):
        known = load_orientation(path) if extractor.oriented else Orientation()
        try:
            features.append(cast(np.ndarray, extractor(shape.vertices, viewpoint=known.viewpoint)))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    size = extractor.voxel_size
    found = measure(extractor.model, _around_middle(shapes[0].vertices), voxel_size=size, probes=4)
    cells = found.effective[1]
    about = (
        "90 % of what a feature depends on (squared gradient, measured on the first input) lies in this "
        f"sphere; all of it lies in a cube of {found.theoretical * size:.3g}."
    )
    return features, ReceptiveField(cells * size, cells=cells, form="sphere", about=about)


def _around_middle(points: np.ndarray) -> np.ndarray:
    """The points nearest to the median, as many as are looked at quickly."""
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[np.argsort(away, kind="stable")[:_MEASURED_POINTS]]


def _load(path: str) -> np.ndarray | np.lib.npyio.NpzFile:
    with opening(path):
        try:
            content: np.ndarray | np.lib.npyio.NpzFile = np.load(path, allow_pickle=False)
            return content
        except (ValueError, EOFError) as error:
            raise InputError(f"{path}: not an npz or npy of numbers") from error
        except Exception as error:  # a broken archive may fail in any way
            if isinstance(error, OSError):
                raise
            raise InputError(f"{path}: not a complete npz file ({error})") from error
