"""What is believed of a gain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarec.transfer.strategies.mixing._beliefs import (
    LEAST_SPREAD,
    NO_SPREAD,
    Belief,
    gain_by_user,
    prior_of,
    updated,
)

gains = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8)


def test_the_mean_of_users_parts_is_the_share_that_is_saved():
    rng = np.random.default_rng(0)
    before, after = rng.random(30), rng.random(30)
    assert gain_by_user(before, after).mean() == pytest.approx(1 - after.sum() / before.sum())


@given(gains, st.data())
def test_a_prior_lies_among_the_gains_and_is_never_certain(found, data):
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(found), max_size=len(found)))
    prior = prior_of(found, weights)
    assert min(found) - 1e-9 <= prior.mean <= max(found) + 1e-9
    assert prior.spread >= LEAST_SPREAD


def test_where_no_domain_was_asked_nothing_is_expected():
    assert prior_of([], []) == Belief(0.0, NO_SPREAD)
    assert prior_of([], []).confidence == 0.5


def test_domains_that_are_more_alike_count_more():
    assert prior_of([0.1, -0.1], [9, 1]).mean == pytest.approx(0.08)


@given(st.floats(-0.2, 0.2), st.floats(0.01, 0.2), st.integers(2, 50), st.floats(-0.3, 0.3))
def test_what_is_seen_moves_a_belief_towards_it_and_makes_it_surer(mean, spread, number, seen):
    prior = Belief(mean, spread)
    after = updated(prior, np.full(number, seen), 0.3)
    assert min(mean, seen) - 1e-9 <= after.mean <= max(mean, seen) + 1e-9
    assert after.spread < prior.spread


def test_more_users_say_more():
    prior = Belief(0.0, 0.05)
    few, many = (updated(prior, np.tile([0.3, -0.1], number), 0.3) for number in (2, 50))
    assert 0 < few.mean < many.mean < 0.1
    assert 0.5 < few.confidence < many.confidence


def test_what_nobody_differs_in_is_no_gain():
    assert updated(Belief(0.0, 0.01), np.zeros(5), 0.0).mean == 0.0
