"""The LensKit adapters against LensKit itself."""

import numpy as np
import pandas as pd
import pytest
from lenskit.basic import BiasScorer
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer, UserKNNScorer

from metarec.bases import HistoryQuery, answer_queries, make_base
from metarec.ratings import Domain, RatingScale


@pytest.fixture(scope="module")
def domain():
    rng = np.random.default_rng(4)
    rows = [
        (f"u{user}", f"i{item}", float(rng.integers(1, 6)))
        for user in range(40)
        for item in range(30)
        if rng.random() < 0.5
    ]
    return Domain("tiny", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("bias", BiasScorer(damping=5.0)),
        ("item-knn", ItemKNNScorer(max_nbrs=40, min_nbrs=2)),
        ("user-knn", UserKNNScorer(max_nbrs=40, min_nbrs=1)),
    ],
)
def test_predictions_equal_those_of_lenskit(name, scorer, domain):
    """On 1..5 the adapter's stars are the ratings less one, which moves these models by one and no more."""
    scorer.train(from_interactions_df(domain.ratings.rename(columns={"user": "user_id", "item": "item_id"})))
    history = pd.DataFrame({"item": ["i1", "i4", "i9"], "rating": [5.0, 2.0, 3.0]})
    requested = np.array(["i0", "i2", "i20"], dtype=object)
    query = RecQuery(history_items=ItemList(item_ids=history["item"], rating=history["rating"].to_numpy()))
    direct = scorer(query, ItemList(item_ids=requested)).scores()
    np.testing.assert_allclose(make_base(name).fit(domain).predict(history, requested), direct, rtol=1e-4)


TABLE = np.array([[5, 4, 1, 2], [4, 5, 2, 1], [1, 2, 5, 4], [2, 1, 4, 3.0], [5, 3, 1, 4]])


@pytest.fixture(scope="module")
def whole():
    """Five users who rated all four items."""
    rows = [(f"u{u}", f"i{i}", TABLE[u, i]) for u in range(5) for i in range(4)]
    return Domain("whole", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))


def cosines(rows, others):
    return rows @ others.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(others, axis=1))


def test_evidence_of_item_knn_is_the_sum_of_the_neighbours_similarities(whole):
    centred = (TABLE - TABLE.mean(axis=0)).T
    similarities = cosines(centred[[0]], centred[[1, 2, 3]])[0]
    positive = similarities[similarities > 0]
    assert len(positive) == 1
    query = HistoryQuery(np.array(["i1", "i2", "i3"], object), np.array([5.0, 1.0, 2.0]), np.array(["i0"], object))
    alone = make_base("item-knn", min_neighbours=1).fit(whole)
    np.testing.assert_allclose(answer_queries(alone, [query])[0].evidence, positive, rtol=1e-5)
    few = answer_queries(make_base("item-knn", min_neighbours=2).fit(whole), [query])[0]
    assert np.isnan(few.predictions[0])
    assert few.evidence[0] == 0


def test_evidence_of_user_knn_is_the_sum_of_the_nearest_users_similarities(whole):
    history = np.array([5.0, 3.0, 1.0])
    centred = TABLE - TABLE.mean(axis=1, keepdims=True)
    mine = np.append(history - history.mean(), 0.0)
    # A user's similarity to a history is the product of the user's vector of length 1 with the history as it is.
    similarities = centred @ mine / np.linalg.norm(centred, axis=1)
    nearest = np.sort(similarities)[-2:]
    query = HistoryQuery(np.array(["i0", "i1", "i2"], object), history, np.array(["i3"], object))
    answer = answer_queries(make_base("user-knn", neighbours=2).fit(whole), [query])[0]
    np.testing.assert_allclose(answer.evidence, [nearest.sum()], rtol=1e-5)


def test_item_neighbours_of_a_handful_of_users_are_none_and_no_warning(recwarn):
    """No item has two ratings that differ: no two items are alike, and the base cannot say."""
    ratings = pd.DataFrame({"user": ["a", "a", "b"], "item": ["x", "y", "z"], "rating": [1.0, 4.0, 3.0]})
    base = make_base("item-knn").fit(Domain("few", ratings, RatingScale(1, 5)))
    predictions = base.predict(ratings.iloc[:1], np.array(["y", "z", "unknown"], dtype=object))
    assert np.isnan(predictions).all()
    assert not [warning for warning in recwarn if "centering" in str(warning.message)]
