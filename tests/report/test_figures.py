"""The pictures of a study show the given numbers, also degenerate ones."""

import math
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from metarec.evaluation.measures import RATING
from metarec.report.figures.figures import (
    TrialPoint,
    base_weights,
    learning_curve,
    model_comparison,
    pareto_front,
    save,
    search_history,
)
from metarec.study.results import FrontLine

nan = math.nan


def texts(figure):
    (axes,) = figure.axes
    legend = axes.get_legend()
    found = [text.get_text() for text in axes.texts]
    return found + ([text.get_text() for text in legend.get_texts()] if legend else [])


def y_labels(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_learning_curve_draws_each_series_and_the_kept_epoch():
    figure = learning_curve({"train_losses": [3.0, 2.0, 1.0], "val_losses": [3.0, nan, 2.0]}, best_epoch=2)
    train, val, kept = figure.axes[0].get_lines()
    assert list(train.get_ydata()) == [3.0, 2.0, 1.0]
    assert math.isnan(val.get_ydata()[1])
    assert list(kept.get_xdata()) == [2, 2]
    assert texts(figure) == ["train losses", "val losses", "kept: epoch 2"]


def test_the_front_is_numbered_and_trials_far_above_it_are_counted():
    front = [FrontLine(3, 0.171, 6e-5), FrontLine(4, 0.174, 1e-5)]
    figure = pareto_front([*front, FrontLine(5, 0.175, 7e-5), FrontLine(1, 0.404, 4e-5)], front, RATING)
    dominated, front = figure.axes[0].get_lines()
    assert list(dominated.get_ydata()) == [0.175]
    assert list(front.get_xdata()) == pytest.approx([10, 60])
    assert texts(figure)[:2] == ["trial 4", "trial 3"]
    assert figure.axes[0].get_legend().get_title().get_text() == "1 more above"


def test_base_weights_puts_the_largest_mean_weight_on_top():
    weights = np.array([[0.1, 0.7, 0.2], [0.3, 0.5, 0.2], [nan, nan, nan]])
    figure = base_weights(weights, ["bias", "item-knn", "content"])
    assert y_labels(figure)[-1] == "item-knn"
    assert texts(figure)[:3] == ["20%", "20%", "60%"]
    with pytest.raises(ValueError, match=r"\[rows, 2\] but got \[3, 3\]"):
        base_weights(weights, ["bias", "item-knn"])


def test_model_comparison_is_sorted_and_shows_the_distance_to_the_best_single():
    rmse = {"best-single": 1.0, "ridge": 1.1, "metarec": 0.95, "gbm": nan}
    figure = model_comparison(rmse, RATING, domain="movies")
    assert y_labels(figure) == ["ridge", "best-single", "metarec"]
    assert texts(figure) == ["1.1000  (+10.0%)", "1.0000", "0.9500  (−5.0%)"]
    bold = [label.get_text() for label in figure.axes[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["metarec"]


def test_search_history_follows_the_best_complete_trial():
    trials = [
        TrialPoint(3, 4.0, "complete"),
        TrialPoint(0, 3.0, "complete"),
        TrialPoint(1, 2.0, "complete"),
        TrialPoint(2, 0.5, "pruned"),
        TrialPoint(4, None, "failed"),
        TrialPoint(5, nan, "failed"),
    ]
    figure = search_history(trials, RATING)
    (best,) = figure.axes[0].get_lines()
    assert list(best.get_ydata()) == [3.0, 2.0, 2.0, 2.0]
    assert best.get_xdata()[-1] == 5
    assert texts(figure) == ["best so far", "complete", "pruned (last value)", "failed or no value"]


DEGENERATE = {
    "one epoch": lambda: learning_curve({"train_losses": [0.5], "val_losses": [0.6]}, best_epoch=0),
    "no epoch": lambda: learning_curve({"train_losses": []}),
    "no series": lambda: learning_curve({}),
    "NaN epochs": lambda: learning_curve({"train_losses": [nan, math.inf], "val_losses": [nan, 1.0]}),
    "many series": lambda: learning_curve({f"s{i}": [i, i + 1] for i in range(9)}),
    "one base": lambda: base_weights(np.ones((5, 1)), ["a base with a very long name that goes on and on"]),
    "one row": lambda: base_weights(np.array([[0.2, 0.8]]), ["a", "b"]),
    "no rows": lambda: base_weights(np.empty((0, 2)), ["a", "b"]),
    "no bases": lambda: base_weights(np.empty((0, 0)), []),
    "a base of NaN": lambda: base_weights(np.array([[0.2, nan], [0.3, nan]]), ["a", "b"]),
    "no models": lambda: model_comparison({}, RATING, domain="x"),
    "one model": lambda: model_comparison({"metarec": 0.9}, RATING, domain="x"),
    "NaN models": lambda: model_comparison({"metarec": nan}, RATING, domain="x"),
    "perfect": lambda: model_comparison({"metarec": 0.0, "best-single": 0.0}, RATING, domain="x"),
    "no front": lambda: pareto_front([], [], RATING),
    "a front of one": lambda: pareto_front([FrontLine(0, 0.3, 1e-5)], [FrontLine(0, 0.3, 1e-5)], RATING),
    "no trials": lambda: search_history([], RATING),
    "one trial": lambda: search_history([TrialPoint(7, 0.3, "complete")], RATING),
    "all failed": lambda: search_history([TrialPoint(0, None, "failed"), TrialPoint(1, math.inf, "failed")], RATING),
    "all pruned": lambda: search_history([TrialPoint(0, 0.3, "pruned")], RATING),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_numbers_give_a_picture_of_the_same_width(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    png = BytesIO()
    figure.savefig(png, format="png")
    assert int.from_bytes(png.getvalue()[16:20], "big") == 800


@pytest.mark.parametrize("draw", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_a_picture_is_saved_as_matplotlib_saves_it(draw, tmp_path):
    draw().savefig(tmp_path / "usual.png")
    save(draw(), tmp_path / "ours.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "usual.png").read_bytes()


def test_pyplot_and_its_global_state_are_left_alone():
    program = (
        "import sys; from metarec.report.figures.figures import learning_curve; learning_curve({'loss': [1.0]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
