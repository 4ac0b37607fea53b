"""The posterior of a new user, written out, and what side information is for."""

import numpy as np
import pandas as pd
import pytest

from metarec.bases import HistoryQuery, make_base
from metarec.bases.bayesian import BayesianMFRecommender, SideInformation
from metarec.bases.bayesian.gibbs import Sample
from metarec.bases.bayesian.recommender import _Folded
from metarec.ratings import Domain, RatingScale, simulate_domains


def folded_in(draws, mean, spread, links, history, ratings, requested):
    """The mean over draws of the predictions from the normal equations of a new user's vector."""
    found = []
    for draw in draws:
        items = np.column_stack([draw.items[:, :-1], np.ones(len(draw.items))])
        prior = draw.user_mean + sum(
            (side.directions @ link)[history].sum(axis=0) / np.sqrt(len(history))
            for side, link in zip(links, draw.user_links, strict=True)
        )
        noise = draw.noise_precision.mean()
        rated, offsets = items[history], draw.items[history, -1]
        precision = draw.user_precision + noise * rated.T @ rated
        wanted = (ratings - mean) / spread - offsets
        user = np.linalg.solve(precision, draw.user_precision @ prior + noise * rated.T @ wanted)
        found.append(mean + spread * (items[requested] @ user + draw.items[requested, -1]))
    return np.mean(found, axis=0)


def test_a_new_user_is_the_posterior_mean_under_each_draw():
    rng = np.random.default_rng(0)
    items, factors, rank = 12, 3, 4
    sides = [SideInformation(np.zeros((0, rank)), np.ones(rank), rng.normal(size=(items, rank)))]
    draws = []
    for _ in range(3):
        root = rng.normal(size=(factors + 1, factors + 1))
        draws.append(
            Sample(
                users=np.zeros((0, factors + 1)),
                items=rng.normal(size=(items, factors + 1)),
                effects=[],
                noise_precision=rng.uniform(0.5, 3, size=7),
                user_mean=rng.normal(size=factors + 1),
                user_precision=root @ root.T + np.eye(factors + 1),
                user_links=[rng.normal(size=(rank, factors + 1))],
            )
        )
    mean, spread = 0.6, 0.2
    base = BayesianMFRecommender()
    base._scale = RatingScale(0.0, 1.0)
    base._items = pd.Index([f"i{number:02}" for number in range(items)], dtype=object)
    base._counts = np.ones(items)
    base._levels, base._axes, base._pulls, base._penalties = map(
        np.stack, zip(*(_Folded.of(draw, sides, mean, spread) for draw in draws), strict=True)
    )
    names = base._items.to_numpy()
    for history in ([3], [0, 5, 7], list(range(9))):
        ratings = rng.uniform(size=len(history))
        requested = np.array([1, 11, 4])
        (found,) = base.predict_queries([HistoryQuery(names[history], ratings, names[requested])])
        expected = folded_in(draws, mean, spread, sides, np.array(history), ratings, requested)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def errors(base, domain, users):
    found = []
    for _, rows in domain.restrict(users).ratings.groupby("user"):
        history, future = rows.iloc[:8], rows.iloc[8:]
        predictions = base.predict(history[["item", "rating"]], future["item"].to_numpy())
        found.append((predictions - future["rating"].to_numpy())[np.isfinite(predictions)])
    return float(np.sqrt(np.mean(np.concatenate(found) ** 2)))


@pytest.fixture(scope="module")
def movies():
    return simulate_domains(5, num_users=300, num_items=150, ratings_per_user=30)["movies"]


def test_it_is_better_than_alternating_least_squares(movies):
    held_out = sorted(movies.ratings["user"].unique())[::4]
    train = movies.without(held_out)
    ours, other = (make_base(name).fit(train) for name in ("bayesian-mf", "biased-mf"))
    assert errors(ours, movies, held_out) < 0.99 * errors(other, movies, held_out)


def test_what_was_rated_counts_besides_the_ratings():
    """Two kinds of users rate mostly items of their own half, and rate the others a point lower."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(150):
        for item in rng.permutation(40):
            is_own = item % 2 == user % 2
            if rng.random() < (0.7 if is_own else 0.1):
                rows.append((f"u{user:03}", f"i{item:02}", np.clip(3.0 + is_own + rng.normal(0, 0.7), 1, 5)))
    domain = Domain("halves", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))
    base = make_base("bayesian-mf").fit(domain)

    def difference(history):
        rated = pd.DataFrame({"item": history.split(), "rating": [3.5, 3.5, 3.5]})
        predictions = base.predict(rated, np.array([f"i{item:02}" for item in range(10, 40)], dtype=object))
        return predictions[::2].mean() - predictions[1::2].mean()

    even, odd = "i00 i02 i04", "i01 i03 i05"
    with_pulls = difference(even) - difference(odd)
    base._pulls = np.zeros_like(base._pulls)
    assert with_pulls > difference(even) - difference(odd) + 0.3


@pytest.mark.parametrize(
    "rows", [[("u", "i", 3.0)], [("u", "i", 3.0), ("u", "j", 4.0)], [("u", "i", 2.0), ("v", "i", 4.0)]]
)
def test_a_table_of_one_user_or_one_item(rows):
    domain = Domain("tiny", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))
    (found,) = (
        make_base("bayesian-mf", samples=2, burn_in=0)
        .fit(domain)
        .predict_queries([HistoryQuery(np.array(["i"], object), np.array([3.0]), np.array(["i", "x"], object))])
    )
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
