"""How long a model takes to answer: the second thing that a study may minimise."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

__all__ = ["seconds_per_prediction"]

USERS, PASSES = 32, 5


def seconds_per_prediction(answer: Callable[[int], int], users: int) -> float:
    """Processor seconds of this thread for each predicted rating, where users come one by one.

    It is the time of the processor, not of the clock, so that other trials beside this one count for little; and the
    median of several passes over the same users.

    Args:
        answer: adapts to the user of this number and predicts; how many ratings it predicted.
        users: how many there are; of more than 32 the first.
    """
    some = range(min(users, USERS))
    # What is done once is not what a user waits for.
    answer(0)
    passes = []
    for _ in range(PASSES):
        start = time.thread_time()
        predicted = sum(answer(user) for user in some)
        passes.append((time.thread_time() - start) / predicted)
    return median(passes)
