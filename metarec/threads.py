"""The number of threads of linear algebra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's linear algebra, torch's too, on one thread.

    The networks and bases are small, so that a second thread gains little. With another busy process, the threads wait
    for each other, which was measured to cost a factor of 20. Processes use the other cores. One thread also makes
    results independent of the number of cores.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
