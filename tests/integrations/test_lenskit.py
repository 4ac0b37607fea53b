"""The scorer for LensKit: LensKit's component tests, and the history behind each score."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lenskit import batch, operations
from lenskit.data import DatasetBuilder, ItemList, RecQuery, from_interactions_df
from lenskit.metrics import RMSE, RunAnalysis
from lenskit.pipeline import predict_pipeline, topn_pipeline
from lenskit.splitting import SampleN, sample_users
from lenskit.testing import BasicComponentTests, ScorerTests
from lenskit.training import TrainingOptions

from metarec.episodes import EpisodeSettings, build_episodes
from metarec.errors import InputError
from metarec.integrations.lenskit._ratings import PARTS, rating_views
from metarec.lenskit import FusionScorer, FusionScorerConfig
from metarec.ratings import Domain, read_domain, simulate_domains
from tests.support.threads import assert_same_bits

QUICK = {"bases": ["bias", "user-knn"], "folds": 2, "epochs": 2, "shots": [5, 20]}


def ratings_of():
    """Ratings with integers as ids: real ratings if available, else simulated ones."""
    if "METAREC_DATA" in os.environ:
        table = read_domain(Path(os.environ["METAREC_DATA"]) / "ml_latest_small").ratings
    else:
        table = simulate_domains(seed=1, num_users=60, num_items=300, ratings_per_user=30)["movies"].ratings
    table = table.rename(columns={"user": "user_id", "item": "item_id"})
    return table.assign(user_id=table["user_id"].factorize()[0], item_id=table["item_id"].factorize()[0])


@pytest.fixture(scope="module")
def ml_ratings():
    return ratings_of()


@pytest.fixture(scope="module")
def ml_ds(ml_ratings):
    return from_interactions_df(ml_ratings)


@pytest.fixture
def ml_100k():
    return pytest.skip("LensKit's own data are not here")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.slow
class TestAsLensKitDemands(BasicComponentTests, ScorerTests):
    component = FusionScorer
    can_score = "known"
    config = FusionScorerConfig(**QUICK)
    configs = ({"bases": ["bias"]}, {"shots": [5], "scale": (1, 5)}, {"bases": {"bias": {"damping": 2.0}}})


@pytest.fixture(scope="module")
def data():
    table = simulate_domains(seed=2, num_users=60, num_items=80, ratings_per_user=30)["movies"].ratings
    return from_interactions_df(table.rename(columns={"user": "user_id", "item": "item_id"}))


@pytest.fixture(scope="module")
def scorer(data):
    return trained(data)


def trained(data, rng=None, **settings):
    scorer = FusionScorer(**{**QUICK, **settings})
    scorer.train(data, TrainingOptions(rng=rng))
    return scorer


def frame(data):
    return data.interactions().pandas(ids=True)


def test_its_defaults_are_a_studys_first_trial():
    from metarec.study.spec import StudySpec

    study, config = StudySpec(), FusionScorerConfig()
    assert (config.network, config.options) == (study.fusion.network, study.fusion.options)
    assert config.folds == study.episodes.folds
    assert config.validation_fraction == study.episodes.validation_fraction
    assert (config.epochs, config.patience) == (study.training.epochs, study.training.patience)
    first = study.trial_zero
    network = config.network_of("rating")
    assert (network.inner_lr, network.inner_steps) == (first["inner_lr"], first["inner_steps"])
    assert config.learning_rate == first["outer_lr"]


def test_it_predicts_better_than_the_mean_rating(data):
    """In LensKit's pipelines, by LensKit's metrics, on held-out ratings."""
    from lenskit.basic import BiasScorer

    split = sample_users(data, 40, SampleN(5, rng=1), rng=1)
    errors = {}
    for name, scorer in (
        ("fusion", FusionScorer(bases=["bias", "item-knn"], folds=2, epochs=10)),
        ("mean", BiasScorer(entities=[])),
    ):
        pipeline = predict_pipeline(scorer, fallback=False)
        pipeline.train(split.train)
        predictions = batch.predict(pipeline, split.test, n_jobs=1)
        analysis = RunAnalysis()
        analysis.add_metric(RMSE())
        errors[name] = analysis.measure(predictions, split.test).list_summary().loc["RMSE", "mean"]
    assert errors["fusion"] < 0.97 * errors["mean"]


def test_it_recommends_unrated_items(data, scorer):
    pipeline = topn_pipeline(scorer, n=7)
    pipeline.train(data, TrainingOptions(retrain=False))
    user = data.users.id(3)
    recommended = operations.recommend(pipeline, query=user)
    assert len(recommended) == 7
    assert not set(recommended.ids()) & set(data.user_row(user).ids())
    assert np.all(np.diff(recommended.scores()) <= 0)


@pytest.mark.parametrize("item", [0, 7, -1])
def test_a_users_own_rating_of_an_item_has_no_effect_on_its_score(data, scorer, item):
    user = data.users.id(5)
    history = data.user_row(user)
    scored = ItemList(history.ids()[[item]])
    ratings = history.field("rating").copy()
    low, high = scorer.model_.maker.scale.low, scorer.model_.maker.scale.high
    scores = []
    for rating in (low, high):
        ratings[item] = rating
        own = ItemList(item_ids=history.ids(), rating=ratings)
        scores.append([float(scorer(query, scored).scores()[0]) for query in (RecQuery(user, own), own)])
    assert scores[0] == scores[1]
    # The planted fault: of an item in another part of the history the score does depend on that rating.
    other = ItemList(history.ids()[[(item + 1) % PARTS]])
    predictions = []
    for rating in (low, high):
        ratings[item] = rating
        predictions.append(float(scorer(ItemList(item_ids=history.ids(), rating=ratings), other).scores()[0]))
    assert predictions[0] != predictions[1]


def test_the_history_comes_from_the_query_or_from_the_training_data(data, scorer):
    user = data.users.id(0)
    history = data.user_row(user)
    items = ItemList([item for item in data.items.ids() if item not in set(history.ids())])
    expected = scorer(user, items).scores()
    # A query with the training history has the scores of the user's id.
    np.testing.assert_array_equal(scorer(RecQuery(user, history), items).scores(), expected)
    # A query without ratings uses the training history.
    np.testing.assert_array_equal(scorer(RecQuery(user, ItemList(history.ids())), items).scores(), expected)
    # No user, an unknown user, and an empty history have the same scores.
    cold = scorer(None, items).scores()
    np.testing.assert_array_equal(scorer("nobody", items).scores(), cold)
    np.testing.assert_array_equal(scorer(history[np.array([], dtype=int)], items).scores(), cold)
    assert not np.array_equal(cold, expected)
    # An unknown item or a missing rating is ignored.
    ids, ratings = history.ids().tolist(), history.field("rating").tolist()
    more = ItemList([*ids, "no such item"], rating=[*ratings, ratings[0]])
    np.testing.assert_array_equal(scorer(more, items).scores(), scorer(ItemList(ids, rating=ratings), items).scores())


def test_the_bases_that_serve_a_user_have_not_seen_the_user(data, scorer):
    """Otherwise `user-knn` would find the user's own ratings, which are the targets."""
    users = set(scorer.model_.fitted_on)
    assert users == set(data.users.ids())
    for user, fold in scorer._server.served.fold_of.items():
        assert all(user not in recommender.fitted_on for recommender in scorer._server.served.without[fold])
    assert set().union(*(own[0].fitted_on for own in scorer._server.served.without)) == users
    # The planted fault: bases fitted on all users have much too small errors on a user's own ratings.
    column = list(scorer.model_.maker.bases).index("user-knn")
    users = list(scorer._server.served.fold_of)[:20]
    errors = []
    for own in (scorer._server.served.of_all, None):
        of = {user: (own or scorer._server.served.without[scorer._server.served.fold_of[user]])[0] for user in users}
        rows = [of[user].maker.users([of[user].history_of(user)]).support for user in users]
        errors.append(
            np.mean([(support.predictions[0, :, column] - support.targets[0]).abs().nanmean() for support in rows])
        )
    assert errors[0] < 0.8 * errors[1]


def test_an_item_without_training_data_has_no_score(data, scorer):
    scores = scorer(data.users.id(0), ItemList([data.items.id(0), "no such item"])).scores()
    assert np.isfinite(scores).tolist() == [True, False]


def test_a_seed_gives_equal_models(data, scorer):
    items = ItemList(data.items.ids())
    user = data.users.id(0)
    np.testing.assert_array_equal(trained(data)(user, items).scores(), scorer(user, items).scores())
    one, same, other = (trained(data, rng=seed, bases=["bias"], epochs=1)(user, items).scores() for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_held_out_users_are_the_same_for_all_numbers_of_shots():
    """Some users have too few ratings for the larger episodes; another split would mix train and held-out users."""
    world = simulate_domains(seed=3, num_users=60, num_items=80, ratings_per_user=30)["movies"]
    few = world.ratings["user"].isin(sorted(world.ratings["user"].unique())[::2])
    kept = ~few | (world.ratings.groupby("user").cumcount() < 12)
    domain = Domain(world.name, world.ratings[kept], world.scale)
    views = rating_views(domain, {"bias": {}}, FusionScorerConfig(**QUICK), 0)
    small, large = views[5], views[20]
    assert set(large.train.users) < set(small.train.users)
    assert set(large.validation.users) < set(small.validation.users)
    # The planted fault: splitting each anew.
    anew = {
        shots: build_episodes({"it": domain}, "it", EpisodeSettings(shots=shots, folds=2), {"bias": {}})["it"]
        for shots in (5, 20)
    }
    assert set(anew[20].validation.users) & set(anew[5].train.users)
    # No user has so many ratings.
    assert list(rating_views(domain, {"bias": {}}, FusionScorerConfig(**{**QUICK, "shots": [5, 150]}), 0)) == [5]


def test_a_long_history_is_cut_to_its_latest_ratings(data, scorer):
    user = data.users.id(0)
    history = data.user_row(user)
    items = ItemList([item for item in data.items.ids() if item not in set(history.ids())])
    short = copy.copy(scorer)
    short._server = replace(scorer._server, served=replace(scorer._server.served, max_history=10))
    latest = np.argsort(history.field("timestamp"))[-10:]
    np.testing.assert_array_equal(short(user, items).scores(), scorer(RecQuery(user, history[latest]), items).scores())


def test_attributes_of_items_are_used():
    movies = simulate_domains(seed=2, num_users=60, num_items=80, ratings_per_user=30)["movies"]
    builder = DatasetBuilder("movies")
    ids = movies.items["item"].to_numpy()
    builder.add_entities("item", [*ids, "new"])
    builder.add_interactions(
        "rating",
        movies.ratings.rename(columns={"user": "user_id", "item": "item_id"}),
        entities=["user", "item"],
        missing="insert",
        default=True,
    )
    for name in movies.items.columns.drop("item"):
        builder.add_scalar_attribute("item", name, ids, movies.items[name].to_numpy())
    scorer = trained(builder.build(), bases=["bias", "content"])
    assert list(scorer.model_.maker.bases) == ["bias", "content"]
    # An unrated item can be in the training data.
    assert np.isfinite(scorer("nobody", ItemList(["new", ids[0]])).scores()).all()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bases": ["item-nn"]}, 'unknown base recommender "item-nn"; did you mean "item-knn"'),
        ({"bases": []}, "bases must name at least one base recommender"),
        ({"network": "gate"}, 'unknown fusion network "gate"; did you mean "gated"'),
        ({"bases": ["content"]}, "the base content learns from items' attributes"),
        ({"options": {"dropout": 2}}, "dropout must be"),
        ({"scale": (5, 1)}, "a rating scale must have low < high"),
        ({"scale": (2, 3)}, "every rating must lie in 2..3"),
        ({"shots": [100]}, "users have the 105 ratings that an episode needs"),
    ],
)
def test_wrong_arguments_are_refused(data, settings, problem):
    with pytest.raises(InputError, match=problem):
        trained(data, **settings)


def test_missing_ratings_are_named_at_once(data):
    table = frame(data)
    table.loc[3, "rating"] = np.nan
    for settings in ({}, {"scale": (1, 5)}):
        with pytest.raises(InputError, match=r"1 of [\d,]+ ratings are missing, the first one of user"):
            FusionScorer(**QUICK, **settings).train(from_interactions_df(table))


def test_a_wrong_history_is_refused(data, scorer):
    item, other = data.items.ids()[:2]
    undated = ItemList([item, other], rating=[3.0, 3.0], timestamp=np.array([1e9, np.nan]))
    for history in (ItemList([item], rating=[1e6]), ItemList([item, item], rating=[3.0, 3.0]), undated):
        with pytest.raises(InputError, match=r"every rating must lie in|rates an item once|history \d is missing"):
            scorer(history, ItemList([other]))


def test_times_may_be_dates_or_seconds(data, scorer):
    table = frame(data)
    dated = table.assign(timestamp=pd.to_datetime(table["timestamp"], unit="s"))
    user, items = data.users.id(0), ItemList(data.items.ids())
    again = trained(from_interactions_df(dated))
    np.testing.assert_allclose(again(user, items).scores(), scorer(user, items).scores(), rtol=1e-6)


def test_threads_share_a_scorer(scorer, data):
    users, items = data.users.ids().tolist(), ItemList(data.items.ids())
    assert_same_bits(lambda user: scorer(user, items).scores(), users[:24] + ["nobody"] * 4)
