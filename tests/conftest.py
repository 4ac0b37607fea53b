"""What all tests share."""

import os
import shutil

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["tests.support.studies"]

# The same examples in every run: a red test belongs to the change that is tested. METAREC_FUZZ_SECONDS draws others.
settings.register_profile("same", derandomize=True, deadline=None)
if not os.environ.get("METAREC_FUZZ_SECONDS"):
    settings.load_profile("same")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As under ``make test``: small products gain nothing from a second one. Whatever a test sets is put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _umask():
    """A command sets it for its process, which is that of the tests here."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory):
    """A store of runs that is migrated once."""
    from mlflow import MlflowClient

    from metarec.tracking import sqlite_uri

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=sqlite_uri(path))
    return path


@pytest.fixture(scope="session")
def new_folder(migrated_store, tmp_path_factory):
    """Makes folders for a job, each with a store that is migrated already."""

    def make():
        folder = tmp_path_factory.mktemp("runs")
        shutil.copy(migrated_store, folder / "mlflow.db")
        return folder

    return make
