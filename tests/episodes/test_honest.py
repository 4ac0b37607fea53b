"""The rule that makes the numbers true, point by point, each with the leak planted and caught."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from metarec.bases import HistoryQuery, answer_queries, make_base
from metarec.episodes import _predictions, build_episodes
from metarec.episodes._features import ItemFacts, Priors, Rows, make_features
from metarec.episodes._item_facts import item_facts
from metarec.episodes._predictions import base_predictions, leave_one_out_queries
from metarec.episodes._split import UserRoles, assign_roles, cut_tasks
from metarec.episodes.builders import _build
from metarec.ratings import Domain, RatingScale
from tests.episodes.conftest import BASES, make_domain


@pytest.fixture
def fits(monkeypatch):
    """(users of a fit, users that it predicts), in order."""
    seen = []
    real = _build.base_predictions

    def spy(fit_on, name, options, seed, tasks):
        seen.append((set(fit_on.ratings["user"]), {task.user for task in tasks}))
        return real(fit_on, name, options, seed, tasks)

    monkeypatch.setattr(_build, "base_predictions", spy)
    return seen


# 1. A test user's ratings never reach a base's fit, a statistic, a search or an early stop.


def test_test_and_validation_users_reach_no_fit(domain, settings, fits):
    episodes = build_episodes({"tiny": domain}, "tiny", settings, BASES)["tiny"]
    held_out = set(episodes.test.users) | set(episodes.validation.users)
    assert held_out
    assert len(fits) == (settings.folds + 1) * len(BASES)
    for fit_users, _ in fits:
        assert not fit_users & held_out


def test_roles_hold_in_every_domain(settings, fits):
    """A test user of one domain is not a train user of another: what they rate there says who they are."""
    movies, books = make_domain("movies"), make_domain("books", seed=9, users=50)
    built = build_episodes({"movies": movies, "books": books}, "movies", settings, BASES)
    held_out = {user for domain in built.values() for part in (domain.validation, domain.test) for user in part.users}
    assert len(built["movies"].test) == 8
    for fit_users, _ in fits:
        assert not fit_users & held_out


def test_statistics_do_not_come_from_held_out_users(domain, settings):
    """Everything that train users see stays as it is when the ratings of all others change."""
    before = build_episodes({"tiny": domain}, "tiny", settings, BASES)["tiny"]
    others = set(before.test.users) | set(before.validation.users)
    after = build_episodes({"tiny": inverted(domain, lambda rows: rows["user"].isin(others))}, "tiny", settings, BASES)
    for side in ("support", "query"):
        for one, other in zip(getattr(before.train.batch, side), getattr(after["tiny"].train.batch, side), strict=True):
            assert torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


# 2. Predictions in a train episode come from bases fitted without that user.


def test_train_predictions_are_out_of_fold(domain, settings, fits):
    episodes = build_episodes({"tiny": domain}, "tiny", settings, BASES)["tiny"]
    for fit_users, task_users in fits:
        assert not fit_users & task_users
    predicted = [user for _, task_users in fits[:: len(BASES)] for user in task_users]
    everyone = [*episodes.train.users, *episodes.validation.users, *episodes.test.users]
    assert sorted(predicted) == sorted(everyone)


def test_a_planted_fit_on_its_own_users_is_refused(domain, settings, monkeypatch):
    monkeypatch.setattr(UserRoles, "held_out", lambda self, fold: set())
    with pytest.raises(AssertionError, match="would be fitted on"):
        build_episodes({"tiny": domain}, "tiny", settings, BASES)


def test_item_facts_do_not_know_the_users_own_rating(domain, settings):
    """Only ratings of users outside the fold speak of an item: a train user's own ones do not move their facts."""
    roles = assign_roles({"tiny": domain}, "tiny", settings, 0)
    user = next(user for user, role in roles.roles.items() if role == "train")

    def arrays(table):
        tasks = cut_tasks(table, roles, settings, 0)
        groups = _build._by_fold(table, roles, tasks)
        made = _build.predicted_arrays(tasks, groups, settings, BASES, seed=0, run=map)
        row = [cut.task.user for cut in tasks].index(user)
        return {name: values[row] for name, values in made.items()}

    late = domain.ratings["timestamp"] >= 1000 + 10 * settings.shots
    changed = inverted(domain, lambda rows: (rows["user"] == user) & late)
    before, after = arrays(domain), arrays(changed)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


# 3. Predictions on support items are leave-one-out.


class Memory:
    """A base that knows the rating of what is in the history, and nothing else: it finds every leak of that kind."""

    name = "memory"

    def fit(self, domain):
        return self

    def predict(self, history, items):
        known = dict(zip(history["item"], history["rating"], strict=True))
        return np.array([known.get(item, np.nan) for item in items])


def test_support_predictions_never_saw_the_item(domain, settings, monkeypatch):
    monkeypatch.setattr(_predictions, "fit_base", lambda name, domain, options, seed: Memory())
    roles = assign_roles({"tiny": domain}, "tiny", settings, 0)
    task = cut_tasks(domain, roles, settings, 0)[0].task
    without_user = domain.without([task.user])
    answer = base_predictions(without_user, "memory", {}, 0, [task])
    assert np.isnan(answer.support[0]).all()
    assert np.isnan(answer.query[0]).all()

    def leaky(task):
        yield HistoryQuery(task.support_items, task.support_ratings, task.query_items)
        for item in task.support_items:
            yield HistoryQuery(task.support_items, task.support_ratings, np.array([item], dtype=object))

    monkeypatch.setattr(_predictions, "leave_one_out_queries", leaky)
    planted = base_predictions(without_user, "memory", {}, 0, [task])
    np.testing.assert_array_equal(planted.support[0], task.support_ratings)


@budget(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10_000))
def test_a_support_rows_features_do_not_depend_on_its_own_rating(shots, bases, seed):
    rng = np.random.default_rng(seed)
    facts = [ItemFacts(*rng.random((5, 2, rows))) for rows in (shots, 4)]
    predictions = [
        np.where(rng.random((2, rows, bases)) < 0.2, np.nan, rng.random((2, rows, bases))) for rows in (shots, 4)
    ]
    masks = [np.ones((2, rows), bool) for rows in (shots, 4)]
    evidence = [rng.random(predictions_of_side.shape) for predictions_of_side in predictions]
    support, query = (Rows(*side) for side in zip(predictions, evidence, facts, masks, strict=True))
    ratings = rng.random((2, shots))
    changed = ratings.copy()
    changed[0, 0] = 1 - changed[0, 0]
    priors = Priors(rng.random(bases), 0.04)
    before, _ = make_features(support, ratings, query, priors, damping=5.0)
    after, _ = make_features(support, changed, query, priors, damping=5.0)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one[0, 0], other[0, 0], atol=1e-12)
        np.testing.assert_allclose(one[1], other[1], atol=1e-12)


# 4. Support is the earliest ratings, or a seeded draw; query is what follows.


def test_support_comes_before_query(domain, settings):
    times = domain.ratings.set_index(["user", "item"])["timestamp"]
    roles = assign_roles({"tiny": domain}, "tiny", settings, 0)
    for cut in cut_tasks(domain, roles, settings, 0):
        task, ratings, user = cut.task, cut.ratings, cut.task.user
        support = [times[user, item] for item in task.support_items]
        query = [times[user, item] for item in task.query_items]
        assert max(support) < min(query)
        assert support == sorted(times[user])[: settings.shots]
        assert not set(task.support_items) & set(task.query_items)
        assert len(ratings) == len(query) <= settings.max_query


@pytest.mark.parametrize("timestamps", [True, False])
def test_neither_row_order_nor_ratings_decide_what_is_support(settings, timestamps):
    domain = make_domain(timestamps=timestamps)
    if timestamps:
        # Ties, as when people rate a page of items at once.
        domain = Domain("tiny", domain.ratings.assign(timestamp=7), domain.scale)
    shuffled = Domain("tiny", domain.ratings.sample(frac=1, random_state=1), domain.scale)
    sorted_by_rating = Domain("tiny", domain.ratings.sort_values("rating"), domain.scale)
    other_values = inverted(domain, lambda rows: rows["user"] != "")
    roles = assign_roles({"tiny": domain}, "tiny", settings, 0)
    reference = by_user(cut_tasks(domain, roles, settings, 3))
    for variant in (shuffled, sorted_by_rating, other_values):
        assert assign_roles({"tiny": variant}, "tiny", settings, 0) == roles
        for user, task in by_user(cut_tasks(variant, roles, settings, 3)).items():
            assert list(task.support_items) == list(reference[user].support_items)
            assert list(task.query_items) == list(reference[user].query_items)
    redrawn = by_user(cut_tasks(domain, roles, settings, 4))
    assert any(list(redrawn[user].support_items) != list(reference[user].support_items) for user in reference)


# 6. Change test users' query ratings in any way: no input of any model moves.


def test_query_ratings_of_test_users_change_nothing(domain, settings):
    before = build_episodes({"tiny": domain}, "tiny", settings, BASES)["tiny"]
    queries = {
        (user, item)
        for user, row in zip(before.test.users, before.test.query_items, strict=True)
        for item in row
        if item
    }
    assert queries
    hit = [pair in queries for pair in zip(domain.ratings["user"], domain.ratings["item"], strict=True)]
    after = build_episodes({"tiny": inverted(domain, lambda rows: pd.Series(hit))}, "tiny", settings, BASES)["tiny"]
    for role in ("train", "validation", "test"):
        one, other = getattr(before, role), getattr(after, role)
        assert list(one.users) == list(other.users)
        for side in ("support", "query"):
            for name, a, b in zip(
                one.batch.query._fields, getattr(one.batch, side), getattr(other.batch, side), strict=True
            ):
                same = torch.equal(torch.nan_to_num(a.float(), nan=-9), torch.nan_to_num(b.float(), nan=-9))
                assert same == (not (role == "test" and side == "query" and name == "targets")), (role, side, name)


def by_user(cuts):
    return {cut.task.user: cut.task for cut in cuts}


def inverted(domain, rows):
    """The same domain with the ratings of some rows turned upside down."""
    ratings = domain.ratings.copy()
    chosen = rows(ratings)
    ratings.loc[chosen, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[chosen, "rating"]
    return Domain(domain.name, ratings, domain.scale, items=domain.items)


def test_item_facts_by_hand():
    """Age counts from the item's first rating by those the bases saw; what is unknown or undated is new."""
    day = 86_400
    rows = [("a", "x", 1, 0), ("b", "x", 5, 3 * day), ("a", "y", 3, 10 * day)]
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    facts = item_facts(Domain("tiny", table, RatingScale(1, 5)), damping=2.0)
    items, times = np.array(["x", "y", "new"], dtype=object), np.array([4 * day, 9 * day, 9 * day])
    mean = 0.5
    x_offset, y_offset = 0.0, 0.0
    found = facts(items, times)
    np.testing.assert_allclose(found[:, :3], [[mean, x_offset, 2], [mean, y_offset, 1], [mean, 0, 0]])
    np.testing.assert_allclose(found[:, 4], [np.log1p(4), 0, 0])
    undated = item_facts(Domain("tiny", table.drop(columns="timestamp"), RatingScale(1, 5)), damping=2.0)
    np.testing.assert_allclose(undated(items, None)[:, 4], 0)


def test_evidence_is_that_of_the_prediction_itself(domain, settings):
    """A query row's evidence is what the base says of the whole support, a support row's of the other ones."""
    roles = assign_roles({"tiny": domain}, "tiny", settings, 0)
    task = cut_tasks(domain, roles, settings, 0)[0].task
    without_user = domain.without([task.user])
    answer = base_predictions(without_user, "item-knn", {"min_neighbours": 1}, 0, [task])
    base = make_base("item-knn", min_neighbours=1).fit(without_user)
    whole = answer_queries(base, list(leave_one_out_queries(task)))
    np.testing.assert_array_equal(answer.query_evidence[0], whole[0].evidence)
    np.testing.assert_array_equal(answer.support_evidence[0], [left_out.evidence[0] for left_out in whole[1:]])
    assert len(set(answer.query_evidence[0])) > 1
