"""The comparison of lists: paired over users, corrected over all opponents of the report."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.ranking.report import compare_lists, markdown
from metarec.cells import CellResult
from metarec.evaluation.ranking import RANKING_METRICS

RUN = {
    "command": "python -m benchmarks.ranking",
    "date": "2026-11-27",
    "commit": "0",
    "versions": {},
    "machine": {"system": "", "cpu": "", "cores": 2, "memory_gib": 1},
    "duration_s": 1.0,
    "cells_s": 1.0,
    "seeds": 1,
    "tune_bases": 0,
    "split": "users",
}


def cell(values, fold=0):
    """A cell with one value of every metric for each user: model -> [U]."""
    rows = [
        {"user": f"u{fold}-{place}", "model": model, **dict.fromkeys(RANKING_METRICS, value)}
        for model, own in values.items()
        for place, value in enumerate(own)
    ]
    notes = {"settings": {}, "coverage": dict.fromkeys(values, 0.5), "proposed": 0.6, "bases": ["popularity"]}
    return CellResult({"users": pd.DataFrame(rows)}, notes)


def values(gain, users=60, seed=0):
    rng = np.random.default_rng(seed)
    stack = rng.uniform(0.2, 0.6, users)
    single = stack - 0.1
    return {
        "metarec": stack * (1 + gain) + rng.normal(0, 1e-3, users),
        "stack": stack,
        "best-single": single,
        "popularity": single / 2,
    }


def test_gains_are_of_the_means_over_the_users_of_all_folds():
    parts = [values(0.1, seed=seed) for seed in range(2)]
    (section,) = compare_lists({("shop", 5): [cell(own, fold) for fold, own in enumerate(parts)]}).values()
    ours, theirs = (np.concatenate([own[name] for own in parts]).mean() for name in ("metarec", "stack"))
    assert section.n_users == 120
    assert section.models["metarec"]["ndcg@10"] == pytest.approx(ours)
    assert section.comparisons["stack"]["difference"] == pytest.approx(100 * (ours / theirs - 1))
    assert section.comparisons["stack"]["verdict"] == "better"


def test_a_base_is_no_opponent_and_a_loss_is_written():
    (section,) = compare_lists({("shop", 5): [cell(values(-0.1))]}).values()
    assert section.best_opponent == "stack"
    assert section.comparisons["stack"]["verdict"] == "worse"
    text = markdown({("amazon_toys", 5): section}, RUN)
    assert "**worse**" in text


def test_p_values_are_corrected_over_all_sets():
    alone = compare_lists({("one", 5): [cell(values(0.01))]})["one", 5]
    among = compare_lists({(name, 5): [cell(values(0.01))] for name in ("one", "two", "three")})["one", 5]
    for name, own in alone.comparisons.items():
        assert among.comparisons[name]["p"] == own["p"]
        assert among.comparisons[name]["p_holm"] >= own["p_holm"]
    assert any(among.comparisons[name]["p_holm"] > own["p_holm"] for name, own in alone.comparisons.items())


def test_seeds_are_averaged_within_a_user():
    first, second = values(0.0), values(0.2)
    both = compare_lists({("shop", 5): [cell(first), cell(second)]})["shop", 5]
    assert both.n_users == 60
    mean = (first["metarec"].mean() + second["metarec"].mean()) / 2
    assert both.models["metarec"]["ndcg@10"] == pytest.approx(mean)
