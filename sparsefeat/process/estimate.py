"""How long the rest of a work takes, and how much memory it needs: measured on its first items."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time

LEAST_S = 60.0
"""A rest that takes less needs no estimate."""
_MEASURED_S = 5.0
_ITEMS = 2


class Estimate:
    """How long the rest takes, said once: as soon as some items are measured and the rest takes over a minute.

    The first item is left out where nothing was reported before it: it pays for what is loaded and made once. Then
    the others are measured for at least as long as it took, since several workers finish their first items together.

    Args:
        first: how much was done already, by an earlier run.
    """

    def __init__(self, first: float = 0) -> None:
        self._first = first
        self._start = time.monotonic()
        self._since: tuple[float, float] | None = None  # when measuring began, and what was done
        self._least_s = _MEASURED_S
        self._done, self._items, self._said = first, 0, False

    def __call__(self, done: float, total: float | None) -> float | None:
        """Seconds that the rest takes; None: not known yet, said before, or under a minute.

        Args:
            done: of ``total``; each call that has more is one item.
        """
        now = time.monotonic()
        # The same again is no new beginning: notes come between two items.
        if self._since is None or done < self._since[1] or done <= self._first:
            if self._since is None and done > self._first:
                self._least_s = max(_MEASURED_S, now - self._start)
            self._since, self._done, self._items = (now, done), done, 0
            return None
        if done <= self._done:
            return None
        self._done, self._items = done, self._items + 1
        gone = now - self._since[0]
        enough = self._items >= _ITEMS or gone >= LEAST_S
        if self._said or total is None or not enough or gone < self._least_s:
            return None
        seconds = gone * (total - done) / (done - self._since[1])
        if seconds < LEAST_S:
            return None
        self._said = True
        return seconds


def estimate_line(seconds: float, left: float, unit: str) -> str:
    """Such as ``about 3 h for the remaining 13490 steps, 1.2 GB of memory so far``.

    Args:
        seconds: that the rest takes.
        left: how much there is to do.
        unit: what is counted.
    """
    items = math.ceil(left)
    text = f"about {_duration(seconds)} for the remaining {items} {unit}{'s' if items > 1 else ''}"
    memory = memory_used()
    return f"{text}, {memory}" if memory else text


def memory_used() -> str:
    """The most memory that this process and its workers had at once; empty where that is not known.

    Memory that processes share is counted for each of them.
    """
    workers = multiprocessing.active_children()
    peaks = [peak_bytes(process.pid) for process in workers]
    own = peak_bytes(os.getpid())
    if own is None:
        return ""
    text = _size(own + sum(peak or 0 for peak in peaks)) + " of memory so far"
    if workers:
        text = f"up to {text} with {len(workers)} workers"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f", {_size(torch.cuda.max_memory_allocated())} on the GPU"
    return text


def peak_bytes(pid: int | None) -> int | None:
    """The most resident memory that a process had; None where the system does not say (it is no Linux)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:  # another system, or the process has ended
        pass
    return None


def _duration(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 48 else f"{round(hours / 24)} days"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{round(count / 1e6)} MB"
