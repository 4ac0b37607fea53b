"""How many threads the mathematics uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's linear algebra, torch's too, on one thread.

    The networks and bases here are small: a second thread gains little, and when another process has work to do the
    two wait for each other, which was measured to cost a factor of 20. Processes use the other cores. Results do not
    depend on the number of cores, either.
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
