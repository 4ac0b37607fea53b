"""The estimator for scikit-learn: scikit-learn's checks, adaptation and combination."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from metarec.errors import InputError
from metarec.sklearn import FusionRegressor
from tests.support.threads import assert_same_bits

USERS, ROWS = 80, 24


def world(seed=0):
    """One of two bases is accurate for each user, and the other is not: P [n, 3], y [n], users [n]."""
    random = np.random.default_rng(seed)
    truth = random.uniform(1, 5, (USERS, ROWS))
    good, bad, dull = (truth + random.normal(0, spread, truth.shape) for spread in (0.2, 1.5, 1.0))
    first = random.random((USERS, 1)) < 0.5
    P = np.stack([np.where(first, good, bad), np.where(first, bad, good), dull], axis=-1)
    return P.reshape(-1, 3), truth.ravel(), np.repeat(np.arange(USERS), ROWS)


def rmse(predictions, y):
    return float(np.sqrt(np.mean((predictions - y) ** 2)))


@parametrize_with_checks([FusionRegressor(epochs=30, random_state=0)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    P, y, whose = world()
    return FusionRegressor(inner_lr=0.3, inner_steps=3, random_state=0).fit(P, y, groups=whose)


def test_a_users_own_rows_adapt_the_weights(fitted):
    P, y, whose = world(1)
    before, after = [], []
    for user in np.unique(whose)[:30]:
        P_own, y_own = P[whose == user], y[whose == user]
        later = slice(12, None)
        before.append(rmse(fitted.predict(P_own[later]), y_own[later]))
        after.append(rmse(fitted.adapt(P_own[:12], y_own[:12]).predict(P_own[later]), y_own[later]))
    assert np.mean(after) < 0.9 * np.mean(before)
    # To adapt one is to leave the other as it was.
    again = rmse(fitted.predict(P[whose == 0][12:]), y[whose == 0][12:])
    assert again == before[0]


def test_threads_share_a_regressor(fitted):
    P, y, whose = world(1)
    users = [whose == user for user in range(40)]
    assert_same_bits(lambda own: fitted.adapt(P[own][:12], y[own][:12]).predict(P[own][12:]), users * 3, threads=4)


def test_without_groups_it_is_as_good_as_ridge():
    P, y, _ = world(1)
    P_then, y_then, _ = world()
    ridge = RidgeCV().fit(P_then, y_then).predict(P)
    predictions = FusionRegressor(random_state=0).fit(P_then, y_then).predict(P)
    assert rmse(ridge, y) < rmse(P.mean(1), y)
    assert rmse(predictions, y) < 1.01 * rmse(ridge, y)


def test_a_base_may_predict_nan(fitted):
    P, y, whose = world(1)
    holes = np.random.default_rng(0).random(P.shape) < 0.3
    holes[0] = True
    P = np.where(holes, np.nan, P)
    model = clone(fitted).fit(P, y, groups=whose)
    predictions = model.predict(P)
    assert np.isfinite(predictions).all()
    available = np.isfinite(P).any(1)
    assert rmse(predictions[available], y[available]) < rmse(np.nanmean(P[available], axis=1), y[available])
    # A base without a prediction in a row has no weight there.
    assert model.adapt(P[:5], y[:5]).predict(P[:1]).shape == (1,)


def test_the_same_seed_gives_the_same_numbers_and_pickling_keeps_them(fitted):
    P, y, whose = world()
    again = clone(fitted).fit(P, y, groups=whose)
    np.testing.assert_array_equal(again.predict(P), fitted.predict(P))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(P), fitted.predict(P))


def test_predictions_are_clipped_to_the_scale():
    P, y, whose = world()
    model = FusionRegressor(epochs=2, scale=(2, 4), random_state=0).fit(P, y, groups=whose)
    predictions = model.predict(P + 10)
    assert predictions.min() >= 2
    assert predictions.max() <= 4


@pytest.mark.parametrize(
    ("settings", "groups", "problem"),
    [
        ({"scale": (5, 1)}, None, r"scale must be \(low, high\) with low < high but got \(5, 1\)"),
        ({"validation_fraction": 1.0}, None, "validation_fraction must be > 0 and < 1 but got 1.0"),
        ({}, [1, 2], "groups must have one entry for each of the 1920 rows"),
        ({"dropout": 1.5}, None, "dropout must be"),
        ({"epochs": 0}, None, "epochs must be"),
    ],
)
def test_wrong_arguments_are_refused(settings, groups, problem):
    P, y, _ = world()
    with pytest.raises(InputError, match=problem):
        FusionRegressor(**settings).fit(P, y, groups=groups)


def test_infinite_predictions_are_refused():
    P, y, _ = world()
    P[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinit"):
        FusionRegressor().fit(P, y)
