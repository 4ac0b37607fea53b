"""Ratings in other domains: converted to this one, before the queries, without held-out users in a fit."""

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.episodes import EpisodeSettings, cross_validate, small_worlds
from metarec.episodes._features import CONTEXT_NAMES, make_features
from metarec.episodes._predictions import leave_one_out_queries
from metarec.episodes._split import UserRoles, cut_tasks
from metarec.episodes.builders import _cross_validation, _small_worlds
from metarec.episodes.builders._linked import PRIOR_SHARE, Links, _Residuals, carried_share
from metarec.ratings import Domain, RatingScale, common_scale
from tests.episodes.conftest import make_domain
from tests.episodes.test_cross_validation import equal
from tests.episodes.test_honest import inverted

FOLD, SHOTS = 0, 5
BIAS = {"bias": {}}
ROLES = ("test", "validation", "train")


@pytest.fixture(scope="module")
def books():
    return make_domain("books")


@pytest.fixture(scope="module")
def movies():
    """Of more users than the books have, on another scale."""
    made = make_domain("movies", seed=9, users=50)
    return Domain("movies", made.ratings.assign(rating=2 * made.ratings["rating"]), RatingScale(0, 10))


@pytest.fixture(scope="module")
def folds(books, movies):
    """Shared by both domains; the users of movies alone are dealt, too."""
    users = sorted(set(books.ratings["user"]) | set(movies.ratings["user"]))
    return {user: place % 3 for place, user in enumerate(users)}


@pytest.fixture(scope="module")
def settings():
    return EpisodeSettings(shots=SHOTS, min_query=3, max_query=8)


@pytest.fixture(scope="module")
def plain(books, settings, folds):
    return validated(books, None, settings, folds)


@pytest.fixture(scope="module")
def linked(books, movies, settings, folds):
    return validated(books, {"movies": movies}, settings, folds)


def validated(books, elsewhere, settings, folds):
    made = cross_validate(books, settings, BIAS, shots=(SHOTS,), folds=folds, elsewhere=elsewhere)
    return made.episodes(FOLD, SHOTS)


def worlds(books, elsewhere, settings, folds, **options):
    roles = {user: ROLES[own] for user, own in folds.items()}
    return small_worlds(books, settings, BIAS, roles, count=6, shots=(SHOTS,), elsewhere=elsewhere, **options)


@pytest.fixture
def fits(monkeypatch):
    """(ratings of a fit, users that it predicts), in order."""
    seen = []
    for module in (_cross_validation, _small_worlds):
        real = module.base_predictions

        def spy(fit_on, name, options, seed, tasks, real=real):
            seen.append((fit_on.ratings, {task.user for task in tasks}))
            return real(fit_on, name, options, seed, tasks)

        monkeypatch.setattr(module, "base_predictions", spy)
    return seen


def from_elsewhere(ratings):
    return ratings["item"].str.startswith("movies/")


# Nothing of a held-out user is in a fit, whatever the domain.


def test_ratings_of_users_left_out_are_in_no_fit(books, movies, settings, folds, fits):
    validated(books, {"movies": movies}, settings, folds)
    for ratings, requested in fits:
        left_out = {folds[user] for user in requested}
        assert not left_out & set(ratings["user"].map(folds))
        assert len(ratings["user"][from_elsewhere(ratings)].unique()) > 0.3 * len(folds)


def test_no_rating_of_held_out_users_is_in_a_small_world(books, movies, settings, folds, fits):
    made = worlds(books, {"movies": movies}, settings, folds, worlds=2)
    for ratings, requested in fits:
        assert not set(ratings["user"]) & requested
        assert not {0, 1} & set(ratings["user"].map(folds))
        # All of the others' films are used, and the books of the few.
        assert set(ratings["user"][~from_elsewhere(ratings)]) < {user for user, own in folds.items() if own > 1}
        assert from_elsewhere(ratings).any()
    assert set(made[0].fit_on.ratings["item"]) <= set(books.ratings["item"])


@pytest.mark.parametrize("make", [validated, worlds])
def test_a_planted_fit_on_their_films_is_refused(make, books, movies, settings, folds, monkeypatch):
    real = Links.joined
    monkeypatch.setattr(Links, "joined", lambda self, known, held_out, damping: real(self, known, (), damping))
    with pytest.raises(AssertionError, match="would be fitted on"):
        make(books, {"movies": movies}, settings, folds)


def test_ratings_of_held_out_users_change_no_other_user(books, movies, settings, folds, linked):
    """No scale, no share and no item's level comes from them: only their own episodes change."""

    def tested(rows):
        return rows["user"].map(folds) == FOLD

    after = validated(inverted(books, tested), {"movies": inverted(movies, tested)}, settings, folds)
    fields = after.test.batch.query._fields
    equal(linked, after, but={("test", side, name) for side in ("support", "query") for name in fields})


# A user's background is every rating elsewhere before the first query.


def first_queries(books, episodes):
    times = books.ratings.set_index(["user", "item"])["timestamp"]
    rows = zip(episodes.users, episodes.query_items, strict=True)
    return pd.Series({user: min(times[user, item] for item in items if item) for user, items in rows})


def test_ratings_after_the_first_query_change_nothing(books, movies, settings, folds, linked):
    first = first_queries(books, linked.test)

    def late(rows):
        return rows["timestamp"] >= rows["user"].map(first).fillna(np.inf)

    # A film in the same second as the first query is not used either.
    assert (movies.ratings["timestamp"] == movies.ratings["user"].map(first)).any()
    after = validated(inverted(books, late), {"movies": inverted(movies, late)}, settings, folds)
    equal(linked, after, but={("test", "query", "targets")})


def test_ratings_before_the_first_query_change_predictions_of_linked_users(books, movies, settings, folds, linked):
    first = first_queries(books, linked.test)
    early = inverted(movies, lambda rows: rows["timestamp"] < rows["user"].map(first).fillna(-np.inf))
    after = validated(books, {"movies": early}, settings, folds)
    moved = (linked.test.batch.query.predictions - after.test.batch.query.predictions).abs()
    assert (moved.nan_to_num().amax((1, 2)) > 1e-4).float().mean() > 0.9
    assert not torch.equal(linked.test.batch.support.predictions, after.test.batch.support.predictions)
    assert not torch.equal(linked.test.batch.query.context, after.test.batch.query.context)


def test_without_times_all_ratings_elsewhere_are_used(books, movies, settings, folds):
    undated = Domain("movies", movies.ratings.drop(columns="timestamp"), movies.scale)
    links = Links(books, {"movies": undated})
    joined = links.joined(books, folds, 5.0)
    assert not joined.table.ratings["item"].str.startswith("movies/").any()
    cuts = cut_tasks(books, UserRoles(dict.fromkeys(folds, "train"), {}, 0), settings, 0)
    everyone = links.joined(books, (), 5.0)
    assert not everyone.table.has_timestamps
    for cut, task in zip(cuts, everyone.tasks("bias", cuts), strict=True):
        rated = undated.ratings["item"][undated.ratings["user"] == cut.task.user]
        assert sorted(task.background_items) == sorted("movies/" + rated)


def test_the_background_is_in_every_history_and_only_the_support_item_is_left_out(books, movies, settings, folds):
    cuts = cut_tasks(books, UserRoles(dict.fromkeys(folds, "train"), {}, 0), settings, 0)
    task = Links(books, {"movies": movies}).joined(books, (), 5.0).tasks("bias", cuts)[0]
    assert len(task.background_items) == len(task.background_ratings) == SHOTS
    queries = list(leave_one_out_queries(task))
    assert len(queries) == 1 + SHOTS
    assert list(queries[0].history_items) == [*task.background_items, *task.support_items]
    for place, query in enumerate(queries[1:]):
        assert list(query.items) == [task.support_items[place]]
        others = [item for item in task.support_items if item != task.support_items[place]]
        assert list(query.history_items) == [*task.background_items, *others]
        assert list(query.history_ratings[:SHOTS]) == list(task.background_ratings)


# The conversion of ratings.


def test_ratings_are_converted_around_the_mean_by_the_share():
    """Films of two levels each: what the item does not explain is the user's, of which a part is carried over."""
    people = [f"u{place}" for place in range(20)]
    rows = [
        (user, f"i{item}", 4.0 + (place % 2) - (item % 2)) for place, user in enumerate(people) for item in range(10)
    ]
    books = Domain("books", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))
    films = Domain("films", books.ratings.assign(rating=2 * books.ratings["rating"] - 1), RatingScale(0, 10))
    joined = Links(books, {"films": films}).joined(books, (), 0.0)
    converted = joined.table.ratings[from_films(joined.table.ratings)].reset_index(drop=True)
    share = joined._conversions["films"].share
    assert 0.9 < share < 1
    level = books.ratings.groupby("item")["rating"].transform("mean")
    np.testing.assert_allclose(converted["rating"], level + share * (books.ratings["rating"] - level))
    # The domain's own ratings, and so its mean and its items' facts, are what they were.
    kept = joined.table.ratings[~from_films(joined.table.ratings)]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), books.ratings)
    assert common_scale(books) == joined._own


def from_films(ratings):
    return ratings["item"].str.startswith("films/")


def test_converted_ratings_are_clipped_to_the_scale():
    rows = [(f"u{place}", "i", float(rating)) for place, rating in enumerate([4, 5, 5, 5, 5])]
    high = Domain("high", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))
    joined = Links(high, {"other": high}).joined(high, (), 1.0)
    assert joined.table.ratings["rating"].between(1, 5).all()


def residuals(users, means, count):
    return _Residuals(pd.Index(users), np.asarray(means) * count, np.full(len(users), count))


def test_the_share_is_the_slope_between_residuals_of_shared_users():
    rng = np.random.default_rng(0)
    users = [f"u{place}" for place in range(500)]
    here, noise = rng.normal(size=500), rng.normal(size=500)
    assert carried_share(residuals(users, here, 20), residuals(users, here, 20), 0.0) > 0.95
    half = residuals(users, 0.5 * here + 0.1 * noise, 20)
    assert carried_share(half, residuals(users, here, 20), 0.0) == pytest.approx(0.5, abs=0.05)
    assert carried_share(residuals(users, noise, 20), residuals(users, here, 20), 0.0) < 0.1
    assert carried_share(residuals(users, -here, 20), residuals(users, here, 20), 0.0) == 0
    without_user = residuals(["other"], [1.0], 20)
    assert carried_share(without_user, residuals(users, here, 20), 0.0) == PRIOR_SHARE
    # Two users say little.
    few = residuals(users[:2], here[:2], 1)
    assert carried_share(few, residuals(users, here, 20), 0.0) == pytest.approx(PRIOR_SHARE, abs=0.2)


def test_domains_without_a_shared_user_are_left_out(books, settings, folds, plain):
    strangers = make_domain("strangers", prefix="x", users=50)
    assert not Links(books, {"strangers": strangers}).others
    alone = validated(books, {"strangers": strangers}, settings, folds)
    assert alone.test.context_names == CONTEXT_NAMES
    assert torch.equal(
        torch.nan_to_num(alone.test.batch.query.predictions), torch.nan_to_num(plain.test.batch.query.predictions)
    )
    assert torch.equal(alone.test.batch.query.context, plain.test.batch.query.context)


def test_neighbours_are_searched_within_the_domain(books, movies, settings, folds, fits):
    bases = {"user-knn": {}, "bias": {}, "item-knn": {}}

    def made(elsewhere):
        whole = cross_validate(books, settings, bases, shots=(SHOTS,), folds=folds, elsewhere=elsewhere)
        return whole.predicted_tasks(FOLD, SHOTS).arrays["query"]

    plain, linked = made(None), made({"movies": movies})
    assert [from_elsewhere(ratings).any() for ratings, _ in fits[-3:]] == [False, True, False]
    for place, same in enumerate((True, False, True)):
        assert np.array_equal(plain[..., place], linked[..., place], equal_nan=True) == same


# Without links nothing is new.


def test_without_links_features_do_not_change(plain, linked):
    assert plain.test.context_names == CONTEXT_NAMES
    assert CONTEXT_NAMES == (
        "shots",
        "support_mean",
        "support_spread",
        "item_count",
        "item_offset",
        "item_spread",
        "item_age",
        "disagreement",
        "share_saying",
        "fallback",
    )
    assert linked.test.context_names == CONTEXT_NAMES
    for side in ("support", "query"):
        one, other = getattr(plain.test.batch, side), getattr(linked.test.batch, side)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.mask, other.mask)
        # What the domain's own ratings say of its items is the same.
        facts = slice(CONTEXT_NAMES.index("item_count"), CONTEXT_NAMES.index("item_age") + 1)
        assert torch.equal(one.context[..., facts], other.context[..., facts])


def test_the_cache_key_holds_the_links(books, movies, settings, folds, plain, linked, tmp_path):
    kept = {"shots": (SHOTS,), "folds": folds, "cache": tmp_path}
    for _ in range(2):
        equal(linked, cross_validate(books, settings, BIAS, elsewhere={"movies": movies}, **kept).episodes(FOLD, SHOTS))
        equal(plain, cross_validate(books, settings, BIAS, **kept).episodes(FOLD, SHOTS))
    with pytest.raises(AssertionError):
        equal(plain, linked)


def test_offsets_are_shrunk_to_the_background(rows_of_one_user):
    support, ratings, query, priors = rows_of_one_user
    background = np.array([[0.1]])
    plain = make_features(support, ratings, query, priors, damping=5.0)
    converted = make_features(support, ratings, query, priors, damping=5.0, background=background)
    shots = support.mask.sum()
    for side, other, left in zip(plain, converted, (shots - 1, shots), strict=True):
        np.testing.assert_allclose(other.fallback - side.fallback, 5 * 0.1 / (left + 5))
    level = CONTEXT_NAMES.index("support_mean")
    np.testing.assert_allclose(converted[0].context[..., level] - plain[0].context[..., level], 0.1)
    # A support row still does not know its own rating.
    other = ratings.copy()
    other[0, 0] += 0.2
    again = make_features(support, other, query, priors, damping=5.0, background=background)[0]
    np.testing.assert_array_equal(again.context[0, 0], converted[0].context[0, 0])
    nothing = np.zeros((1, 1))
    for side, other in zip(
        plain, make_features(support, ratings, query, priors, damping=5.0, background=nothing), strict=True
    ):
        np.testing.assert_array_equal(side.context, other.context)
        np.testing.assert_array_equal(side.algorithm, other.algorithm)


@pytest.fixture
def rows_of_one_user():
    from metarec.episodes._features import ItemFacts, Priors, Rows

    rng = np.random.default_rng(0)

    def side():
        facts = ItemFacts(*(np.full((1, 3), value) for value in (0.5, 0.05, 4.0, 0.1, 1.0)))
        return Rows(rng.uniform(0.3, 0.7, (1, 3, 2)), np.ones((1, 3, 2)), facts, np.ones((1, 3), dtype=bool))

    return side(), np.array([[0.4, 0.5, 0.6]]), side(), Priors(np.array([0.1, 0.1]), 0.02)
