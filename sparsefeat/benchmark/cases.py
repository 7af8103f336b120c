"""What is measured: single layers and whole networks, each with a name to select it by."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from sparsefeat.benchmark.clouds import SIZES
from sparsefeat.errors import InputError


@dataclass(frozen=True)
class LayerCase:
    """One layer on one cloud. A transposed layer leads from the cloud strided by 2 back to it."""

    size: str
    kernel_size: int
    c_in: int
    c_out: int
    stride: int = 1
    transposed: bool = False

    @property
    def name(self) -> str:
        kind = "transposed" if self.transposed else "strided" if self.stride > 1 else "conv"
        return f"{kind}{self.kernel_size}-{self.c_in}-{self.c_out}@{self.size}"


@dataclass(frozen=True)
class NetworkCase:
    """FCGF's ResUNetBN2C, 7^3 first kernel, 32 features: a pass with its maps, or a training step."""

    size: str
    training: bool

    @property
    def name(self) -> str:
        return f"resunet-{'training' if self.training else 'inference'}@{self.size}"


Case = LayerCase | NetworkCase


def all_cases() -> list[Case]:
    """Every case, small clouds first."""
    cases: list[Case] = []
    for size in SIZES:
        cases += [NetworkCase(size, False), NetworkCase(size, True)]
        cases.append(LayerCase(size, 7, 1, 32))
        cases += [LayerCase(size, 3, c, c) for c in (32, 64, 128, 256)]
        cases.append(LayerCase(size, 3, 64, 128, stride=2))
        cases.append(LayerCase(size, 3, 128, 64, stride=2, transposed=True))
    return cases


PRESETS = {
    "quick": ("*@5k", "resunet-*@20k", "conv3-64-64@20k", "conv7-*@20k"),
    "full": ("*@5k", "*@20k", "*@50k", "*@100k"),
    "large": ("*@1M",),
    "cuda": ("*@5k", "*@20k", "*@100k", "*@1M"),
}
"""Patterns of case names. ``quick`` stays below two minutes on one core, ``large`` needs 24 GB; ``cuda`` is for a
GPU with as much."""


def select(patterns: tuple[str, ...] | list[str]) -> list[Case]:
    """The cases whose names fit any of the patterns (``*`` and ``?`` as in a shell).

    Raises:
        InputError: a pattern that fits none.
    """
    cases = all_cases()
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in cases):
            names = ", ".join(case.name for case in cases[:9])
            raise InputError(
                f"case: {pattern!r} fits none; they are called {names} and so on for {', '.join(SIZES)}"
            )
    return [case for case in cases if any(fnmatch(case.name, pattern) for pattern in patterns)]
