"""The pictures of a finished study show the given numbers, also degenerate ones."""

import math
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from metarec.evaluation.measures import RATING
from metarec.evaluation.metrics import Gain
from metarec.evaluation.segments import THIRDS
from metarec.report.figures.figures import TrialPoint, search_history
from metarec.report.figures.insight_figures import calibration, gains_forest, segments, weights_against
from metarec.report.figures.search_figures import (
    Tried,
    importances,
    learning_curves,
    parallel_coordinates,
    slices,
    strategies,
)

nan = math.nan
CURVES = {"train_losses": [3.0, 2.0], "val_losses": [3.0, 2.5], "val_rmse": [0.3, 0.2]}
TRIED = [
    Tried(0, {"rate": 0.001, "steps": 1, "loss": "mse", "fixed": 3}, 0.3),
    Tried(1, {"rate": 0.1, "steps": 2, "loss": "mae", "fixed": 3}, 0.2),
    Tried(2, {"rate": 0.01, "steps": 2, "loss": "mse", "fixed": 3}, nan),
]


SOME_GAIN = Gain(3.0, 1.0, 5.0)


def segment(place, *, few=False, gain=SOME_GAIN):
    numbers = {"low": 1.0, "high": 2.0, "n_users": 20, "n_ratings": 90, "rmse": 0.8, "reference_rmse": 0.9}
    gains = {"gain": gain.percent, "gain_low": gain.low, "gain_high": gain.high}
    return {"measure": "activity", "segment": THIRDS[place], "reference": "best-single", "few": few, **numbers, **gains}


def weights(*bases, index=("0", "1", "5")):
    return pd.DataFrame({base: 1 / len(bases) for base in bases} | {f"{base} ±": 0.01 for base in bases}, index=index)


def test_the_best_trials_are_drawn_together():
    figure = learning_curves({"trial 3": CURVES, "trial 0": CURVES}, RATING)
    train, validation = figure.axes
    assert [list(line.get_ydata()) for line in train.get_lines()] == [[3.0, 2.0]] * 2
    assert [list(line.get_ydata()) for line in validation.get_lines()] == [[0.3, 0.2]] * 2
    assert [text.get_text() for text in train.get_legend().get_texts()] == ["trial 3", "trial 0"]


def test_a_gain_is_hollow_if_its_interval_holds_zero():
    figure = gains_forest({"mean": Gain(2, 1, 3), "ridge": Gain(1, -1, 3)}, RATING, domain="movies", n_users=60)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ridge", "mean"]
    hollow = [tuple(points.get_facecolor()[0]) == (1, 1, 1, 1) for points in axes.collections]
    assert hollow == [True, False]
    assert "n = 60 users" in axes.get_title(loc="left")
    assert axes.texts[0].get_text() == "+1.0 [−1.0, +3.0]"


def test_a_small_segment_is_marked():
    figure = segments(pd.DataFrame([segment(0, few=True), segment(1)]), RATING)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["activity: middle, n = 20", "activity: low, n = 20 (too few)"]


def test_calibrated_confidences_lie_on_the_diagonal():
    confidence = np.linspace(0, 1, 200)
    figure = calibration(confidence, confidence, np.arange(200) % 3)
    (axes,) = figure.axes
    curve = axes.containers[0][0]
    assert np.allclose(curve.get_xdata(orig=False), curve.get_ydata(orig=False))
    assert len(curve.get_ydata(orig=False)) == 10


def test_the_interval_of_a_confidence_is_clustered_by_user():
    confidence, users = np.full(300, 0.5), np.repeat(np.arange(10), 30)
    rightness = np.random.default_rng(0).uniform(size=10)[users]
    figure = calibration(confidence, rightness, users, bins=1)
    (bar,) = figure.axes[0].containers[0][2][0].get_segments()
    usual = 2 * 1.96 * rightness[::30].std() / np.sqrt(10)
    assert bar[1][1] - bar[0][1] == pytest.approx(usual)


def test_only_varied_parameters_are_drawn():
    figure = slices(TRIED, RATING)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["rate", "steps", "loss"]
    assert figure.axes[0].get_xscale() == "log"
    axes = parallel_coordinates(TRIED, RATING).axes[0]
    assert len(axes.get_lines()) == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["rate", "steps", "loss"]


def test_one_bad_trial_does_not_flatten_the_others():
    rates = {0.01: 0.170, 0.02: 0.171, 0.03: 0.172, 0.04: 0.9}
    tried = [Tried(number, {"rate": rate}, value) for number, (rate, value) in enumerate(rates.items())]
    axes, *_ = slices(tried, RATING).axes
    low, high = axes.get_ylim()
    assert high - low < 0.02
    shown = sorted((points.get_offsets()[0].tolist()) for points in axes.collections)
    assert [rate for rate, _ in shown] == list(rates)
    assert [value for _, value in shown][:3] == list(rates.values())[:3]
    history = search_history([TrialPoint(one.number, one.value, "complete") for one in tried], RATING)
    assert "worse than the axis shows" in [text.get_text() for text in history.axes[0].get_legend().get_texts()]
    assert history.axes[0].get_ylim()[1] < 0.2
    # The colours of lines have the same range.
    assert parallel_coordinates(tried, RATING).axes[1].get_ylim()[1] < 0.2


def test_trials_of_one_choice_stand_beside_each_other():
    tried = [Tried(number, {"steps": number % 2, "loss": "mse"}, 0.2) for number in range(6)]
    axes, *_ = slices(tried, RATING).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    places = [points.get_offsets()[0][0] for points in axes.collections]
    assert len({round(float(place), 6) for place in places}) == 6
    assert all(abs(place - number % 2) < 0.3 for number, place in enumerate(places))


def test_the_best_strategy_is_on_top():
    figure = strategies({"auto": [0.2, 0.3], "scratch": [0.25], "broken": [nan]}, RATING)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scratch", "auto"]
    assert axes.texts[-1].get_text() == "0.2000 (2)"


DEGENERATE = {
    "no curves": lambda: learning_curves({}, RATING),
    "NaN curves": lambda: learning_curves({"trial 0": {"train_losses": [nan], "val_rmse": [math.inf]}}, RATING),
    "one epoch": lambda: learning_curves({"trial 0": {"train_losses": [1.0], "val_rmse": [0.2]}}, RATING),
    "no importance": lambda: importances({}, trials=3),
    "one importance": lambda: importances({"rate": 1.0}, trials=12),
    "zero importance": lambda: importances({"rate": 0.0, "steps": nan}, trials=12),
    "no trials": lambda: slices([], RATING),
    "one trial": lambda: slices(TRIED[:1], RATING),
    "slices": lambda: slices(TRIED, RATING),
    "varied NaN trials": lambda: slices([TRIED[2], TRIED[2]._replace(params={"rate": 1.0})], RATING),
    "NaN trials": lambda: slices(TRIED[2:] * 2, RATING),
    "no lines": lambda: parallel_coordinates([], RATING),
    "one line": lambda: parallel_coordinates(TRIED[:1], RATING),
    "NaN lines": lambda: parallel_coordinates([TRIED[2], TRIED[2]._replace(params={"rate": 1.0})], RATING),
    "lines": lambda: parallel_coordinates(TRIED, RATING),
    "no strategies": lambda: strategies({}, RATING),
    "one strategy": lambda: strategies({"auto": [0.3]}, RATING),
    "no gains": lambda: gains_forest({}, RATING, domain="movies", n_users=0),
    "NaN gains": lambda: gains_forest({"mean": Gain(nan, nan, nan)}, RATING, domain="movies", n_users=1),
    "one gain": lambda: gains_forest(
        {"a model with a name that goes on": Gain(1, 0, 2)}, RATING, domain="x", n_users=1
    ),
    "no segments": lambda: segments(pd.DataFrame(), RATING),
    "one segment": lambda: segments(pd.DataFrame([segment(0)]), RATING),
    "NaN segment": lambda: segments(pd.DataFrame([segment(0, gain=Gain(nan, nan, nan))]), RATING),
    "no weights": lambda: weights_against([("a", "b", pd.DataFrame())], ["bias"]),
    "no bases": lambda: weights_against([], []),
    "some weights": lambda: weights_against([("a", "b", pd.DataFrame()), ("c", "d", weights("bias"))], ["bias"]),
    "many bases": lambda: weights_against([("a", "b", weights(*"abcdefghij"))], list("abcdefghij")),
    "NaN weights": lambda: weights_against([("a", "b", weights("bias") * nan)], ["bias"]),
    "no confidence": lambda: calibration(np.array([nan]), np.array([0.5]), np.array(["a"])),
    "one confidence": lambda: calibration(np.array([0.4]), np.array([0.5]), np.array(["a"])),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_numbers_give_a_picture_of_the_same_width(draw):
    png = BytesIO()
    draw().savefig(png, format="png")
    assert int.from_bytes(png.getvalue()[16:20], "big") == 800
