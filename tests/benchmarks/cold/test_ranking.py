"""nDCG against a sum by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.cold.ranking import ndcg_by_user


def frame(ratings, user="a", **models):
    items = [f"i{place}" for place in range(len(ratings))]
    return pd.DataFrame({"domain": "d", "user": user, "item": items, "rating": ratings, **models})


def dcg(gains):
    return sum(gain / max(math.log2(rank), 1) for rank, gain in enumerate(gains, start=1))


def test_by_hand():
    rows = frame([5.0, 1.0, 3.0], right=[0.9, 0.1, 0.5], wrong=[0.1, 0.9, 0.5])
    table = ndcg_by_user(rows, lowest=1.0)
    # LensKit's discount is log2 of the rank from the second on (Järvelin and Kekäläinen), so the first two weigh 1.
    assert table.loc["a", "right"] == pytest.approx(1.0)
    assert table.loc["a", "wrong"] == pytest.approx(dcg([1, 3, 5]) / dcg([5, 3, 1]))


def test_only_the_first_n_count():
    ratings = [float(rating) for rating in range(1, 13)]
    rows = frame(ratings, wrong=[-rating for rating in ratings])
    expected = dcg(range(1, 11)) / dcg(range(12, 2, -1))
    assert ndcg_by_user(rows, lowest=1.0).loc["a", "wrong"] == pytest.approx(expected)


def test_a_scale_below_zero_is_moved_up():
    rows = frame([-10.0, -9.0, 10.0], wrong=[0.9, 0.8, 0.1])
    assert ndcg_by_user(rows, lowest=-10.0).loc["a", "wrong"] == pytest.approx(dcg([0, 1, 20]) / dcg([20, 1, 0]))


def test_users_with_nothing_to_gain_have_none():
    rows = pd.concat([frame([0.0, 0.0], "b", m=[1.0, 2.0]), frame([1.0, 2.0], "a", m=[1.0, 2.0])])
    table = ndcg_by_user(rows, lowest=0.0)
    assert list(table.index) == ["b", "a"]
    assert np.isnan(table.loc["b", "m"])
    assert table.loc["a", "m"] == pytest.approx(1.0)


def test_ties_are_drawn_alike_for_all_models_and_not_by_place():
    rows = pd.concat([frame([5.0, 1.0, 3.0, 2.0], f"u{user}", one=0.5, two=2.0) for user in range(40)])
    table = ndcg_by_user(rows, lowest=1.0)
    assert (table["one"] == table["two"]).all()
    assert table["one"].nunique() > 5
