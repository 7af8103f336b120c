"""Independent tasks on several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from sparsefeat.errors import InputError

Result = TypeVar("Result")


def run_tasks(
    function: Callable[..., Result], tasks: Sequence[tuple], workers: int
) -> Iterator[tuple[int, Result]]:
    """Call ``function(*task)`` for every task; yield (index of the task, result) as they are ready.

    Args:
        function: a function of a module, so that processes find it by name.
        tasks: arguments.
        workers: number of processes; 1 works in this one, in order.

    Raises:
        InputError: ``workers`` is less than 1. What ``function`` raises is passed on; the other tasks are
            given up.
    """
    if workers < 1:
        raise InputError(f"workers: got {workers}, expected 1 or more")
    if workers == 1 or len(tasks) < 2:
        for k, task in enumerate(tasks):
            yield k, function(*task)
        return
    # Forked workers need not import everything again; elsewhere than on Linux forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context)
    try:
        futures = {pool.submit(function, *task): k for k, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
