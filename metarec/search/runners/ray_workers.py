"""Running trials in workers of a Ray cluster."""

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
from metarec.search.runners.worker import POLL_S, Work, report_new
from metarec.search.storage import end_stale_trials
from metarec.search.trials import OnTrial, counted_trials

__all__ = ["LOCAL", "check_ray", "run_on_ray"]

LOCAL = "local"
"""Instead of an address: start a cluster on this machine, and stop it at the end."""

ANSWER_S = 5.0
"""How long the head of a cluster may take to answer. Ray itself would wait for minutes."""


def check_ray(address: str) -> None:
    """Check that workers can be started at this address.

    Args:
        address: HOST:PORT of a cluster's head, or `LOCAL`.

    Raises:
        InputError: Ray is not installed, the address is malformed, or the cluster does not answer.
    """
    try:
        import ray  # noqa: F401  # only to see whether it is installed
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
    work: Work,
    on_trial: OnTrial,
    *,
    deadline: float = float("inf"),
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Run trials in `count` workers of a Ray cluster, one core each, until the study has all its trials.

    Data and episodes go into Ray's object store, once for each machine. Workers on other machines need servers as
    storage and tracking store. A trained network stays on the machine of its trial, and is trained again for scoring
    on another one.

    Args:
        address: of the cluster's head, or `LOCAL`. The others are those of
            :func:`metarec.search.runners.processes.run_in_processes`.

    Raises:
        InputError: the cluster does not answer.
        RuntimeError: every worker ended with an error.
    """
    ray = _connected(address, count)
    reported = {trial.number for trial in counted_trials(study)}
    problems: list[str] = []
    try:
        stop = ray.remote(num_cpus=0)(_Flag).remote()
        shared = ray.put(work)
        worker = ray.remote(num_cpus=1, max_retries=3)(_work)
        # Monotonic clocks of different machines cannot be compared.
        until = time.time() + deadline - time.monotonic()
        crew = [worker.remote(shared, until, stop, os.getcwd()) for _ in range(count)]
        stopped = False
        while crew:
            ended, crew = ray.wait(crew, timeout=POLL_S)
            report_new(study, reported, on_trial)
            if stopping() and not stopped:
                stopped = True
                ray.get(stop.set.remote())
            for one in ended:
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    problems.append(str(error).strip().splitlines()[-1])
        report_new(study, reported, on_trial)
    finally:
        ray.shutdown()
        end_stale_trials(study)
    if len(problems) == count:
        raise RuntimeError(f"all {count} workers on Ray ended early: {problems[0]}")


class _Flag:
    """A stop flag that all workers read."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


def _connected(address: str, count: int) -> Any:
    # Ray reports usage statistics to its makers by default.
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


def _work(work: Work, until: float, stop: Any, folder: str) -> int:
    """A worker, perhaps on another machine."""
    import ray

    if Path(folder).is_dir():
        # The storage and the store may be paths relative to it.
        os.chdir(folder)
    return work.do(time.monotonic() + until - time.time(), lambda: bool(ray.get(stop.is_set.remote())))
