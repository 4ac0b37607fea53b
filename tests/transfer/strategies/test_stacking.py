"""Stacking weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.transfer.strategies.parts.stacking import error_products, exchangeable, squared_error, stacking_weights


def products(seed, number, rows=30):
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(rows, number)) * rng.uniform(0.2, 2, number) + rng.normal(size=(rows, 1))
    return errors.T @ errors


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.floats(1e-6, 1e6))
def test_no_other_weights_have_a_smaller_error(seed, number, scale):
    errors = products(seed, number) * scale
    best = stacking_weights(errors)
    assert best.min() >= 0
    assert best.sum() == pytest.approx(1)
    others = np.vstack([np.eye(number), np.random.default_rng(seed).dirichlet(np.ones(number), 200)])
    least = min(squared_error(errors, weights) for weights in others)
    assert squared_error(errors, best) <= least * (1 + 1e-6)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_only_allowed_predictions_have_a_weight(seed, number):
    errors = products(seed, number)
    allowed = np.arange(number) > 0
    weights = stacking_weights(errors, allowed)
    assert weights[0] == 0
    np.testing.assert_allclose(weights[1:], stacking_weights(errors[1:, 1:]))


@pytest.mark.parametrize("errors", [np.ones((3, 3)), np.zeros((3, 3)), np.full((3, 3), 1e-300)])
def test_equal_predictions_have_valid_weights(errors):
    assert stacking_weights(errors).min() >= 0
    assert stacking_weights(errors).sum() == pytest.approx(1)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_exchangeable_predictions_have_equal_weights(seed, number):
    np.testing.assert_allclose(stacking_weights(exchangeable(products(seed, number))), 1 / number, atol=1e-6)


def test_error_products_ignore_padding(worlds):
    few = worlds["books"].train
    rng = np.random.default_rng(0)
    mask = few.batch.query.mask.numpy()
    predictions = rng.random((*mask.shape, 3))
    found = error_products(few, predictions)
    weights = np.array([0.5, 0.2, 0.3])
    truth = few.batch.query.targets.numpy()
    by_hand = [np.square((predictions[user] @ weights - truth[user])[mask[user]]).sum() for user in range(len(few))]
    np.testing.assert_allclose(squared_error(found, weights), by_hand)
    predictions[~mask] = np.nan
    np.testing.assert_array_equal(error_products(few, predictions), found)
