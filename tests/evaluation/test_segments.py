"""Segments of users depend on support ratings and not on query ratings."""

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import EpisodeSettings, assign_roles, build_episodes
from metarec.episodes._split import cut_tasks
from metarec.episodes.ranking import RankingSettings, build_ranking_episodes
from metarec.evaluation.insight import crowd_of
from metarec.evaluation.measures import RANKING, RATING, ByUser
from metarec.evaluation.segments import FEW_USERS, MEASURES, behaviour_of, segment_table, thirds
from metarec.ratings import Domain, simulate_implicit_domains
from tests.support.studies import tiny_spec


def measures_of(domain):
    spec = tiny_spec(bases=["bias"])
    domains = {"movies": domain}
    parts = build_episodes(domains, "movies", spec.episodes, spec.bases, seed=0)["movies"]
    return parts.test, behaviour_of(domain, parts.test, crowd_of(domain, parts.validation, parts.test))


def test_query_ratings_do_not_change_the_measures(world):
    domain, spec = world["movies"], tiny_spec()
    roles = assign_roles({"movies": domain}, "movies", spec.episodes, 0)
    queries = {
        (cut.task.user, item)
        for cut in cut_tasks(domain, roles, spec.episodes, 0)
        if roles.roles[cut.task.user] == "test"
        for item in cut.task.query_items
    }
    ratings = domain.ratings.copy()
    own = [pair in queries for pair in zip(ratings["user"], ratings["item"], strict=True)]
    ratings.loc[own, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[own, "rating"]
    assert sum(own) > 50
    _, before = measures_of(domain)
    _, after = measures_of(Domain("movies", ratings, domain.scale, items=domain.items))
    pd.testing.assert_frame_equal(before, after, check_exact=True)
    assert before.notna().all(axis=None)
    # Support ratings do change the measures.
    ratings["rating"] = domain.scale.high
    _, other = measures_of(Domain("movies", ratings, domain.scale, items=domain.items))
    assert not np.allclose(before["distance"], other["distance"])


def test_measures_of_a_user_equal_those_by_hand(world):
    domain = world["movies"]
    test, measures = measures_of(domain)
    user = test.users[0]
    history = domain.ratings[domain.ratings["user"] == user].sort_values("timestamp")
    support, first = history.head(6), history.iloc[6]
    days = support["timestamp"] / 86_400
    assert measures.loc[user, "activity"] == pytest.approx(6 / (days.max() - days.min()))
    assert measures.loc[user, "days_known"] == pytest.approx(first["timestamp"] / 86_400 - days.min())
    kinds = support.merge(domain.items, on="item")["genres"].str.split("|").explode().value_counts(normalize=True)
    assert measures.loc[user, "breadth"] == pytest.approx(np.exp(-(kinds * np.log(kinds)).sum()))
    assert 1 <= measures["breadth"].min() <= measures["breadth"].max() <= 10


def test_measures_without_timestamps_and_features(world):
    movies = world["movies"]
    _, measures = measures_of(Domain("movies", movies.ratings.drop(columns="timestamp"), movies.scale))
    assert list(measures.columns) == list(MEASURES)
    assert measures[["activity", "days_known"]].isna().all(axis=None)
    assert measures[["breadth", "distance"]].notna().all(axis=None)


def test_segments_of_events_do_not_depend_on_what_bases_propose():
    """Planted: the account age of a user from the chosen items that some base proposes."""
    shop = simulate_implicit_domains(0, num_users=40, num_items=150)["shop"]
    settings, few, many = EpisodeSettings(shots=5, folds=2), RankingSettings(candidates=10), RankingSettings()
    found = []
    for ranking in (few, many):
        parts = build_ranking_episodes({"shop": shop}, "shop", settings, ranking, {"popularity": {}})["shop"]
        found.append(behaviour_of(shop, parts.test, crowd_of(shop, parts.validation, parts.test)))
    pd.testing.assert_frame_equal(*found)
    user = parts.test.users[0]
    times = np.sort(shop.ratings.loc[shop.ratings["user"] == user, "timestamp"])
    assert found[0].loc[user, "days_known"] == pytest.approx((times[5] - times[0]) / 86_400)
    assert found[0]["days_known"].notna().all()
    sums = pd.DataFrame({"metarec": 0.5, "best-single": 0.4}, index=found[0].index)
    table = segment_table(ByUser(sums, pd.Series(1, index=sums.index)), found[0], measure=RANKING)
    assert len(table)
    assert "n_ratings" not in table


def table_of(n_users, **measures):
    rng = np.random.default_rng(0)
    users = np.array([f"u{number:03d}" for number in range(n_users)])
    rows = pd.DataFrame({"domain": "d", "user": np.repeat(users, 4), "item": "i", "rating": 3.0})
    rows["metarec"] = 3 + 0.5 * rng.normal(size=len(rows))
    rows["mean"] = 3 + rng.normal(size=len(rows))
    rows["best-single"] = 3 + rng.normal(size=len(rows))
    behaviour = pd.DataFrame({name: values(n_users) for name, values in measures.items()}, index=users)
    weights = pd.DataFrame({"bias": 0.25, "knn": 0.75}, index=users)
    return rows, segment_table(ByUser.squared_errors(rows), behaviour, weights, measure=RATING, seed=1)


def test_a_segment_has_its_own_numbers_and_a_warning_where_it_is_small():
    rows, table = table_of(3 * FEW_USERS - 3, activity=np.arange, breadth=np.zeros, distance=lambda n: [np.nan] * n)
    assert list(table["measure"]) == ["activity"] * 3
    assert list(table["segment"]) == ["low", "middle", "high"]
    assert list(table["n_users"]) == [FEW_USERS - 1] * 3
    assert table["few"].all()
    own = rows[rows["user"] < f"u{FEW_USERS - 1:03d}"]
    low = table.iloc[0]
    assert low["n_ratings"] == len(own)
    assert low["rmse"] == pytest.approx(np.sqrt(((own["metarec"] - 3) ** 2).mean()))
    assert low["reference"] == "best-single"
    assert low["gain"] == pytest.approx(100 * (1 - low["rmse"] / low["reference_rmse"]))
    assert low["gain_low"] < low["gain"] < low["gain_high"]
    assert (low["weight/bias"], low["weight/knn"]) == (0.25, 0.75)
    assert not table_of(3 * FEW_USERS, activity=np.arange)[1]["few"].any()


def test_a_constant_measure_has_no_segments():
    assert table_of(40, activity=np.ones)[1].empty
    assert thirds(pd.Series([1.0] * 4)).tolist() == [0.0] * 4
    assert thirds(pd.Series(dtype=float)).empty
