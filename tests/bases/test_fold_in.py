"""Folding in many users at once, against LensKit's own scorers, one query at a time."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenskit.data import ItemList, RecQuery

from metarec.bases import HistoryQuery, QueryBatch, _queries, make_base
from metarec.bases._fold_in import blocks, nearest_means, ridge_vectors
from metarec.bases.lenskit import STARS
from metarec.ratings import Domain, RatingScale, read_domain

NAMES = ["bias", "item-knn", "user-knn", "biased-mf"]


def lenskit_predictions(base, query):
    """The trained scorer's predictions for one query, without unknown items, which make it panic."""
    scores = np.full(len(query.items), np.nan)
    requested, seen = base._items.get_indexer(query.items) >= 0, base._items.get_indexer(query.history_items) >= 0
    if not requested.any() or not (seen.any() or base.name == "bias"):
        return scores
    user = RecQuery()
    if seen.any():
        stars = STARS * base._scale.to_unit(query.history_ratings[seen])
        user = RecQuery(history_items=ItemList(item_ids=query.history_items[seen], rating=stars))
    answer = base._scorer(user, ItemList(item_ids=query.items[requested])).scores()
    scores[requested] = base._scale.to_ratings(np.asarray(answer, dtype=np.float64) / STARS)
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
    # A table holds an item once, and so does a history that is cut from it.
    history = draw(st.lists(ids, max_size=draw(st.sampled_from([0, 1, 4, 12, 60])), unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ratings = rng.uniform(1, 5, len(history)) if draw(st.booleans()) else rng.integers(1, 6, len(history)) * 1.0
    requested = draw(st.lists(ids, max_size=8))
    return HistoryQuery(np.array(history, dtype=object), ratings, np.array(requested, dtype=object))


@settings(max_examples=25, deadline=None)
@given(st.lists(query(), max_size=6))
def test_many_queries_equal_single_queries_of_lenskit(base, queries):
    queries = [*queries, *queries[:1]]
    answers = base.predict_queries(queries)
    assert len(answers) == len(queries)
    for requested, answer in zip(queries, answers, strict=True):
        np.testing.assert_allclose(answer, lenskit_predictions(base, requested), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_a_chunk_does_not_matter(name, monkeypatch):
    base = make_base(name).fit(DOMAINS["dense"])
    ids = np.array([f"i{i}" for i in range(40)], dtype=object)
    queries = [HistoryQuery(ids[:n], np.linspace(1, 5, n), ids[n : n + 3]) for n in range(20)]
    whole = base.predict_queries(queries)
    monkeypatch.setattr(_queries, "CHUNK", 17)
    np.testing.assert_allclose(np.concatenate(base.predict_queries(queries)), np.concatenate(whole), rtol=1e-6)
    assert base.predict_queries([]) == []


def test_bases_with_the_same_queries_look_ids_up_once():
    """And say what they say alone."""
    domain = DOMAINS["sparse"]
    bases = [make_base(name).fit(domain) for name in NAMES]
    bases.append(make_base("autoencoder", epochs=1).fit(domain))
    assert all(base._items is domain.item_index for base in bases)
    ids = np.array([*domain.item_index[:30], "new"], dtype=object)
    queries = [HistoryQuery(ids[:n], np.linspace(1, 5, n), ids[n:]) for n in range(4)]
    batch = QueryBatch(queries)
    for base in bases:
        for together, alone in zip(base.predict_queries(batch), base.predict_queries(queries), strict=True):
            np.testing.assert_array_equal(together, alone)
    (flat,) = batch.chunks
    assert len(flat._codes) == 1


def test_ties_for_the_last_places_share_them():
    weights = np.array([[0.5, 0.9, 0.5, 0.0, 0.5], [0.5, 0.9, 0.4, 0.2, 0.0]], dtype=np.float32)
    values = np.array([[1.0, 2.0, 3.0, 9.0, 8.0], [1.0, 2.0, 9.0, 9.0, 9.0]])
    shared = (0.9 * 2 + 0.5 * (1 + 3 + 8) / 3) / 1.4
    means, totals = nearest_means(weights, values, most=2, least=1)
    np.testing.assert_allclose(means, [shared, 2.3 / 1.4], rtol=1e-6)
    np.testing.assert_allclose(totals, [1.4, 1.4], rtol=1e-6)
    mirrored, _ = nearest_means(weights[:, ::-1].copy(), values[:, ::-1], most=2, least=1)
    np.testing.assert_allclose(mirrored[0], shared)
    means, totals = nearest_means(weights, values, most=2, least=3)
    assert np.isnan(means).all()
    assert not totals.any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 40))
def test_blocks_hold_every_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, dtype=np.int64)
    found = list(blocks(lengths, budget))
    assert sorted(np.concatenate([[], *found])) == list(np.flatnonzero(lengths))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= budget for rows in found)


def test_ridge_vectors_are_the_normal_equations_for_short_and_long_histories():
    rng = np.random.default_rng(1)
    table, lengths, penalties = rng.normal(size=(20, 4)), np.array([2, 0, 15, 4]), np.array([0.5, 0.0, 2.0, 1.0])
    codes, targets = rng.integers(0, 20, lengths.sum()), rng.normal(size=lengths.sum())
    vectors = ridge_vectors(table, codes, targets, lengths, penalties)
    for user, stop in enumerate(np.cumsum(lengths)):
        rated = slice(stop - lengths[user], stop)
        items = table[codes[rated]]
        gram = items.T @ items + (penalties[user] or 1) * np.eye(4)
        np.testing.assert_allclose(vectors[user], np.linalg.solve(gram, items.T @ targets[rated]), atol=1e-12)


@pytest.mark.skipif("METAREC_DATA" not in os.environ, reason="METAREC_DATA does not name a folder of real ratings")
@pytest.mark.parametrize("name", NAMES)
def test_equals_lenskit_on_real_ratings(name):
    domain = read_domain(Path(os.environ["METAREC_DATA"]) / "ml_latest_small")
    users = sorted(domain.ratings["user"].unique())[::3][:200]
    base = make_base(name).fit(domain.without(users))
    queries = []
    for _, rows in domain.restrict(users).ratings.groupby("user"):
        rows = rows.sample(frac=1, random_state=0)
        items, ratings = rows["item"].to_numpy(dtype=object), rows["rating"].to_numpy()
        # Up to 40 items: of longer histories many items tie for the last place among the neighbours.
        queries += [HistoryQuery(items[:n], ratings[:n], items[40:80]) for n in (0, 1, 5, 10, 40)]
    for query, answer in zip(queries, base.predict_queries(queries), strict=True):
        np.testing.assert_allclose(answer, lenskit_predictions(base, query), rtol=0, atol=1e-5)
