"""``python -m benchmarks.study.kill``: kill the processes of a study and check that no trial is lost or duplicated.

Two workers run a study on simulated ratings. At random moments one of them, or the whole command, gets SIGKILL, and the
command is started again, until enough were killed and enough trials are complete. Then Optuna's storage and MLflow's
store are compared, trial by trial.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT, WORK
from metarec.errors import InputError

__all__ = ["main", "run"]

STORAGES = ("journal", "postgresql")
NAME = "killed"

SPEC = """
name: killed
bases: [bias, item-knn]
baselines: [mean]
episodes: {shots: 3, min_query: 3, max_query: 10}
training: {epochs: 40, patience: 40}
pruner: none
"""

LONGEST_S = 12.0
"""Longest time between two kills, or between the start of the command and a kill."""


def run(storage: str, kills: int, trials: int, workers: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill often enough, let the study end, and compare the stores.

    Args:
        storage: one of `STORAGES`. kills, trials: least numbers. folder: of the study, new.
    """
    from benchmarks.study.audit import audit
    from metarec.ratings import simulate_domains
    from metarec.tracking import sqlite_uri

    began = time.perf_counter()
    folder.mkdir(parents=True)
    simulate_domains(0, num_users=80, num_items=60, ratings_per_user=20)["movies"].ratings.to_csv(
        folder / "movies.csv", index=False
    )
    (folder / "killed.yaml").write_text(SPEC)
    draw = random.Random(seed)
    killed = {"workers": 0, "commands": 0}
    starts, wanted = 0, trials
    with _storage(storage, folder) as url:
        options = ["--workers", str(workers), "--out", "runs", "--study-name", NAME]
        options += [] if url is None else ["--storage", url]
        while True:
            starts += 1
            before = sum(killed.values())
            with _started(folder, [*options, "--trials", str(wanted)]) as command:
                while sum(killed.values()) < kills and _waits(command, draw.uniform(0.3, LONGEST_S)):
                    killed[_kill_something(command, draw)] += 1
                if sum(killed.values()) >= kills or command.poll() is not None:
                    command.wait()
            if command.returncode == 0:
                if sum(killed.values()) >= kills:
                    break
                # The study ended between two kills.
                wanted += 10
            elif sum(killed.values()) == before:
                # After a kill the command may end with an error; the next start resumes the study.
                raise RuntimeError(f"the study ended with {command.returncode}; see {folder / 'log'}")
        found = audit(NAME, url or str(folder / "runs" / "optuna.journal"), sqlite_uri(folder / "runs" / "mlflow.db"))
    return {
        "storage": storage,
        "killed": killed,
        "starts": starts,
        "wanted": wanted,
        **found,
        "duration_s": round(time.perf_counter() - began, 1),
    }


@contextmanager
def _storage(storage: str, folder: Path) -> Iterator[str | None]:
    """The URL of a fresh storage; None for the journal."""
    if storage == "journal":
        yield None
        return
    from benchmarks.study.servers import Postgres

    with Postgres() as server:
        yield server.url


@contextmanager
def _started(folder: Path, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, in its own process group, which is killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "metarec.study", "killed.yaml", "--data", "movies=movies.csv", *options]
    with (folder / "log").open("ab") as log:
        command = subprocess.Popen(whole, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield command
    finally:
        _kill_all(command)


def _waits(command: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it still runs after these seconds."""
    try:
        command.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _kill_something(command: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Kill one of its processes, or the command with all of them; returns the kind."""
    try:
        own = psutil.Process(command.pid)
        # The fork server is not a worker.
        others = [other for other in own.children(recursive=True) if other.ppid() != command.pid]
    except psutil.NoSuchProcess:
        others = []
    # With equal chances the command, which lives longer, would be killed far more often than the workers.
    if others and draw.random() < 0.9:
        with suppress(psutil.NoSuchProcess):
            draw.choice(others).kill()
        return "workers"
    _kill_all(command)
    return "commands"


def _kill_all(command: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)
    command.wait()


def main(
    storages: Annotated[str, typer.Option(metavar="A,B", help="Optuna storages.")] = ",".join(STORAGES),
    kills: Annotated[int, typer.Option(metavar="N", min=0, help="How many processes or commands are killed.")] = 50,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="How many trials are to be complete.")] = 40,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that run trials.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the moments and of the killed processes.")] = 0,
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where the studies go; a new folder.")] = WORK / "kill",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Kill a study's processes at random moments, and see that no trial is lost or there twice.

    Exit codes: 0 all is as it should be; 1 something is wrong; 2 bad input; 130 interrupted.
    """
    with ending_plainly("begin again with another --work"):
        from benchmarks.common.machine import describe_run
        from benchmarks.study.servers import postgres_missing
        from metarec.registry import suggest

        chosen = storages.split(",")
        for storage in chosen:
            if storage not in STORAGES:
                raise InputError(f'unknown storage "{storage}"; {suggest(storage, STORAGES)}')
        if "postgresql" in chosen and (reason := postgres_missing()):
            raise InputError(f"--storages postgresql: {reason}")
        if work.exists():
            raise InputError(f"--work {work} is there already; give a new folder")
        target = json_file or out / "kill_study.json"
        make_folders(out, target.absolute().parent)
        rows = []
        for storage in chosen:
            rows.append(run(storage, kills, trials, workers, seed, work / storage))
            typer.echo(json.dumps(rows[-1]))
        libraries = ("optuna", "mlflow", "SQLAlchemy", "filelock")
        report = {
            "benchmark": "kill_study",
            "run": describe_run("benchmarks.study.kill", sys.argv[1:], libraries, ROOT),
            "rows": rows,
        }
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(row["wrong"] for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
