"""``python -m metarec.study worker``, ``repair``, ``replay`` and ``report``: further jobs on a study.

Only typer is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarec.cli.command import check_storage, cores, named_paths, new_app, resumable
from metarec.errors import check_name, printable

if TYPE_CHECKING:
    from metarec.study.job import Job

__all__ = ["app"]

app = new_app()

StudyName = Annotated[str, typer.Option(metavar="NAME", help="The study.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="METAREC_STORAGE", help="Its Optuna storage.", show_default="optuna.journal in --out"
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI", envvar="METAREC_TRACKING_URI", help="Its MLflow store.", show_default="mlflow.db in --out"
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=PATH",
        help="Ratings of a domain whose path has changed; may be repeated.",
        show_default="the paths of its spec",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder for cache/ and the other files of a study.")]


@app.command()
def worker(
    study_name: StudyName,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    data: Data = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that run trials.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds after which no new trial begins.", show_default="no limit"),
    ] = None,
    out: Out = Path("mlruns"),
) -> None:
    """Run trials of a study that was begun elsewhere, until it has its number of trials.

    Exit codes: 0 done; 2 bad input; 130 or 143 interrupted by Ctrl-C or SIGTERM, to be
    continued with the same command.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.study.joining import run_worker

        with resumable("--study-name", study_name):
            ended = run_worker(job, named_paths(data or []), workers=workers, timeout=timeout)
    typer.echo(f'study "{study_name}": {ended} trials ended while this worker was here')


@app.command()
def repair(
    study_name: StudyName, storage: Storage = None, tracking_uri: TrackingUri = None, out: Out = Path("mlruns")
) -> None:
    """Make Optuna and MLflow agree after an accident, and list the repairs.

    Exit codes: 0 done; 2 bad input.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.study.joining import repair_study

        done = repair_study(job)
    for line in done or ["all is right"]:
        typer.echo(printable(line))


@app.command()
def replay(
    study_name: StudyName,
    trial: Annotated[int, typer.Option(metavar="N", help="The number of a complete trial.")],
    storage: Storage = None,
    data: Data = None,
    out: Out = Path("mlruns"),
) -> None:
    """Compute the value of a trial again, and compare.

    Exit codes: 0 the same value to the last bit; 1 another one; 2 bad input.
    """
    with _job(study_name, storage, out, None, tracked=False) as job:
        from metarec.study.joining import replay_trial

        recorded, value = replay_trial(job, named_paths(data or []), trial)
    same = recorded == value
    typer.echo(f"trial {trial}: recorded {recorded!r}, computed again {value!r}: {'equal' if same else 'NOT EQUAL'}")
    if not same:
        raise typer.Exit(1)


@app.command()
def report(
    study_name: StudyName, storage: Storage = None, tracking_uri: TrackingUri = None, out: Out = Path("mlruns")
) -> None:
    """Write the page of a finished study again from its files; nothing is computed.

    Exit codes: 0 done; 2 bad input.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.report import write_report

        page = write_report(job)
    typer.echo(f"report: {page}")


@contextmanager
def _job(name: str, storage: str | None, out: Path, tracking_uri: str | None, *, tracked: bool) -> Iterator[Job]:
    """A job on an existing study, with its terminal output."""
    check_name("--study-name", name)
    check_storage(storage)
    from metarec.cli.study_tables import TerminalWatcher
    from metarec.cli.terminal import library_messages, terminal
    from metarec.files import keep_private
    from metarec.report import StudyReporter
    from metarec.study.job import Job
    from metarec.tracking import MlflowTracker, NullTracker, check_uri, sqlite_uri

    keep_private(out)
    uri = tracking_uri or sqlite_uri(out / "mlflow.db")
    if tracked:
        check_uri(uri)
    tracker = MlflowTracker(uri, out / "artifacts", spool=out / "spool") if tracked else NullTracker()
    errors = terminal(errors=True)
    with library_messages(errors) as messages, TerminalWatcher(errors, messages) as watcher:
        yield Job(out, name, storage=storage, tracker=tracker, reporter=StudyReporter(), jobs=cores(), watcher=watcher)
