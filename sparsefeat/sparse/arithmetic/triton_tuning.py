"""Which tile sizes a product runs with: measured once per kind and size of layer, kept in memory and on disk.

The file is JSON and holds nothing but whole numbers; it can be deleted at any time. Processes share it: each
adds what it measured and replaces the whole. What cannot be read, or has another format, counts as empty.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import torch

from sparsefeat.io.atomic import atomic_write

FORMAT = 1
"""Of the file and of the configurations in it; raised when the kernels' parameters change their meaning."""

CACHE_VARIABLE = "SPARSEFEAT_CACHE"
"""Environment variable: the folder for measurements; by default ``sparsefeat`` in the user's cache folder."""

TUNE_VARIABLE = "SPARSEFEAT_TUNE"
"""Environment variable: ``0`` to measure nothing and use the defaults, which depend on sizes only."""

Config = TypeVar("Config", bound=tuple)

_chosen: dict[tuple, tuple] = {}


def tuned(
    name: tuple,
    candidates: Callable[[], Sequence[Config]],
    run: Callable[[Config], object],
    device: torch.device,
    around: Callable[[Sequence[Config]], AbstractContextManager] = lambda configs: (
        contextlib.nullcontext()
    ),
) -> Config:
    """The fastest candidate: remembered under ``name``, or measured now and remembered.

    Where nothing may be measured it is the first one: on a CPU, while a CUDA graph is captured, where
    :data:`TUNE_VARIABLE` or ``torch.use_deterministic_algorithms`` say so (how a sum is split depends on the
    configuration, and with it the last bits).

    Args:
        name: kernel, sizes, dtype, device and versions: strings and whole numbers.
        candidates: returns configurations of positive whole numbers, the default first.
        run: does the work with a configuration; one that the device cannot run raises.
        around: what the candidates are measured within, to drop what was made for them.
    """
    if capturing(device) and name in _chosen:
        return _chosen[name]  # what the warm-up used: other tiles would have to be made now
    if not may_measure(device):
        return candidates()[0]
    if name not in _chosen:
        _chosen[name] = _choose(" / ".join(map(str, name)), candidates(), run, around)
    return _chosen[name]


def _choose(
    name: str,
    candidates: Sequence[Config],
    run: Callable[[Config], object],
    around: Callable[[Sequence[Config]], AbstractContextManager],
) -> Config:
    """The kept or the fastest candidate; the first where not all could be measured, which no file remembers."""
    path = cache_file()
    kept = read(path).get(name)
    if kept is not None and tuple(kept) in candidates:
        return next(config for config in candidates if tuple(config) == tuple(kept))
    try:
        with around(candidates):
            times = [measure(functools.partial(run, config)) for config in candidates]
    except torch.cuda.OutOfMemoryError:
        return candidates[
            0
        ]  # another process may have more room; this one would run out at every call
    if math.isinf(min(times)):
        return candidates[0]
    best = candidates[times.index(min(times))]
    write(path, {name: list(best)})
    return best


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def may_measure(device: torch.device) -> bool:
    """Whether timing a kernel on this device means something and is wanted."""
    return (
        device.type == "cuda"
        and os.environ.get(TUNE_VARIABLE) != "0"
        and not torch.are_deterministic_algorithms_enabled()
        and not capturing(device)
    )


def measure(call: Callable[[], object], warm: int = 2, runs: int = 5) -> float:
    """Milliseconds of the fastest of some runs on a CUDA device; infinite where it cannot run, if not for memory."""
    try:
        for _ in range(warm):
            call()
        times = []
        for _ in range(runs):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        return min(times)
    except torch.cuda.OutOfMemoryError:
        raise
    except (
        Exception
    ):  # too much shared memory, too many registers: each Triton has its own error for it
        return float("inf")


def cache_file() -> Path:
    """The file: in ``$SPARSEFEAT_CACHE``, ``$XDG_CACHE_HOME/sparsefeat`` or ``~/.cache/sparsefeat``."""
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(base, "sparsefeat")
    return Path(folder) / f"triton-{FORMAT}.json"


def read(path: Path) -> dict[str, list[int]]:
    """Configurations by name; empty where the file is missing, damaged or of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return {}
    configs = content.get("configs")
    if not isinstance(configs, dict):
        return {}
    return {name: config for name, config in configs.items() if _is_config(config)}


def _is_config(value: object) -> bool:
    # A number of tiles or warps that nobody wrote here could ask for any amount of memory.
    return isinstance(value, list) and all(type(v) is int and 1 <= v <= 2**20 for v in value)


def write(path: Path, configs: dict[str, list[int]]) -> None:
    """Add configurations to the file; where it cannot be written, they are measured again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "configs": dict(sorted({**read(path), **configs}.items()))}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
    except (OSError, ValueError):
        return
