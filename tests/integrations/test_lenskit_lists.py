"""The scorer for LensKit on datasets without ratings."""

import numpy as np
import pandas as pd
import pytest
from lenskit import batch, operations
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.metrics import NDCG, RunAnalysis
from lenskit.pipeline import topn_pipeline
from lenskit.splitting import SampleN, sample_users
from lenskit.testing import BasicComponentTests, ScorerTests
from lenskit.training import TrainingOptions

from metarec.errors import InputError
from metarec.lenskit import FusionScorer, FusionScorerConfig
from metarec.ratings import simulate_implicit_domains

QUICK = {
    "bases": ["popularity", "item-knn", "next-item"],
    "rankers": ["rrf", "best-single"],
    "shots": [5],
    "folds": 2,
    "epochs": 2,
}


def events_of(num_users=70):
    table = simulate_implicit_domains(0, num_users=num_users, num_items=150)["shop"].ratings
    table = table.rename(columns={"user": "user_id", "item": "item_id"}).drop(columns="weight")
    # LensKit's tests need whole numbers as ids.
    return table.assign(user_id=table["user_id"].factorize()[0], item_id=table["item_id"].factorize()[0])


@pytest.fixture(scope="module")
def ml_ratings():
    return events_of()


@pytest.fixture(scope="module")
def ml_ds(ml_ratings):
    return from_interactions_df(ml_ratings)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def ml_100k():
    return pytest.skip("LensKit's own data are not here")


@pytest.mark.slow
class TestAsLensKitDemands(BasicComponentTests, ScorerTests):
    component = FusionScorer
    # It changes the type of the column of ratings.
    test_run_with_doubles = None
    can_score = "some"
    config = FusionScorerConfig(**QUICK)


@pytest.fixture(scope="module")
def scorer(ml_ds):
    return trained(ml_ds)


def trained(data, **settings):
    scorer = FusionScorer(**{**QUICK, **settings})
    scorer.train(data)
    return scorer


@pytest.mark.slow
def test_lists_are_better_than_popularity():
    """In LensKit's pipelines, by LensKit's metrics, on held-out events."""
    from lenskit.basic import PopScorer

    split = sample_users(from_interactions_df(events_of(200)), 80, SampleN(5, rng=1), rng=1)
    found = {}
    fusion = FusionScorer(bases=["popularity", "item-knn", "user-knn", "ease"], folds=2, epochs=5)
    for name, one in (("fusion", fusion), ("popularity", PopScorer())):
        pipeline = topn_pipeline(one, n=10)
        pipeline.train(split.train)
        lists = batch.recommend(pipeline, split.test, n=10, n_jobs=1)
        analysis = RunAnalysis()
        analysis.add_metric(NDCG(10))
        found[name] = analysis.measure(lists, split.test).list_summary().loc["NDCG@10", "mean"]
    assert found["fusion"] > 1.05 * found["popularity"]


def test_a_pipeline_recommends_what_the_model_recommends(ml_ds, scorer):
    assert 0 < scorer.validation_ndcg_ < 1
    assert not hasattr(scorer, "validation_rmse_")
    pipeline = topn_pipeline(scorer, n=7)
    pipeline.train(ml_ds, TrainingOptions(retrain=False))
    user = ml_ds.users.id(3)
    found = operations.recommend(pipeline, query=user)
    served = scorer._server.served
    expected = served.of(str(user))[0].user(str(user)).recommend(7)
    assert [str(item) for item in found.ids()] == expected["item"].tolist()
    assert not set(found.ids()) & set(ml_ds.user_row(user).ids())
    # The bases that serve a user of the dataset were fitted without the user.
    assert str(user) not in served.of(str(user))[0].fitted_on
    assert str(user) in scorer.model_.fitted_on


def test_the_history_comes_from_the_query_or_from_the_training_data(ml_ds, scorer):
    user, items = ml_ds.users.id(0), ItemList(ml_ds.items.ids())
    history = ml_ds.user_row(user)
    expected = scorer(user, items).scores()
    assert np.isfinite(expected).sum() >= 10
    assert np.isnan(scorer(user, history).scores()).all()
    np.testing.assert_array_equal(scorer(RecQuery(user, history), items).scores(), expected)
    backwards = history[np.arange(len(history))[::-1]]
    np.testing.assert_array_equal(scorer(RecQuery(user, backwards), items).scores(), expected)
    # A new user with the same history is served by bases that have seen everybody.
    assert not np.array_equal(scorer(history, items).scores(), expected, equal_nan=True)
    cold = scorer(None, items).scores()
    np.testing.assert_array_equal(scorer("nobody", items).scores(), cold)
    assert not np.array_equal(cold, expected, equal_nan=True)
    more = ItemList([*history.ids(), -5])
    np.testing.assert_array_equal(scorer(more, items).scores(), scorer(ItemList(history.ids()), items).scores())


def test_counts_are_weights(ml_ratings):
    counted = ml_ratings.assign(count=1 + np.arange(len(ml_ratings)) % 7)
    settings = {"bases": {"item-knn": {"weights": "log"}}, "rankers": ["best-single"], "epochs": 1}
    found = [trained(from_interactions_df(table), **settings) for table in (ml_ratings, counted)]
    weights = [one.model_.ratings["weight"].unique() for one in found]
    assert weights[0].tolist() == [1.0]
    assert sorted(weights[1]) == list(range(1, 8))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bases": ["bias"]}, 'unknown ranking base "bias"'),
        ({"rankers": ["rff"]}, 'unknown ranker "rff"; did you mean "rrf"'),
        ({"scale": (1, 5)}, "scale is .*but the dataset has no ratings"),
        ({"shots": [150]}, "users have the 155"),
    ],
)
def test_wrong_arguments_are_refused(ml_ds, settings, problem):
    with pytest.raises(InputError, match=problem):
        trained(ml_ds, **settings)


def test_a_dataset_without_interactions_is_refused(ml_ds):
    empty = from_interactions_df(pd.DataFrame({"user_id": [1], "item_id": [1]}).iloc[:0])
    with pytest.raises(InputError, match="but the dataset has none"):
        trained(empty)
