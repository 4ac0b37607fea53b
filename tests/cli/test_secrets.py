"""No password of an address is shown: not in errors, on the terminal, or in any file."""

import itertools
import re
import sys
import traceback
from urllib.parse import quote

import pytest

from benchmarks.study.servers import MlflowServer, Postgres, Proxy, postgres_missing
from metarec.cli import compare, predict, study
from metarec.errors import InputError, check_address, masked, shown_address
from metarec.search.storage import open_storage
from metarec.study.job import Job
from metarec.tracking import MlflowTracker
from tests.support.commands import begun, ended

MARK = "mark0Zx9"
"""Stands in every part of a secret, so that a fragment of it is found, too."""

NASTY = MARK.join(["", "@", "/", ":", "?", "#", " ", "%40", "%", "'", "&", ""])
ENCODED = quote(NASTY, safe="")

RAW = [f"{MARK}{sign}{MARK}" for sign in ("@", "/", "?", "#", " ", ":/", "@/?#", "\n", "/@")]
"""Passwords that are malformed in an address, because they are not percent-encoded."""


def addresses(scheme):
    yield f"{scheme}://ada:{ENCODED}@127.0.0.1:1/db"
    yield f"{scheme}://ada:{MARK}@127.0.0.1:1/db?sslmode=disable"
    if scheme == "http":
        yield from (f"{scheme}://{MARK}{rest}@127.0.0.1:1" for rest in ("", ":", ":x"))
    yield f"{scheme}://ada@127.0.0.1:1/db?password={MARK}&token={MARK}"
    yield from (f"{scheme}://ada:{raw}@127.0.0.1:1/db" for raw in RAW)
    yield f"{scheme}://ada:{MARK}/db"
    if scheme != "sqlite":
        # There it is a path.
        yield f"{scheme}:///db?host=127.0.0.1&port=1&password={MARK}"
        yield f"{scheme}:///ada:{MARK}@127.0.0.1/db"
    yield f"{scheme}:/ada:{MARK}@127.0.0.1/db"
    yield f"ada:{MARK}@127.0.0.1:1/db"
    yield f"ada:{MARK}"


def shows(text):
    """Whether a text, or the bytes of a file, show a part of the secret."""
    return MARK in (text if isinstance(text, str) else text.decode(errors="replace"))


# --- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [*addresses("postgresql+psycopg"), *addresses("http")])
def test_an_address_is_shown_without_its_secrets(address):
    assert not shows(shown_address(address))
    if re.fullmatch(r"\w+(\+\w+)?://[^/\s]\S*@\S*", address):
        # Inside of a message, where its end is not known.
        assert not shows(masked(f'cannot reach "{address}", (Caused by {address})'))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://db/optuna", "postgresql+psycopg://db/optuna"),
        ("postgresql+psycopg://ada:x@[::1]:5432/optuna", "postgresql+psycopg://ada:***@[::1]:5432/optuna"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:////home/a@b/c: d/mlflow.db", "sqlite:////home/a@b/c: d/mlflow.db"),
        ("./mlruns", "./mlruns"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_is_no_secret_is_shown(address, shown):
    assert shown_address(address) == shown
    if "://" in address:
        check_address("--storage", address)


@pytest.mark.parametrize("raw", RAW)
def test_a_password_that_is_not_encoded_is_refused_with_the_cure(raw):
    with pytest.raises(InputError, match=r"^--storage postgresql://\*\*\*.* percent-encode.*%40") as refused:
        check_address("--storage", f"postgresql://ada:{raw}@host/db")
    assert not shows(str(refused.value))


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "RAY_AUTH_TOKEN"])
def test_the_secrets_of_the_environment_are_masked(monkeypatch, name):
    monkeypatch.setenv(name, f"{NASTY}\n")
    for shown in (NASTY, ENCODED):
        assert masked(f"a header: 'Bearer {shown}'") == "a header: 'Bearer ***'"


def test_no_error_and_no_repr_of_the_library_has_a_secret():
    """Nor do the errors that it was raised from, which Python prints above it."""
    for address in addresses("postgresql+psycopg"):
        if "://" in address:
            with pytest.raises(InputError) as refused:
                open_storage(address)
            assert not shows("".join(traceback.format_exception(refused.value)))
        assert not shows(repr(Job(None, "s", storage=address)))
    for address in addresses("http"):
        with pytest.raises(InputError) as refused:
            MlflowTracker(address).open()
        assert not shows("".join(traceback.format_exception(refused.value)))


# --- the commands ----------------------------------------------------------------------------------------------------

WITH_STORAGE = {
    "study": (study, []),
    "worker": (study, ["worker", "--study-name", "s"]),
    "report": (study, ["report", "--study-name", "s"]),
    "replay": (study, ["replay", "--study-name", "s", "--trial", "0"]),
    "repair": (study, ["repair", "--study-name", "s"]),
}
WITH_RUNS = {name: command for name, command in WITH_STORAGE.items() if name != "replay"} | {
    "compare": (compare, []),
    "predict": (predict, ["models:/m@champion", "rows.parquet", "out.parquet"]),
}


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Runs a command in this process; what it printed and the names of what it wrote, once it has refused."""
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"user": ["a"], "item": ["b"]}).to_parquet("rows.parquet")

    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["metarec", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        printed = capfd.readouterr()
        assert stopped.value.code == 2, printed.err
        assert re.fullmatch(r"error: [^\n]+\n", printed.err), printed.err
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or not shows(path.read_bytes()), path
        return printed.out + printed.err

    return run


SCHEMES = ("postgresql+psycopg", "postgresql", "nonsense", "sqlite")


@pytest.mark.parametrize("name", WITH_STORAGE)
def test_no_command_shows_the_password_of_a_storage(refused, name, monkeypatch):
    command, arguments = WITH_STORAGE[name]
    # All of them open the storage by the same function.
    every = list(itertools.chain(*map(addresses, SCHEMES if name == "worker" else SCHEMES[:1])))
    for address in every if name == "worker" else every[::4]:
        assert not shows(refused(command, *arguments, "--storage", address)), address
    monkeypatch.setenv("METAREC_STORAGE", f"postgresql+psycopg://ada:{ENCODED}@127.0.0.1:1/db")
    assert "--storage postgresql+psycopg://ada:***@127.0.0.1:1/db cannot be opened" in refused(command, *arguments)


@pytest.mark.parametrize("name", WITH_RUNS)
def test_no_command_shows_the_password_of_a_tracking_store(refused, name, monkeypatch):
    command, arguments = WITH_RUNS[name]
    every = list(itertools.chain(addresses("http"), addresses("postgresql+psycopg"), addresses("nonsense")))
    # A database whose host stands in the query is only reached for by MLflow itself, which waits for minutes.
    every = [address for address in every if not address.startswith("postgresql+psycopg:///db?")]
    for address in every if name == "compare" else every[::6]:
        assert not shows(refused(command, *arguments, "--tracking-uri", address)), address
    monkeypatch.setenv("METAREC_TRACKING_URI", f"http://ada:{ENCODED}@127.0.0.1:1")
    assert "http://***@127.0.0.1:1" in refused(command, *arguments)


def test_a_token_that_is_no_header_is_not_shown(monkeypatch):
    """The error of requests shows a token that ends with the line's end of its file."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"{MARK}\r")
    with Proxy(1) as server, pytest.raises(InputError, match="header value: 'Bearer") as refused:
        MlflowTracker(server.url).open()
    assert not shows("".join(traceback.format_exception(refused.value)))


@pytest.mark.slow
@pytest.mark.skipif(postgres_missing() is not None, reason=str(postgres_missing()))
def test_a_study_with_passwords_leaves_none_anywhere(place, tmp_path):
    """All commands on a database and a server of runs that ask for passwords, and a server that breaks in between."""
    out = tmp_path / "out"
    with (
        Postgres(NASTY) as database,
        MlflowServer(tmp_path / "server") as server,
        Proxy(server.port, f"ada:{NASTY}") as proxy,
    ):
        tracking_uri = proxy.url.replace("://", f"://ada:{ENCODED}@")
        stores = {"METAREC_STORAGE": database.url, "METAREC_TRACKING_URI": tracking_uri}
        own = ["--study-name", "s", "--out", str(out)]
        data = ["--data", "movies=movies.csv"]
        printed = ended(
            begun(
                place, "job.yaml", *data, *own, "--trials", "2", "--workers", "2", "--json", f"{out}/r.json", **stores
            )
        )
        proxy.broken = True
        # Its records wait in the spool, and it says so.
        printed += ended(begun(place, "worker", *data, *own, **stores))
        proxy.broken = False
        printed += ended(begun(place, "repair", *own, "--storage", database.url, "--tracking-uri", tracking_uri))
        printed += ended(begun(place, "replay", *data, *own, "--trial", "0", **stores))
        printed += ended(begun(place, "report", *own, **stores))
        wrong = {name: address.replace(ENCODED, f"{ENCODED}x") for name, address in stores.items()}
        refusals = [ended(begun(place, *command, *own, **wrong), 2) for command in (["worker", *data], ["repair"])]
    assert all(re.fullmatch(r"error: [^\n]+\n", line) for line in refusals), refusals
    assert "password authentication failed" in refusals[0]
    assert not shows(printed + "".join(refusals))
    files = [path for folder in (out, tmp_path / "server") for path in folder.rglob("*") if path.is_file()]
    assert {"r.json", "mlflow.db", "predictions.parquet"} <= {path.name for path in files}
    assert [path for path in files if shows(path.read_bytes())] == []


@pytest.mark.slow
def test_mlflows_own_users_and_passwords(tmp_path, monkeypatch):
    """The server of docs/cluster.md lets in who has the password, and refuses others in one line."""
    pytest.importorskip("flask_wtf", reason='MLflow\'s users need pip install "mlflow[auth]"')
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    secrets = {"MLFLOW_FLASK_SERVER_SECRET_KEY": 2 * MARK, "MLFLOW_AUTH_ADMIN_PASSWORD": NASTY}
    with MlflowServer(tmp_path / "server", "--app-name", "basic-auth", **secrets) as server:
        for password in (None, "wrong-password"):
            if password is not None:
                monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
                monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            with pytest.raises(InputError, match=r"cannot be used: .*(401|[Aa]uthenticat)") as refused:
                MlflowTracker(server.url, spool=tmp_path / "spool").open()
            assert "\n" not in str(refused.value)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", NASTY)
        with MlflowTracker(server.url, spool=tmp_path / "spool").start_study("s", params={}) as run:
            assert run.flush(30) == 0
