"""A tiny world, and specs that take seconds."""

import pytest
import yaml
from mlflow import MlflowClient

from metarec.ratings import simulate_domains
from metarec.report import StudyReporter
from metarec.search.warm_start import first_trials
from metarec.study.job import Job, begin_search, run_study
from metarec.study.networks import NetworkInput
from metarec.study.spec import StudySpec
from metarec.study.stages import Workspace
from metarec.tracking import MlflowTracker, sqlite_uri

TINY = {
    "name": "tiny",
    "domains": {},
    "trials": 3,
    "episodes": {"shots": 6, "min_query": 5, "max_query": 15, "folds": 2},
    "bases": ["bias", "item-knn"],
    "baselines": ["mean"],
    "fusion": {"network": "attention", "options": {"hidden_dim": 8, "meta_hidden_dim": 8}},
    "training": {"epochs": 3, "patience": 3},
    "pruner": "none",
    "search": {"inner_steps": {"first": 0, "last": 2}},
}


JOB = {
    "name": "job",
    "bases": ["bias", "item-knn"],
    "baselines": ["mean"],
    "episodes": {"shots": 3, "min_query": 3, "max_query": 10, "folds": 2},
    "training": {"epochs": 6, "patience": 6},
}


def tiny_spec(**changes):
    return StudySpec.model_validate({**TINY, **changes})


def opened(spec, name, storage, identity="identity", first=None):
    """The Optuna study of a spec, as the job opens it."""
    return begin_search(spec, name, storage, identity=identity, first=first)


def warm_started(spec, name, storage):
    """The first trials of a study, as in the job."""
    return first_trials(spec.warm_start, spec.first_trials, spec.space, name=name, storage=storage)


def prepared(spec, domains, folder):
    """The episodes of a study of fusion networks."""
    return NetworkInput(spec, domains, Workspace(folder / "cache", folder / "networks")).prepare()


def reported(folder, name, **options):
    """A job with the runs and the reports that the command makes."""
    return Job(folder, name, tracker=MlflowTracker.in_folder(folder), reporter=StudyReporter(), **options)


@pytest.fixture(scope="session")
def world():
    return simulate_domains(3, num_users=60, num_items=40, ratings_per_user=22)


@pytest.fixture(scope="session")
def movies(world):
    return {"movies": world["movies"]}


@pytest.fixture(scope="session")
def finished(world, new_folder):
    """A finished study of two domains with every baseline: (spec, result, folder)."""
    spec = tiny_spec(target="movies", baselines=["mean", "best-single", "ridge", "fwls", "greedy", "gbm"])
    folder = new_folder()
    domains = {name: world[name] for name in ("movies", "books")}
    return spec, run_study(spec, domains, reported(folder, "tiny study")), folder


def runs_of(folder):
    """The studies and the trials in a folder's store."""
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    experiment = client.get_experiment_by_name("metarec")
    runs = list(client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags["metarec.role"] == "trial"]
    return client, parents, sorted(children, key=lambda run: run.info.start_time)


def tunings_of(folder):
    """The trials of tuned bases in a folder's store, which are not among the trials that people compare."""
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    details = client.get_experiment_by_name("metarec-details")
    runs = client.search_runs([details.experiment_id])
    return [run for run in runs if run.data.tags["metarec.role"] == "base-trial"]


RUDE = """
import numpy as np


class Rude:
    name = "rude"

    def __init__(self, where):
        self.where = where

    def fit(self, domain):
        if self.where == "fit":
            raise ZeroDivisionError("no\\nratings")
        if self.where == "exit":
            raise SystemExit(0)
        if self.where == "end of file":
            raise EOFError
        return self

    def predict(self, history, items):
        if self.where == "predict":
            raise KeyError("item")
        return np.full(len(items), 3.0)
"""


@pytest.fixture(scope="session")
def rude(tmp_path_factory):
    """The folder of an installed package with the base recommender "rude", which raises errors by its option."""
    folder = tmp_path_factory.mktemp("rude")
    (folder / "rude.py").write_text(RUDE)
    about = folder / "rude-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rude\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[metarec.bases]\nrude = rude:Rude\n")
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with a spec and ratings, from where commands are run."""
    folder = tmp_path_factory.mktemp("place")
    movies = simulate_domains(0, num_users=60, num_items=40, ratings_per_user=20)["movies"]
    movies.ratings.to_csv(folder / "movies.csv", index=False)
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    return folder
