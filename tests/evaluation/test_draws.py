"""Gains over draws: the draws are the unit of every interval and test."""

import numpy as np
import pandas as pd
import pytest

from metarec.evaluation import draws as module
from metarec.evaluation.draws import DrawGain, gains_over_draws, verdict
from metarec.evaluation.metrics import paired_gains

PAIR = ("ours", "theirs")


def planted(rng, effects, users=12, noise=0.02):
    """Errors in which ours has the factor 1 - effect in each draw, in percent of RMSE, with noise by user."""
    frames = {}
    for number, effect in enumerate(effects):
        theirs = rng.gamma(4.0, size=users)
        ours = theirs * (1 - effect / 100) ** 2 * rng.normal(1, noise, users)
        frames[number] = pd.DataFrame({"ours": ours, "theirs": theirs}, index=[f"{number}-{u}" for u in range(users)])
    return pd.concat(frames)


def old_interval(squared):
    """The interval over all test users together, as if they were independent."""
    return paired_gains(squared["ours"].to_numpy(), squared[["theirs"]])["theirs"]


def test_an_effect_of_the_draw_fools_the_interval_over_users_and_not_that_over_draws():
    squared = planted(np.random.default_rng(0), [1.4, 0.9, -0.6], users=400)
    pooled, own = old_interval(squared), gains_over_draws(squared, [PAIR])[PAIR]
    # The fault: three draws of opposite signs looked like a certain gain.
    assert pooled.low > 0
    assert own.percent == pytest.approx(pooled.percent)
    assert own.low < 0 < own.high
    assert verdict(own, own.p) == "no difference"
    assert own.by_draw == pytest.approx((1.4, 0.9, -0.6), abs=0.15)


@pytest.mark.parametrize("draws", [3, 10])
def test_the_interval_holds_the_truth_about_95_times_in_100(draws, monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 200)
    rng = np.random.default_rng(7)
    held = fooled = 0
    for _ in range(200):
        squared = planted(rng, rng.normal(0, 1, draws), users=6, noise=0.005)
        own, pooled = gains_over_draws(squared, [PAIR])[PAIR], old_interval(squared) if draws == 10 else None
        held += own.low <= 0 <= own.high
        fooled += pooled is not None and not pooled.low <= 0 <= pooled.high
    assert 183 <= held <= 198
    assert draws != 10 or fooled > 60


def test_a_gain_that_comes_from_one_of_three_draws_is_not_better():
    squared = planted(np.random.default_rng(1), [3.0, 0.0, 0.0], users=300)
    own = gains_over_draws(squared, [PAIR])[PAIR]
    assert old_interval(squared).low > 0
    assert own.low < 0
    assert verdict(own, own.p) == "no difference"


def test_a_gain_in_every_draw_is_better_and_a_loss_is_worse():
    squared = planted(np.random.default_rng(2), [1.0, 1.3, 0.8, 1.1], users=200)
    found = gains_over_draws(squared, [PAIR, PAIR[::-1]])
    own, other = found[PAIR], found[PAIR[::-1]]
    assert verdict(own, own.p) == "better"
    # A gain needs the corrected p; a loss needs the uncorrected one.
    assert verdict(own, 0.06) == "no difference"
    assert verdict(other, 1.0) == "worse"
    assert own.low < own.percent < own.high


def test_equal_gains_leave_nothing_to_be_uncertain_of():
    frame = pd.DataFrame({"ours": [0.81, 1.62], "theirs": [1.0, 2.0]}, index=["a", "b"])
    own = gains_over_draws(pd.concat({0: frame, 1: frame}), [PAIR, ("ours", "ours")])
    assert own[PAIR][:4] == pytest.approx((10, 10, 10, 0))
    assert own["ours", "ours"][:4] == pytest.approx((0, 0, 0, 1))


def test_one_draw_has_no_interval_over_draws():
    squared = planted(np.random.default_rng(3), [5.0], users=300)
    own = gains_over_draws(squared, [PAIR])[PAIR]
    assert (own.low, own.high, own.p) == (None, None, None)
    assert own.by_draw == (own.percent,)
    assert verdict(own, None) == "one draw"
    assert not own.is_above_zero
    assert str(own) == f"{own.percent:+.2f} % (one draw)"


def test_a_draw_is_left_out_or_taken_whole():
    """Many users in one of two draws do not make the interval narrower than the spread of the draws."""
    rng = np.random.default_rng(4)
    few, many = (
        gains_over_draws(planted(rng, [0.5, 1.5], users=users, noise=0.0), [PAIR])[PAIR] for users in (20, 2000)
    )
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.5)
    assert isinstance(many, DrawGain)
