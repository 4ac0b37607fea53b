"""The similarity of domains and its parts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.fusion import LinearFusion
from metarec.meta import make_engine
from metarec.ratings import Domain, RatingScale
from metarec.transfer import domain_similarity


def rated(ratings, low=1, high=5, users=None, name="d"):
    users = users or [f"u{place}" for place in range(len(ratings))]
    table = {
        "user": users,
        "item": [f"i{place}" for place in range(len(ratings))],
        "rating": np.asarray(ratings, float),
    }
    return Domain(name, pd.DataFrame(table), RatingScale(low, high))


def learner_for(episodes):
    rows = episodes.train.batch.query
    shape = (*rows.algorithm_features.shape[-2:], rows.context.shape[-1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LinearFusion.for_episodes(*shape)
    return make_engine("batched", network, inner_lr=0.05, inner_steps=1)


def test_a_domain_has_similarity_1_with_itself(worlds):
    for episodes in worlds.values():
        found = domain_similarity(episodes, episodes, learner=learner_for(episodes))
        assert set(found.parts) == {"ratings", "users", "base_errors", "error_correlations", "features", "gradients"}
        assert found.score == pytest.approx(1)
        assert all(part == pytest.approx(1) for part in found.parts.values())


def test_it_is_symmetric_and_in_0_to_1(worlds):
    movies, books = worlds["movies"], worlds["books"]
    learner = learner_for(movies)
    there, back = domain_similarity(movies, books, learner=learner), domain_similarity(books, movies, learner=learner)
    assert there.score == pytest.approx(back.score)
    assert there.parts == pytest.approx(back.parts)
    assert all(0 <= part <= 1 for part in there.parts.values())
    assert there.score == pytest.approx(np.mean(list(there.parts.values())))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=30),
    st.lists(st.integers(-10, 10), min_size=1, max_size=30),
)
def test_scores_of_any_two_rating_tables_are_symmetric_and_valid(first, second):
    a, b = rated(first), rated(second, -10, 10)
    there, back = domain_similarity(a, b), domain_similarity(b, a)
    assert 0 <= there.score <= 1
    assert there.parts == pytest.approx(back.parts)
    assert domain_similarity(a, a).score == domain_similarity(b, b).score == 1


def test_ratings_are_compared_on_the_unit_scale():
    """Each domain binned by its own range would make the first two the same and the last two different."""
    low, high, wide = rated([1, 2, 1, 2]), rated([4, 5, 4, 5]), rated([2.5, 7.5], 0, 10)
    assert domain_similarity(low, high).parts["ratings"] == pytest.approx(0)
    assert domain_similarity(rated([2, 4]), wide).parts["ratings"] == pytest.approx(1)


def test_users_count_where_there_are_shared_ones():
    a, b = rated([3, 4, 3], users=["x", "y", "z"]), rated([3, 4], users=["x", "w"])
    assert domain_similarity(a, b).parts["users"] == 0.5
    assert "users" not in domain_similarity(a, rated([3], users=["q"])).parts


def test_an_opposite_gradient_has_similarity_0(worlds):
    """Targets are mirrored at the predictions, so that the gradient changes its sign."""
    movies = worlds["movies"]
    learner = make_engine("batched", learner_for(movies).network, inner_lr=0.1, inner_steps=0)
    query = movies.train.batch.query
    with torch.no_grad():
        predictions = learner.network.fuse(query).prediction
    mirrored = movies.train.batch._replace(query=query._replace(targets=2 * predictions - query.targets))
    other = replace(movies, train=replace(movies.train, batch=mirrored))
    assert domain_similarity(movies, other, learner=learner).parts["gradients"] == pytest.approx(0, abs=1e-6)


def test_parts_without_shared_data_are_left_out(worlds):
    movies, books = worlds["movies"], worlds["books"]
    others = replace(books, train=replace(books.train, base_names=("bias", "other", "another")))
    found = domain_similarity(movies, others)
    assert "base_errors" not in found.parts
    assert "features" in found.parts
    nothing = replace(books, standards=None)
    assert "features" not in domain_similarity(movies, nothing).parts
    assert set(domain_similarity(movies, rated([3, 4])).parts) == {"ratings"}


def test_another_ranking_of_bases_lowers_the_similarity(worlds):
    movies = worlds["movies"]
    query = movies.train.batch.query
    errors = [float((query.predictions[..., place] - query.targets)[query.mask].square().mean()) for place in range(3)]
    order = np.argsort(errors)
    swapped = query.predictions.clone()
    swapped[..., [order[0], order[-1]]] = query.predictions[..., [order[-1], order[0]]]
    batch = movies.train.batch._replace(query=query._replace(predictions=swapped))
    other = replace(movies, train=replace(movies.train, batch=batch))
    assert domain_similarity(movies, other).parts["base_errors"] == pytest.approx(0)


def test_a_domain_without_ratings_is_refused(worlds):
    movies = worlds["movies"]
    batch = movies.train.batch.select(torch.tensor([], dtype=torch.long))
    empty = replace(movies, train=replace(movies.train, batch=batch, users=np.array([])))
    with pytest.raises(InputError, match='domain "movies" must have ratings of train users'):
        domain_similarity(empty, movies)
