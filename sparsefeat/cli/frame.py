"""What the verbs of the command line share: exit codes, one line for what is wrong, signals, options."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sparsefeat import __version__
from sparsefeat.errors import InputError, InputWarning

if TYPE_CHECKING:
    from sparsefeat.data.orientation import Viewpoints

DONE, BUG, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes. Python itself gives 1 to an exception that nobody catches: a bug."""


class ToolParser(argparse.ArgumentParser):
    """An argument parser with ``--traceback`` and ``--version``, whose errors are one line."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.add_help:  # not those that only lend their options to others
            # No default here: that of a sub-command would overwrite what stands before it.
            self.add_argument(
                "--traceback", action="store_true", default=argparse.SUPPRESS,
                help="show where in the program wrong input was noticed",
            )  # fmt: skip
            self.add_argument("--version", action="version", version=f"sparsefeat {__version__}")

    def error(self, message: str) -> NoReturn:
        """End with one line and exit code 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message}; --help lists the options\n")


def run_tool(
    work: Callable[[], int],
    args: argparse.Namespace | None = None,
    interrupted: str | Callable[[], str] = "interrupted",
) -> int:
    """Do a tool's work; what its user can set right becomes one line on standard error.

    SIGTERM ends the work as Ctrl-C does. Any exception but :class:`InputError` is a bug and goes on to the caller.

    Args:
        work: returns the exit code.
        args: of a :class:`ToolParser`; with ``--traceback`` wrong input shows its traceback too.
        interrupted: the line for Ctrl-C, or what makes it.

    Returns:
        That of ``work``; 2 for wrong input, a missing extra or a full disk; 130 for Ctrl-C, SIGTERM, and
        where nobody reads standard output any more.
    """
    try:
        with _terminate_as_interrupt(), _warnings_in_one_line():
            code = work()
            sys.stdout.flush()
            return code
    except InputError as error:
        if getattr(args, "traceback", False):
            traceback.print_exc()
        else:
            _say(str(error))
        return WRONG_INPUT
    except KeyboardInterrupt:
        _say(interrupted if isinstance(interrupted, str) else interrupted())
        return INTERRUPTED
    except OSError as error:
        unread = isinstance(error, BrokenPipeError) and _nobody_reads()
        if not unread and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _discard_output()
        if unread:
            return INTERRUPTED
        _say(f"{error.filename or 'output'}: {error.strerror}")
        return WRONG_INPUT


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
        _say(line)

    def close(self) -> None:
        """End the current stage."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Within the block an InputWarning is one line on standard error, the first time that it says so."""
    with warnings.catch_warnings():
        show, said = warnings.showwarning, set[str]()

        def say(
            message: Warning | str, category: type[Warning], *where: Any, **options: Any
        ) -> None:
            if not issubclass(category, InputWarning):
                show(message, category, *where, **options)
            elif str(message) not in said:
                said.add(str(message))
                _say(f"warning: {message}")

        warnings.showwarning = say
        warnings.simplefilter("always", InputWarning)
        yield


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe without a reader."""
    poll = select.poll()
    poll.register(sys.stdout.fileno())
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _discard_output() -> None:
    """Let what cannot be printed go nowhere, or Python complains when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    from sparsefeat.process.progress import Progress

    Progress.write(line)


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
        "several viewpoints; goes before what the files say",
    )


def open_viewpoints(args: argparse.Namespace) -> Viewpoints | None:
    """The list that ``--viewpoints`` names, or None.

    Raises:
        InputError: see :func:`sparsefeat.data.orientation.read_viewpoints`.
    """
    from sparsefeat.data.orientation import read_viewpoints

    return None if args.viewpoints is None else read_viewpoints(args.viewpoints)


def check_file(option: str, path: str | os.PathLike | None) -> None:
    """Refuse a file that could not be written, before the hours of work.

    Raises:
        InputError: a folder is there, or none around it.
    """
    if path is None:
        return
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
