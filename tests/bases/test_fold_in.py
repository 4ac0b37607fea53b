"""Folding in many users at once, against LensKit's own scorers asked one by one."""


import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenskit.data import ItemList, RecQuery

from metarec.bases import HistoryQuery, make_base
from metarec.bases.lenskit import STARS
from metarec.ratings import Domain, RatingScale

NAMES = ["bias", "item-knn", "user-knn", "biased-mf"]


def asked_of_lenskit(base, query):
    """The trained scorer's answer to one query; it is told of known items only, as an unknown one makes it panic."""
    scores = np.full(len(query.items), np.nan)
    asked, seen = base._items.get_indexer(query.items) >= 0, base._items.get_indexer(query.history_items) >= 0
    if not asked.any() or not (seen.any() or base.name == "bias"):
        return scores
    user = RecQuery()
    if seen.any():
        stars = STARS * base._scale.to_unit(query.history_ratings[seen])
        user = RecQuery(history_items=ItemList(item_ids=query.history_items[seen], rating=stars))
    answer = base._scorer(user, ItemList(item_ids=query.items[asked])).scores()
    scores[asked] = base._scale.to_ratings(np.asarray(answer, dtype=np.float64) / STARS)
    return scores


def simulated(num_users, num_items, density, *, step):
    rng = np.random.default_rng(8)
    taste, kind = rng.normal(size=(num_users, 3)), rng.normal(size=(num_items, 3))
    ratings = (3 + taste @ kind.T / 2 + rng.normal(size=(num_users, num_items)) / 2).clip(1, 5)
    if step:
        ratings = ratings.round()
    users, items = np.nonzero(rng.random(ratings.shape) < density)
    table = pd.DataFrame(
        {"user": [f"u{u}" for u in users], "item": [f"i{i}" for i in items], "rating": ratings[users, items]}
    )
    return Domain("simulated", table, RatingScale(1, 5))


DOMAINS = {
    "dense": simulated(90, 40, 0.7, step=False),
    "sparse": simulated(120, 400, 0.05, step=True),
}
OPTIONS = {
    "bias": [{}, {"damping": 0.0}],
    "item-knn": [{}, {"neighbours": 3, "min_neighbours": 1}, {"neighbours": 2, "min_neighbours": 3}],
    "user-knn": [{}, {"neighbours": 5, "min_neighbours": 3}],
    "biased-mf": [{}, {"features": 5, "regularization": 0.05}],
}


@pytest.fixture(scope="module", params=[(n, d, o) for n in NAMES for d in DOMAINS for o in range(len(OPTIONS[n]))])
def base(request):
    name, domain, option = request.param
    return make_base(name, **OPTIONS[name][option]).fit(DOMAINS[domain])


@st.composite
def query(draw):
    ids = st.integers(0, 60).map(lambda n: f"i{n * 7 % 61}")
    history = draw(st.lists(ids, max_size=draw(st.sampled_from([0, 1, 4, 12, 60])), unique=draw(st.booleans())))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ratings = rng.uniform(1, 5, len(history)) if draw(st.booleans()) else rng.integers(1, 6, len(history)) * 1.0
    asked = draw(st.lists(ids, max_size=8))
    return HistoryQuery(np.array(history, dtype=object), ratings, np.array(asked, dtype=object))


@settings(max_examples=25, deadline=None)
@given(st.lists(query(), max_size=6))
def test_many_at_once_are_what_lenskit_says_one_by_one(base, queries):
    queries = [*queries, *queries[:1]]
    answers = base.predict_queries(queries)
    assert len(answers) == len(queries)
    for asked, answer in zip(queries, answers, strict=True):
        np.testing.assert_allclose(answer, asked_of_lenskit(base, asked), rtol=0, atol=2e-5)
