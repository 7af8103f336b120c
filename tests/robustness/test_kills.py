"""The short form of kill.py: every tool is killed by each signal."""

from __future__ import annotations

import sys

import pytest
from kill import CASES, SIGNALS, run


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("rooms", "creatures")])
def test_a_killed_tool_leaves_nothing_half_done(name):
    outcome = run([name], len(SIGNALS), seed=1, say=lambda line: None)[name]
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.kills == len(SIGNALS)
