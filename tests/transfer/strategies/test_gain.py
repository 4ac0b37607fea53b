"""The prior and the posterior of a gain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarec.evaluation.measures import RATING
from metarec.transfer.strategies.parts.gain import (
    LEAST_SPREAD,
    NO_SPREAD,
    ExpectedGain,
    posterior_gain,
    prior_gain,
)

gains = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8)


def test_the_mean_of_user_gains_is_the_saved_share_of_the_error():
    rng = np.random.default_rng(0)
    before, after = rng.random(30), rng.random(30)
    assert RATING.user_gains(before, after).mean() == pytest.approx(1 - after.sum() / before.sum())


@given(gains, st.data())
def test_a_prior_lies_among_the_gains_with_a_least_spread(found, data):
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(found), max_size=len(found)))
    prior = prior_gain(found, weights)
    assert min(found) - 1e-9 <= prior.mean <= max(found) + 1e-9
    assert prior.spread >= LEAST_SPREAD


def test_without_other_domains_no_gain_is_expected():
    assert prior_gain([], []) == ExpectedGain(0.0, NO_SPREAD)
    assert prior_gain([], []).confidence == 0.5


def test_domains_with_larger_weights_count_more():
    assert prior_gain([0.1, -0.1], [9, 1]).mean == pytest.approx(0.08)


@given(st.floats(-0.2, 0.2), st.floats(0.01, 0.2), st.integers(2, 50), st.floats(-0.3, 0.3))
def test_observed_gains_move_the_mean_and_reduce_the_spread(mean, spread, number, observed):
    prior = ExpectedGain(mean, spread)
    after = posterior_gain(prior, np.full(number, observed), 0.3)
    assert min(mean, observed) - 1e-9 <= after.mean <= max(mean, observed) + 1e-9
    assert after.spread < prior.spread


def test_more_users_move_the_posterior_further():
    prior = ExpectedGain(0.0, 0.05)
    few, many = (posterior_gain(prior, np.tile([0.3, -0.1], number), 0.3) for number in (2, 50))
    assert 0 < few.mean < many.mean < 0.1
    assert 0.5 < few.confidence < many.confidence


def test_zero_user_gains_give_no_gain():
    assert posterior_gain(ExpectedGain(0.0, 0.01), np.zeros(5), 0.0).mean == 0.0
