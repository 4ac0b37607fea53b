"""A map over worker processes that ends when its caller does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["worker_map", "worker_pool"]

Map = Callable[..., Iterable[Any]]


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

    Processes are spawned, not forked: the libraries that bases call have threads of their own. On an error or Ctrl-C
    they are ended at once, instead of after the fit that they are busy with.
    """
    context = multiprocessing.get_context("spawn")
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
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed cannot end its workers, and they would wait for its next task for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
