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

import optuna

from metarec.importing import importing
from metarec.search.objective import Objective
from metarec.search.storage import end_stale_trials
from metarec.search.trials import OnTrial, counted_trials, equip, join_study, run_trials
from metarec.tracking import Tracker
from metarec.workers import end_with_parent, start_server

__all__ = ["POLL_S", "report_new", "run_in_processes", "stopping_politely"]

POLL_S = 0.2
"Pause between two checks for trials that have ended."

MAX_KILLED = 5
"Workers that may be killed before another trial ends. More mean a lasting cause, such as too little memory."


@contextmanager
def stopping_politely(on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """While the block runs, the first Ctrl-C (or SIGTERM) only requests a stop; the second interrupts.

    Args:
        on_stop: called at the first request.

    Yields:
        A function that returns whether a stop was requested.
    """
    requested = False

    def request(_: int, __: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        on_stop()

    # Only the main thread can handle signals.
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_in_processes(
    count: int,
    study: optuna.Study,
    objective: Objective,
    tracker: Tracker,
    storage: str,
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
    assert objective.run is not None
    start_server()
    context = multiprocessing.get_context("forkserver")
    stop = context.Event()
    # Each worker makes its own connection to the tracking store.
    place = objective.run.run_id, objective.run.experiment_id
    arguments = (study.study_name, objective.recorded_by(None), tracker, place, storage, deadline, stop)

    def start() -> BaseProcess:
        process = context.Process(target=_work, args=arguments)
        process.start()
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


def _work(
    name: str,
    objective: Objective,
    tracker: Tracker,
    place: tuple[str | None, str | None],
    storage: str,
    deadline: float,
    stop: Event,
) -> None:
    # Ctrl-C reaches the whole process group; the parent handles it and sets `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    with importing():
        study = join_study(name, storage)
        equip(study, objective.settings)
        run = tracker.join_study(name, *place)
    with run:
        run_trials(study, objective.recorded_by(run), lambda _: None, deadline=deadline, stopping=stop.is_set)


def report_new(study: optuna.Study, reported: set[int], on_trial: OnTrial) -> int:
    """Call `on_trial` with each trial that has ended and was not reported yet; the number of these trials."""
    new = [trial for trial in counted_trials(study) if trial.number not in reported]
    for trial in new:
        reported.add(trial.number)
        on_trial(trial)
    return len(new)
