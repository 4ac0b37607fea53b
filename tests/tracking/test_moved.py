"""A store that was moved, is locked, or is not the default one."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

import metarec
from metarec.errors import InputError
from metarec.tracking import MlflowTracker, loading_code, sqlite_uri
from metarec.tracking import _mlflow as mlflow_module

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(new_folder):
    """A store with a study and a file of it."""
    folder = new_folder()
    record(folder, "first")
    return folder


def record(folder, text):
    with MlflowTracker.in_folder(folder).start_study("films", params={}) as study, study.artifacts() as files:
        (files / f"{text}.txt").write_text(text)


def record_anew(folder, text):
    """In a new process, because MLflow remembers where the files of a run are."""
    code = f"from pathlib import Path; from test_moved import record; record(Path({str(folder)!r}), {text!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stderr


def files_of(folder):
    """The names of the study's files as MLflow's client sees them, and where it looks for them."""
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"))
    (run,) = client.search_runs([client.get_experiment_by_name("metarec").experiment_id])
    return sorted(entry.path for entry in client.list_artifacts(run.info.run_id)), run.info.artifact_uri


def test_a_store_that_was_moved_keeps_its_files_and_gets_new_ones_in_the_new_place(old, tmp_path):
    new = tmp_path / "mövéd to"
    shutil.move(old, new)
    assert f"the store was moved from {old}" in record_anew(new, "second")
    names, address = files_of(new)
    assert names == ["first.txt", "second.txt"]
    assert address.startswith((new / "artifacts").as_uri())
    assert not old.exists()


def test_a_copy_writes_into_its_own_folder(old, tmp_path):
    copy = shutil.copytree(old, tmp_path / "copy")
    record_anew(copy, "second")
    assert files_of(copy)[0] == ["first.txt", "second.txt"]
    assert files_of(old)[0] == ["first.txt"]


def test_a_store_whose_files_are_elsewhere_on_purpose_is_left_alone(new_folder, tmp_path, caplog):
    store, elsewhere = new_folder(), tmp_path / "files" / "artifacts"
    with MlflowTracker(sqlite_uri(store / "mlflow.db"), elsewhere, spool=store / "spool").start_study(
        "films", params={}
    ):
        pass
    elsewhere.mkdir(parents=True, exist_ok=True)
    (store / "artifacts").mkdir()
    record(store, "first")
    assert files_of(store)[1].startswith(elsewhere.as_uri())
    assert "was moved" not in caplog.text


@pytest.mark.slow
def test_a_locked_store_is_waited_for_at_the_start(old, monkeypatch, caplog):
    lock = sqlite3.connect(old / "mlflow.db", check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    threading.Timer(8, lock.rollback).start()
    began = time.monotonic()
    MlflowTracker.in_folder(old).open()
    assert time.monotonic() - began > 5
    assert "another process writes to" in caplog.text
    monkeypatch.setattr(mlflow_module, "PATIENCE_S", 0.1)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match=r"another process writes to .* all the time; try again"):
        MlflowTracker.in_folder(old).open()
    lock.rollback()
    lock.close()


def test_loading_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for given in ({}, {"tracking_uri": "sqlite:///other/mlflow.db"}):
        with pytest.raises(InputError, match=r"there is no store .*mlflow.db; name the store with tracking_uri"):
            metarec.load("models:/metarec-films@champion", **given)
    assert not list(tmp_path.iterdir())


def test_the_line_that_loads_a_model_names_a_store_that_is_not_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default, other = (sqlite_uri(tmp_path / name / "mlflow.db") for name in ("mlruns", "other"))
    assert loading_code("films", default) == 'metarec.load("models:/metarec-films@champion")'
    assert loading_code('it "is"', other) == (
        'metarec.load("models:/metarec-it \\"is\\"@champion", tracking_uri="sqlite:///other/mlflow.db")'
    )


def test_a_deleted_experiment_is_restored_by_the_printed_command(old):
    client = MlflowClient(sqlite_uri(old / "mlflow.db"))
    number = client.get_experiment_by_name("metarec").experiment_id
    client.delete_experiment(number)
    with pytest.raises(InputError, match=f"MLFLOW_TRACKING_URI=sqlite:///.*mlflow.db.* --experiment-id {number}"):
        MlflowTracker.in_folder(old).open()
    with closing(sqlite3.connect(old / "mlflow.db")) as store:
        assert store.execute("SELECT count(*) FROM experiments WHERE name = 'metarec'").fetchone() == (1,)
