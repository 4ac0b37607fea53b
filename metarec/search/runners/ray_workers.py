"""Trials on a Ray cluster: the same as in processes, but Ray says where they are."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from metarec.errors import InputError
from metarec.importing import importing
from metarec.search.objective import Objective
from metarec.search.runners.processes import LOOK_S, tell
from metarec.search.storage import end_stale_trials
from metarec.search.trials import OnTrial, counted_trials, equip, join_study, run_trials
from metarec.tracking import Tracker

__all__ = ["LOCAL", "check_ray", "run_on_ray"]

LOCAL = "local"
"""In the place of an address: a cluster is started here, and stopped at the end."""

ANSWER_S = 5.0
"""How long a cluster's head may take to answer. Ray itself would wait for minutes."""


def check_ray(address: str) -> None:
    """See that workers can be started there.

    Args:
        address: HOST:PORT of a cluster's head, or `LOCAL`.

    Raises:
        InputError: Ray is not installed, the address is none, or nobody answers there.
    """
    try:
        import ray  # noqa: F401  # only whether it is there
    except ImportError:
        raise InputError('--ray needs Ray, which is not installed; install it: pip install "metarec[ray]"') from None
    if address == LOCAL:
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        raise InputError(f'--ray must be HOST:PORT of a cluster\'s head, or {LOCAL}, but got "{address}"')
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--ray {address} does not answer: {reason}; give another address, or {LOCAL}") from None


def run_on_ray(
    address: str,
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
    """Run trials in `count` workers of a Ray cluster, one core each, until the study has as many as are wanted.

    Data and episodes go into Ray's object store, once for each machine. On other machines storage and tracking store
    must be servers. What a trial learns is kept where it ran; whoever scores and does not have it learns it again.

    Args:
        address: of the cluster's head, or `LOCAL`. The others are those of
            :func:`metarec.search.runners.processes.run_in_processes`.

    Raises:
        InputError: the cluster does not answer.
        RuntimeError: every worker ended with an error.
    """
    assert objective.run is not None
    ray = _connected(address, count)
    told = {trial.number for trial in counted_trials(study)}
    problems: list[str] = []
    try:
        stop = ray.remote(num_cpus=0)(_Flag).remote()
        shared = ray.put(objective.recorded_by(None))
        work = ray.remote(num_cpus=1, max_retries=3)(_work)
        place = objective.run.run_id, objective.run.experiment_id
        # On another machine another monotonic clock runs.
        until = time.time() + deadline - time.monotonic()
        crew = [
            work.remote(shared, study.study_name, tracker, place, storage, until, stop, os.getcwd())
            for _ in range(count)
        ]
        asked = False
        while crew:
            ended, crew = ray.wait(crew, timeout=LOOK_S)
            tell(study, told, on_trial)
            if stopping() and not asked:
                asked = True
                ray.get(stop.set.remote())
            for one in ended:
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    problems.append(str(error).strip().splitlines()[-1])
        tell(study, told, on_trial)
    finally:
        ray.shutdown()
        end_stale_trials(study)
    if len(problems) == count:
        raise RuntimeError(f"all {count} workers on Ray ended early: {problems[0]}")


class _Flag:
    """Whether all are to stop, for whoever asks."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


def _connected(address: str, count: int) -> Any:
    # It reports its use to its makers, unless the user's environment says otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    where: dict[str, Any] = (
        {"num_cpus": count, "include_dashboard": False} if address == LOCAL else {"address": address}
    )
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"--ray {address} does not answer: {reason}; give another address, or {LOCAL}") from None
    return ray


def _work(
    objective: Objective,
    name: str,
    tracker: Tracker,
    place: tuple[str | None, str | None],
    storage: str,
    until: float,
    stop: Any,
    folder: str,
) -> int:
    """A worker, which may be on another machine."""
    import ray

    if Path(folder).is_dir():
        # Paths that were given may be relative to it.
        os.chdir(folder)

    def stopping() -> bool:
        return bool(ray.get(stop.is_set.remote()))

    deadline = time.monotonic() + until - time.time()
    with importing():
        study = join_study(name, storage)
        equip(study, objective.settings)
        run = tracker.join_study(name, *place)
    with run:
        return run_trials(study, objective.recorded_by(run), lambda _: None, deadline=deadline, stopping=stopping)
