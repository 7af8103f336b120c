"""Fixtures: where real data and recorded outputs are, or why a test that needs them is skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def dataset():
    """Return a function that maps a data set's name to its folder, or skips the test."""

    def find(name: str) -> Path:
        folder = ROOT / "data" / name
        if not folder.is_dir() and (SHARED / "data" / f"{name}.tar.xz").is_file():
            subprocess.run([SHARED / "unpack", name], cwd=ROOT, check=True, capture_output=True)
        if not folder.is_dir():
            pytest.skip(f"data set {name!r} is not under data/")
        return folder

    return find


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded outputs of MinkowskiEngine 0.5.4, or skip."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("recorded MinkowskiEngine outputs (../shared/golden) are absent")
    return folder
