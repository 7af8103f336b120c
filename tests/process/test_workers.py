"""Workers end with the process that began them, and one that is killed is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsefeat.errors import InputError
from sparsefeat.synthetic.parallel import run_tasks

ROOT = Path(__file__).resolve().parents[2]

PARENT = """
import os, sys, time
from sparsefeat.synthetic.parallel import run_tasks

def work(k):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece, also where output is unbuffered
    time.sleep(60)

list(run_tasks(work, [(0,), (1,)], 2))
"""


def _end_of(process: int) -> bool:
    """Whether a process ends within some seconds; a zombie has ended."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(sent):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(sent)
    parent.wait(30)
    assert all(_end_of(worker) for worker in workers)


def _die(k: int) -> int:
    if k == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return k


def test_a_killed_worker_is_one_line():
    with pytest.raises(InputError, match="a worker process was killed"):
        list(run_tasks(_die, [(k,) for k in range(4)], 2))
