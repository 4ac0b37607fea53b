"""The number of threads of linear algebra, and other settings that threads share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Generic, TypeVar

from threadpoolctl import OpenBLASController, ThreadpoolController

__all__ = ["SharedSetting", "one_thread"]


Value = TypeVar("Value")


class SharedSetting(Generic[Value]):
    """A context that sets something for the whole process: the first of overlapping blocks sets it, the last resets it.

    Args:
        make: makes the context manager that sets and resets it; all blocks have its value.
    """

    _value: Value

    def __init__(self, make: Callable[[], AbstractContextManager[Value]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._blocks = 0
        self._set = ExitStack()

    def __enter__(self) -> Value:
        with self._lock:
            if self._blocks == 0:
                self._value = self._set.enter_context(self._make())
            self._blocks += 1
            return self._value

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._set.close()


class _OfThread(threading.local):
    inside = False


_of_thread = _OfThread()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's linear algebra, torch's too, on one thread. Blocks of several threads may overlap.

    The networks and bases are small, so that a second thread gains little. With another busy process, the threads wait
    for each other, which was measured to cost a factor of 20. Processes use the other cores. One thread also makes
    results independent of the number of cores.
    """
    import torch

    if _of_thread.inside:
        yield
        return
    # BLAS has one number for the process, OpenMP and torch have one for each thread. A new thread takes torch's from
    # the thread that set it last, so the number to go back to is that before the first block.
    with _of_process as threads, _limit("openmp"):
        torch.set_num_threads(1)
        _of_thread.inside = True
        try:
            yield
        finally:
            _of_thread.inside = False
            torch.set_num_threads(threads)


@contextmanager
def _one_thread_of_process() -> Iterator[int]:
    import torch

    threads = torch.get_num_threads()
    with _limit("blas"):
        yield threads
        # The thread that ends the last block need not be the one that began the first.
        OpenBLASController.clear_controlling_thread(force=True)


_of_process = SharedSetting(_one_thread_of_process)


def _limit(kind: str) -> AbstractContextManager[object]:
    limit: AbstractContextManager[object] = _libraries(len(sys.modules)).select(user_api=kind).limit(limits=1)
    return limit


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The loaded libraries with threads. To look for them takes milliseconds; only imports load more."""
    return ThreadpoolController()
