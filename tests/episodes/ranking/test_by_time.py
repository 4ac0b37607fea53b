"""Ranking episodes by a cut in time: nothing of the future reaches a list, and nothing is chosen on it."""

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import EpisodeSettings
from metarec.episodes.ranking import RankingSettings, build_timed_episodes
from metarec.errors import InputError
from metarec.ratings import Domain

SETTINGS = EpisodeSettings(shots=2, min_query=1, folds=2)
BASES = {"popularity": {}, "item-knn": {"weights": "log"}}
DAY = 86_400


def events(num_users=50, num_items=30, seed=0):
    """Users begin on different days, and take an item each day, sometimes one that they have already."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        start, half = rng.integers(60), np.arange(num_items // 2) + (user % 2) * (num_items // 2)
        for day, item in enumerate(rng.choice(half, 14)):
            rows.append((f"u{user:02d}", f"i{item:02d}", 1.0 + day % 3, DAY * (start + day) + user))
    return pd.DataFrame(rows, columns=["user", "item", "weight", "timestamp"])


def build(table, repeats="exclude", **options):
    domain = Domain("shop", table, feedback="implicit")
    return build_timed_episodes(
        domain, SETTINGS, RankingSettings(candidates=10, negatives=2, repeats=repeats), BASES, **options
    )


@pytest.fixture(scope="module")
def table():
    return events()


@pytest.fixture(scope="module")
def found(table):
    return {repeats: build(table, repeats) for repeats in ("exclude", "include")}


def support_end(table, user, cut):
    """The time of a cold user's last support item."""
    own = table[(table["user"] == user) & (table["timestamp"] >= cut)].sort_values("timestamp")
    return own.drop_duplicates("item")["timestamp"].iloc[SETTINGS.shots - 1]


def test_a_fifth_of_the_events_is_after_the_cut_and_a_fifth_of_the_others_after_the_inner_one(table, found):
    times = table["timestamp"].to_numpy()
    for one in found.values():
        assert (times < one.cut).mean() == pytest.approx(0.8, abs=0.01)
        assert (times < one.inner_cut).sum() / (times < one.cut).sum() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("repeats", ["exclude", "include"])
def test_what_is_relevant(table, found, repeats):
    episodes, warm, inner_cut, cut = found[repeats]
    assert 5 < warm.sum() < len(warm)
    for role, start, end in (("train", inner_cut, cut), ("validation", inner_cut, cut), ("test", cut, np.inf)):
        one = getattr(episodes, role)
        for row, user in enumerate(one.users):
            own = table[(table["user"] == user) & (table["timestamp"] < end)]
            from_here = start
            if (own["timestamp"] >= start).all():
                from_here = support_end(table, user, start) + 1
            if role == "test":
                assert warm[row] == (own["timestamp"] < start).any()
            later = set(own[own["timestamp"] >= from_here]["item"])
            if repeats == "exclude":
                later -= set(own[own["timestamp"] < from_here]["item"])
            marked = set(one.query_items[row][one.query_ratings[row] == 1])
            assert marked == later & set(one.query_items[row])
            assert len(marked) <= one.relevant[row] <= len(later)


@pytest.mark.parametrize("repeats", ["exclude", "include"])
def test_what_happens_after_the_cut_moves_no_list(table, found, repeats):
    """Popularity of the future, weights of later events, and a choice on test events would turn it red."""
    episodes, warm, _, cut = found[repeats]
    ends = {user: support_end(table, user, cut) for user in episodes.test.users[~warm]}
    after = (table["timestamp"] >= cut) & (table["timestamp"] > table["user"].map(ends).fillna(-1))
    rng = np.random.default_rng(1)
    changed = table.copy()
    # One item is popular in the future, and the others are drawn anew with heavy weights.
    drawn = rng.choice(sorted(set(table["item"])), int(after.sum()))
    changed.loc[after, "item"] = np.where(rng.random(len(drawn)) < 0.5, "i07", drawn)
    changed.loc[after, "weight"] = 50.0
    again, _, *cuts = build(changed, repeats)
    assert cuts == [*found[repeats][2:]]
    for role in ("train", "validation", "test"):
        old, new = getattr(episodes, role), getattr(again, role)
        both, mine, theirs = np.intersect1d(old.users, new.users, return_indices=True)
        assert len(both) > 0.7 * len(old.users)
        if role != "test":
            assert (old.users == new.users).all()
            assert (old.relevant == new.relevant).all()
            assert (old.query_ratings == new.query_ratings).all()
        width = min(old.query_items.shape[1], new.query_items.shape[1])
        assert (old.query_items[mine, :width] == new.query_items[theirs, :width]).all()
        for side in ("support", "query"):
            for name in ("predictions", "algorithm_features", "context", "mask"):
                before = getattr(getattr(old.batch, side), name).numpy()[mine]
                now = getattr(getattr(new.batch, side), name).numpy()[theirs]
                width = min(before.shape[1], now.shape[1])
                assert np.array_equal(before[:, :width], now[:, :width], equal_nan=True), (role, side, name)


def test_the_latest_items_of_a_warm_user_are_left_out_in_turn(table, found):
    episodes, warm, _, cut = found["exclude"]
    row = int(np.flatnonzero(warm)[0])
    own = table[(table["user"] == episodes.test.users[row]) & (table["timestamp"] < cut)].sort_values("timestamp")
    support = episodes.test.batch.support
    items = episodes.test.support_items[row][support.targets[row].numpy() == 1]
    assert items.tolist() == own.drop_duplicates("item")["item"].tolist()[-len(items) :]
    assert len(items) == SETTINGS.shots
    assert not set(own["item"]) & set(episodes.test.query_items[row])


def test_the_order_of_rows_changes_nothing(table, found):
    again = build(table.sample(frac=1, random_state=3)).episodes.test
    one = found["exclude"].episodes.test
    assert np.array_equal(again.batch.query.algorithm_features.numpy(), one.batch.query.algorithm_features.numpy())


def test_wrong_input_is_one_line(table):
    for changed, options, problem in [
        (table.drop(columns="timestamp"), {}, "a split by time needs times"),
        (table, {"share": 1.0}, r"the share of the events before the cut must be in \(0, 1\) but got 1.0"),
        (table[table["user"] < "u08"], {}, "users have an episode before the cut in time, but at least 10"),
    ]:
        with pytest.raises(InputError, match=problem):
            build(changed, **options)
