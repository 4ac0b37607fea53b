"""Imports of commands, without interruption and garbage collection."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["importing"]


@contextmanager
def importing() -> Iterator[None]:
    """Import in this block; Ctrl-C and SIGTERM wait for its end, and its objects are excluded from garbage collection.

    Libraries make a million permanent objects, which Python would scan repeatedly. That is a quarter of the time of
    importing ours, and half a second at the end of the process.

    A library that tests for another one may swallow Ctrl-C during an import. If Ctrl-C meets an executed string, such
    as that of a dataclass, Python ends the process by the signal and ignores a later exit code
    (``unhandled_keyboard_interrupt`` of CPython 3.11).
    """
    enabled = gc.isenabled()
    gc.disable()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
        # A signal during the block is raised here.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
