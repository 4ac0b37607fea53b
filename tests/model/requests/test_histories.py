"""A user's history as a table, as a mapping and as pairs: the same user."""

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError

RATINGS = {"m001": 5, "m002": 2, "m003": 4}
TABLE = pd.DataFrame({"item": list(RATINGS), "rating": [float(rating) for rating in RATINGS.values()]})


@pytest.mark.parametrize(
    "history",
    [
        RATINGS,
        list(RATINGS.items()),
        [list(pair) for pair in RATINGS.items()],
        iter(RATINGS.items()),
        {item: np.int64(rating) for item, rating in RATINGS.items()},
        TABLE.astype({"rating": int}),
    ],
)
def test_every_form_of_ratings_is_the_same_user(recommender, history):
    expected = recommender.adapt(TABLE).recommend(5)
    pd.testing.assert_frame_equal(recommender.adapt(history).recommend(5), expected)


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        (["m001", "m002"], "must be an item and its rating but got 'm001'"),
        ([("m001", 4, 3)], "must be an item and its rating"),
        ({"m001": "4"}, "which is a number, but got '4'"),
        ({"m001": True}, "which is a number, but got True"),
        ({"m001": 99}, "99"),
        ([("m001", 4), ("m001", 3)], "m001"),
    ],
)
def test_a_wrong_history_of_ratings_is_refused(recommender, history, rule):
    with pytest.raises(InputError, match=rule):
        recommender.adapt(history)


def test_an_empty_history_may_have_any_form(recommender, empty_history):
    expected = recommender.adapt(empty_history).recommend(3)
    for history in ({}, []):
        pd.testing.assert_frame_equal(recommender.adapt(history).recommend(3), expected)


def test_every_form_of_events_is_the_same_user(lists):
    items = lists.items[:3].tolist()
    expected = lists.adapt(pd.DataFrame({"item": items})).recommend(5)
    for history in (items, dict.fromkeys(items, 1), [(item, 1.0) for item in items], iter(items)):
        pd.testing.assert_frame_equal(lists.adapt(history).recommend(5), expected)
    heavy = lists.adapt({item: weight for weight, item in enumerate(items, start=1)})
    weighted = pd.DataFrame({"item": items, "weight": [1, 2, 3]})
    pd.testing.assert_frame_equal(heavy.recommend(5), lists.adapt(weighted).recommend(5))
    with pytest.raises(InputError, match="must be an item and its weight but got"):
        lists.adapt([(items[0], 1), items[1]])
