"""The estimator for scikit-learn: scikit-learn's checks, adaptation and combination."""

import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
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


@pytest.mark.parametrize("missing", [float("nan"), None, np.datetime64("NaT")])
def test_a_row_without_a_user_is_refused(missing):
    P, y, whose = world()
    groups = whose.astype(object)
    groups[[3, 70]] = missing
    with pytest.raises(InputError, match=r"NaN or None in 2 of 1920 rows, first in row 3"):
        FusionRegressor(epochs=1).fit(P, y, groups=groups)


def test_users_have_ids_of_any_kind():
    P, y, whose = world()
    settings = {"epochs": 2, "random_state": 0}
    expected = FusionRegressor(**settings).fit(P, y, groups=whose).predict(P)
    mixed = np.array([number if number < 40 else f"u{number}" for number in whose], dtype=object)
    for groups in (whose.astype(float), list(whose), mixed, np.char.mod("%03d", whose)):
        assert np.array_equal(FusionRegressor(**settings).fit(P, y, groups=groups).predict(P), expected)


def test_one_long_user_does_not_pad_all_the_others(monkeypatch, caplog):
    """300 users with 10 rows and one with 3,000: without a limit this is 301 x 3,000 rows."""
    random = np.random.default_rng(0)
    whose = np.r_[np.repeat(np.arange(300), 10), np.full(3000, 300)]
    y = random.uniform(1, 5, len(whose))
    P = np.stack([y + random.normal(0, spread, len(y)) for spread in (0.3, 1.0)], axis=1)
    sizes = []
    held_out = FusionRegressor._held_out

    def watched(self, batch, random):
        sizes.append((tuple(batch.query.mask.shape), int(batch.query.mask.sum(-1).max())))
        return held_out(self, batch, random)

    monkeypatch.setattr(FusionRegressor, "_held_out", watched)
    FusionRegressor(epochs=1, random_state=0).fit(P, y, groups=whose)
    # The mean is 20 rows.
    assert sizes == [((301, 70), 70)]
    assert "1 of 301 users have more than 80 rows" in caplog.text


def test_groups_of_cross_validation_reach_fit_by_routing(monkeypatch):
    """Without routing, cross_val_score hands groups to the splitter alone."""
    P, y, whose = world()
    seen = []
    monkeypatch.setattr(FusionRegressor, "fit", lambda self, X, y, groups=None: seen.append(groups) or self)
    monkeypatch.setattr(FusionRegressor, "predict", lambda self, X: np.zeros(len(X)))
    cross_val_score(FusionRegressor(), P, y, groups=whose, cv=GroupKFold(2))
    assert seen == [None, None]
    with config_context(enable_metadata_routing=True):
        model = FusionRegressor().set_fit_request(groups=True)
        cross_val_score(model, P, y, params={"groups": whose}, cv=GroupKFold(2))
    assert [len(set(groups)) for groups in seen[2:]] == [USERS // 2, USERS // 2]
