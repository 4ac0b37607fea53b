"""What a test user answers moves no prediction of the models that make the headline.

The ratings of the test users' queries are replaced by others, and everything is learned again: search, early stops,
weights of the combination, stackers. A model that has looked at them predicts otherwise.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.cold import models
from benchmarks.cold.baselines import baseline_predictions
from benchmarks.cold.models import metarec_predictions
from metarec.episodes import EpisodeSettings, cross_validate
from metarec.model import Fusion
from metarec.ratings import simulate_domains
from metarec.study.networks import NetworkObjective, PreparedNetworks, SearchedNetworks
from metarec.study.spec import StudySpec

SMALL = StudySpec(
    trials=3,
    pruner="none",
    baselines=["mean", "ridge", "fwls", "gbm"],
    training={"epochs": 6, "patience": 1},
    defaults={"outer_lr": 0.02, "dropout": 0.0},
    target="movies",
)


@pytest.fixture(autouse=True)
def _a_small_search(monkeypatch):
    monkeypatch.setattr(models, "_spec_of", lambda episodes, seed: SMALL.model_copy(update={"seed": seed}))


@pytest.fixture(scope="module")
def episodes():
    domain = simulate_domains(num_users=60, num_items=60, ratings_per_user=25)["movies"]
    settings = EpisodeSettings(min_query=5, max_query=10, folds=2)
    return cross_validate(domain, settings, {"bias": {}, "item-knn": {}}, shots=(5,), folds=3, seed=0).episodes(0, 5)


def answered_otherwise(episodes):
    """The same episodes with the test users' query ratings reversed on their scale."""
    test = episodes.test
    query = test.batch.query._replace(targets=torch.where(test.batch.query.mask, 1 - test.batch.query.targets, 0.5))
    low, high = test.scale.low, test.scale.high
    other = replace(test, batch=test.batch._replace(query=query), query_ratings=low + high - test.query_ratings)
    return replace(episodes, test=other)


def moved(predict, episodes):
    """The models whose predictions depend on the answers of test users."""
    before, after = (predict(own, 0)[0] for own in (episodes, answered_otherwise(episodes)))
    assert set(before) == set(after)
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_no_model_sees_the_answers_of_test_users(episodes):
    assert moved(metarec_predictions, episodes) == set()
    assert moved(baseline_predictions, episodes) == set()


def test_weights_that_are_chosen_on_test_users_are_detected(episodes, monkeypatch):
    honest = SearchedNetworks._fit

    def leaking(searched, domain, *members):
        fusion = honest(searched, domain, *members)
        test = searched.prepared.episodes[domain].test
        fusion.weights = fusion._weigh(test, fusion.members(test))
        return fusion

    monkeypatch.setattr(SearchedNetworks, "_fit", leaking)
    assert {"metarec", "no-inner-loop"} <= moved(metarec_predictions, episodes)


def test_stacks_that_are_weighted_on_test_users_are_detected(episodes, monkeypatch):
    honest = Fusion._weigh
    monkeypatch.setattr(Fusion, "_weigh", lambda fusion, *_: honest(fusion, test(), fusion.members(test())))
    current = [episodes]

    def test():
        return current[0].test

    def predict(own, seed):
        current[0] = own
        return baseline_predictions(own, seed)

    assert moved(predict, episodes) == {"stack"}


def test_early_stops_on_test_users_are_detected(episodes, monkeypatch):
    def leaking(prepared, run, keeper):
        (name,) = prepared.episodes
        domain = prepared.episodes[name]
        train = {name: domain.train}
        return NetworkObjective(prepared.spec, train, domain.test, run, prepared.workspace.networks, keeper)

    monkeypatch.setattr(PreparedNetworks, "objective", leaking)
    assert {"metarec", "network"} <= moved(metarec_predictions, episodes)
