"""Episodes of known users: ratings are held out, and what is held out reaches nothing that predicts it."""

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import EpisodeSettings, assign_ratings, build_warm_episodes
from metarec.episodes.builders import _warm
from metarec.errors import InputError
from metarec.ratings import Domain
from tests.episodes.conftest import make_domain

SETTINGS = EpisodeSettings(shots=5, max_query=6, folds=3, test_fraction=0.2, validation_fraction=0.25)
BASES = {"bias": {}}


@pytest.fixture(scope="module")
def movies():
    return make_domain("movies", users=24)


def built(domain, held_out="random", seed=0):
    roles = assign_ratings(domain, SETTINGS, held_out, seed)
    return build_warm_episodes({domain.name: roles}, SETTINGS, BASES, seed=seed)[domain.name]


def rows_of(episodes):
    """(user, item) of each query row."""
    users = np.repeat(episodes.users, episodes.batch.query.mask.sum(1).numpy())
    return list(zip(users, episodes.query_items[episodes.batch.query.mask.numpy()], strict=True))


def with_ratings(domain, rows, change):
    ratings = domain.ratings.copy()
    ratings.loc[rows, "rating"] = change(ratings.loc[rows, "rating"])
    return Domain(domain.name, ratings, domain.scale, items=domain.items)


def turned(domain):
    return lambda ratings: domain.scale.low + domain.scale.high - ratings


@pytest.mark.parametrize("held_out", ["random", "latest"])
def test_every_rating_is_predicted_once(movies, held_out):
    episodes = built(movies, held_out)
    parts = [rows_of(getattr(episodes, role)) for role in ("train", "validation", "test")]
    everything = [pair for part in parts for pair in part]
    assert len(everything) == len(movies.ratings) == len(set(everything))
    assert set(everything) == set(movies.ratings[["user", "item"]].itertuples(index=False, name=None))
    shares = [len(part) / len(everything) for part in parts]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.04)


def test_the_split_depends_on_neither_order_nor_ratings(movies):
    roles = assign_ratings(movies, SETTINGS, "random", 3)
    shuffled = movies.ratings.sample(frac=1, random_state=0)
    other = Domain("movies", shuffled.assign(rating=movies.scale.low), movies.scale)
    again = assign_ratings(other, SETTINGS, "random", 3)

    def parts_of(one):
        return one.domain.ratings.assign(part=one.parts).set_index(["user", "item"])["part"].sort_index()

    pd.testing.assert_series_equal(parts_of(roles), parts_of(again))
    assert (parts_of(roles) != parts_of(assign_ratings(movies, SETTINGS, "random", 4))).any()


def test_the_latest_ratings_are_held_out(movies):
    roles = assign_ratings(movies, SETTINGS, "latest", 0)
    for _, own in movies.ratings.assign(part=roles.parts).groupby("user"):
        times = own["timestamp"]
        train, validation, test = times[own.part >= 0], times[own.part == -2], times[own.part == -1]
        assert len(test) == round(0.2 * len(own))
        assert train.max() <= validation.min()
        assert validation.max() <= test.min()


@pytest.mark.parametrize("held_out", ["random", "latest"])
def test_no_prediction_depends_on_a_rating_that_is_held_out(movies, held_out):
    roles = assign_ratings(movies, SETTINGS, held_out, 0)
    before = built(movies, held_out)
    after = built(with_ratings(movies, roles.parts == -1, turned(movies)), held_out)
    for role in ("train", "validation", "test"):
        for side in ("support", "query"):
            one, other = (getattr(getattr(episodes, role).batch, side) for episodes in (before, after))
            for name in ("predictions", "algorithm_features", "context"):
                np.testing.assert_array_equal(getattr(one, name).numpy(), getattr(other, name).numpy())
    assert (before.test.query_ratings != after.test.query_ratings).any()
    # Validation ratings may be learned from for test ratings, and for nothing before.
    after = built(with_ratings(movies, roles.parts == -2, turned(movies)), held_out)
    for role, same in (("train", True), ("validation", True), ("test", False)):
        one, other = (getattr(episodes, role).batch.query.predictions.numpy() for episodes in (before, after))
        assert np.array_equal(one, other, equal_nan=True) is same


def test_a_train_rating_does_not_change_its_own_prediction(movies):
    roles = assign_ratings(movies, SETTINGS, "random", 0)
    before = built(movies).train
    after = built(with_ratings(movies, roles.parts == 1, turned(movies))).train
    folds = dict(zip(movies.ratings[["user", "item"]].itertuples(index=False, name=None), roles.parts, strict=True))
    own = np.array([folds[pair] == 1 for pair in rows_of(before)])
    mask = before.batch.query.mask.numpy()
    one, other = (episodes.batch.query.predictions.numpy()[mask] for episodes in (before, after))
    np.testing.assert_array_equal(one[own], other[own])
    assert (one[~own] != other[~own]).any()


def test_a_planted_fit_on_the_predicted_ratings_is_refused(movies, monkeypatch):
    monkeypatch.setattr(_warm.RatingRoles, "learned_from", property(lambda roles: roles.domain))
    with pytest.raises(AssertionError, match=r"would be fitted on \d+ of the ratings that it predicts"):
        built(movies)


def test_the_support_are_the_latest_of_the_known_ratings(movies):
    episodes = built(movies).test
    roles = assign_ratings(movies, SETTINGS, "random", 0)
    known = movies.ratings[roles.parts != -1]
    for user, items in zip(episodes.users, episodes.support_items, strict=True):
        own = known[known["user"] == user].sort_values("timestamp")
        assert own["timestamp"].iloc[-5:].tolist() == sorted(
            own.set_index("item")["timestamp"].reindex([item for item in items if item])
        )


def test_a_published_test_set_is_the_test_set(movies):
    test = np.arange(len(movies.ratings)) % 5 == 2
    roles = assign_ratings(movies, SETTINGS, "random", 0, test=test)
    np.testing.assert_array_equal(roles.parts == -1, test)
    assert roles.count("validation") == round(0.25 * (~test).sum())
    episodes = build_warm_episodes({"movies": roles}, SETTINGS, BASES)["movies"]
    published = movies.ratings.loc[test, ["user", "item"]].itertuples(index=False, name=None)
    assert sorted(rows_of(episodes.test)) == sorted(published)


def test_the_digest_of_a_split_depends_on_its_parts_and_not_on_the_order(movies):
    roles = assign_ratings(movies, SETTINGS, "random", 0)
    shuffled = Domain("movies", movies.ratings.sample(frac=1, random_state=0), movies.scale, items=movies.items)
    assert assign_ratings(shuffled, SETTINGS, "random", 0).digest == roles.digest
    assert assign_ratings(movies, SETTINGS, "random", 1).digest != roles.digest
    swapped = _warm.RatingRoles(roles.domain, roles.parts[::-1].copy(), roles.num_folds)
    assert swapped.digest != roles.digest


def test_the_rated_rows_of_mixed_feedback_are_split(movies):
    events = movies.ratings.assign(rating=movies.ratings["rating"].where(movies.ratings.index % 4 > 0))
    mixed = Domain("movies", events, movies.scale, feedback="mixed")
    roles = assign_ratings(mixed, SETTINGS, "random", 0)
    assert len(roles.parts) == events["rating"].notna().sum() == len(roles.domain.ratings)


def test_too_little_and_no_times_are_refused(movies):
    few = movies.restrict(movies.ratings["user"].unique()[:4])
    with pytest.raises(InputError, match="the protocol warm needs 10 users and 30 ratings"):
        assign_ratings(few, SETTINGS, "random", 0)
    timeless = Domain("movies", movies.ratings.drop(columns="timestamp"), movies.scale)
    with pytest.raises(InputError, match="held_out: latest needs times"):
        assign_ratings(timeless, SETTINGS, "latest", 0)
    every = np.ones(len(movies.ratings), dtype=bool)
    for test, held_out in (
        (every, "random"),
        (every[:-1], "random"),
        (every.astype(int), "random"),
        (~every, "random"),
    ):
        with pytest.raises(InputError, match=r"test must be \d+ booleans, some true and some false"):
            assign_ratings(movies, SETTINGS, held_out, 0, test=test)
    with pytest.raises(InputError, match="with held_out: random but got"):
        assign_ratings(movies, SETTINGS, "latest", 0, test=movies.ratings.index.to_numpy() % 2 == 0)
    assert len(built(timeless).test)
