"""What torch.compile must not look into: the making of maps, and results, whose sizes depend on data."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

if hasattr(torch.compiler, "is_compiling"):
    is_compiling = torch.compiler.is_compiling
else:

    def is_compiling() -> bool:
        """As torch 2.3 has it; 2.2 has it in its compiler, which is not loaded for this question."""
        compiler = sys.modules.get("torch._dynamo")
        return compiler is not None and compiler.is_compiling()


P = ParamSpec("P")
T = TypeVar("T")


def compile_disabled(function: Callable[P, T]) -> Callable[P, T]:
    """A compiled program interrupts its graph for ``function`` and runs it as it is."""

    @functools.wraps(function)
    def run(*args: P.args, **keywords: P.kwargs) -> T:
        if is_compiling():
            # Not as a decorator: that would import the whole compiler, which takes longer than torch itself.
            return torch.compiler.disable(function)(*args, **keywords)
        return function(*args, **keywords)

    return run
