"""New users' tasks are those of the episodes: what is trained on is what is served."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.bases import BASES as ALL_BASES
from metarec.episodes import EpisodeSettings, History, TaskMaker, assign_roles, build_episodes
from metarec.episodes._split import cut_tasks
from metarec.errors import InputError
from tests.episodes.conftest import BASES, make_domain

SETTINGS = EpisodeSettings(shots=5, min_query=3, max_query=8, folds=3)


def made(domain, settings, bases, seed=0):
    """The test episodes of a domain, the cuts behind them, and the maker that serves it."""
    domains = {domain.name: domain}
    episodes = build_episodes(domains, domain.name, settings, bases, seed=seed)[domain.name]
    roles = assign_roles(domains, domain.name, settings, seed)
    maker = TaskMaker.fit(domain.without(roles.held_out(None)), bases, episodes.standards, seed=seed)
    cuts = [cut for cut in cut_tasks(domain, roles, settings, seed) if roles.roles[cut.task.user] == "test"]
    assert [cut.task.user for cut in cuts] == list(episodes.test.users)
    return episodes.test.batch, cuts, maker


def history(cut):
    return History(cut.task.support_items, cut.task.support_ratings, cut.support_times)


def queried(users, cuts):
    times = [cut.query_times for cut in cuts]
    return users.query([cut.task.query_items for cut in cuts], None if times[0] is None else times)


def assert_same(served, built, but=()):
    """The rows that count are the same; the padding may be of another width."""
    width = min(served.mask.shape[1], built.mask.shape[1])
    assert not served.mask[:, width:].any()
    assert not built.mask[:, width:].any()
    for name, one, other in zip(built._fields, served, built, strict=True):
        if name not in but:
            torch.testing.assert_close(one[:, :width], other[:, :width], rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("shots", [0, 1, 5])
def test_new_users_get_the_features_of_the_episodes(timestamps, shots):
    bases = {name: {"epochs": 2} if name == "autoencoder" else {} for name in ALL_BASES.names()}
    settings = SETTINGS.model_copy(update={"shots": shots})
    built, cuts, maker = made(make_domain(timestamps=timestamps), settings, bases, seed=3)
    users = maker.users([history(cut) for cut in cuts])
    assert_same(users.support, built.support)
    query = queried(users, cuts)
    assert_same(query, built.query, but=["targets"])
    assert not query.targets.any()


def test_a_user_is_served_alone_as_among_others(domain, settings):
    built, cuts, maker = made(domain, settings, BASES)
    for row, cut in enumerate(cuts):
        alone = maker.users([history(cut)])
        task = torch.tensor([row])
        assert_same(alone.support, built.support.select(task))
        assert_same(queried(alone, [cut]), built.query.select(task), but=["targets"])


def test_histories_of_different_lengths_do_not_touch_each_other(domain, settings):
    _, cuts, maker = made(domain, settings, BASES)
    whole = history(cuts[0])
    histories = [History(*(side[:length] for side in whole)) for length in (0, 5, 2)]
    items = [cut.task.query_items for cut in cuts[:3]]
    together = maker.users(histories)
    assert together.support.mask.sum(1).tolist() == [0, 5, 2]
    for row, own in enumerate(histories):
        alone, task = maker.users([own]), torch.tensor([row])
        assert_same(alone.support, together.support.select(task))
        assert_same(alone.query([items[row]]), together.query(items).select(task))


def test_a_support_row_does_not_know_its_own_rating(domain, settings):
    _, cuts, maker = made(domain, settings, BASES)
    before = history(cuts[0])
    ratings = before.ratings.copy()
    ratings[0] = 1 if ratings[0] > 2 else 5
    one, other = (maker.users([own]).support for own in (before, before._replace(ratings=ratings)))
    for name in ("predictions", "algorithm_features", "context"):
        torch.testing.assert_close(getattr(one, name)[0, 0], getattr(other, name)[0, 0], equal_nan=True)
    assert not torch.equal(one.targets, other.targets)


def test_unknown_items_and_users_without_history_get_finite_rows(domain, settings):
    _, _, maker = made(domain, settings, BASES)
    query = maker.users([History.of(pd.DataFrame({"item": [], "rating": []}))]).query(
        [np.array(["new", "i01"], object)]
    )
    assert query.mask.all()
    assert torch.isfinite(query.context).all()
    assert torch.isfinite(query.algorithm_features).all()
    assert torch.isfinite(query.predictions).any(-1).all()


def test_rows_without_times_get_the_time_of_the_latest_rating(domain, settings):
    _, cuts, maker = made(domain, settings, BASES)
    users = maker.users([history(cuts[0])])
    items = cuts[0].task.query_items
    assert_same(users.query([items]), users.query([items], [np.full(len(items), maker.now)]))


def test_a_task_maker_can_be_stored(domain, settings):
    _, cuts, maker = made(domain, settings, BASES)
    again = pickle.loads(pickle.dumps(maker))
    assert_same(*(queried(one.users([history(cuts[0])]), cuts[:1]) for one in (again, maker)))


def test_a_history_comes_from_a_table():
    table = pd.DataFrame({"item": ["x", "y"], "rating": [1, 5]})
    assert History.of(table).times is None
    assert History.of(table.assign(timestamp=[7, 8])).times.tolist() == [7, 8]
    with pytest.raises(InputError, match='the columns item and rating, but "rating" is missing'):
        History.of(table[["item"]])
    dated = table.assign(item=[7.0, 8.0], timestamp=pd.to_datetime([1_400_000_000, 1_400_000_001], unit="s"))
    assert History.of(dated).items.tolist() == ["7", "8"]
    assert History.of(dated).times.tolist() == [1_400_000_000, 1_400_000_001]
    with pytest.raises(InputError, match="timestamp 1 is missing; fill it in, or leave out all times"):
        History.of(table.assign(timestamp=[7, np.nan]))


@pytest.mark.parametrize(
    ("items", "ratings", "message"),
    [
        (["i01", "i01"], [1, 2], 'an item once, but the history holds item "i01" again'),
        (["i01"], [9], "every rating must lie in 1..5 but the history holds 9"),
        (["i01"], [np.nan], "every rating must lie in 1..5 but the history holds nan"),
        ([1], [1], "item ids must be strings but got 1; convert them with str"),
        (["i01"], [1, 2], "a rating for each item but got 1 and 2"),
    ],
)
def test_a_wrong_history_is_refused(domain, settings, items, ratings, message):
    _, _, maker = made(domain, settings, {"bias": {}})
    with pytest.raises(InputError, match=message):
        maker.users([History(np.array(items, dtype=object), np.array(ratings, dtype=float))])


def test_wrong_queries_are_refused(domain, settings):
    _, cuts, maker = made(domain, settings, {"bias": {}})
    with pytest.raises(InputError, match="histories must hold at least one"):
        maker.users([])
    users = maker.users([history(cuts[0])])
    with pytest.raises(InputError, match="an array for each of the 1 users but has 2"):
        users.query([cuts[0].task.query_items] * 2)
    with pytest.raises(InputError, match="item ids must be strings but got 7"):
        users.query([np.array([7], dtype=object)])
