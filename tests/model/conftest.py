"""A study that has registered its model."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

import metarec
from metarec.episodes import History, assign_roles
from metarec.episodes._split import cut_tasks
from metarec.model import load_model, save_model
from metarec.ratings import Domain, simulate_domains
from metarec.study.job import run_study
from metarec.study.results import StudyResult
from metarec.study.spec import StudySpec
from metarec.tracking import sqlite_uri
from tests.support.ranking_model import BASES as RANKING_BASES
from tests.support.ranking_model import small_shop
from tests.support.studies import TINY, reported

BASES = {name: {} for name in ("bias", "item-knn", "user-knn", "biased-mf", "content")} | {"autoencoder": {"epochs": 2}}
BASELINES = ["best-single", "gbm"]
# Enough for networks to be worth a weight.
TRAINING = {"epochs": 15, "patience": 15}


@dataclass
class Kept:
    """A finished study: its spec, its target, its result, and its folder."""

    spec: StudySpec
    domain: Domain
    result: StudyResult
    folder: Path

    @property
    def uri(self):
        return sqlite_uri(self.folder / "mlflow.db")

    @property
    def name(self):
        return f"models:/metarec-{self.result.name}@champion"

    def load(self):
        return metarec.load(self.name, tracking_uri=self.uri)

    def test_users(self):
        """user -> (the support history in the study, the query items, their time)."""
        roles = assign_roles({"movies": self.domain}, "movies", self.spec.episodes, self.spec.seed)
        return {
            cut.task.user: (
                History(cut.task.support_items, cut.task.support_ratings, cut.support_times),
                cut.task.query_items,
                cut.query_times,
            )
            for cut in cut_tasks(self.domain, roles, self.spec.episodes, self.spec.seed)
            if roles.roles[cut.task.user] == "test"
        }


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kept(new_folder):
    """The study of the tested model."""
    domain = simulate_domains(3, num_users=80, num_items=40, ratings_per_user=22)["movies"]
    spec = StudySpec.model_validate(
        {**TINY, "target": "movies", "bases": BASES, "baselines": BASELINES, "training": TRAINING}
    )
    folder = new_folder()
    result = run_study(spec, {"movies": domain}, reported(folder, "kept"))
    return Kept(spec, domain, result, folder)


@pytest.fixture(scope="session")
def recommender(kept):
    return kept.load()


@pytest.fixture(scope="session")
def shop():
    """A model of ranking, and what was measured of it."""
    return small_shop()


@pytest.fixture(scope="session")
def lists_folder(shop, tmp_path_factory):
    """The folder of its files."""
    folder = tmp_path_factory.mktemp("lists")
    save_model(shop.recommender, folder, RANKING_BASES, seed=0)
    return folder


@pytest.fixture(scope="session")
def lists(lists_folder):
    return load_model(lists_folder)


@pytest.fixture
def empty_history():
    return pd.DataFrame({"item": pd.Series(dtype=object), "rating": pd.Series(dtype=float)})
