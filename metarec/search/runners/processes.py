"""Running trials in several processes of this machine, and stopping them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

import optuna

from metarec.search.runners.worker import POLL_S, Work, report_new
from metarec.search.storage import end_stale_trials
from metarec.search.trials import OnTrial, counted_trials
from metarec.workers import end_with_parent, start_process, start_server

__all__ = ["run_in_processes", "stopping_politely"]

MAX_KILLED = 5
"Workers that may be killed before another trial ends. More mean a lasting cause, such as too little memory."


@contextmanager
def stopping_politely(on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """While the block runs, the first Ctrl-C (or SIGTERM) only requests a stop; the second interrupts.

    Args:
        on_stop: called at the first request.

    Yields:
        A function that returns whether a stop was requested.

    Raises:
        KeyboardInterrupt: at the end of the block, if a stop was requested; or at the second request.
    """
    requested: list[int] = []

    def request(number: int, frame: FrameType | None) -> None:
        requested.append(number)
        if len(requested) > 1:
            interrupt(number, frame)
        on_stop()

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if callable(handler):
            # The caller's own handler knows one signal from the other.
            handler(number, frame)
        raise KeyboardInterrupt

    # Only the main thread can handle signals.
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before: dict[int, Any] = {number: signal.signal(number, request) for number in signals}
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if requested:
        interrupt(requested[0], None)


def run_in_processes(
    count: int,
    study: optuna.Study,
    work: Work,
    on_trial: OnTrial,
    *,
    deadline: float = float("inf"),
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Run trials in `count` processes, until the study has all its trials or is stopped.

    The processes share the tensors of the objective. A killed process is replaced, and its trial tried again.

    Raises:
        RuntimeError: every process ended with an error, or too many were killed.
    """
    start_server()
    context = multiprocessing.get_context("forkserver")
    stop = context.Event()

    def start() -> BaseProcess:
        process = context.Process(target=_work, args=(work, deadline, stop))
        start_process(process)
        return process

    reported = {trial.number for trial in counted_trials(study)}
    crew, codes, killed = [start() for _ in range(count)], [], 0
    try:
        while crew:
            wait([process.sentinel for process in crew], POLL_S)
            if stopping():
                stop.set()
            if report_new(study, reported, on_trial):
                killed = 0
            for process in [process for process in crew if not process.is_alive()]:
                crew.remove(process)
                code = process.exitcode or 0
                killed += code < 0
                if code < 0 and killed <= MAX_KILLED and not stop.is_set():
                    crew.append(start())
                else:
                    codes.append(code)
        report_new(study, reported, on_trial)
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.join()
        end_stale_trials(study)
    if codes and all(codes):
        raise RuntimeError(f"all {count} workers ended early, with exit codes {codes}; see their messages above")


def _work(work: Work, deadline: float, stop: Event) -> None:
    # Ctrl-C reaches the whole process group; the parent handles it and sets `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    work.do(deadline, stop.is_set)
