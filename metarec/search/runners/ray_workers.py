"""Running trials in workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from metarec.errors import InputError, masked
from metarec.search.runners.worker import POLL_S, Work, report_new
from metarec.search.storage import end_stale_trials
from metarec.search.trials import OnTrial, counted_trials

__all__ = ["LOCAL", "check_ray", "run_on_ray"]

LOCAL = "local"
"""Instead of an address: start a cluster on this machine, and stop it at the end."""

ANSWER_S = 5.0
"""How long the head of a cluster may take to answer. Ray itself would wait for minutes."""

STATUS_S = 60.0
"""How long ``ray status`` may take. It needs most of the time to start."""

LOOPBACK = "127.0.0.1"


def check_ray(address: str) -> None:
    """Check that workers can be started at this address.

    Args:
        address: HOST:PORT of a cluster's head, or `LOCAL`.

    Raises:
        InputError: Ray is not installed, the address is malformed, or the cluster does not answer, or refuses the
            token of this process; or the command line holds a password, which Ray keeps with its jobs.
    """
    # Ray is imported when its environment is set.
    if find_spec("ray") is None:
        raise InputError('--ray needs Ray, which is not installed; install it: pip install "metarec[ray]"')
    if any("://" in word and masked(word) != word for word in sys.argv):
        raise InputError(
            "--ray: Ray shows the command line of this process to all of the cluster, and an address in it holds a "
            "password; give the address in METAREC_STORAGE or METAREC_TRACKING_URI"
        )
    if address == LOCAL:
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        raise InputError(f'--ray must be HOST:PORT of a cluster\'s head, or {LOCAL}, but got "{address}"')
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or error) from None
    _check_token(address)


def _check_token(address: str) -> None:
    """Raise InputError unless the cluster lets this process in. Another process asks, because Ray logs each attempt."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        asked = subprocess.run(
            command,
            env=os.environ | _environment(address),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STATUS_S,
        )
    except subprocess.TimeoutExpired:
        raise _no_answer(address, f"ray status took more than {STATUS_S:.0f} s") from None
    if "authentication token" in asked.stderr.lower():
        raise InputError(
            f"--ray {address} refuses this process: its token is missing or is not the cluster's; set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, the file with the cluster's token"
        )
    if asked.returncode:
        lines = asked.stderr.strip().splitlines() or [f"ray status ended with exit code {asked.returncode}"]
        raise _no_answer(address, lines[-1].rstrip("."))


def _no_answer(address: str, reason: object) -> InputError:
    return InputError(f"--ray {address} does not answer: {reason}; give another address, or {LOCAL}")


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
    reported = {trial.number for trial in counted_trials(study)}
    problems: list[str] = []
    try:
        with _connected(address, count) as ray:
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


@contextmanager
def _connected(address: str, count: int) -> Iterator[Any]:
    """Ray, connected to the cluster until the end of the block.

    A cluster that is started here listens on loopback alone, has no dashboard, lets only holders of a random token in,
    and keeps its files where only the owner comes to.
    """
    # It stays set, because Ray reads it once in a process.
    os.environ.update(_environment(address))
    import ray

    with TemporaryDirectory(prefix="ray-") as folder:
        where: dict[str, Any] = {"address": address}
        if address == LOCAL:
            # Ray opens the folder that it is given to everyone, so it gets one inside of ours.
            here = {"_node_ip_address": LOOPBACK, "_temp_dir": f"{folder}/ray"}
            where = {"num_cpus": count, "include_dashboard": False, **here}
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise _no_answer(address, str(error).strip().split("\n")[0].rstrip(".")) from None
        try:
            if address == LOCAL and ray.util.get_node_ip_address() != LOOPBACK:
                raise InputError(f"--ray {LOCAL}: Ray was imported earlier, so it listens to the network; start anew")
            yield ray
        finally:
            ray.shutdown()


def _environment(address: str) -> Mapping[str, str]:
    """What Ray reads from the environment, when it is imported and when it starts processes."""
    # Ray reports usage statistics to its makers by default.
    silent = {"RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0")}
    if address == LOCAL:
        # Without clusters, as on a Mac, it takes the address of loopback for that of its node, and listens only there.
        local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        return silent | local
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return silent | ({"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")} if given else {})


@cache
def _token() -> str:
    """The token of the clusters that this process starts. Ray reads it once in a process."""
    return secrets.token_hex(32)


def _work(work: Work, until: float, stop: Any, folder: str) -> int:
    """A worker, perhaps on another machine."""
    import ray

    if Path(folder).is_dir():
        # The storage and the store may be paths relative to it.
        os.chdir(folder)
    return work.do(time.monotonic() + until - time.time(), lambda: bool(ray.get(stop.is_set.remote())))
