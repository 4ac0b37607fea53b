"""The model of a ranking study recommends what the study has measured."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

import metarec
from metarec.errors import InputError
from metarec.evaluation.measures import LISTED
from metarec.fusion.rankers import RANKERS
from metarec.model import Events, RankingRecommender, load_model
from metarec.model._arrays import read_arrays, write_arrays
from metarec.ratings import Domain, simulate_implicit_domains
from metarec.study.job import Job, run_study
from metarec.tracking import MlflowTracker, sqlite_uri
from tests.model.test_model import with_digests
from tests.support.ranking_model import BASES, supports_of
from tests.support.repeats import events
from tests.support.studies import tiny_spec
from tests.support.threads import at_once


def assert_is_measured(rows, user, items, scores):
    own = rows[rows["user"] == user].sort_values("rank")
    assert len(own) == min(len(items), LISTED)
    assert items[: len(own)].tolist() == own["item"].tolist()
    np.testing.assert_allclose(scores[: len(own)], own["score"], rtol=0, atol=1e-6)


def alone(recommender, supports, user):
    best = recommender.adapt(supports[user]).recommend(1000)
    return best["item"].to_numpy(), best["score"].to_numpy()


# --- what is kept is what was measured -------------------------------------------------------------------------------


def test_each_test_user_has_the_list_that_was_measured(shop, lists):
    assert set(lists.fusion.weights) == {"network", *RANKERS.builtins()}
    users = shop.rows["user"].unique()
    assert len(users) > 10
    for user in users:
        assert_is_measured(shop.rows, user, *alone(lists, shop.supports, user))


@pytest.mark.parametrize("size", [2, 7, 1000])
def test_together_they_have_the_same_lists(shop, lists, size):
    users = shop.rows["user"].unique().tolist()[::-1]
    for first in range(0, len(users), size):
        some = users[first : first + size]
        for user, found in zip(some, lists.lists([shop.supports[user] for user in some]), strict=True):
            assert_is_measured(shop.rows, user, *found)


def test_from_several_threads_they_have_the_same_lists(shop, lists_folder):
    users = shop.rows["user"].unique().tolist() * 3
    found = at_once(partial(alone, load_model(lists_folder), shop.supports), users)
    for user, own in zip(users, found, strict=True):
        assert_is_measured(shop.rows, user, *own)


def test_bases_are_fitted_without_test_users(shop, lists):
    tested = set(shop.supports)
    assert tested
    assert not tested & lists.fitted_on
    assert tested <= set(lists.users)


@pytest.mark.slow
def test_a_study_keeps_the_model_that_it_has_measured(new_folder):
    domains = simulate_implicit_domains(0, num_users=70, num_items=150)
    spec = tiny_spec(
        name="lists",
        task="ranking",
        trials=1,
        bases=BASES,
        baselines=["best-single", "rrf", "lambdamart"],
        episodes={"shots": 5, "folds": 2},
        ranking={"candidates": 10},
    )
    folder = new_folder()
    result = run_study(spec, domains, Job(folder, "lists", tracker=MlflowTracker.in_folder(folder)))
    assert result.model_uri == "models:/metarec-lists@champion"
    recommender = metarec.load(result.model_uri, tracking_uri=sqlite_uri(folder / "mlflow.db"))
    rows = pd.read_parquet(result.predictions)
    rows = rows[rows["model"] == "metarec"]
    supports = supports_of(domains["shop"], spec.episodes, spec.seed)
    assert rows["user"].nunique() > 10
    for user in rows["user"].unique():
        assert_is_measured(rows, user, *alone(recommender, supports, user))


@pytest.mark.slow
def test_a_study_with_repeats_keeps_what_it_has_measured(new_folder):
    table = events(40, 60)
    domain = Domain("shop", table, feedback="implicit")
    spec = tiny_spec(
        name="again",
        task="ranking",
        trials=1,
        bases={"popularity": {}, "item-knn": {"weights": "log"}},
        baselines=["best-single", "rrf", "lambdamart"],
        episodes={"shots": 3, "min_query": 2, "folds": 2},
        ranking={"candidates": 10, "repeats": "include"},
    )
    folder = new_folder()
    result = run_study(spec, {"shop": domain}, Job(folder, "again", tracker=MlflowTracker.in_folder(folder)))
    recommender = result.model
    rows = pd.read_parquet(result.predictions)
    rows = rows[rows["model"] == "metarec"]
    again = 0
    for user, measured in rows.groupby("user"):
        own = table[table["user"] == user].sort_values("timestamp", kind="stable")
        support = own[own["timestamp"] <= own.drop_duplicates("item")["timestamp"].iloc[2]]
        found = recommender.adapt(support.drop(columns="user")).recommend(1000)
        assert found["item"].tolist()[: len(measured)] == measured.sort_values("rank")["item"].tolist()
        np.testing.assert_allclose(found["score"][: len(measured)], measured.sort_values("rank")["score"], atol=1e-6)
        again += found["item"].isin(support["item"]).sum()
    assert again > 10

    # A kept user has single events, those after the support too.
    user = str(rows["user"].iloc[0])
    own = table[table["user"] == user].drop(columns="user")
    assert recommender.history_of(user).counts.sum() == len(own) > own["item"].nunique()
    pd.testing.assert_frame_equal(recommender.user(user).recommend(20), recommender.adapt(own).recommend(20))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "rule"),
    [
        ("facts.npz", {"facts": lambda old: np.where(old > 3, np.nan, old)}, '"facts" must hold numbers but has NaN'),
        ("facts.npz", {"percentile": lambda old: old + 1}, r'"percentile" must lie in 0\.\.1'),
        ("facts.npz", {"algorithm_mean": lambda old: old[:-1]}, '"algorithm_mean" must have the axes'),
        ("facts.npz", {"items": lambda old: old[[0, *range(len(old) - 1)]]}, '"items" must hold each entry once'),
        ("base-popularity.npz", {"popularity": lambda old: old[:-1]}, "the ranking base popularity has"),
        ("base-ials.npz", {"vectors": lambda old: old * np.inf}, "the state of the ranking base ials"),
    ],
)
def test_a_damaged_file_is_refused(lists_folder, tmp_path, file, change, rule):
    folder = shutil.copytree(lists_folder, tmp_path / "model")
    arrays = read_arrays((folder / file).read_bytes(), file)
    write_arrays(folder / file, {**arrays, **{name: new(arrays[name]) for name, new in change.items()}})
    with pytest.raises(InputError, match="its digest differs"):
        load_model(folder)
    with_digests(folder)
    with pytest.raises(InputError, match=rule):
        load_model(folder)


def test_a_weight_of_zero_among_the_kept_events_is_refused(lists_folder, tmp_path):
    folder = shutil.copytree(lists_folder, tmp_path / "model")
    pd.read_parquet(folder / "ratings.parquet").assign(weight=0.0).to_parquet(folder / "ratings.parquet")
    with_digests(folder)
    with pytest.raises(InputError, match="every weight must be > 0"):
        load_model(folder)


# --- use -------------------------------------------------------------------------------------------------------------


def test_new_items_only(shop, lists):
    history = pd.DataFrame({"item": lists.items[:30], "timestamp": np.arange(30.0)[::-1]})
    assert lists.max_history == 20
    found = lists.recommend(1000, history)
    assert len(found) >= 10
    assert not set(found["item"]) & set(history["item"])
    assert found["score"].is_monotonic_decreasing
    # Bases and fusion see the latest ones: the rows are in the reverse order of time.
    latest = lists.recommend(1000, history.iloc[:20])
    kept = latest[~latest["item"].isin(history["item"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, kept)


def test_what_is_excluded_is_not_recommended_and_the_others_keep_their_order(shop, lists):
    user = lists.user(lists.users[0])
    whole = user.recommend(6)
    found = user.recommend(4, exclude=whole["item"][[0, 2]])
    assert found["item"].tolist() == whole["item"][[1, 3, 4, 5]].tolist()


def test_events_of_one_item_are_added_up_at_the_first_time():
    table = pd.DataFrame({"item": list("bacab"), "weight": [1.0, 2, 3, 4, 5], "timestamp": [5.0, 4, 3, 2, 1]})
    events = Events.of(table)
    assert events.items.tolist() == ["b", "a", "c"]
    assert events.weights.tolist() == [6.0, 6.0, 3.0]
    assert Events.of(table[["item"]]).items.tolist() == ["b", "a", "c"]
    assert Events.of(table[["item"]]).weights.tolist() == [2.0, 2.0, 1.0]
    assert events.counts.tolist() == [2, 2, 1]


def test_events_of_one_item_at_one_time_count_as_one():
    table = pd.DataFrame({"item": list("aaab"), "weight": [1.0, 2, 3, 4], "timestamp": [1.0, 1, 2, 3]})
    assert Events.of(table).counts.tolist() == [2, 1]
    assert Events.of(table.drop(columns="timestamp")).counts.tolist() == [3, 1]


def test_a_user_without_events_and_one_with_unknown_items_have_the_same_list(lists):
    empty = lists.recommend(10, pd.DataFrame({"item": []}))
    assert len(empty) == 10
    pd.testing.assert_frame_equal(lists.recommend(10, pd.DataFrame({"item": ["never seen"]})), empty)


def test_a_user_of_the_model_is_served_from_the_kept_events(shop, lists):
    user = lists.users[3]
    events = shop.domain.ratings[shop.domain.ratings["user"] == user]
    by_hand = lists.recommend(5, events.drop(columns="user"))
    pd.testing.assert_frame_equal(lists.user(user).recommend(5), by_hand)
    with pytest.raises(InputError, match='unknown user "nobody"; the model has 70 users'):
        lists.user("nobody")


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        ({"user": ["a"]}, '"item" is missing'),
        ({"item": ["i001"], "rating": [4.0]}, "a history of events has no column rating"),
        ({"item": ["i001", None]}, "item id 1 is missing"),
        ({"item": ["i001"], "weight": [0.0]}, "must be finite and > 0 but got 0"),
        ({"item": ["i001"], "weight": [np.nan]}, "must be finite and > 0 but got nan"),
        ({"item": ["i001"], "weight": ["much"]}, "the column weight of a history must be numbers"),
        ({"item": ["i001"], "timestamp": [np.inf]}, "timestamp 0 must be seconds"),
        ({"item": ["i001"], "timestamp": [np.nan]}, "timestamp 0 is missing"),
    ],
)
def test_a_wrong_history_is_one_line(lists, history, rule):
    with pytest.raises(InputError) as caught:
        lists.adapt(pd.DataFrame(history))
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_no_items_is_refused(lists):
    with pytest.raises(InputError, match="n must be at least 1 but got 0"):
        lists.user(lists.users[0]).recommend(0)


def test_the_kind_of_the_model_is_loaded(lists):
    assert isinstance(lists, RankingRecommender)
