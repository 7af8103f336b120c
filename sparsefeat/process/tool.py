"""What every command of the package shares: exit codes, one line for what is wrong, signals."""

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
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from sparsefeat import __version__
from sparsefeat.errors import InputError, InputWarning, did_you_mean

DONE, BUG, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes. Python itself gives 1 to an exception that nobody catches: a bug."""


class ToolParser(argparse.ArgumentParser):
    """An argument parser with ``--traceback`` and ``--version``, whose errors are one line."""

    _read = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.add_help:  # not those that only lend their options to others
            # No default here: that of a sub-command would overwrite what stands before it.
            self.add_argument(
                "--traceback", action="store_true", default=argparse.SUPPRESS,
                help="show where in the program wrong input was noticed",
            )  # fmt: skip
            self.add_argument("--version", action="version", version=f"sparsefeat {__version__}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it; remembers which task of a verb is read, since its options are this command's too."""
        self._read = True
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one line and exit code 2."""
        self.exit(
            WRONG_INPUT,
            f"{self.prog}: {message}{self._way_out(message)}; --help lists the options\n",
        )

    def _way_out(self, message: str) -> str:
        """The nearest option in place of an unknown one, or the form of an option whose values are too few."""
        kind, _, rest = message.partition(": ")
        if kind == "unrecognized arguments":
            unknown = next((word for word in rest.split() if word.startswith("--")), "")
            return did_you_mean(unknown.partition("=")[0], self._options())
        for action in self._known():
            named = kind == f"argument {'/'.join(action.option_strings)}"
            if named and rest.startswith("expected") and isinstance(action.metavar, tuple):
                return f", as in {action.option_strings[-1]} {' '.join(action.metavar)}"
        return ""

    def _known(self) -> Iterator[argparse.Action]:
        """The arguments of this parser, and of the task that was read."""
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    if isinstance(parser, ToolParser) and parser._read:
                        yield from parser._known()

    def _options(self) -> list[str]:
        return [name for action in self._known() for name in action.option_strings]


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
            say(str(error))
        return WRONG_INPUT
    except KeyboardInterrupt:
        say(interrupted if isinstance(interrupted, str) else interrupted())
        return INTERRUPTED
    except OSError as error:
        unread = isinstance(error, BrokenPipeError) and _nobody_reads()
        if not unread and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _discard_output()
        if unread:
            return INTERRUPTED
        say(f"{error.filename or 'output'}: {error.strerror}")
        return WRONG_INPUT


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Within the block an InputWarning is one line on standard error, the first time that it says so."""
    with warnings.catch_warnings():
        show, said = warnings.showwarning, set[str]()

        def show_once(
            message: Warning | str, category: type[Warning], *where: Any, **options: Any
        ) -> None:
            if not issubclass(category, InputWarning):
                show(message, category, *where, **options)
            elif str(message) not in said:
                said.add(str(message))
                say(f"warning: {message}")

        warnings.showwarning = show_once
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


def say(line: str) -> None:
    """Print a line to standard error, above a progress bar."""
    from sparsefeat.process.progress import Progress

    Progress.write(line)
