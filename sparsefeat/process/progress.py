"""How far a long work has come: a bar on a terminal, elsewhere a line now and then.

Works whose rest takes over a minute say how long and with how much memory, once that can be measured.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from sparsefeat.process.estimate import Estimate, estimate_line

LINE_EVERY_S = 30.0
"""Seconds between two lines where standard error is no terminal."""


class Progress:
    """Progress of one work on standard error; ends with the block it is used in.

    Args:
        name: of the work, begins the bar or line.
        total: how much there is to do; None: not known yet.
        unit: what is counted, singular.
        done: how much is done already.
        show: whether to say anything.
        announce: of a work in parts of many minutes: name the first one when it begins.
        options: of :class:`tqdm.tqdm`.
    """

    def __init__(
        self,
        name: str,
        total: float | None = None,
        unit: str = "item",
        done: float = 0,
        show: bool = True,
        announce: bool = False,
        **options: Any,
    ) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self._first, self._note = done, ""
        self._start = self._last = time.monotonic()
        terminal = sys.stderr.isatty()
        self._lines, self._bars = show and not terminal, show and terminal
        self._options, self._announce = options, announce
        self._estimate = Estimate(done)
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """So much is done.

        Args:
            done: of ``total``.
            total: None: as before.
            note: what is worked on; None: as before.
        """
        self.done = done
        self.total = self.total if total is None else total
        begins = self._announce and not self._note and done == self._first
        self._note = self._note if note is None else note
        seconds = self._estimate(self.done, self.total)
        if seconds is not None and self.total is not None and (self._lines or self._bars):
            left = estimate_line(seconds, self.total - self.done, self.unit)
            self.write(f"{self.name}: {left}")
        if self._bars:
            if self._bar is None:
                self._bar = tqdm(
                    total=self.total,
                    desc=self.name,
                    unit=self.unit,
                    initial=self._first,
                    **self._options,
                )
            self._bar.total = self.total
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
        elif self._lines and (begins or time.monotonic() - self._last >= LINE_EVERY_S):
            self._last = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    @staticmethod
    def write(line: str, error: bool = True) -> None:
        """Print a line, to standard error or to standard output, that no bar tears."""
        stream = sys.stderr if error else sys.stdout
        tqdm.write(line, file=stream)
        stream.flush()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._lines = self._bars = False

    def _line(self) -> str:
        gone = time.monotonic() - self._start
        text = (
            f"{self.name}: {self.done:.4g}"
            if isinstance(self.done, float)
            else f"{self.name}: {self.done}"
        )
        text += f" of {self.total} {self.unit}s" if self.total else f" {self.unit}s"
        text += f", {_clock(gone)} gone"
        if self.total and self.done > self._first:
            left = gone * (self.total - self.done) / (self.done - self._first)
            text += f", about {_clock(left)} left"
        return f"{text}, {self._note}" if self._note else text


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
