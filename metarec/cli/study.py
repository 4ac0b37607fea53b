"""``python -m metarec.study``: the main job on the command line.

Only typer is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from metarec.cli.command import check_json, check_storage, cores, named_paths, new_app, resumable, run_command
from metarec.errors import check_name

__all__ = ["main"]

app = new_app()

OF_SPEC = "that of the spec"


@app.command()
def study(
    spec: Annotated[str, typer.Argument(help="A spec: a YAML file, or the name of one in studies/.")] = "quickstart",
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Ratings of a domain, in place of the spec's; may be repeated.",
            show_default="the domains of the spec",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The domain of the search.",
            show_default="that of the spec, or a single domain of --data",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="rating or ranking.",
            show_default="that of the spec, or rating where there are ratings, else ranking",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Total number of trials.", show_default=OF_SPEC)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that run trials.", show_default=OF_SPEC)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of all random draws.", show_default=OF_SPEC)
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds after which no new trial begins.", show_default=OF_SPEC),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for mlflow.db, artifacts/, optuna.journal and cache/.")
    ] = Path("mlruns"),
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", envvar="METAREC_TRACKING_URI", help="An MLflow store.", show_default="mlflow.db in --out"
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="METAREC_STORAGE",
            help="An Optuna storage.",
            show_default="optuna.journal in --out",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="The Ray cluster for the workers; local starts one here.", show_default="no Ray"
        ),
    ] = None,
    study_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Continue the study of this name up to --trials, or begin it.",
            show_default="a new one: the spec's name and the time",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the result here, too.", show_default="no file"),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the spec, such as pruner=none; may be repeated. `metarec keys` lists them.",
            show_default="the spec as it is",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the data and all settings, print the whole spec as YAML, and end. Nothing is written.",
            show_default="off",
        ),
    ] = False,
) -> None:
    """Learn how to combine recommenders: search, choose on validation users, score once on test users.

    Exit codes: 0 done; 2 bad input; 130 or 143 interrupted by Ctrl-C or SIGTERM, to be continued with the
    same --study-name.

    Ctrl-C (or SIGTERM) once finishes the running trials and stops; twice stops now.

    Further commands, each with its own --help: worker runs trials of a study from elsewhere, repair makes
    the stores agree after an accident, replay computes one trial again, report writes the page of a
    finished study again.
    """
    options: dict[str, Any] = {
        "trials": trials,
        "workers": workers,
        "seed": seed,
        "timeout": timeout,
        "target": target,
        "task": task,
    }
    overrides = {key: value for key, value in options.items() if value is not None}
    if data:
        overrides["domains"] = named_paths(data)
        # The spec's target is one of the spec's own domains, which these replace.
        overrides.setdefault("target", None)

    from metarec.files import keep_private
    from metarec.importing import importing
    from metarec.workers import start_server

    if not dry_run:
        keep_private(out)
    if cores() > 1 and not dry_run:
        # The server imports the workers' libraries while this process imports its own.
        start_server()
    with importing():
        from metarec.cli.running import new_name, run_watched, tried
        from metarec.cli.study_tables import show_result, show_where
        from metarec.cli.terminal import library_messages, terminal
        from metarec.study.data import read_data
        from metarec.study.spec import load_spec
        from metarec.tracking import check_uri, sqlite_uri

    loaded = load_spec(spec, overrides, assignments or [])
    name = new_name(loaded) if study_name is None else study_name
    check_name("--study-name", name)
    check_json(json_file, out)
    check_storage(storage)
    if ray is not None:
        from metarec.search.runners import check_ray

        check_ray(ray)
    uri = tracking_uri or sqlite_uri(out / "mlflow.db")
    check_uri(uri)
    errors = terminal(errors=True)
    with library_messages(errors) as messages:
        domains = read_data(loaded)
        if dry_run:
            typer.echo(tried(loaded, domains, messages, name=name, out=out).as_yaml(), nl=False)
            return
        with resumable("--study-name", name):
            result = run_watched(
                loaded, domains, errors, messages, name=name, out=out, tracking_uri=uri, storage=storage, ray=ray
            )
    if json_file is not None:
        json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
    console = terminal()
    show_result(console, result)
    show_where(console, result, uri)


def main() -> None:
    """Run the command; an error that the user can correct becomes one line and an exit code."""
    from metarec.cli.study_jobs import app as study_jobs

    names = {command.callback.__name__ for command in study_jobs.registered_commands if command.callback}
    run_command(study_jobs if sys.argv[1:2] and sys.argv[1] in names else app)
