"""``metarec serve``: a server of a registered model.

Only typer is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Annotated

import typer

from metarec.cli.command import cores, new_app, run_command
from metarec.errors import InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["main", "served"]

app = new_app()

_MODEL, _STORE = "METAREC_SERVED_MODEL", "METAREC_SERVED_STORE"
"""By which the command passes its arguments to the processes of ``--workers``."""

ENDING_S = 10
"""How long requests may go on after SIGTERM or Ctrl-C."""


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A folder with a model, or models:/metarec-STUDY@champion.")],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port to listen on.", min=1, max=65535)] = 5001,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that answer.", min=1, max=256)] = 1,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", envvar="METAREC_TRACKING_URI", help="MLflow's store.", show_default="mlruns/mlflow.db"
        ),
    ] = None,
) -> None:
    """Serve a model as MLflow's scoring server does: POST /invocations, GET /ping, /health and /version.

    Every file of the model is compared with the registry, and every value is checked, before the server begins.
    It has no authentication: on another interface than loopback it needs a proxy that has.

    Exit codes: 0 ended by SIGTERM or Ctrl-C; 2 bad input.
    """
    import uvicorn

    from metarec.tracking import check_uri, leave_waiting_to_us

    leave_waiting_to_us()
    if tracking_uri is not None:
        check_uri(tracking_uri)
    _check_port(host, port)
    os.environ[_MODEL] = model
    if tracking_uri is not None:
        os.environ[_STORE] = tracking_uri
    loaded = served()
    typer.echo(f"serving {model} at http://{host}:{port}/invocations; Ctrl-C ends it", err=True)
    if not _is_loopback(host):
        typer.echo(
            f"warning: {host}:{port} has no authentication and no TLS; put a proxy in front of it that has", err=True
        )
    uvicorn.run(
        loaded if workers == 1 else "metarec.cli.serve:served",
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=ENDING_S,
    )


def served() -> Starlette:
    """The application of the model that the command names in the environment; each process loads it."""
    from metarec.model.mlflow_model import load_from
    from metarec.model.server import application

    return application(load_from(os.environ[_MODEL], tracking_uri=os.environ.get(_STORE)), cores())


def _check_port(host: str, port: int) -> None:
    """Raise InputError if nothing can listen there."""
    import socket

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there: {error.strerror}; give others") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """Run the command; an error that the user can correct becomes one line and an exit code."""
    run_command(app)
