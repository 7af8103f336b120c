"""Timing side by side: contenders take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs on the wall clock, and of the process's own time on CPU."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def as_dict(self) -> dict[str, float | int]:
        """Median, quartiles and least of the wall clock, median of the CPU time, and the number of runs."""
        low, middle, high = quartiles(self.wall)
        return {
            "median_s": middle,
            "quartile1_s": low,
            "quartile3_s": high,
            "least_s": min(self.wall),
            "cpu_median_s": statistics.median(self.cpu),
            "runs": len(self.wall),
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def time_interleaved(
    contenders: dict[str, Callable[[], object]],
    device: torch.device,
    runs: int = 7,
    seconds: float = 10.0,
) -> dict[str, Timing]:
    """Run every contender in turn, ``runs`` times over, after one round that does not count.

    Rounds end early, but not before the third, when ``seconds`` have passed since that one, which may have
    compiled and tuned for longer than all others take.
    """
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(runs + 1):
        for name, call in contenders.items():
            _wait(device)
            clock, process = time.perf_counter(), time.process_time()
            result = call()
            _wait(device)
            if run:
                wall[name].append(time.perf_counter() - clock)
                cpu[name].append(time.process_time() - process)
            del result
        if run == 0:
            started = time.perf_counter()
        if run >= 3 and time.perf_counter() - started > seconds:
            break
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in contenders}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_peak(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``call`` takes on a CUDA device at its height, its result included.

    What was there before, such as inputs, weights, kept maps and other contenders, does not count.
    """
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def process_peak() -> int | None:
    """Bytes of memory that this process has had at most; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
