"""``python -m metarec.compare``: the comparison of transfer strategies on the command line.

Only typer is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metarec.cli.command import check_json, cores, named_paths, new_app, resumable, run_command
from metarec.errors import InputError, check_name, shown

__all__ = ["main"]

app = new_app()

ALL = "all"
BOTH = "both"


@app.command()
def compare(
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A domain's table; may be repeated.", show_default="a simulated world"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="rating or ranking.", show_default="rating where there are ratings, else ranking"
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The domain with few train users.", show_default="that of the simulated world"
        ),
    ] = None,
    shots: Annotated[str, typer.Option(metavar="N,N,…", help="Support ratings of each test user.")] = "0,1,2,5,10",
    target_users: Annotated[str, typer.Option(metavar="N,N,…", help="Train users of the target.")] = "5,20,100",
    strategies: Annotated[str, typer.Option(metavar="NAME,…", help='Compared strategies; "all" is everything.')] = ALL,
    seeds: Annotated[int, typer.Option(metavar="N", help="Rounds of each kind, with other users each.")] = 3,
    regime: Annotated[
        str, typer.Option(metavar="NAME", help="What is scarce in the target: everything, labels, or both.")
    ] = "everything",
    link_users: Annotated[
        bool,
        typer.Option(
            "--link-users", help="Users with the same id in several domains are one person.", show_default="off"
        ),
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for mlflow.db, artifacts/ and cache/.")] = Path(
        "mlruns"
    ),
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", envvar="METAREC_TRACKING_URI", help="An MLflow store.", show_default="mlflow.db in --out"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Continue the comparison of this name, or begin it.",
            show_default="a new one: compare and the time",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="How tables are read or lists made, such as columns.user=uid, missing.0=drop or ranking.positive=4.",
            show_default="the usual ones",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows here, too.", show_default="no file")
    ] = None,
) -> None:
    """Compare how source domains help a target domain with few train users.

    Exit codes: 0 done; 2 bad input; 130 or 143 interrupted by Ctrl-C or SIGTERM, to be continued with
    the same --name.
    """
    from metarec.files import keep_private
    from metarec.importing import importing
    from metarec.workers import start_server

    keep_private(out)
    jobs = cores()
    if jobs > 1:
        # The server imports the workers' libraries while this process imports its own.
        start_server()
    paths = named_paths(data or [])
    if target is None and paths:
        raise InputError(f"--target must say which of the domains is the target: {', '.join(paths)}")
    if task not in (None, "rating", "ranking"):
        raise InputError(f'--task must be rating or ranking but got "{shown(task)}"; choose one of them')
    numbers = _numbers("--shots", shots), _numbers("--target-users", target_users)
    with importing():
        from datetime import datetime

        from metarec.cli.compare_tables import TerminalWatcher, show_comparison, show_where
        from metarec.cli.terminal import library_messages, terminal
        from metarec.compare.data import SIMULATED_TARGETS, settings_of, simulated, task_of
        from metarec.compare.job import Job, run_comparison
        from metarec.compare.plan import ComparisonPlan
        from metarec.report import ComparisonReporter
        from metarec.tracking import MlflowTracker, check_uri, sqlite_uri
        from metarec.transfer import REGIMES, TransferSettings, competitors

    name = f"compare-{datetime.now():%Y%m%d-%H%M%S}" if name is None else name
    check_name("--name", name)
    check_json(json_file, out)
    uri = tracking_uri or sqlite_uri(out / "mlflow.db")
    check_uri(uri)
    settings = settings_of(assignments or [], paths)
    tracker = MlflowTracker(uri, out / "artifacts", spool=out / "spool")
    errors = terminal(errors=True)
    with library_messages(errors) as messages:
        domains = {own: settings.read(path, own) for own, path in paths.items()} if paths else simulated(task)
        wanted = task_of(task, domains, target)
        plan = ComparisonPlan(
            target or SIMULATED_TARGETS[wanted],
            competitors(wanted) if strategies.strip() == ALL else [part.strip() for part in strategies.split(",")],
            *numbers,
            seeds,
            REGIMES if regime == BOTH else (regime,),  # type: ignore[arg-type]  # it checks them
            fusion=TransferSettings(task=wanted),
            link_users=link_users,
            ranking=settings.ranking,
        )
        watching = TerminalWatcher(errors, messages, len(plan.strategies), plan.measure)
        with resumable("--name", name), watching as watcher:
            job = Job(out, name, tracker, ComparisonReporter(), jobs, watcher)
            comparison = run_comparison(plan, domains, job)
    if json_file is not None:
        json_file.write_text(json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8")
    console = terminal()
    show_comparison(console, comparison)
    show_where(console, comparison, uri)


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f'{option} must be whole numbers such as 1,5,10 but got "{text}"; separate them by commas'
        ) from None


def main() -> None:
    """Run the command; an error that the user can correct becomes one line and an exit code."""
    run_command(app)
