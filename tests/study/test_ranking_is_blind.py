"""A study of ranking, whose test users' later items are replaced, chooses and recommends the same."""

import numpy as np
import pandas as pd
import pytest

from metarec.ratings import Domain, simulate_implicit_domains
from metarec.study.job import Job, run_study
from tests.support.studies import tiny_spec

SHOTS = 5
SPEC = tiny_spec(
    name="blind",
    task="ranking",
    trials=2,
    bases={"popularity": {}, "item-knn": {}, "next-item": {}, "ials": {"features": 4, "epochs": 2}},
    baselines=["best-single", "combsum", "greedy"],
    episodes={"shots": SHOTS, "folds": 2},
    ranking={"candidates": 10},
    training={"epochs": 2},
)


def chosen(domain, folder):
    """What validation users choose: the trials, the weights of the members, and the settings of the rankers."""
    result = run_study(SPEC, {"shop": domain}, Job(folder, "blind"))
    trials = [(trial.params, trial.values) for trial in result.ended]
    return trials, result.settings["shop"], pd.read_parquet(result.predictions)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The shop, and what a study of it chooses."""
    shop = simulate_implicit_domains(0, num_users=60, num_items=150)["shop"]
    return shop, chosen(shop, tmp_path_factory.mktemp("study"))


def test_later_items_of_test_users_move_no_choice_and_no_list(found, tmp_path_factory):
    """Planted, one by one: early stopping and the value of a trial on test users; the weights of the members on test
    users; rankers that are tuned on test users; bases with test users in their co-occurrences.
    """
    shop, (trials, settings, lists) = found
    rng = np.random.default_rng(0)
    events = shop.ratings.sort_values("timestamp", kind="stable").reset_index(drop=True)
    for user in lists["user"].unique():
        rows = events.index[events["user"] == user]
        free = sorted(set(events["item"]) - set(events.loc[rows[:SHOTS], "item"]))
        events.loc[rows[SHOTS:], "item"] = rng.permutation(free)[: len(rows) - SHOTS]
    changed = Domain("shop", events, items=shop.items, feedback="implicit")
    assert changed.fingerprint() != shop.fingerprint()
    again_trials, again_settings, again_lists = chosen(changed, tmp_path_factory.mktemp("study"))
    assert again_trials == trials
    assert again_settings == settings
    pd.testing.assert_frame_equal(again_lists, lists)
