"""Each ranking base against its formula."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from metarec.bases.ranking import Histories, ease, fit_ranking_base
from metarec.bases.ranking._neighbours import strongest, strongest_shared
from tests.support.events import EventDomain, events_of_groups, histories_of


@pytest.fixture(scope="module")
def world():
    return events_of_groups(1, num_users=40, num_items=30, length=8)


@pytest.fixture(scope="module")
def some(world):
    return histories_of(world, world.ratings[world.ratings["user"] < "u006"], shots=4)


def table_of(domain):
    """[U, I] 1 for an event."""
    return domain.ratings.assign(one=1.0).pivot_table("one", "user", "item", fill_value=0.0).to_numpy()


def dense(histories, num_items):
    return histories.rows(np.ones(len(histories.items)), num_items).toarray()


def events(*rows):
    return EventDomain(pd.DataFrame(rows, columns=["user", "item", "timestamp"]).assign(weight=1.0))


def test_popularity_halves_with_age():
    day = 86_400
    domain = events(("a", "x", 0), ("b", "x", 0), ("a", "y", 10 * day), ("b", "z", 5 * day))
    nobody = Histories(np.array([0]), np.zeros(0, dtype=int), np.zeros(0, dtype=np.float32))
    plain = fit_ranking_base("popularity", domain, {}).score(nobody)[0]
    np.testing.assert_allclose(np.expm1(plain), [2, 1, 1], rtol=1e-6)
    recent = fit_ranking_base("popularity", domain, {"half_life": 5}).score(nobody)[0]
    np.testing.assert_allclose(np.expm1(recent), [0.5, 1, 0.5], rtol=1e-6)


def test_item_knn_is_the_sum_of_shrunk_cosines(world, some):
    table = table_of(world)
    norms = np.linalg.norm(table, axis=0)
    cosines = table.T @ table / (np.outer(norms, norms) + 5)
    np.fill_diagonal(cosines, 0)
    scores = fit_ranking_base("item-knn", world, {"shrinkage": 5.0}).score(some)
    np.testing.assert_allclose(scores, dense(some, 30) @ cosines, rtol=1e-5, atol=1e-6)


def test_user_knn_adds_up_the_events_of_similar_users(world, some):
    table, rows = table_of(world), dense(some, 30)
    norms = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(table, axis=1))
    expected = rows @ table.T / (norms + 5) @ table
    scores = fit_ranking_base("user-knn", world, {"shrinkage": 5.0, "neighbours": 40}).score(some)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_users", [12, 40])
def test_ease_is_the_closed_form_with_fewer_users_or_fewer_items(world, some, num_users, monkeypatch):
    # Several blocks, and the last one is smaller.
    monkeypatch.setattr(ease, "AT_ONCE", 7)
    users = sorted(world.ratings["user"].unique())[-num_users:]
    few = EventDomain(world.ratings[world.ratings["user"].isin(users)])
    histories = histories_of(few, world.ratings[world.ratings["user"] < "u006"], shots=4)
    table = table_of(few)
    inverse = np.linalg.inv(table.T @ table + 7 * np.eye(table.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    base = fit_ranking_base("ease", few, {"penalty": 7.0})
    assert (base.state()["events"].shape[0] > 0) == (num_users < table.shape[1])
    np.testing.assert_allclose(base.score(histories), dense(histories, table.shape[1]) @ weights, atol=1e-5)


def test_ease_models_the_most_popular_items_where_there_are_too_many(world, some):
    scores = fit_ranking_base("ease", world, {"max_items": 20}).score(some)
    counts = table_of(world).sum(axis=0)
    rest = np.argsort(-counts, kind="stable")[20:]
    assert (scores[:, rest] == scores.min(axis=1, keepdims=True)).all()
    assert len(np.unique(scores[0])) > 15


def test_ease_needs_the_memory_of_one_table(monkeypatch):
    monkeypatch.setattr(ease, "AT_ONCE", 100)
    domain = events_of_groups(2, num_users=1000, num_items=800, length=8)
    tracemalloc.start()
    try:
        inverse = fit_ranking_base("ease", domain, {}).state()["inverse"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert inverse.shape == (800, 800)
    # The rest are blocks, and the events.
    assert peak < 1.9 * inverse.nbytes


def test_ials_folds_in_as_lenskit_does(world, some):
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import ItemList

    options = {"features": 8, "regularization": 3.0, "confidence": 5.0, "weights": "log"}
    base = fit_ranking_base("ials", world, options)
    vectors = base.state()["vectors"]
    scorer = ImplicitMFScorer(embedding_size=8, regularization=3.0, weight=5.0, use_ratings=True)
    scorer.items = world_vocabulary(len(vectors))
    scorer.item_embeddings = vectors
    scorer._OtOr = vectors.T @ vectors + 3.0 * np.eye(8, dtype=np.float32)
    own = some.items[: some.lengths[0]]
    history = ItemList(item_ids=own, rating=np.log2(1 + some.weights[: len(own)]), vocabulary=scorer.items)
    user, _ = scorer.new_user_embedding(None, history)
    np.testing.assert_allclose(base.score(some)[0], vectors @ user, rtol=1e-3, atol=1e-4)


def world_vocabulary(size):
    from lenskit.data import Vocabulary

    return Vocabulary(np.arange(size), name="item")


def test_next_item_counts_what_follows():
    domain = events(("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 5), ("b", "y", 9))
    base = fit_ranking_base("next-item", domain, {"decay": 0.5, "shrinkage": 1.0, "window": 2})
    root = np.sqrt(2)
    expected = [[0, 2 / (2 + 1), 0.5 / (root + 1)], [0, 0, 1 / (root + 1)], [0, 0, 0]]
    np.testing.assert_allclose(base.state()["followers"].toarray(), expected, rtol=1e-6)
    # The latest item of the history counts most.
    scores = base.score(Histories(np.array([2]), np.array([0, 1]), np.ones(2, dtype=np.float32)))
    np.testing.assert_allclose(scores[0], 0.5 * np.array(expected[0]) + expected[1], rtol=1e-6)
    near = fit_ranking_base("next-item", domain, {"window": 1}).state()["followers"].toarray()
    assert near[0, 2] == 0 < near[0, 1]


def test_next_item_takes_no_order_among_events_of_one_time():
    domain = events(("a", "x", 1), ("a", "y", 1), ("a", "z", 2))
    followers = fit_ranking_base("next-item", domain, {"decay": 0.5}).state()["followers"].toarray()
    assert followers[0, 1] == followers[1, 0] == followers[0, 2] == followers[1, 2] > 0
    assert followers[2].sum() == 0


def test_content_is_the_cosine_with_the_mean_of_the_history():
    rows = [("a", name, 1) for name in ("w", "x", "y", "z")]
    items = pd.DataFrame({"item": ["x", "y", "z", "unused"], "genres": ["s|t", "s|t", "u|v", "s|u"]})
    domain = EventDomain(events(*rows).ratings, items)
    scores = fit_ranking_base("content", domain, {}).score(
        Histories(np.array([1, 1]), np.array([1, 0]), np.ones(2, dtype=np.float32))
    )
    np.testing.assert_allclose(scores[0], [0, 1, 1, 0], atol=1e-6)
    # An item without features tells nothing.
    assert np.isnan(scores[1]).all()


def test_the_strongest_entries_of_a_row_stay_and_ties_share_the_last_places():
    table = sparse.csr_array(np.array([[3.0, 1, 2, 2], [0, 5, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(strongest(table, 2).toarray(), [[3, 0, 2, 0], [0, 5, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(strongest_shared(table, 2).toarray(), [[3, 0, 1, 1], [0, 5, 0, 0], [0, 0, 0, 0]])
