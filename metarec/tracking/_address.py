"""Where the runs are, and how they are opened."""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from metarec.errors import InputError, check_address, shown_address
from metarec.registry import suggest
from metarec.stores import sqlite_path, sqlite_uri
from metarec.tracking._views import view_key

__all__ = ["check_uri", "runs_address", "shown_uri", "ui_command"]

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def shown_uri(tracking_uri: str) -> str:
    """The tracking URI as it may be shown: without a password, and short where the file lies below here.

    >>> shown_uri("postgresql://ada:secret@host/runs")
    'postgresql://ada:***@host/runs'
    """
    path = sqlite_path(tracking_uri)
    if path is not None and path.is_relative_to(Path.cwd()):
        return f"sqlite:///{path.relative_to(Path.cwd())}"
    return shown_address(tracking_uri)


def check_uri(tracking_uri: str) -> None:
    """Raise :class:`InputError` at once for a store out of reach: MLflow itself would retry for minutes."""
    where = shown_uri(tracking_uri)
    check_address("tracking URI", tracking_uri)
    address = urlsplit(tracking_uri)
    if address.scheme in {"", "file"}:
        cure = sqlite_uri(Path(address.path or ".") / "mlflow.db")
        raise InputError(f"tracking URI {where} is a plain folder, which MLflow no longer writes to; use {cure}")
    if (kind := address.scheme.split("+")[0]) not in {"sqlite", "databricks", *_PORTS}:
        raise InputError(f"tracking URI {where}: MLflow knows no {kind}; {suggest(kind, ['sqlite', *_PORTS])}")
    if kind in {"http", "https"} and not address.hostname:
        raise InputError(f"tracking URI {where} names no host; give one such as http://mlflow:5000")
    path = sqlite_path(tracking_uri)
    if path is not None and path.is_dir():
        raise InputError(f"{path} is a folder and no SQLite database; move it or give another tracking URI")
    if path is not None and path.is_file() and path.stat().st_size > 0:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise InputError(f"{path} is not a SQLite database; move it or give another tracking URI")
    # "postgresql+psycopg" names a database and its driver.
    port = _PORTS.get(kind)
    if port is not None and address.hostname:
        try:
            socket.create_connection((address.hostname, address.port or port), timeout=5).close()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"tracking URI {where} does not answer ({reason}); start the server or give another URI"
            ) from None


def ui_command(tracking_uri: str) -> str | None:
    """The one command that opens the runs in the browser; None where a server shows them already.

    It names the ``mlflow`` of this environment, which need not be on the PATH.
    """
    if urlsplit(tracking_uri).scheme in {"http", "https"}:
        return None
    ours = Path(sys.executable).with_name("mlflow")
    found = shutil.which("mlflow")
    if not ours.exists() or (found is not None and Path(found) == ours):
        command = "mlflow"
    elif ours.is_relative_to(Path.cwd()):
        command = str(ours.relative_to(Path.cwd()))
    else:
        command = str(ours)
    return shlex.join([command, "ui", "--backend-store-uri", shown_uri(tracking_uri)])


def runs_address(
    experiment_id: str,
    run_id: str | None = None,
    *,
    view: Literal["row", "trial"] | None = None,
    server: str = "http://127.0.0.1:5000",
) -> str:
    """The page with the table of runs, or the page of one run, which shows its description.

    MLflow's own front page leads to an empty view for language models instead.

    Args:
        view: for the table of the run's rows or trials, see :class:`~metarec.tracking.View`.

    >>> runs_address("1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
    >>> runs_address("1", "ab12", view="row").partition("&")[2]
    'viewStateShareKey=metarec-ab12-row'
    """
    shared = f"&viewStateShareKey={view_key(run_id, view)}" if view is not None and run_id is not None else ""
    run = f"/{run_id}" if run_id is not None and not shared else ""
    address = urlsplit(server)
    # Without a user and a password.
    place = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
    return f"{place}/#/experiments/{experiment_id}/runs{run}?workflowType=machine_learning{shared}"
