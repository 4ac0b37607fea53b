"""Each user is a test user once, and no fit that predicts a user has seen the user."""

import numpy as np
import pytest
import torch

from metarec.episodes import cross_validate
from metarec.episodes.builders import _cross_validation
from metarec.errors import InputError
from metarec.ratings import Domain
from tests.episodes.conftest import BASES, make_domain
from tests.episodes.test_honest import inverted

SHOTS = (2, 5)


@pytest.fixture(scope="module")
def domain():
    return make_domain()


@pytest.fixture
def fits(monkeypatch):
    """(users of a fit, users that it predicts, base), in order."""
    seen = []
    real = _cross_validation.base_predictions

    def spy(fit_on, name, options, seed, tasks):
        seen.append((set(fit_on.ratings["user"]), {task.user for task in tasks}, name))
        return real(fit_on, name, options, seed, tasks)

    monkeypatch.setattr(_cross_validation, "base_predictions", spy)
    return seen


def equal(one, other, *, but=()):
    for role in ("train", "validation", "test"):
        a, b = getattr(one, role), getattr(other, role)
        assert list(a.users) == list(b.users)
        for side in ("support", "query"):
            names = a.batch.query._fields
            for name, x, y in zip(names, getattr(a.batch, side), getattr(b.batch, side), strict=True):
                if (role, side, name) not in but:
                    same = torch.equal(torch.nan_to_num(x.float(), nan=-9), torch.nan_to_num(y.float(), nan=-9))
                    assert same, (role, side, name)


def test_each_user_is_tested_once_by_fits_without_the_user(domain, settings, fits):
    made = cross_validate(domain, settings, BASES, shots=SHOTS, folds=4)
    for shots in SHOTS:
        tested = [user for fold in range(4) for user in made.episodes(fold, shots).test.users]
        counts = domain.ratings["user"].value_counts()
        assert sorted(tested) == sorted(counts.index[counts >= shots + settings.min_query])
    assert len(fits) == (4 + 6) * len(BASES)
    for saw, requested, _ in fits:
        assert requested
        assert not saw & requested
    for fold in range(4):
        parts = made.episodes(fold, 5)
        everyone = [set(parts.train.users), set(parts.validation.users), set(parts.test.users)]
        assert not any(everyone[a] & everyone[b] for a, b in ((0, 1), (0, 2), (1, 2)))
        assert everyone[1] == set(made.episodes((fold + 1) % 4, 5).test.users)


def test_ratings_of_a_test_user_change_only_the_users_own_episodes(domain, settings):
    """Neither features of other users nor statistics know what test users rated, support or query."""
    before = cross_validate(domain, settings, BASES, shots=SHOTS, folds=4)
    users = set(before.episodes(2, 5).test.users) | set(before.episodes(2, 2).test.users)
    after = cross_validate(
        inverted(domain, lambda rows: rows["user"].isin(users)), settings, BASES, shots=SHOTS, folds=4
    )
    own = {
        ("test", side, name) for side in ("support", "query") for name in after.episodes(2, 5).test.batch.query._fields
    }
    for shots in SHOTS:
        equal(before.episodes(2, shots), after.episodes(2, shots), but=own)
    with pytest.raises(AssertionError):
        equal(before.episodes(1, 5), after.episodes(1, 5), but=own)


def test_query_ratings_of_test_users_change_no_input(domain, settings):
    before = cross_validate(domain, settings, BASES, shots=(5,), folds=4)
    test = before.episodes(0, 5).test
    queries = {(user, item) for user, row in zip(test.users, test.query_items, strict=True) for item in row if item}
    hit = np.array([pair in queries for pair in zip(domain.ratings["user"], domain.ratings["item"], strict=True)])
    after = cross_validate(inverted(domain, lambda rows: hit), settings, BASES, shots=(5,), folds=4)
    equal(before.episodes(0, 5), after.episodes(0, 5), but={("test", "query", "targets")})


def test_a_planted_fit_on_its_own_users_is_refused(domain, settings, monkeypatch):
    monkeypatch.setattr(_cross_validation, "_fitted_on", lambda domain, folds, fit: domain)
    with pytest.raises(AssertionError, match="would be fitted on"):
        cross_validate(domain, settings, BASES, shots=(5,), folds=4)


def test_predictions_are_those_of_the_fit_without_both_folds(domain, settings):
    """Rows are not mixed up: each user's predictions equal direct ones of the base."""
    from metarec.bases import make_base

    made = cross_validate(domain, settings, {"bias": {}}, shots=SHOTS, folds=4)
    parts = made.episodes(1, 5)
    for role, episodes in (("test", parts.test), ("train", parts.train)):
        user = episodes.users[-1]
        left_out = {1, made.folds[user]}
        base = make_base("bias").fit(domain.without({u for u, fold in made.folds.items() if fold in left_out}))
        history = domain.ratings[domain.ratings["user"] == user].set_index("item")["rating"]
        support, requested = episodes.support_items[-1], [item for item in episodes.query_items[-1] if item]
        shown = history[support].rename_axis("item").reset_index()
        expected = domain.scale.to_unit(base.predict(shown, np.array(requested)))
        found = episodes.batch.query.predictions[-1, : len(requested), 0].numpy()
        np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-6, err_msg=role)


def test_neither_jobs_nor_interruption_change_the_result(domain, settings, tmp_path, monkeypatch):
    whole = cross_validate(domain, settings, BASES, shots=SHOTS, folds=3, cache=tmp_path / "whole")
    real, calls = _cross_validation.base_predictions, []

    def interrupted(fit_on, name, options, seed, tasks):
        calls.append(name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(fit_on, name, options, seed, tasks)

    monkeypatch.setattr(_cross_validation, "base_predictions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(domain, settings, BASES, shots=SHOTS, folds=3, cache=tmp_path / "broken")
    again = cross_validate(domain, settings, BASES, shots=SHOTS, folds=3, cache=tmp_path / "broken")
    total = 6 * len(BASES)
    assert len(calls) == 4 + total - 3
    monkeypatch.setattr(_cross_validation, "base_predictions", real)
    parallel = cross_validate(domain, settings, BASES, shots=SHOTS, folds=3, jobs=2)
    for fold in range(3):
        equal(whole.episodes(fold, 2), again.episodes(fold, 2))
        equal(whole.episodes(fold, 5), parallel.episodes(fold, 5))


def test_more_draws_are_more_episodes_of_train_users_alone(domain, settings):
    one = cross_validate(domain, settings, BASES, shots=(2,), folds=4).episodes(0, 2)
    more = cross_validate(domain, settings.model_copy(update={"draws": 3}), BASES, shots=(2,), folds=4).episodes(0, 2)
    assert list(one.test.users) == list(more.test.users)
    assert list(one.validation.users) == list(more.validation.users)
    assert torch.equal(one.test.batch.query.targets, more.test.batch.query.targets)
    assert set(more.train.users) == set(one.train.users)
    assert len(more.train) > 2 * len(one.train)
    times = domain.ratings.set_index(["user", "item"])["timestamp"]
    for user, support, query in zip(more.train.users, more.train.support_items, more.train.query_items, strict=True):
        assert max(times[user, item] for item in support) < min(times[user, item] for item in query if item)
    episodes = [(user, *items) for user, items in zip(more.train.users, more.train.support_items, strict=True)]
    assert len(set(episodes)) > len(one.train)


def test_draws_without_timestamps_are_other_draws(settings):
    domain = make_domain(timestamps=False)
    more = cross_validate(domain, settings.model_copy(update={"draws": 2}), BASES, shots=(5,), folds=4).episodes(0, 5)
    supports = {}
    for user, items in zip(more.train.users, more.train.support_items, strict=True):
        supports.setdefault(user, []).append(frozenset(items))
    assert all(len(draws) == 2 for draws in supports.values())
    assert any(first != second for first, second in supports.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 2}, "folds must be >= 3"),
        ({"shots": ()}, "shots must name at least one"),
        ({"shots": (-1,)}, "shots must name at least one"),
        ({"shots": (200,)}, "0 of 40 users have the 203 ratings"),
        ({"folds": 30}, "at least 60 such users"),
    ],
)
def test_refusals(domain, settings, arguments, message):
    with pytest.raises(InputError, match=message):
        cross_validate(domain, settings, BASES, **{"shots": (5,), **arguments})


def test_missing_folds_and_shots_are_refused(settings):
    domain = Domain("tiny", make_domain().ratings, make_domain().scale)
    made = cross_validate(domain, settings, {"bias": {}}, shots=(5,), folds=3)
    with pytest.raises(InputError, match=r"fold must be in 0\.\.2 but got 3"):
        made.episodes(3, 5)
    with pytest.raises(InputError, match="shots must be one of 5 but got 2"):
        made.episodes(0, 2)
