"""Temporary PostgreSQL and MLflow servers, each on a free port of loopback."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

__all__ = ["MlflowServer", "Postgres", "Proxy", "free_port", "postgres_missing"]

START_S = 180.0


def free_port() -> int:
    """A port of loopback that no process listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _program(name: str) -> str | None:
    # Debian installs server programs outside of the PATH.
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(versions[0]) if versions else None)


def postgres_missing() -> str | None:
    """Why PostgreSQL cannot be started here; None if it can."""
    if _program("initdb") is None or _program("pg_ctl") is None:
        return "PostgreSQL's initdb and pg_ctl are not installed"
    if os.geteuid() == 0 and _ordinary_user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
    return None


def _ordinary_user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


class Postgres:
    """A temporary PostgreSQL server with one database, open to this machine.

    A context manager that starts it, and stops and deletes it at the end.

    Args:
        password: what it asks for; None lets everyone in.
    """

    def __init__(self, password: str | None = None) -> None:
        self.port = free_port()
        self._password = password
        login = "metarec" if password is None else f"metarec:{quote(password, safe='')}"
        self.url = f"postgresql+psycopg://{login}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        # Not below a private folder, because the server runs as another user.
        self._folder = Path(mkdtemp(prefix="metarec-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, _ordinary_user() or "nobody")
        access = ["--auth=trust"]
        if self._password is not None:
            (self._folder / "password").write_text(self._password)
            (self._folder / "password").chmod(0o644)
            access = ["--auth=scram-sha-256", "--pwfile=password"]
        self._run("initdb", "-D", "data", "-U", "metarec", *access, "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", str(int(START_S)), "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once and close all connections."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        found = _program(program)
        assert found is not None, f"{program} is not installed"
        user: dict[str, Any] = {"user": _ordinary_user()} if os.geteuid() == 0 else {}
        # The server keeps inherited pipes open, so its messages go to a file.
        with (self._folder / "messages").open("ab") as messages:
            subprocess.run([found, *arguments], cwd=self._folder, stdout=messages, stderr=messages, check=True, **user)


class MlflowServer:
    """``mlflow server`` on a SQLite store, which may be killed and started again.

    A context manager that starts it, and stops it at the end.

    Args:
        folder: for its database and artifacts. options: more of the command's. environment: more of the process's.
    """

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self._folder = folder
        self._options = options
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: it does not answer.
        """
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/mlflow.db",
            "--artifacts-destination",
            f"{self._folder}/artifacts",
            "--workers",
            "1",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *store, *self._options],
                cwd=self._folder,
                # Jobs are for MLflow's GenAI features. They are eight more processes, which import MLflow for seconds.
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"mlflow server did not answer within {START_S:.0f} s; see {self._folder / 'log'}")

    def kill(self) -> None:
        """Kill the server and all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


class Proxy:
    """Forwards each request to a server of this machine, or answers it with an error while it is broken.

    A context manager that starts it, and stops it at the end.

    Args:
        port: the server's. login: the user and the password that it asks for, with a colon between; None for no one.

    Attributes:
        broken: whether it answers 500. refused: number of these answers.
    """

    def __init__(self, port: int, login: str | None = None) -> None:
        wanted = None if login is None else f"Basic {b64encode(login.encode()).decode()}"
        self.broken = False
        self.refused = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _forward(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.broken:
                    proxy.refused += 1
                    self.send_error(500)
                    return
                if wanted is not None and self.headers.get("Authorization") != wanted:
                    self.send_error(401)
                    return
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    server.request(self.command, self.path, content, dict(self.headers))
                    answer = server.getresponse()
                    body = answer.read()
                except OSError:
                    self.send_error(502)
                    return
                finally:
                    server.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # the names of the base class

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
