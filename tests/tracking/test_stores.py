"""A store of an older MLflow is announced before its schema is changed."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from alembic import command
from alembic.config import Config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

import metarec
from benchmarks.study.servers import Postgres, postgres_missing
from metarec.errors import InputError
from metarec.stores import announce_migration, sqlite_path
from metarec.tracking import MlflowTracker, sqlite_uri

MLFLOW_2_9 = "acf3f17fdcc7"


def schema_of(database):
    with closing(sqlite3.connect(database)) as store:
        return store.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def make_store_of_mlflow_2_9(uri):
    engine = create_engine(uri)
    InitialBase.metadata.create_all(engine)
    settings = Config()
    settings.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, MLFLOW_2_9)
    engine.dispose()


def set_schema(path, version):
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = ?", (version,))


@pytest.fixture
def announced():
    """The lines, each with a function's result at that moment."""

    class Listener(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []
            self.at_that_moment = lambda: None

        def emit(self, record):
            self.lines.append((record.getMessage(), self.at_that_moment()))

    listener = Listener()
    logger = logging.getLogger("metarec.stores")
    logger.addHandler(listener)
    yield listener
    logger.removeHandler(listener)


@pytest.mark.slow
def test_the_schema_of_a_real_old_store_is_changed_after_the_warning(tmp_path, announced):
    path = tmp_path / "mlflow.db"
    make_store_of_mlflow_2_9(sqlite_uri(path))
    announced.at_that_moment = lambda: schema_of(path)
    MlflowTracker.in_folder(tmp_path).open()
    ((_, schema),) = announced.lines
    assert schema == MLFLOW_2_9
    assert schema_of(path) != MLFLOW_2_9
    # It is current now.
    MlflowTracker.in_folder(tmp_path).open()
    assert len(announced.lines) == 1


@pytest.mark.slow
@pytest.mark.skipif(postgres_missing() is not None, reason=str(postgres_missing()))
def test_an_old_database_on_a_server_is_announced_without_its_password(tmp_path, announced):
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    with Postgres("secret") as postgres:
        uri = postgres.url
        make_store_of_mlflow_2_9(uri)
        for _ in range(2):
            MlflowTracker(uri, spool=tmp_path / "spool").open()
        ((line, _),) = announced.lines
        assert line.startswith("postgresql+psycopg://")
        assert "secret" not in line
        assert "make a copy of the database" in line
    announce_migration(uri)
    assert len(announced.lines) == 1


@pytest.mark.parametrize("name", ["a%20b", "100 %", "what?", "ä"])
def test_a_folder_may_have_any_name(migrated_store, tmp_path, announced, name):
    folder = tmp_path / name
    folder.mkdir()
    path = Path(shutil.copy(migrated_store, folder / "mlflow.db"))
    assert sqlite_path(sqlite_uri(path)) == path
    announce_migration(sqlite_uri(path))
    MlflowTracker.in_folder(folder).open()
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("SELECT name FROM experiments WHERE name = 'metarec'").fetchone()
    set_schema(path, MLFLOW_2_9)
    announce_migration(sqlite_uri(path))
    assert len(announced.lines) == 1


def test_a_server_of_mlflow_is_not_asked(announced):
    announce_migration("http://127.0.0.1:1/")
    announce_migration("postgresql+psycopg://ada:secret@127.0.0.1:1/runs")
    assert announced.lines == []


def test_the_warning_names_the_store_and_the_cure(migrated_store, tmp_path, announced):
    path = Path(shutil.copy(migrated_store, tmp_path / "mlflow.db"))
    set_schema(path, MLFLOW_2_9)
    announce_migration(sqlite_uri(path))
    ((line, _),) = announced.lines
    assert line.startswith(f"{path} was made by an older MLflow: MLflow {mlflow.__version__} changes its schema now")
    assert "an older one can no longer open it" in line
    assert "make a copy of the file" in line


def test_tracker_and_loader_announce_it(migrated_store, tmp_path, announced):
    path = Path(shutil.copy(migrated_store, tmp_path / "mlflow.db"))
    set_schema(path, MLFLOW_2_9)
    # It has all tables, so that MLflow asks for `mlflow db upgrade`.
    with pytest.raises(InputError, match="db upgrade"):
        MlflowTracker.in_folder(tmp_path).open()
    assert len(announced.lines) == 1
    with pytest.raises(InputError, match="db upgrade"):
        metarec.load("models:/films@champion", tracking_uri=sqlite_uri(path))
    assert len(announced.lines) == 2


def test_a_current_and_a_newer_store_are_not_announced(migrated_store, tmp_path, announced):
    path = Path(shutil.copy(migrated_store, tmp_path / "mlflow.db"))
    announce_migration(sqlite_uri(path))
    set_schema(path, "fffffffffff1")
    announce_migration(sqlite_uri(path))
    assert announced.lines == []
    path.write_bytes(b"")
    announce_migration(sqlite_uri(path))
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(OSError, match="database"):
        announce_migration(sqlite_uri(path))
