"""``python -m benchmarks.study.kill``: kill the processes of a study and check that no trial is lost or duplicated.

Two workers run a study on simulated ratings. The command is killed while it starts and while it fits the bases. Then at
random moments one of the workers, or the whole command, gets SIGKILL, and the command is started again, until enough
were killed and enough trials are complete. Then the command is killed while the study ends. At last it is left alone,
Optuna's storage and MLflow's store are compared, trial by trial, and nothing else may be left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
"""Longest time between two kills, or between the first trial of a command and a kill."""


class Phase(NamedTuple):
    """A part of a study: it begins with this text in the command's log and one such new file, and takes so long."""

    name: str
    seconds: float
    text: bytes = b""
    files: str | None = None


READ = b"movies: "
"""What the command prints when it has read its data."""

START = Phase("start-up", 6.0)
FIRST = (START, Phase("bases", 2.5, READ))
SEARCH = Phase("search", LONGEST_S, READ, f"runs/artifacts/{NAME}/networks/*")
LAST = (Phase("ending", 8.0, READ), Phase("registration", 4.0, READ, f"runs/artifacts/{NAME}/predictions.parquet"))

OUTLIVES_S = 60.0
"""How long a process may outlive the command. The server of workers first ends its imports, which take seconds."""


def run(
    storage: str, *, kills: int, phase_kills: int, trials: int, workers: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Kill often enough, let the study end, and compare the stores.

    Args:
        storage: one of `STORAGES`. kills, trials: least numbers. phase_kills: in each of the phases besides the search.
        folder: of the study, new.
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
    phases: Counter[str] = Counter()
    wrong: list[str] = []
    starts, wanted = 0, trials
    with _storage(storage, folder) as url:
        options = ["--workers", str(workers), "--out", "runs", "--study-name", NAME]
        options += [] if url is None else ["--storage", url]
        for phase in FIRST:
            while phases[phase.name] < phase_kills:
                # Otherwise the bases are not fitted again.
                shutil.rmtree(folder / "runs" / "cache", ignore_errors=True)
                phases[phase.name] += _kill_in(phase, folder, [*options, "--trials", str(wanted)], draw, wrong)
        while True:
            starts += 1
            before = sum(killed.values())
            with _started(folder, [*options, "--trials", str(wanted)], until=SEARCH) as command:
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
        for phase in LAST:
            while phases[phase.name] < phase_kills:
                phases[phase.name] += _kill_in(phase, folder, [*options, "--trials", str(wanted)], draw, wrong)
        with _started(folder, [*options, "--trials", str(wanted)]) as command:
            if command.wait() != 0:
                raise RuntimeError(f"the study ended with {command.returncode}; see {folder / 'log'}")
            wrong += _outlived(command)
        store = sqlite_uri(folder / "runs" / "mlflow.db")
        found = audit(NAME, url or str(folder / "runs" / "optuna.journal"), store)
        wrong += [*_left(folder / "runs"), *_registered_twice(store)]
    return {
        "storage": storage,
        "killed": {**killed, **phases},
        "starts": starts + phases.total() + 1,
        "wanted": wanted,
        **found,
        "wrong": [*found["wrong"], *wrong],
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
def _started(folder: Path, options: list[str], until: Phase = START) -> Iterator[subprocess.Popen[bytes]]:
    """The command, in its own process group, when it has come to a phase; its processes are killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "metarec.study", "killed.yaml", "--data", "movies=movies.csv", *options]
    path, began = folder / "log", time.time()
    with path.open("ab") as log:
        seen = log.tell()
        command = subprocess.Popen(whole, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while command.poll() is None:
            new = until.files is None or any(map(partial(_is_newer, began), folder.glob(until.files)))
            if new and until.text in path.read_bytes()[seen:]:
                break
            time.sleep(0.05)
        yield command
    finally:
        _kill_all(command)


def _is_newer(moment: float, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return file.stat().st_mtime > moment
    return False


def _kill_in(phase: Phase, folder: Path, options: list[str], draw: random.Random, wrong: list[str]) -> bool:
    """Start the command and kill it in this phase, alone or with all its processes; False if it was over before.

    Args:
        wrong: gets a line for each thing that is wrong then.
    """
    with _started(folder, options, until=phase) as command:
        if not _waits(command, draw.uniform(0, phase.seconds)):
            if command.returncode != 0:
                raise RuntimeError(f"the study ended with {command.returncode}; see {folder / 'log'}")
            return False
        if draw.random() < 0.5:
            _kill_all(command)
        else:
            command.kill()
            command.wait()
        wrong += _outlived(command)
        return True


def _outlived(command: subprocess.Popen[bytes]) -> list[str]:
    """A line for each process of a command that has ended which is still there a minute later."""
    deadline = time.monotonic() + OUTLIVES_S
    while alive := _group(command.pid):
        if time.monotonic() > deadline:
            return [f"a process has outlived the command: {line}" for line in alive]
        time.sleep(0.2)
    return []


def _group(number: int) -> list[str]:
    """The command lines of the processes in a group, without those that only wait to be collected."""
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                lines.append(" ".join(process.cmdline()) or process.name())
    return lines


def _left(out: Path) -> list[str]:
    """The temporary files, unsent records and locks of trials in the folder of a finished study."""
    kinds = ("**/*.part", ".mlflow.db-*", "spool/*", "optuna.journal.running/*")
    return [f"{path.relative_to(out)} is left" for kind in kinds for path in out.glob(kind)]


def _registered_twice(tracking_uri: str) -> list[str]:
    """A line if the study has no champion, or the same model in two versions."""
    from mlflow import MlflowClient

    from metarec.model.mlflow_model import DIGEST
    from metarec.tracking import CHAMPION, model_name

    client = MlflowClient(tracking_uri)
    digests = Counter(one.tags[DIGEST] for one in client.search_model_versions(f"name = '{model_name(NAME)}'"))
    wrong = [f"the model {digest} has {count} versions" for digest, count in digests.items() if count > 1]
    if CHAMPION not in client.get_registered_model(model_name(NAME)).aliases:
        wrong.append("no version of the model is the champion")
    return wrong


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
    phase_kills: Annotated[
        int, typer.Option(metavar="N", min=0, help="How often the command is killed in each phase besides the search.")
    ] = 5,
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
            rows.append(
                run(
                    storage,
                    kills=kills,
                    phase_kills=phase_kills,
                    trials=trials,
                    workers=workers,
                    seed=seed,
                    folder=work / storage,
                )
            )
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
