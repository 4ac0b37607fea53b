"""``python -m metarec.study worker``, ``repair``, ``replay``, ``report``: what else there is to do with a study.

Only typer is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarec.cli.command import check_name, check_storage, cores, named_paths, tell_interrupted

if TYPE_CHECKING:
    from metarec.study.job import Job

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

StudyName = Annotated[str, typer.Option(metavar="NAME", help="The study.")]
Storage = Annotated[str | None, typer.Option(metavar="URL", help="Its Optuna storage; else the journal in --out.")]
TrackingUri = Annotated[str | None, typer.Option(metavar="URI", help="Its MLflow store; else the one in --out.")]
Data = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="Ratings of a domain, where they are not where they were; may be repeated."),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where cache/ goes, and what else is kept here.")]


@app.command()
def worker(
    study_name: StudyName,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    data: Data = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that run trials.")] = 1,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds after which no new trial begins.")] = None,
    out: Out = Path("mlruns"),
) -> None:
    """Run trials of a study that was begun elsewhere, until it has as many as are wanted.

    Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.study.joining import run_worker

        try:
            ended = run_worker(job, named_paths(data or []), workers=workers, timeout=timeout)
        except KeyboardInterrupt:
            tell_interrupted("--study-name", study_name)
            raise
    typer.echo(f'study "{study_name}": {ended} trials ended while this worker was here')


@app.command()
def repair(
    study_name: StudyName,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    out: Out = Path("mlruns"),
) -> None:
    """Make Optuna and MLflow agree after an accident, and say what was done.

    Exit codes: 0 done; 2 bad input.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.study.joining import repair_study

        done = repair_study(job)
    for line in done or ["all is right"]:
        typer.echo(line)


@app.command()
def replay(
    study_name: StudyName,
    trial: Annotated[int, typer.Option(metavar="N", help="The number of a complete trial.")],
    storage: Storage = None,
    data: Data = None,
    out: Out = Path("mlruns"),
) -> None:
    """Compute the value of a trial once more, and compare.

    Exit codes: 0 the same value to the last bit; 1 another one; 2 bad input.
    """
    with _job(study_name, storage, out, None, tracked=False) as job:
        from metarec.study.joining import replay_trial

        replayed = replay_trial(job, named_paths(data or []), trial)
    recorded = replayed.recorded
    same = recorded == replayed.value
    typer.echo(
        f"trial {trial}: recorded {recorded!r}, computed again {replayed.value!r}: {'equal' if same else 'NOT EQUAL'}"
    )
    if not same:
        raise typer.Exit(1)


@app.command()
def report(
    study_name: StudyName,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    out: Out = Path("mlruns"),
) -> None:
    """Write the report of a finished study, one page, from what the study kept; nothing is computed again.

    Exit codes: 0 done; 2 bad input.
    """
    with _job(study_name, storage, out, tracking_uri, tracked=True) as job:
        from metarec.report import write_report

        page = write_report(job)
    typer.echo(f"report: {page}")


@contextmanager
def _job(name: str, storage: str | None, out: Path, tracking_uri: str | None, *, tracked: bool) -> Iterator[Job]:
    """The job that takes part in a study, and what it says on the way."""
    check_name("--study-name", name)
    check_storage(storage)
    from rich.console import Console

    from metarec.cli.study_tables import TerminalWatcher
    from metarec.cli.terminal import telling
    from metarec.report import StudyReporter
    from metarec.study.job import Job
    from metarec.tracking import MlflowTracker, NullTracker, check_uri, sqlite_uri

    uri = tracking_uri or sqlite_uri(out / "mlflow.db")
    if tracked:
        check_uri(uri)
    tracker = MlflowTracker(uri, out / "artifacts", spool=out / "spool") if tracked else NullTracker()
    errors = Console(stderr=True)
    with telling(errors) as messages, TerminalWatcher(errors, messages) as watcher:
        yield Job(
            out,
            name,
            storage=storage,
            tracker=tracker,
            reporter=StudyReporter(),
            jobs=cores(),
            watcher=watcher,
        )
