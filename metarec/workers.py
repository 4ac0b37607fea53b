"""A map over worker processes that ends when its caller does.

Only the standard library is imported, so that the command can start the server before anything else.
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
"""Called like the built-in ``map``; what it hands back may still be computed while other work is done."""


def start_server() -> None:
    """Start the process that workers are forked from, unless it runs already, and do not wait for it.

    It imports what workers need once for all of them, while its caller does something else. It ends with its caller.
    """
    forkserver.set_forkserver_preload(["metarec.preloaded"])
    # The server starts this one, too, and that lets signals through again.
    resource_tracker.ensure_running()
    # Ctrl-C reaches the whole process group, and in the middle of an import it would print a traceback. What is
    # blocked here stays so in the process that is started here.
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
    """A pool of `jobs` processes that does not outlive the block.

    Processes are forked from a server that has imported their libraries and done nothing else, and not from this one:
    the libraries that bases call have threads of their own. On an error or Ctrl-C they are ended at once, instead of
    after the fit that they are busy with.
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
    # Ctrl-C reaches the whole process group. The parent reports it; a worker's traceback would only be noise.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()


def end_with_parent() -> None:
    """See to it that this process does not outlive its parent: one that is killed cannot end its workers."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
