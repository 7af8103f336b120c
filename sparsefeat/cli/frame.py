"""What the command-line tools share: one line for what is wrong, exit codes, progress bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def run_tool(work: Callable[[], int], place: str | os.PathLike, interrupted: str = "interrupted") -> int:
    """Do a tool's work; what its user can set right becomes one line on standard error.

    Args:
        work: returns the exit code.
        place: named where the system does not say which file it stumbled over.
        interrupted: the line for Ctrl-C.

    Returns:
        That of ``work``; 2 for wrong input, a missing package or a refusing disk; 130 for Ctrl-C.
    """
    try:
        return work()
    except (ValueError, ImportError) as error:
        line, code = str(error), 2
    except OSError as error:
        line, code = f"{error.filename or place}: {error.strerror or error}", 2
    except KeyboardInterrupt:
        line, code = interrupted, 130
    tqdm.write(line, file=sys.stderr)
    return code


class StageBar:
    """A progress bar per stage, on a terminal only; lines that are reported do not tear it.

    Args:
        options: of :class:`tqdm.tqdm`, for all stages.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, stage: str, done: float, total: int, name: str) -> None:
        """So much of a stage is done, and this is what is worked on."""
        if self._bar is None or stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(total=total, desc=stage, disable=None, **self._options)
        self._bar.set_postfix_str(name, refresh=False)
        self._bar.n = done
        self._bar.refresh()

    @staticmethod
    def report(line: str) -> None:
        """Print a line to standard error."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """End the current stage's bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
