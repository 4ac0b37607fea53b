"""Worker processes that end with their caller.

Only the standard library is imported, so that a command can start the server before anything else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

__all__ = ["Map", "end_with_parent", "start_server", "worker_map", "worker_pool"]

Map = Callable[..., Iterable[Any]]
"""A function like the built-in ``map``; its results may be computed in the background."""


def start_server() -> None:
    """Start the process from which workers are forked, unless it runs already, without waiting for it.

    It imports the workers' libraries once for all of them, in the background. It ends with its caller.
    """
    forkserver.set_forkserver_preload(["metarec.preloaded"])
    # Otherwise the server would start the tracker, which unblocks signals.
    resource_tracker.ensure_running()
    # Ctrl-C reaches the whole process group, and would print a traceback during an import. The server inherits the
    # blocked signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_map(jobs: int) -> Iterator[Map]:
    """Like the built-in ``map``, on `jobs` processes; with one job it is the built-in."""
    if jobs == 1:
        yield map
        return
    with worker_pool(jobs) as pool:
        yield pool.map


@contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `jobs` processes that ends with the block.

    Processes are forked from a server that has only imported their libraries, and not from this process, whose
    libraries have threads. On an error or Ctrl-C they end at once, and not after their present fit.
    """
    start_server()
    context = multiprocessing.get_context("forkserver")
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_die_quietly) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


def _die_quietly() -> None:
    # Ctrl-C reaches the whole process group. The parent reports it, without tracebacks of workers.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent ends, because a killed parent cannot end its workers."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
