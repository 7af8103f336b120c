"""What the verbs of the command line share: progress of stages, options, outputs.

The exit codes are named here, too: that is part of the public contract.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefeat.errors import InputError
from sparsefeat.process.tool import BUG as BUG
from sparsefeat.process.tool import DONE as DONE
from sparsefeat.process.tool import INTERRUPTED as INTERRUPTED
from sparsefeat.process.tool import WRONG_INPUT as WRONG_INPUT
from sparsefeat.process.tool import say

if TYPE_CHECKING:
    from sparsefeat.data.orientation import Viewpoints


class StageBar:
    """Progress of a work in stages.

    Args:
        options: of :class:`sparsefeat.process.progress.Progress`, for all stages.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._progress: Any = None
        self._stage = ""

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, stage: str, done: float, total: int, name: str) -> None:
        """So much of a stage is done, and this is what is worked on."""
        from sparsefeat.process.progress import Progress

        if self._progress is None or stage != self._stage:
            self.close()
            self._stage = stage
            self._progress = Progress(stage, total, **self._options)
        self._progress(done, note=name)

    @staticmethod
    def report(line: str) -> None:
        """Print a line to standard error."""
        say(line)

    def close(self) -> None:
        """End the current stage."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def add_feature_options(parser: argparse.ArgumentParser, unit: str) -> None:
    """Add what says which features a tool computes: the network, and how it looks at the points.

    Args:
        parser: of a verb, or of one of its tasks.
        unit: what ``--voxel-size`` is given in, such as ``"metres"``.
    """
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="NAME", help="path, sparsefeat/NAME, or hub id")
    add("--voxel-size", type=float, metavar="S", help=f"{unit}; default: the checkpoint's")
    add(
        "--interpolation",
        choices=("nearest", "trilinear"),
        default="nearest",
        help="how points take features from voxels (default: %(default)s)",
    )
    add(
        "--views",
        type=int,
        default=1,
        metavar="N",
        help="poses to average over (default: %(default)s)",
    )
    add(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="multiples of the voxel size, features side by side (default: 1)",
    )
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps; default: cpu")


def add_result_option(
    parser: argparse.ArgumentParser, task: str, argv: Sequence[str] | None
) -> None:
    """Add ``--result NAME``, for :func:`prepare_result` and :func:`publish`.

    Args:
        parser: of a verb, or of one of its tasks.
        task: folder in ``results/``; a verb that finds it out later sets ``result_task``.
        argv: without the program's name; None: those of this process.
    """
    parser.add_argument(
        "--result", metavar="NAME", help="also write results/TASK/NAME.json, to be published"
    )
    command = [*parser.prog.split()[:2], *(sys.argv[1:] if argv is None else argv)]
    parser.set_defaults(result_task=task, command=command)


def add_viewpoints_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--viewpoints FILE``; see :func:`open_viewpoints`."""
    parser.add_argument(
        "--viewpoints",
        metavar="FILE",
        help="text with a line NAME X Y Z (or NAME unknown) for each file that was seen from there; several lines are "
        "several viewpoints; overrides what the files say",
    )


def open_viewpoints(args: argparse.Namespace) -> Viewpoints | None:
    """The list that ``--viewpoints`` names, or None.

    Raises:
        InputError: see :func:`sparsefeat.data.orientation.read_viewpoints`.
    """
    from sparsefeat.data.orientation import read_viewpoints

    return None if args.viewpoints is None else read_viewpoints(args.viewpoints)


def check_file(
    option: str,
    path: str | os.PathLike | None,
    inputs: Iterable[str | os.PathLike | None] = (),
    suffixes: tuple[str, ...] = (),
) -> None:
    """Refuse a file that could not be written, or would replace an input, before the hours of work.

    Args:
        option: for the message.
        path: of the file; None: the option was not given.
        inputs: files that the command reads; None and names that are no files are ignored.
        suffixes: one of which the name must have, in lower case; empty: any name.

    Raises:
        InputError: a folder is there, or none around it, or the file is an input, or has another suffix.
    """
    if path is None:
        return
    if suffixes and not os.fspath(path).lower().endswith(suffixes):
        raise InputError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}")
    if os.path.realpath(path) in {os.path.realpath(given) for given in inputs if given is not None}:
        raise InputError(f"{option} {path}: would replace an input, expected another file")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.fspath(path) or os.path.isdir(path) or not os.path.isdir(folder):
        raise InputError(f"{option} {path}: expected a file in a folder that exists")


def check_folder(option: str, path: str | os.PathLike) -> None:
    """Refuse a folder that could not be made, before the hours of work.

    Raises:
        InputError: something else is there, or the folder around it takes no files.
    """
    whole = Path(path).absolute()
    nearest = next(place for place in (whole, *whole.parents) if place.exists())
    if not os.fspath(path) or not nearest.is_dir():
        raise InputError(f"{option} {path}: expected a folder, but {nearest} is none")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: {nearest} takes no files")


def prepare_result(args: argparse.Namespace) -> None:
    """Refuse a ``--result`` that could not be written, before the hours of work.

    Raises:
        InputError: see :func:`sparsefeat.io.results.write_result`.
    """
    from sparsefeat.io.results import result_path

    if args.result is not None:
        check_folder("--result", result_path(args.result_task, args.result).parent)


def publish(
    args: argparse.Namespace, numbers: dict[str, Any], seeds: Sequence[int], resumed: bool = False
) -> list[Path]:
    """Write the result that ``--result`` asks for.

    Args:
        args: of a parser with :func:`add_result_option`.
        numbers, seeds: see :func:`sparsefeat.io.results.write_result`.
        resumed: some of the numbers were measured by an earlier command, so that its duration says nothing.

    Returns:
        The file; nothing without ``--result``.
    """
    from sparsefeat.io.results import write_result

    if args.result is None:
        return []
    seconds = None if resumed else sum(os.times()[:4])
    task, name = args.result_task, args.result
    return [write_result(task, name, numbers, args.command, seeds, cpu_seconds=seconds)]
