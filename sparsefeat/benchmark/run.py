"""The benchmark as a whole: which cases, on which device, in which precision, with how many threads."""

from __future__ import annotations

import contextlib
import gc
import itertools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsefeat.benchmark import floors
from sparsefeat.benchmark.cases import PRESETS, LayerCase, select
from sparsefeat.benchmark.clouds import Cloud, make_cloud
from sparsefeat.benchmark.engines import Plain, installed
from sparsefeat.benchmark.layers import Setting, measure_layer, reason
from sparsefeat.benchmark.networks import measure_network
from sparsefeat.benchmark.report import as_dict, environment
from sparsefeat.benchmark.timing import time_interleaved
from sparsefeat.errors import InputError
from sparsefeat.sparse import arithmetic, precision

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


SETTING = ("case", "threads", "dtype", "device")
"""The fields of a row that say which case it is of."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        cases: names of cases, with ``*`` and ``?``; empty: those of the preset.
        preset: a name in :data:`PRESETS`.
        engines: names of the engines beside ours; empty: all that are installed.
        threads: numbers of CPU threads.
        dtypes: names in :data:`DTYPES`; ``tf32`` on CUDA only.
        device: cpu, cuda, cuda:1.
        data: folder with real fragments, or None.
        runs: rounds that count, fewer where a case takes longer than ``seconds``.
    """

    cases: tuple[str, ...] = ()
    preset: str = "quick"
    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("fp32",)
    device: str = "cpu"
    data: Path | None = None
    runs: int = 7
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}")
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
            if dtype == "tf32" and not self.device.startswith("cuda"):
                raise InputError(f"dtype: tf32 needs a CUDA device, got {self.device!r}")
        if any(threads < 1 for threads in self.threads):
            raise InputError(f"threads: expected at least 1, got {list(self.threads)}")
        if self.runs < 1:
            raise InputError(f"runs: expected at least 1, got {self.runs}")
        if not self.seconds > 0:
            raise InputError(f"seconds: expected a positive number, got {self.seconds}")


def run_benchmark(
    options: Options,
    progress: Callable[[list[dict], list[dict], dict[str, Any], int], None] = lambda *_: None,
    earlier: dict | None = None,
) -> tuple[list[dict], dict[str, Any]]:
    """Measure what ``options`` ask for.

    Args:
        options: what to measure.
        progress: called after each case with its rows (none where it failed), all rows, the facts so far, and
            how many cases are left.
        earlier: an interrupted run as :func:`report.read_json` gives it: its rows stay, its cases are left out.

    Returns:
        The rows, and the facts they share: machine, versions, engines, ``arithmetic`` (triton or torch),
        bandwidth, and in ``failed`` what raised in our own part of a case, with ``out_of_memory`` apart.

    Raises:
        InputError: an unknown case, engine or device; an earlier run on another machine or with other versions.
    """
    try:
        device = torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {options.device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    cases = select(options.cases or PRESETS[options.preset])
    engines, missing = installed(list(options.engines))
    used = (
        "torch"
        if arithmetic.arithmetic_for(torch.empty(0, device=device)) is arithmetic.plain
        else "triton"
    )
    if device.type == "cuda" and used != "torch":
        # Kernels of our own run there: their numbers and times are measured against those without them.
        engines.insert(1, Plain())
    bandwidths: dict[str, float] = {}
    failed: list[dict] = []
    facts = {
        "environment": environment(),
        "engines": {engine.name: engine.version for engine in engines},
        "arithmetic": used,
        "not_installed": missing,
        "bandwidth_bytes_per_s": bandwidths,
        "failed": failed,
    }
    rows = []
    if earlier:
        rows = _kept(earlier, facts)
        # What failed comes last this time: it may leave the device unusable.
        before = {failure["case"] for failure in earlier["failed"]}
        cases.sort(key=lambda case: case.name in before)
    done = {tuple(row[name] for name in SETTING) for row in rows}
    clouds: dict[str, Cloud] = {}
    every_threads = options.threads or (torch.get_num_threads(),)
    wanted = {
        threads: [
            (case, name)
            for case, name in itertools.product(cases, options.dtypes)
            if (case.name, threads, name, str(device)) not in done
        ]
        for threads in every_threads
    }
    left = sum(map(len, wanted.values()))
    for threads in every_threads:
        with _threads(threads):
            bandwidths[str(threads)] = bandwidth = _bandwidth(device)
            for case, name in wanted[threads]:
                where = {"threads": threads, "dtype": name, "device": str(device)}
                if case.size not in clouds:
                    clouds = {case.size: make_cloud(case.size, options.data)}
                setting = Setting(device, DTYPES[name], options.runs, options.seconds)
                measure = measure_layer if isinstance(case, LayerCase) else measure_network
                new: list[dict] = []
                try:
                    with _tf32(name == "tf32"):
                        measured = measure(case, clouds[case.size], engines, setting)
                    new = [
                        as_dict(m, bandwidth) | where | {"source": clouds[case.size].source}
                        for m in measured
                    ]
                except (
                    Exception
                ) as error:  # hours of other cases do not depend on it; the exit code tells
                    failed.append({
                        "case": case.name, **where, "reason": reason(error), "traceback": traceback.format_exc(),
                        "out_of_memory": isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)),
                    })  # fmt: skip
                rows += new
                left -= 1
                progress(new, rows, facts, left)
                if device.type == "cuda":
                    gc.collect()
                    torch.cuda.empty_cache()  # the next case may need it in other pieces
    return rows, facts


def _kept(earlier: dict, facts: dict[str, Any]) -> list[dict]:
    for name in ("environment", "engines", "arithmetic"):
        if earlier.get(name) != facts[name]:
            raise InputError(
                f"earlier run: expected its {name} to be {facts[name]}, got {earlier.get(name)}"
            )
    return list(earlier["results"])


def _bandwidth(device: torch.device) -> float:
    copy, moved = floors.copy_bandwidth(device)
    return moved / min(time_interleaved({"copy": copy}, device, runs=5)["copy"].wall)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _tf32(allow: bool) -> Iterator[None]:
    # Reading torch's own setting is an error where the newer one was made; writing it sets both.
    before = precision.allows_tf32()
    torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
