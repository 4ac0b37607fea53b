"""How libraries are imported by commands: in one go."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["importing"]


@contextmanager
def importing() -> Iterator[None]:
    """Import in this block; Ctrl-C waits until it ends, and nobody looks for garbage, then or later, in what it leaves.

    Libraries make a million objects that stay, and Python would look through all of them again and again. That is a
    quarter of the time of importing ours, and half a second when the process ends.

    Ctrl-C in the middle of an import may be swallowed by a library that tries whether another is there; and where it
    meets a string that is executed, as in the making of a dataclass, Python ends the process by the signal, whatever
    exit code was asked for later (``unhandled_keyboard_interrupt`` of CPython 3.11).
    """
    enabled = gc.isenabled()
    gc.disable()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
        # What came meanwhile is raised here.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
