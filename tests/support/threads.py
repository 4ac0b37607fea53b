"""Calls from several threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

THREADS = 8


def at_once(call, arguments, threads=THREADS):
    """[call(argument) for each argument], in threads that begin together."""
    barrier = threading.Barrier(threads)

    def work(first):
        barrier.wait()
        return [call(argument) for argument in arguments[first::threads]]

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, range(threads)))
    found = [None] * len(arguments)
    for first, part in enumerate(parts):
        found[first::threads] = part
    return found


def assert_same_bits(call, arguments, threads=THREADS):
    """Threads get what one after the other gets, to the last bit."""
    expected = [np.asarray(call(argument)) for argument in arguments]
    found = at_once(call, arguments, threads)
    differ = [
        place
        for place, (one, other) in enumerate(zip(expected, found, strict=True))
        if one.tobytes() != np.asarray(other).tobytes()
    ]
    assert not differ, f"{len(differ)} of {len(arguments)} answers differ, the first at {differ[0]}"
