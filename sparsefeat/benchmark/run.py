"""The benchmark as a whole: which cases, on which device, in which precision, with how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsefeat.benchmark import floors
from sparsefeat.benchmark.cases import PRESETS, LayerCase, select
from sparsefeat.benchmark.clouds import Cloud, make_cloud
from sparsefeat.benchmark.engines import Plain, installed
from sparsefeat.benchmark.layers import Setting, measure_layer
from sparsefeat.benchmark.networks import measure_network
from sparsefeat.benchmark.report import as_dict, environment
from sparsefeat.benchmark.timing import time_interleaved

DTYPES = {
    "fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


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
            raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}")
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
            if dtype == "tf32" and not self.device.startswith("cuda"):
                raise ValueError(f"dtype: tf32 needs a CUDA device, got {self.device!r}")
        if any(threads < 1 for threads in self.threads):
            raise ValueError(f"threads: expected at least 1, got {list(self.threads)}")
        if self.runs < 1:
            raise ValueError(f"runs: expected at least 1, got {self.runs}")
        if not self.seconds > 0:
            raise ValueError(f"seconds: expected a positive number, got {self.seconds}")


def run_benchmark(
    options: Options, progress: Callable[[dict], None] = lambda row: None
) -> tuple[list[dict], dict[str, object]]:
    """Measure what ``options`` ask for; ``progress`` is called with each row as it is done.

    Returns:
        The rows, and the facts they share: machine, versions, engines, bandwidth.

    Raises:
        ValueError: an unknown case, engine or device.
    """
    try:
        device = torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {options.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    cases = select(options.cases or PRESETS[options.preset])
    engines, missing = installed(list(options.engines))
    if device.type == "cuda":
        # Kernels of our own run there: their numbers and times are measured against those without them.
        engines.insert(1, Plain())
    rows: list[dict] = []
    bandwidths: dict[str, float] = {}
    clouds: dict[str, Cloud] = {}
    for threads in options.threads or (torch.get_num_threads(),):
        with _threads(threads):
            bandwidths[str(threads)] = bandwidth = _bandwidth(device)
            for case in cases:
                if case.size not in clouds:
                    clouds = {case.size: make_cloud(case.size, options.data)}
                for name in options.dtypes:
                    setting = Setting(device, DTYPES[name], options.runs, options.seconds)
                    measure = measure_layer if isinstance(case, LayerCase) else measure_network
                    with _tf32(name == "tf32"):
                        for measured in measure(case, clouds[case.size], engines, setting):
                            row = as_dict(measured, bandwidth)
                            row |= {
                                "threads": threads, "dtype": name, "device": str(device),
                                "source": clouds[case.size].source,
                            }
                            rows.append(row)
                            progress(row)
    facts = {
        "environment": environment(),
        "engines": {engine.name: engine.version for engine in engines},
        "not_installed": missing,
        "bandwidth_bytes_per_s": bandwidths,
    }
    return rows, facts


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
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
