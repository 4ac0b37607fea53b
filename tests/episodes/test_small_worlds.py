"""A domain cut down to a few users, on which bases are fitted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import EpisodeSettings, shared_folds, small_worlds
from metarec.errors import InputError
from metarec.ratings import simulate_domains

BASES = {"bias": {}, "item-knn": {"neighbours": 5}}
SETTINGS = EpisodeSettings(shots=0, min_query=3, max_query=6)


@pytest.fixture(scope="module")
def movies():
    return simulate_domains(seed=3, num_users=60, num_items=50, ratings_per_user=20)["movies"]


@pytest.fixture(scope="module")
def roles(movies):
    folds = shared_folds([movies], SETTINGS, 3, 0)
    return {user: ("test", "validation", "train")[fold] for user, fold in folds.items()}


def made(movies, roles, **options):
    return small_worlds(movies, SETTINGS, BASES, roles, **{"count": 6, "shots": (0, 4), "worlds": 2, **options})


@pytest.fixture(scope="module")
def worlds(movies, roles):
    return made(movies, roles)


def test_worlds_are_small_and_predict_only_other_users(worlds, roles):
    for number, world in enumerate(worlds):
        few = set(world.fit_on.ratings["user"])
        assert len(few) == 6
        assert {roles[user] for user in few} == {"train"}
        for shots in (0, 4):
            requested = {cut.task.user for cut in world.others[shots].cuts}
            assert requested
            assert not requested & few
            assert ("test" in {roles[user] for user in requested}) == (number == 0)
    assert set(worlds[0].fit_on.ratings["user"]) != set(worlds[1].fit_on.ratings["user"])
    assert {cut.task.user for cut in worlds[0].train[4].cuts} == set(worlds[0].fit_on.ratings["user"])
    assert not worlds[1].train


def test_ratings_outside_of_the_world_change_nothing(movies, roles, worlds):
    """Ratings of all but the few users are turned over: the same histories get the same predictions."""
    few = set(worlds[0].fit_on.ratings["user"])
    ratings = movies.ratings.copy()
    support = {(cut.task.user, item) for cut in worlds[0].others[4].cuts for item in cut.task.support_items}
    free = [
        user not in few and (user, item) not in support
        for user, item in zip(ratings["user"], ratings["item"], strict=True)
    ]
    ratings.loc[free, "rating"] = movies.scale.low + movies.scale.high - ratings.loc[free, "rating"]
    turned = made(replace(movies, ratings=ratings), roles)
    for name in ("support", "query", "support_facts", "query_facts"):
        np.testing.assert_array_equal(turned[0].others[4].arrays[name], worlds[0].others[4].arrays[name])


def test_a_train_user_is_predicted_by_the_others(movies, roles, worlds):
    """One train user's query ratings are turned over: predictions for this user stay, those for others change."""
    user = sorted(set(worlds[0].fit_on.ratings["user"]))[0]
    cuts = worlds[0].train[4].cuts
    (own,) = (cut for cut in cuts if cut.task.user == user)
    ratings = movies.ratings.copy()
    mine = (ratings["user"] == user) & ratings["item"].isin(own.task.query_items)
    ratings.loc[mine, "rating"] = movies.scale.low + movies.scale.high - ratings.loc[mine, "rating"]
    turned = made(replace(movies, ratings=ratings), roles)
    rows = np.array([cut.task.user == user for cut in cuts])
    before, after = (side[0].train[4].arrays["query"] for side in (worlds, turned))
    np.testing.assert_array_equal(after[rows], before[rows])
    assert not np.array_equal(after[~rows], before[~rows], equal_nan=True)


def test_the_first_world_does_not_depend_on_the_others_and_smaller_counts_are_subsets(movies, roles, worlds):
    (alone,) = made(movies, roles, worlds=1)
    np.testing.assert_array_equal(alone.others[4].arrays["query"], worlds[0].others[4].arrays["query"])
    more = made(movies, roles, worlds=1, count=9)
    assert set(alone.fit_on.ratings["user"]) < set(more[0].fit_on.ratings["user"])


def test_cached_arrays_equal_computed_ones(movies, roles, worlds, tmp_path):
    first = made(movies, roles, cache=tmp_path)

    def refuse(*_):
        raise AssertionError("everything is in the cache")

    again = made(movies, roles, cache=tmp_path, run=lambda _, *calls: map(refuse, *calls))
    for one, other in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one.fit_on.ratings, other.fit_on.ratings)
        for name, table in one.others[4].arrays.items():
            np.testing.assert_array_equal(other.others[4].arrays[name], table)


@pytest.mark.parametrize("count", [1, 500])
def test_the_count_is_checked(movies, roles, count):
    with pytest.raises(InputError, match=rf'domain "movies": count must be .* but got {count}'):
        made(movies, roles, count=count)
