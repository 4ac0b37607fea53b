"""The shares of a mixture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.transfer.strategies.mixing._shares import best_shares, error_products, exchangeable, squared_error


def products(seed, number, rows=30):
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(rows, number)) * rng.uniform(0.2, 2, number) + rng.normal(size=(rows, 1))
    return errors.T @ errors


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.floats(1e-6, 1e6))
def test_no_mixture_is_better_than_the_best_one(seed, number, scale):
    known = products(seed, number) * scale
    best = best_shares(known)
    assert best.min() >= 0
    assert best.sum() == pytest.approx(1)
    others = np.vstack([np.eye(number), np.random.default_rng(seed).dirichlet(np.ones(number), 200)])
    least = min(squared_error(known, shares) for shares in others)
    assert squared_error(known, best) <= least * (1 + 1e-6)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_only_who_is_allowed_has_a_share(seed, number):
    known = products(seed, number)
    allowed = np.arange(number) > 0
    shares = best_shares(known, allowed)
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], best_shares(known[1:, 1:]))


@pytest.mark.parametrize("known", [np.ones((3, 3)), np.zeros((3, 3)), np.full((3, 3), 1e-300)])
def test_twins_share_somehow(known):
    assert best_shares(known).min() >= 0
    assert best_shares(known).sum() == pytest.approx(1)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_before_anything_is_known_all_shares_are_equal(seed, number):
    np.testing.assert_allclose(best_shares(exchangeable(products(seed, number))), 1 / number, atol=1e-6)


def test_products_are_of_each_users_real_rows(worlds):
    few = worlds["books"].train
    rng = np.random.default_rng(0)
    mask = few.batch.query.mask.numpy()
    said = rng.random((*mask.shape, 3))
    found = error_products(few, said)
    shares = np.array([0.5, 0.2, 0.3])
    truth = few.batch.query.targets.numpy()
    by_hand = [np.square((said[user] @ shares - truth[user])[mask[user]]).sum() for user in range(len(few))]
    np.testing.assert_allclose(squared_error(found, shares), by_hand)
    # What stands in the padding does not count.
    said[~mask] = np.nan
    np.testing.assert_array_equal(error_products(few, said), found)
