"""Three tiny domains, a plan that takes seconds, and one finished comparison."""

import shutil

import pytest
from mlflow import MlflowClient

from metarec.compare.job import Job, run_comparison
from metarec.compare.plan import ComparisonPlan
from metarec.episodes import EpisodeSettings
from metarec.ratings import simulate_domains
from metarec.report import ComparisonReporter
from metarec.tracking import MlflowTracker, sqlite_uri
from metarec.transfer import TransferSettings

SHORT = TransferSettings(epochs=3, patience=3, outer_lr=0.01, options={"hidden_dim": 8}, folds=2, stackers=("ridge",))
TINY = {
    "strategies": ["zero_shot", "oracle", "mean", "ridge"],
    "shots": [4, 2],
    "target_users": [6],
    "seeds": 2,
    "fusion": SHORT,
    "episodes": EpisodeSettings(min_query=3, max_query=8),
    "bases": {"bias": {}, "content": {}},
}


@pytest.fixture(scope="session")
def tiny_plan():
    return lambda **changes: ComparisonPlan("movies", **{**TINY, **changes})


@pytest.fixture(scope="session")
def domains():
    return simulate_domains(seed=0, num_users=60, num_items=40, ratings_per_user=24)


@pytest.fixture(scope="session")
def finished(domains, tiny_plan, new_folder):
    """A finished comparison and its folder."""
    folder = new_folder()
    job = Job(folder, "whole", MlflowTracker.in_folder(folder), ComparisonReporter())
    return run_comparison(tiny_plan(), domains, job), folder


@pytest.fixture
def folder(finished, new_folder):
    """A new folder with the base predictions of the finished comparison."""
    made = new_folder()
    shutil.copytree(finished[1] / "cache", made / "cache")
    return made


def runs_in(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id], max_results=1000))


@pytest.fixture(scope="session")
def runs_of():
    """Finds the comparisons and the cells in a folder's store."""

    def find(folder):
        client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
        runs = runs_in(client, "metarec")
        cells = runs_in(client, "metarec-details")
        return client, [run for run in runs if "mlflow.parentRunId" not in run.data.tags], cells

    return find
