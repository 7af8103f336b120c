"""Fixtures: where real data and recorded outputs are, or why a test that needs them is skipped."""

from __future__ import annotations

import copy
import fcntl
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs like that, and the tools that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes share the cores; read when torch is imported, here and in the tools that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def own_random_numbers(request):
    """Start each test with the same random numbers, whichever tests ran before it in its process."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    for name, value in vars(request.module).items():
        if isinstance(value, np.random.Generator):
            first = _FIRST_STATES.setdefault(
                (request.module.__name__, name), value.bit_generator.state
            )
            value.bit_generator.state = copy.deepcopy(first)


_FIRST_STATES: dict[tuple[str, str], Any] = {}


@pytest.fixture(scope="session")
def dataset():
    """Return a function that maps a data set's name to its folder, or skips the test."""

    def find(name: str) -> Path:
        folder = ROOT / "data" / name
        if not folder.is_dir() and (SHARED / "data" / f"{name}.tar.xz").is_file():
            folder.parent.mkdir(exist_ok=True)
            # Tests run in several processes; one of them unpacks.
            with open(folder.parent / ".unpacking", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not folder.is_dir():
                    subprocess.run(
                        [SHARED / "unpack", name], cwd=ROOT, check=True, capture_output=True
                    )
        if not folder.is_dir():
            pytest.skip(f"data set {name!r} is not under data/")
        return folder

    return find


class Golden:
    """Recorded outputs of MinkowskiEngine 0.5.4: a few beside the tests, all of them under shared/golden."""

    few = ROOT / "tests" / "recorded" / "minkowski"
    all = SHARED / "golden"

    def __truediv__(self, name: str) -> Path:
        """Where the file of this name is; skips the test where it is in neither folder."""
        for folder in (self.few, self.all):
            if (folder / name).is_file():
                return folder / name
        pytest.skip(
            f"MinkowskiEngine's recorded output {name} is not under {self.few.name}/ or shared/golden/"
        )


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Recorded outputs of MinkowskiEngine 0.5.4, by file name."""
    return Golden()
