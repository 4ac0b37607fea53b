"""A study with its progress on the terminal or in a notebook: what the command and :func:`metarec.fit` run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from metarec.cli.command import check_storage, cores
from metarec.cli.study_tables import TerminalWatcher
from metarec.cli.terminal import Messages, library_messages, terminal
from metarec.errors import InputError, check_name, shown
from metarec.ratings import Domain
from metarec.report import StudyReporter
from metarec.study import job
from metarec.study.data import IN_MEMORY, choose_target, read_data
from metarec.study.results import StudyResult
from metarec.study.spec import OF_DATA, StudySpec, load_spec
from metarec.tracking import MlflowTracker, check_uri, sqlite_uri

__all__ = ["fit", "new_name", "run_watched", "tried"]

ONLY = "data"
"""The name of a domain that is given without one."""


def run_watched(
    spec: StudySpec,
    domains: Mapping[str, Domain],
    console: Console,
    messages: Messages,
    *,
    name: str,
    out: Path,
    tracking_uri: str,
    storage: str | None,
    ray: str | None = None,
) -> StudyResult:
    """Run a study, with its records in MLflow, its reports, and its progress on `console`.

    Args:
        messages: of the library so far; they are shown when the input is checked.
        name, out, storage, ray: as in :class:`~metarec.study.job.Job`.
    """
    tracker = MlflowTracker(tracking_uri, out / "artifacts", spool=out / "spool")
    with TerminalWatcher(console, messages) as watcher:
        own = job.Job(out, name, storage, ray, tracker, StudyReporter(), cores(), watcher)
        return job.run_study(spec, domains, own)


def tried(spec: StudySpec, domains: Mapping[str, Domain], messages: Messages, *, name: str, out: Path) -> StudySpec:
    """The whole spec of a study that could begin with this input; nothing is written.

    Raises:
        InputError: the input is wrong.
    """
    whole = job.checked(spec, domains, job.Job(out, name)).spec
    messages.show()
    return whole


def new_name(spec: StudySpec) -> str:
    """The name of a study without one of its own: that of its spec, and the time."""
    return f"{spec.name}-{datetime.now():%Y%m%d-%H%M%S}"


def fit(
    data: pd.DataFrame | str | Path | Mapping[str, pd.DataFrame | str | Path],
    *,
    target: str | None = None,
    task: str | None = None,
    trials: int = 20,
    timeout: float | None = None,
    seed: int = 0,
    out: str | Path = "mlruns",
    **spec: Any,
) -> StudyResult:
    """See :func:`metarec.fit`."""
    tables = dict(data) if isinstance(data, Mapping) else {ONLY: data}
    _check(tables, spec)
    frames = {name: table for name, table in tables.items() if isinstance(table, pd.DataFrame)}
    keys = {
        **spec,
        "domains": {name: IN_MEMORY if name in frames else str(table) for name, table in tables.items()},
        "target": target,
        "trials": trials,
        "timeout": timeout,
        "seed": seed,
    }
    folder, storage = Path(out), os.environ.get("METAREC_STORAGE")
    uri = os.environ.get("METAREC_TRACKING_URI") or sqlite_uri(folder / "mlflow.db")
    check_uri(uri)
    check_storage(storage)
    console = terminal(errors=True)
    with library_messages(console) as messages:
        reading = load_spec("cold-start", {key: keys[key] for key in OF_DATA if key in keys})
        wanted = choose_target(reading, tables)
        domains = read_data(reading, frames)
        if task is None:
            base = "cold-start" if domains[wanted].feedback == "explicit" else "ranking"
        else:
            base, keys["task"] = "ranking" if task == "ranking" else "cold-start", task
        loaded = load_spec(base, keys)
        name = new_name(loaded)
        check_name("the name of the study", name)
        return run_watched(loaded, domains, console, messages, name=name, out=folder, tracking_uri=uri, storage=storage)


def _check(tables: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    if not tables:
        raise InputError("data must name at least one table but is empty; give a DataFrame or a path")
    for name, table in tables.items():
        if not isinstance(table, pd.DataFrame | str | os.PathLike):
            raise InputError(f'data "{shown(name)}" must be a DataFrame or a path but is {type(table).__name__}')
    if "domains" in spec:
        raise InputError("domains: the argument data has the tables; leave out domains")
