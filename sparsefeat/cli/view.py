"""Look at clouds and meshes, their features and labels, in a browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsefeat.checks import checked_positive
from sparsefeat.cli.frame import check_file
from sparsefeat.errors import InputError, opening
from sparsefeat.process.tool import ToolParser, run_tool

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
    # What can be wrong is found out before features are computed.
    check_page(args.html)
    if args.max_points < 1:
        raise InputError(f"--max-points {args.max_points}, expected at least 1")
    if args.voxel_size is not None:
        checked_positive(args.voxel_size, "--voxel-size")
    # Imported here, so that --help answers at once.
    from sparsefeat.visualize.viewer import view
    from sparsefeat.visualize.viewer.shapes import as_shapes

    shapes = as_shapes(list(args.inputs))
    labels = None
    if args.labels:
        _check_count("--labels", args.labels, shapes)
        labels = [read_labels(path) for path in args.labels]
    features: list[np.ndarray] | None = None
    field = None
    if args.features:
        _check_count("--features", args.features, shapes)
        features = [read_features(path) for path in args.features]
    elif args.checkpoint:
        features, field = _extract(args, shapes)
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


def check_page(html: str | None) -> None:
    """Refuse a ``--html`` that could not be written, or that would replace what is no page, such as an input.

    Raises:
        InputError: see :func:`sparsefeat.cli.frame.check_file`; or the name ends in neither .html nor .htm.
    """
    check_file("--html", html, suffixes=(".html", ".htm"))


def read_features(path: str) -> np.ndarray:
    """The features of an npz of tools/extract.py, or of an npy. Shape: (N, C)

    Raises:
        InputError: neither, or no matrix of numbers.
    """
    found = _read_array(path, "features")
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: {found.shape} of {found.dtype}, expected features (N, C)")
    return found


def read_labels(path: str) -> np.ndarray:
    """One label per point: lines of a text file, an npy, or 'labels' of an npz. Shape: (N,)

    Raises:
        InputError: the file cannot be read, or has more than one label per point.
    """
    from sparsefeat.io.text import read_lines

    if Path(path).suffix.lower() in (".npy", ".npz"):
        found = _read_array(path, "labels", or_any=True)
        found = found.reshape(-1) if found.ndim == 2 and 1 in found.shape else found
        if found.ndim != 1:
            raise InputError(f"{path}: labels of shape {found.shape}, expected (N,)")
        return found
    words = np.array([line.strip() for line in read_lines(path)])
    while len(words) and not words[-1]:
        words = words[:-1]
    try:
        return words.astype(np.int64)
    except (ValueError, OverflowError):  # a word, or a number beyond 64 bits: a name all the same
        return words


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat view", description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="ply pcd npz npy xyz txt off obj stl glb; an npz of sparsefeat extract includes its features",
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
    add(
        "--up",
        choices=("x", "y", "z", "-x", "-y", "-z"),
        help="axis that is up; default: y or z for meshes, -y for clouds",
    )
    add(
        "--unit",
        default="",
        metavar="U",
        help="of the points, shown beside lengths; m, cm, mm, in or ft for --checkpoint without --voxel-size",
    )
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
    for name in ("voxel_size", "device"):
        if getattr(args, name) is not None and not args.checkpoint:
            parser.error(f"--{name.replace('_', '-')}: for --checkpoint alone")
    if args.html and args.port:
        parser.error("--port: not with --html, which serves nothing")
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
    from sparsefeat.io.pointcloud import read_points
    from sparsefeat.mesh.normals import outer_normals
    from sparsefeat.receptive_field.measurement import measure
    from sparsefeat.visualize.viewer import ReceptiveField

    extractor = FeatureExtractor.from_pretrained(
        args.checkpoint, args.voxel_size, args.device, args.unit or None
    )
    features: list[np.ndarray] = []
    for path, shape in zip(args.inputs, shapes, strict=True):
        valid = np.isfinite(shape.vertices).all(1)
        points = shape.vertices[valid]
        known = Orientation()
        if extractor.oriented and shape.faces is not None:
            known = Orientation(normals=outer_normals(points, shape.faces)[1])
        elif extractor.oriented:
            known = load_orientation(path, points, read_points(path, drop_invalid=True).normals)
        try:
            found = extractor(points, normals=known.normals, viewpoint=known.viewpoint)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        # The viewer marks points without a feature.
        rows = np.full((len(valid), found.shape[1]), np.nan, dtype=np.float32)
        rows[valid] = found
        features.append(rows)
    size = extractor.voxel_size
    first = shapes[0].vertices
    field = measure(
        extractor.model,
        _around_middle(first[np.isfinite(first).all(1)]),
        voxel_size=size,
        probes=4,
    )
    cells = field.effective[1]
    about = (
        "90 % of what a feature depends on (squared gradient, measured on the first input) lies in this "
        f"sphere; all of it lies in a cube of {field.theoretical * size:.3g}."
    )
    return features, ReceptiveField(cells * size, cells=cells, form="sphere", about=about)


def _around_middle(points: np.ndarray) -> np.ndarray:
    """The points nearest to the median, as many as are looked at quickly."""
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[np.argsort(away, kind="stable")[:_MEASURED_POINTS]]


def _read_array(path: str, key: str, or_any: bool = False) -> np.ndarray:
    """The array of an npy, or the one under ``key`` in an npz, or the first if there is none."""
    from sparsefeat.io.arrays import Npz, read_npy

    with opening(path):
        if Path(path).suffix.lower() != ".npz":
            return read_npy(Path(path))
        with Npz(Path(path)) as archive:
            return archive.first([key, *archive.keys] if or_any else [key], "")
