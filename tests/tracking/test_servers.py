"""Studies whose stores or workers are elsewhere: databases and servers that come and go, and a Ray cluster."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from benchmarks.study.audit import audit
from benchmarks.study.servers import MlflowServer, Postgres, Proxy, free_port, postgres_missing
from metarec.errors import InputError
from metarec.search.runners.ray_workers import check_ray
from metarec.tracking import sqlite_uri
from tests.support.commands import begun, begun_trials, ended, running_trials, soon


@pytest.mark.slow
@pytest.mark.skipif(postgres_missing() is not None, reason=str(postgres_missing()))
def test_servers_that_come_and_go_lose_no_trial(place, tmp_path):
    """While trials run PostgreSQL is stopped three times, a proxy answers 500 for MLflow's server, it is killed,
    and while it is away a worker joins from elsewhere."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    with Postgres() as postgres, MlflowServer(tmp_path / "server") as server, Proxy(server.port) as proxy:
        stores = ["--storage", postgres.url, "--tracking-uri", proxy.url, "--study-name", "s"]
        options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "40", "--workers", "1"]
        slow = ["--set", "training.epochs=60", "--set", "training.patience=60", "--set", "pruner=none"]
        first = begun(place, *options, *slow, *stores, "--out", str(tmp_path / "one"))
        assert soon(lambda: begun_trials(postgres.url) >= 2)
        proxy.broken = True
        assert soon(lambda: proxy.refused > 5)
        proxy.broken = False
        server.kill()
        second = begun(place, "worker", *stores, "--data", "movies=movies.csv", "--out", str(tmp_path / "two"))
        # The first process runs one trial at a time. A worker that has never reached the database does not wait for it.
        assert soon(lambda: running_trials(postgres.url) == 2)
        for _ in range(3):
            postgres.stop()
            time.sleep(2)
            postgres.start()
            time.sleep(3)
        begun_before = begun_trials(postgres.url)
        assert soon(lambda: begun_trials(postgres.url) > begun_before + 3)
        server.start()
        told = {"one": ended(first), "two": ended(second)}
        assert int(re.search(r"(\d+) trials ended", told["two"])[1]) > 0
        for name in [name for name in told if "could not be sent" in told[name]]:
            # The trials were over before the server was there again.
            ended(begun(place, "repair", *stores, "--out", str(tmp_path / name)))
        found = audit("s", postgres.url, server.url)
    assert found["wrong"] == []
    assert found["complete"] == found["counted"] == 40


RAY = ["job.yaml", "--data", "movies=movies.csv", "--study-name", "s", "--ray"]


@pytest.mark.slow
def test_a_study_on_ray_is_interrupted_and_goes_on(place, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    slow = ["--set", "training.epochs=100", "--set", "training.patience=100", "--set", "pruner=none"]
    options = ["--trials", "40", "--workers", "2", "--out", str(tmp_path), *slow]
    command = begun(place, *RAY, "local", *options)
    journal = str(tmp_path / "optuna.journal")
    assert soon(lambda: begun_trials(journal) >= 3)
    command.send_signal(signal.SIGINT)
    assert "stopping when the running trials have ended" in ended(command, 130)
    before = begun_trials(journal)
    assert 3 <= before < 40
    # It goes on with processes: where trials run makes no difference.
    ended(begun(place, *RAY[:-1], *options, "--trials", str(before + 2)))
    found = audit("s", journal, sqlite_uri(tmp_path / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (before + 2, [])


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("nowhere.invalid:6379", "nowhere.invalid:6379 does not answer"),
        ("127.0.0.1:1", "127.0.0.1:1 does not answer: Connection refused"),
        ("cluster", 'must be HOST:PORT of a cluster\'s head, or local, but got "cluster"'),
        ("ray://head:10001", 'must be HOST:PORT of a cluster\'s head, or local, but got "ray://head:10001"'),
    ],
)
def test_a_cluster_that_is_not_there_is_said_at_once(address, problem):
    pytest.importorskip("ray", reason="Ray is not installed")
    start = time.monotonic()
    with pytest.raises(InputError, match=re.escape(problem)):
        check_ray(address)
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_workers_on_ray_do_what_processes_do_and_listen_on_loopback_alone(place, tmp_path):
    """With an empty home: no token of an earlier cluster is there, and none is written."""
    pytest.importorskip("ray", reason="Ray is not installed")
    (tmp_path / "home").mkdir()
    options = ["--trials", "6", "--workers", "2", "--out", str(tmp_path / "runs")]
    command = begun(place, *RAY, "local", *options, HOME=str(tmp_path / "home"))
    journal = str(tmp_path / "runs" / "optuna.journal")
    assert soon(lambda: begun_trials(journal) >= 1)
    family = psutil.Process(command.pid).children(recursive=True)
    names = {process.name() for process in family}
    listening = [
        (process.name(), connection.laddr.ip)
        for process in (psutil.Process(command.pid), *family)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    server = next(process for process in family if process.name() == "gcs_server").environ()
    folders = {
        Path(word) for process in family for word in re.findall(r"/\S*?/ray-[^/\s]+", " ".join(process.cmdline()))
    }
    modes = {path.stat().st_mode & 0o777 for path in folders}
    printed = ended(command)
    assert len(re.findall(r"^trial ", printed, re.MULTILINE)) == 6
    found = audit("s", journal, sqlite_uri(tmp_path / "runs" / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (6, [])
    assert not (tmp_path / "runs" / "spool").exists()
    assert {"gcs_server", "raylet"} <= names
    assert len(listening) >= 5
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}, listening
    assert (server["RAY_AUTH_MODE"], len(server["RAY_AUTH_TOKEN"])) == ("token", 64)
    assert modes == {0o700}
    assert not any(path.exists() for path in folders)
    assert list((tmp_path / "home").rglob("auth_token")) == []


@pytest.fixture(scope="module")
def guarded():
    """The head of a cluster that lets in who has its token: its address, and the token."""
    pytest.importorskip("ray", reason="Ray is not installed")
    ray, port, token = Path(sys.executable).with_name("ray"), free_port(), "right-" + 32 * "0"
    started = [
        ray,
        "start",
        "--head",
        "--block",
        "--port",
        str(port),
        "--num-cpus",
        "2",
        "--include-dashboard",
        "false",
    ]
    with TemporaryDirectory(prefix="ray-") as folder:
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
        with (Path(folder) / "log").open("wb") as log:
            head = subprocess.Popen(
                [*started, "--temp-dir", folder], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        family = []
        try:
            address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
            assert soon(lambda: "Ray runtime started" in (Path(folder) / "log").read_text(errors="replace"))
            family = psutil.Process(head.pid).children(recursive=True)
            yield address, token
        finally:
            for process in [*family, psutil.Process(head.pid)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait()


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "wrong-" + 32 * "0"])
def test_a_cluster_that_refuses_the_token_is_said_in_one_line(guarded, place, tmp_path, token):
    address, _ = guarded
    (tmp_path / "home").mkdir()
    given = {} if token is None else {"RAY_AUTH_TOKEN": token}
    command = begun(place, *RAY, address, "--out", str(tmp_path / "runs"), HOME=str(tmp_path / "home"), **given)
    printed = ended(command, 2)
    assert re.fullmatch(rf"error: --ray {address} refuses this process: its token [^\n]+\n", printed), printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_cluster_gets_its_token(guarded, place, tmp_path):
    address, token = guarded
    (tmp_path / "token").write_text(token)
    options = ["--trials", "3", "--workers", "2", "--out", str(tmp_path / "runs")]
    printed = ended(begun(place, *RAY, address, *options, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")))
    assert len(re.findall(r"^trial ", printed, re.MULTILINE)) == 3
    assert token not in printed


def test_ray_gets_no_command_line_with_a_password(monkeypatch):
    """Ray shows it to all of the cluster."""
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(sys, "argv", ["study", "--storage", "postgresql://ada:secret@db/optuna"])
    with pytest.raises(InputError, match="give the address in METAREC_STORAGE") as refused:
        check_ray("local")
    assert "secret" not in str(refused.value)


def test_who_has_no_ray_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "metarec\[ray\]"'):
        check_ray("local")
