"""Repeated events in lists: what is relevant, what features know of them, and what must not be seen."""

import numpy as np
import pandas as pd
import pytest

from metarec.bases.ranking import Histories, fit_ranking_base
from metarec.episodes import EpisodeSettings, assign_roles
from metarec.episodes.ranking import (
    RANKING_CONTEXT_NAMES,
    REPEAT_CONTEXT_NAMES,
    RankingSettings,
    RankingTaskMaker,
    UserHistory,
    build_ranking_episodes,
)
from metarec.errors import InputError
from metarec.ratings import Domain
from tests.support.repeats import DAY, events

SETTINGS = EpisodeSettings(shots=3, min_query=2, folds=2)
BASES = {"popularity": {}, "item-knn": {"weights": "log"}}


def domain_of(table):
    return Domain("shop", table, feedback="implicit")


def ranking_of(repeats):
    return RankingSettings(candidates=10, negatives=2, repeats=repeats)


def build(table, repeats="include", **options):
    return build_ranking_episodes({"shop": domain_of(table)}, "shop", SETTINGS, ranking_of(repeats), BASES, **options)[
        "shop"
    ]


@pytest.fixture(scope="module")
def table():
    return events()


@pytest.fixture(scope="module")
def found(table):
    return {repeats: build(table, repeats) for repeats in ("exclude", "include")}


def history_of(table, user):
    """The user's rows up to the third different item, and those that follow, in the order of time."""
    own = table[table["user"] == user].sort_values("timestamp", kind="stable")
    end = own.drop_duplicates("item")["timestamp"].iloc[2]
    return own[own["timestamp"] <= end], own[own["timestamp"] > end]


def inputs_of(episodes):
    return [
        getattr(getattr(getattr(episodes, role).batch, side), name).numpy()
        for role in ("train", "validation", "test")
        for side in ("support", "query")
        for name in ("predictions", "algorithm_features", "context", "mask")
    ]


def assert_same_lists(one, other):
    for role in ("train", "validation", "test"):
        assert (getattr(one, role).query_items == getattr(other, role).query_items).all()
    for old, new in zip(inputs_of(one), inputs_of(other), strict=True):
        assert np.array_equal(old, new, equal_nan=True)


def test_what_follows_is_relevant_with_the_items_of_the_support_or_without(table, found):
    domain, again = domain_of(table), 0
    catalogue = set(domain.without(assign_roles({"shop": domain}, "shop", SETTINGS, 0).held_out(None)).item_index)
    for repeats, episodes in found.items():
        for one in (episodes.validation, episodes.test):
            for row, user in enumerate(one.users):
                history, later = (set(side["item"]) & catalogue for side in history_of(table, user))
                relevant = later if repeats == "include" else later - history
                candidates = {item for item in one.query_items[row] if item}
                marked = set(one.query_items[row][one.query_ratings[row] == 1])
                assert marked == relevant & candidates
                assert one.relevant[row] == len(relevant)
                assert history & candidates == (history if repeats == "include" else set())
                again += len(relevant & history)
    assert again > 5


def test_both_have_the_same_users_and_the_same_support(found):
    for role in ("train", "validation", "test"):
        old, new = (getattr(found[repeats], role) for repeats in ("exclude", "include"))
        assert (old.users == new.users).all()
        marked = [one.support_items[one.batch.support.targets.numpy() == 1] for one in (old, new)]
        assert (marked[0] == marked[1]).all()


def test_features_say_which_candidates_the_user_has_and_how_often(table, found):
    assert found["exclude"].test.context_names == RANKING_CONTEXT_NAMES
    one = found["include"].test
    assert one.context_names == (*RANKING_CONTEXT_NAMES, *REPEAT_CONTEXT_NAMES)
    moments = found["include"].ranking_standards.context
    context = one.batch.query.context.numpy() * moments.spread + moments.mean
    shares = []
    for row, user in enumerate(one.users):
        history, _ = history_of(table, user)
        share = history["item"].value_counts(normalize=True)
        for column, item in enumerate(one.query_items[row]):
            if item:
                # Standardised features end at five deviations.
                expected = np.array([item in share.index, share.get(item, 0.0)])
                expected = np.clip(expected, None, (5 * moments.spread + moments.mean)[-2:])
                assert context[row, column, -2:] == pytest.approx(expected, abs=1e-5)
        shares += share.tolist()
    assert len(set(shares)) == 2


def test_a_support_item_is_new_in_the_list_that_the_other_items_make(found):
    one = found["include"].test
    moments = found["include"].ranking_standards.context
    support = one.batch.support
    context = support.context.numpy() * moments.spread + moments.mean
    assert context[support.mask.numpy()][:, -2:] == pytest.approx(0, abs=1e-5)
    assert np.array_equal(
        support.predictions.numpy(), found["exclude"].test.batch.support.predictions.numpy(), equal_nan=True
    )


@pytest.mark.parametrize("repeats", ["exclude", "include"])
def test_what_a_test_user_takes_again_later_moves_no_list(table, found, repeats):
    """The sum of all weights of a support item, and a count of all its events, would turn it red."""
    episodes, parts, new = found[repeats], [table], 0
    for user in [*episodes.test.users, *episodes.validation.users]:
        history, later = history_of(table, user)
        last = later["timestamp"].max()
        for place, item in enumerate(dict.fromkeys(history["item"])):
            times = last + DAY * np.arange(1, 3 + place)
            parts.append(pd.DataFrame({"user": user, "item": item, "weight": 50.0, "timestamp": times}))
            new += item not in set(later["item"])
    again = build(pd.concat(parts, ignore_index=True), repeats)
    assert_same_lists(episodes, again)
    if repeats == "include":
        assert again.test.relevant.sum() + again.validation.relevant.sum() == new + sum(
            one.relevant.sum() for one in (episodes.test, episodes.validation)
        )


def test_a_test_users_later_events_move_no_list(table, found):
    rng = np.random.default_rng(5)
    parts = [table[~table["user"].isin(found["include"].test.users)]]
    for user in found["include"].test.users:
        history, later = history_of(table, user)
        parts += [history, later.assign(item=rng.choice(sorted(set(table["item"])), len(later)))]
        fresh = [item for item in sorted(set(table["item"])) if item not in set(history["item"])][:6]
        # Enough different items for an episode.
        parts.append(pd.DataFrame({"user": user, "item": fresh, "weight": 1.0, "timestamp": later["timestamp"].max()}))
    again = build(pd.concat(parts, ignore_index=True))
    assert not np.array_equal(again.test.query_ratings, found["include"].test.query_ratings)
    assert_same_lists(found["include"], again)


def test_the_order_of_rows_changes_nothing(table, found):
    assert_same_lists(build(table.sample(frac=1, random_state=3)), found["include"])


@pytest.mark.parametrize("repeats", ["exclude", "include"])
def test_a_new_user_has_the_list_of_the_test_user_with_the_same_events(table, found, repeats):
    domain, episodes = domain_of(table), found[repeats]
    fit_on = domain.without(assign_roles({"shop": domain}, "shop", SETTINGS, 0).held_out(None))
    maker = RankingTaskMaker.fit(fit_on, BASES, episodes.ranking_standards, ranking_of(repeats))
    histories = []
    for user in episodes.test.users:
        own = history_of(table, user)[0].groupby("item", sort=False)["weight"].agg(["sum", "size"])
        histories.append(UserHistory(own.index.to_numpy(dtype=object), own["sum"].to_numpy(), own["size"].to_numpy()))
    new = maker.users(histories)
    assert new.context_names == episodes.test.context_names
    assert (new.query_items == episodes.test.query_items).all()
    for side in ("support", "query"):
        for name in ("predictions", "algorithm_features", "context", "mask"):
            old, own = (getattr(getattr(one.batch, side), name).numpy() for one in (episodes.test, new))
            assert np.array_equal(old, own, equal_nan=True), (side, name)


def test_bases_score_the_items_of_the_history(table, found):
    domain = domain_of(table)
    fit_on = domain.without(assign_roles({"shop": domain}, "shop", SETTINGS, 0).held_out(None))
    one = found["include"].test
    history, _ = history_of(table, one.users[0])
    weights = history.groupby("item", sort=False)["weight"].sum()
    codes = fit_on.item_index.get_indexer(weights.index)
    given = Histories(np.array([len(codes)]), codes, weights.to_numpy(dtype=np.float32))
    scores = fit_ranking_base("item-knn", fit_on, BASES["item-knn"], seed=0).score(given)[0]
    places = [np.flatnonzero(one.query_items[0] == item)[0] for item in weights.index]
    mine = one.batch.query.predictions[0, places, 1].numpy()
    assert np.array_equal(np.argsort(scores[codes], kind="stable"), np.argsort(mine, kind="stable"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.drop(columns="timestamp"), "has no times"),
        (lambda table: table.drop_duplicates(["user", "item"]), "no user has events with an item at several times"),
    ],
)
def test_a_table_without_repeats_is_refused(table, change, problem):
    with pytest.raises(InputError, match=f'domain "shop": ranking.repeats: include .*{problem}') as caught:
        build(change(table))
    assert "\n" not in str(caught.value)
