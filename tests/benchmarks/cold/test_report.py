"""The report: a loss is shown as a loss."""

import numpy as np
import pandas as pd

from benchmarks.cold.picture import gains_picture
from benchmarks.cold.report import markdown, sections_json
from benchmarks.common.statistics import SetPredictions, compare

RUN = {
    "command": "python -m benchmarks.cold",
    "date": "2026-01-01 00:00 UTC",
    "commit": "abc",
    "versions": {"python": "3.11"},
    "machine": {"cpu": "a cpu", "cores": 2, "memory_gib": 8.0, "system": "Linux"},
    "duration_s": 30.0,
    "cells_s": 7200.0,
    "seeds": 1,
}


def sections():
    """metarec is ahead of both baselines on `won`, and behind one of them on `lost`."""
    rng = np.random.default_rng(0)
    result = {}
    for name, factor in (("won", 1.2), ("lost", 0.8)):
        users = np.repeat([f"u{user:03d}" for user in range(100)], 8)
        rows = pd.DataFrame({"domain": name, "user": users, "item": "i", "rating": 3.0})
        noise = rng.normal(0, 1, len(rows))
        rows["metarec 0"], rows["mean"], rows["ridge"] = 3 + noise, 3 + noise * 1.5, 3 + noise * factor
        rows["alone"] = 3 + 2 * noise
        ndcg = pd.DataFrame(
            {"metarec 0": 0.8, "mean": 0.7, "ridge": 0.8 / factor, "alone": 0.5},
            index=pd.Index(rows["user"].unique(), name="user"),
        )
        result[name, 5] = SetPredictions(rows, ndcg, 4.0, ["metarec 0"], ["mean", "ridge"], ["alone"])
    return compare(result)


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_loss_is_written_as_a_loss():
    text = markdown(sections(), RUN, {"won": "scale 1..5", "lost": "scale 1..5"})
    (won,), (lost,) = lines_of(text, "| won | 5 |"), lines_of(text, "| lost | 5 |")
    # The hardest opponent: where metarec wins it is the better of the two, where it loses the one that beats it.
    assert "| ridge | 1." in won
    assert "| +16.67 % [+16.67, +16.67] |" in won
    assert "| **better** |" in won
    assert "| ridge | 0." in lost
    assert "| −25.00 % [−25.00, −25.00] |" in lost
    assert lost.count("**worse**") == 2
    # No best-single here; the mean is beaten in both.
    assert "| – | +33.33 %" in lost
    assert (
        "lower in 1 and not lower in 1; the verdict is better in 1, worse in 1, mixed in 0, no difference in 0." in text
    )


def test_the_whole_table_is_sorted_by_rmse_and_a_base_is_not_a_baseline():
    text = markdown(sections(), RUN, {"won": "scale 1..5", "lost": "scale 1..5"})
    table = text.partition("## lost")[2]
    order = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:6]
    assert order == ["ridge", "**metarec**", "mean", "alone (alone)"]
    assert "120 min" in text or "2.0 h" in text


def test_all_numbers_are_in_the_json():
    made = sections()
    content = sections_json(made)["lost"]["5"]
    assert content["best_baseline"] == "ridge"
    against = content["comparisons"]["ridge"]["rmse"]
    assert against["verdict"] == "worse"
    assert against["difference"] == made["lost", 5].rmse["ridge"].difference
    assert content["models"]["alone"]["kind"] == "base"


def test_the_picture_shows_gains_left_of_zero_too():
    figure = gains_picture(sections())
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert set(panels) == {"won", "lost"}
    for axes in panels.values():
        low, high = axes.get_xlim()
        assert low < 0 < high
    names = [label.get_text() for label in panels["won"].get_yticklabels()]
    assert names == ["mean", "ridge"]
    marks = [line.get_xdata()[0] for line in panels["lost"].lines if line.get_marker() != "None"]
    assert min(mark for mark in marks if np.isfinite(mark)) < -24
