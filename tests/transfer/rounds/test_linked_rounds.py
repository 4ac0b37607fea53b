"""Rounds with linked users have the same queries and more inputs."""

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.episodes import EpisodeSettings
from metarec.episodes._features import CONTEXT_NAMES
from metarec.ratings import Domain, simulate_domains
from metarec.transfer import TransferRounds, TransferSettings, predict_round
from metarec.transfer.rounds import REGIMES

SHOTS = 1
CUT = EpisodeSettings(min_query=3, max_query=8)
regimes = pytest.mark.parametrize("regime", REGIMES)


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=0, num_users=60, num_items=40, ratings_per_user=20, shared=0.8)


def made(domains, regime, *, link, target="books"):
    rounds = TransferRounds(domains, (SHOTS,), CUT, bases={"bias": {}}, link_users=link)
    return rounds.round(target, shots=SHOTS, target_users=8, regime=regime)


def changed(domain, rows):
    """The ratings of these rows at the other end of the scale."""
    ratings = domain.ratings.copy()
    ratings.loc[rows, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[rows, "rating"]
    return Domain(domain.name, ratings, domain.scale, domain.items, domain.users)


def first_queries(domain, test):
    times = domain.ratings.set_index(["user", "item"])["timestamp"]
    rows = zip(test.users, test.query_items, strict=True)
    return pd.Series({user: min(times[user, item] for item in items if item) for user, items in rows})


def same(one, other, *, but=()):
    for side in one.batch._fields:
        for name in one.batch.query._fields:
            if (side, name) not in but:
                a, b = (getattr(getattr(episodes.batch, side), name).float() for episodes in (one, other))
                if not torch.equal(a.nan_to_num(nan=-9), b.nan_to_num(nan=-9)):
                    return False
    return True


@regimes
def test_links_do_not_change_users_and_queries(domains, regime):
    plain, linked = (made(domains, regime, link=link) for link in (False, True))
    for name in ("few", "test", "plain_test"):
        one, other = getattr(plain, name), getattr(linked, name)
        assert list(one.users) == list(other.users)
        assert np.array_equal(one.query_items, other.query_items)
        assert np.array_equal(one.query_ratings, other.query_ratings)
        assert one.scale == other.scale
        assert one.context_names == CONTEXT_NAMES
        assert other.context_names == CONTEXT_NAMES
    for name, source in linked.sources.items():
        assert source.train.context_names == linked.few.context_names
        assert list(source.train.users) == list(plain.sources[name].train.users)
        assert not set(source.train.users) & set(linked.test.users)
    assert not same(plain.plain_test, linked.plain_test, but={("query", "context"), ("support", "context")})


@pytest.mark.slow
@regimes
def test_earlier_ratings_elsewhere_change_predictions_only_with_links(domains, regime):
    before = {link: made(domains, regime, link=link) for link in (False, True)}
    first = first_queries(domains["books"], before[True].test)
    turned = {
        name: changed(domain, domain.ratings["timestamp"] < domain.ratings["user"].map(first).fillna(-np.inf))
        for name, domain in domains.items()
        if name != "books"
    }
    after = {link: made({**domains, **turned}, regime, link=link) for link in (False, True)}
    for name in ("test", "plain_test"):
        assert same(getattr(before[False], name), getattr(after[False], name))
        moved = [getattr(made.get(True), name).batch.query.predictions for made in (before, after)]
        assert (moved[0] - moved[1]).abs().nan_to_num().max() > 0.001
    # Users without test queries are unchanged.
    for name, source in after[True].sources.items():
        assert same(source.train, before[True].sources[name].train)
    assert same(after[True].few, before[True].few)


@regimes
def test_later_ratings_change_no_prediction(domains, regime):
    settings = TransferSettings(epochs=2, options={"hidden_dim": 8}, stackers=("ridge",))
    before = made(domains, regime, link=True)
    first = first_queries(domains["books"], before.test)
    turned = {
        name: changed(domain, domain.ratings["timestamp"] >= domain.ratings["user"].map(first).fillna(np.inf))
        for name, domain in domains.items()
    }
    assert any(not turned[name].ratings.equals(domains[name].ratings) for name in ("movies", "music"))
    after = made(turned, regime, link=True)
    assert same(before.test, after.test, but={("query", "targets")})
    predictions = [predict_round("model_agnostic", one, settings, 0).predictions for one in (before, after)]
    assert np.array_equal(*predictions)


def test_a_source_is_linked_to_the_other_sources_and_never_to_the_target(domains):
    rounds = TransferRounds(domains, (SHOTS,), CUT, bases={"bias": {}}, link_users=True)
    rounds.round("books", shots=SHOTS, target_users=8, regime="labels")
    assert {(name, linked) for name, _, linked in rounds._wholes} == {
        ("books", ("movies", "music")),
        ("movies", ("music",)),
        ("music", ("movies",)),
    }
