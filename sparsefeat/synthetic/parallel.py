"""Independent tasks on several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sparsefeat.checks import checked_count
from sparsefeat.errors import InputError
from sparsefeat.process.workers import WORKER_KILLED, end_with_parent

Result = TypeVar("Result")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_tasks(
    function: Callable[..., Result], tasks: Sequence[tuple], workers: int
) -> Iterator[tuple[int, Result]]:
    """Call ``function(*task)`` for every task; yield (index of the task, result) as they are ready.

    Args:
        function: a function of a module, so that processes find it by name.
        tasks: arguments.
        workers: number of processes; 1 works in this one, in order.

    Raises:
        InputError: ``workers`` is no whole number of at least 1, or a process was killed. What ``function`` raises is passed on; the
            other tasks are given up.
    """
    checked_count(workers, "workers")
    if workers == 1 or len(tasks) < 2:
        for k, task in enumerate(tasks):
            yield k, function(*task)
        return
    # Forked workers need not import everything again; elsewhere than on Linux forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_begin)
    try:
        with _signals_later():
            futures = {pool.submit(function, *task): k for k, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(WORKER_KILLED) from error
    except BaseException:
        # A task may take a minute; nobody waits for its result. (Python 3.14 has pool.terminate_workers().)
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Signals that arrive within the block take effect behind it: what a handler raises while a process forks is lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In a worker: SIGTERM ends it, whatever its parent does at that, and the end of its parent too."""
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
