"""The latency of a model: the second objective that a study may minimise."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

__all__ = ["seconds_per_prediction"]

USERS, PASSES = 32, 5


def seconds_per_prediction(answer: Callable[[int], int], users: int) -> float:
    """Processor seconds of this thread for each predicted rating, one user at a time: the median of several passes.

    Processor time depends little on other trials that run beside this one.

    Args:
        answer: adapts to the user of this number, predicts, and returns the number of predictions.
        users: their number; only the first 32 are used.
    """
    some = range(min(users, USERS))
    # The first call pays one-time costs.
    answer(0)
    passes = []
    for _ in range(PASSES):
        start = time.thread_time()
        predicted = sum(answer(user) for user in some)
        passes.append((time.thread_time() - start) / predicted)
    return median(passes)
