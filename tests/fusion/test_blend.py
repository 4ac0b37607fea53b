"""Convex weights: what they are by hand, and what they never are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.fusion.blend import bagged_greedy_weights, convex_weights


def error(weights, predictions, targets):
    return float(((predictions @ weights - targets) ** 2).mean())


@budget(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(2, 60), st.integers(0, 10_000))
def test_weights_are_convex_and_beat_every_model_on_the_rows_they_were_chosen_on(models, rows, seed):
    rng = np.random.default_rng(seed)
    targets = rng.random(rows)
    predictions = targets[:, None] + rng.normal(0, rng.random(models) + 0.01, (rows, models))
    weights = convex_weights(predictions, targets, pull=0.0)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    best = min(error(np.eye(models)[model], predictions, targets) for model in range(models))
    assert error(weights, predictions, targets) <= best * (1 + 1e-6) + 1e-12


def test_two_models_by_hand():
    """Errors e1, e2: the best weight on the first is (e2·e2 - e1·e2) / |e1 - e2|^2."""
    targets = np.array([0.5, 0.5, 0.5, 0.5])
    first, second = targets + np.array([0.1, -0.1, 0.1, 0.1]), targets + np.array([0.2, 0.2, -0.1, 0.1])
    e1, e2 = first - targets, second - targets
    expected = (e2 @ e2 - e1 @ e2) / ((e1 - e2) @ (e1 - e2))
    weights = convex_weights(np.stack([first, second], 1), targets, pull=0.0)
    np.testing.assert_allclose(weights, [expected, 1 - expected], atol=1e-6)


def test_the_order_of_models_does_not_matter_and_twins_share():
    rng = np.random.default_rng(0)
    targets = rng.random(50)
    predictions = targets[:, None] + rng.normal(0, 0.1, (50, 3))
    weights = convex_weights(predictions, targets)
    np.testing.assert_allclose(convex_weights(predictions[:, [2, 0, 1]], targets), weights[[2, 0, 1]], atol=1e-6)
    twins = convex_weights(predictions[:, [0, 0, 1]], targets)
    assert twins[0] == pytest.approx(twins[1], abs=1e-6)


def test_the_pull_goes_from_least_squares_to_the_mean():
    rng = np.random.default_rng(1)
    targets = rng.random(200)
    predictions = np.stack([targets + rng.normal(0, 0.01, 200), targets + rng.normal(0, 0.3, 200)], 1)
    first = [convex_weights(predictions, targets, pull=pull)[0] for pull in (0.0, 0.1, 10.0, np.inf)]
    assert first == sorted(first, reverse=True)
    assert first[0] > 0.99
    assert first[-1] == 0.5


def test_a_useless_model_gets_nothing():
    rng = np.random.default_rng(2)
    targets = rng.random(300)
    predictions = np.stack([targets + rng.normal(0, 0.05, 300), 1 - targets], 1)
    assert convex_weights(predictions, targets, pull=0.01)[1] < 0.02


@pytest.mark.parametrize(
    ("predictions", "targets", "options", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), {}, "must have rows in common"),
        (np.zeros((3, 2)), np.zeros(2), {}, r"but got \[3, 2\] and \[2\]"),
        (np.array([[np.nan, 1.0]]), np.zeros(1), {}, "must be finite"),
        (np.ones((1, 2)), np.zeros(1), {"pull": -1.0}, "pull must be >= 0 but got -1.0"),
    ],
)
def test_refusals(predictions, targets, options, message):
    with pytest.raises(InputError, match=message):
        convex_weights(predictions, targets, **options)


def test_bagged_selection_is_convex_and_leaves_out_what_only_harms():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 20))
    scores = np.stack([truth + rng.normal(size=truth.shape) for _ in range(2)] + [rng.normal(size=truth.shape)])

    def value(total):
        return np.array([np.corrcoef(own, right)[0, 1] for own, right in zip(total, truth, strict=True)])

    weights = bagged_greedy_weights(scores, value, steps=8, bags=5, seed=1)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    assert weights[2] < 0.1 < 0.3 < weights[:2].min()
    np.testing.assert_array_equal(weights, bagged_greedy_weights(scores, value, steps=8, bags=5, seed=1))
