"""Worker processes that end with the process that began them, however it ended."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

WORKER_KILLED = "a worker process was killed, perhaps for want of memory; fewer workers need less"

_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0


def end_with_parent(*_: object) -> None:
    """Called in a worker: it ends as soon as its parent does, and leaves Ctrl-C to it.

    On Linux the kernel ends the worker; elsewhere a thread looks. Arguments are ignored, so that this serves as
    an initialiser.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent.pid:  # it died before
            os._exit(1)
        return
    # (The kernel's way is better: a thread waits for the interpreter while a long call runs.)
    threading.Thread(target=_watch, args=(parent.pid, parent.sentinel), daemon=True).start()


def _watch(parent: int, sentinel: int) -> None:
    # Siblings may hold the other end of the sentinel, so that it alone may come late.
    while os.getppid() == parent and not wait([sentinel], timeout=_LOOK_S):
        time.sleep(0)
    os._exit(1)
