"""Studies whose stores or workers are elsewhere: databases and servers that come and go, and a Ray cluster."""

import re
import signal
import sys
import time

import pytest

from benchmarks.study.audit import audit
from benchmarks.study.servers import MlflowServer, Postgres, Proxy, postgres_missing
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
def test_workers_on_ray_do_what_processes_do(place, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    options = ["--trials", "6", "--workers", "2", "--out", str(tmp_path)]
    told = ended(begun(place, *RAY, "local", *options))
    assert len(re.findall(r"^trial ", told, re.MULTILINE)) == 6
    found = audit("s", str(tmp_path / "optuna.journal"), sqlite_uri(tmp_path / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (6, [])
    assert not (tmp_path / "spool").exists()


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


def test_who_has_no_ray_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "metarec\[ray\]"'):
        check_ray("local")
