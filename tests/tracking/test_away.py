"""An MLflow server that answers each call with an error, or never: commands say so, and end soon."""

import re
import socket
import sys
import time

import pandas as pd
import pytest

from benchmarks.study.servers import Proxy, free_port
from metarec.cli import predict, study
from metarec.study.records import EXPERIMENT_ID
from metarec.study.results import RUN_ID
from metarec.tracking import MlflowTracker, sqlite_uri
from metarec.tracking.spool import _sender, _spooled_runs
from tests.support.studies import opened, tiny_spec

COMMANDS = ["study", "report", "repair", "predict"]


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    """As in a new process."""
    for name in ("MAX_RETRIES", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "")
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}")


@pytest.fixture
def broken():
    with Proxy(free_port()) as proxy:
        proxy.broken = True
        yield proxy.url


@pytest.fixture
def silent():
    """It accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refused(place, tmp_path, monkeypatch, capsys):
    """Runs a command with this server, and returns its error line and how long it took."""

    def run(name, url):
        began = opened(tiny_spec(), "s", str(tmp_path / "optuna.journal"))
        began.set_user_attr(RUN_ID, "0" * 32)
        began.set_user_attr(EXPERIMENT_ID, "1")
        pd.DataFrame({"user": ["a"], "item": ["b"]}).to_parquet(tmp_path / "rows.parquet")
        named = ["--study-name", "s", "--out", str(tmp_path)]
        arguments = {
            "study": [str(place / "job.yaml"), "--data", f"movies={place}/movies.csv", "--out", str(tmp_path)],
            "report": ["report", *named],
            "repair": ["repair", *named],
            "predict": ["models:/metarec-s@champion", str(tmp_path / "rows.parquet"), str(tmp_path / "out.parquet")],
        }
        monkeypatch.setattr(sys, "argv", ["command", *arguments[name], "--tracking-uri", url])
        start = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            (predict if name == "predict" else study).main()
        seconds = time.monotonic() - start
        printed = capsys.readouterr()
        assert ended.value.code == 2, printed.err
        assert "Traceback" not in printed.err
        return printed.err.splitlines()[-1], seconds

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_server_is_one_line_at_once(name, broken, refused):
    line, seconds = refused(name, broken)
    assert re.match("error: .*500", line), line
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_silent_server_is_one_line_soon(name, silent, refused):
    line, seconds = refused(name, silent)
    assert re.match("error: .*(timed out|timeout)", line), line
    assert seconds < 45


def test_a_study_says_for_what_it_waits_and_until_when(new_folder, monkeypatch, caplog):
    monkeypatch.setattr(_sender, "QUIET_S", 0.2)
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 1.0)
    folder = new_folder()
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as run:
        monkeypatch.setattr(_sender.Sender, "_send", _away)
        run.log_metrics({"x": 1.0})
        start = time.monotonic()
        assert run.flush(1.0) == 1
        assert time.monotonic() - start < 3
    store = re.escape(sqlite_uri(folder / "mlflow.db"))
    assert re.search(rf"waiting for {store} since \d\d:\d\d:\d\d, until \d\d:\d\d:\d\d at the latest", caplog.text)


def _away(*_):
    raise ConnectionResetError
