"""Ranking episodes: what reaches a list, and what must not."""

import numpy as np
import pandas as pd
import pytest

from metarec.bases.ranking import Histories, fit_ranking_base
from metarec.episodes import EpisodeSettings, assign_roles, fold_roles
from metarec.episodes._split import cut_tasks
from metarec.episodes.ranking import RankingSettings, RankingTaskMaker, _build, build_ranking_episodes
from metarec.episodes.ranking._tasks import UserHistory, ranking_tasks
from metarec.errors import InputError
from metarec.ratings import Domain

SETTINGS = EpisodeSettings(shots=3, min_query=2, folds=2)
RANKING = RankingSettings(candidates=10, negatives=2)
BASES = {"popularity": {}, "item-knn": {}}


def events(num_users=40, num_items=60, seed=0):
    """Two groups of users, each with its own half of the items, in the order of time."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        half = np.arange(num_items // 2) + (user % 2) * (num_items // 2)
        for time, item in enumerate(rng.permutation(half)[: rng.integers(8, 15)]):
            rows.append((f"u{user:02d}", f"i{item:02d}", 1.0 + time % 2, 1000.0 * time + user))
    return pd.DataFrame(rows, columns=["user", "item", "weight", "timestamp"])


def domain_of(table):
    return Domain("shop", table, feedback="implicit")


def build(table, bases=BASES, **options):
    return build_ranking_episodes({"shop": domain_of(table)}, "shop", SETTINGS, RANKING, bases, **options)["shop"]


def with_other_queries(table, users, seed=5):
    """The table in which these users have other items after the support, as many as before."""
    rng = np.random.default_rng(seed)
    changed = table.copy()
    for user in users:
        rows = changed.index[changed["user"] == user]
        rows = rows[np.argsort(changed.loc[rows, "timestamp"].to_numpy())]
        taken = set(changed.loc[rows[:3], "item"])
        free = [item for item in sorted(set(table["item"])) if item not in taken]
        changed.loc[rows[3:], "item"] = rng.permutation(free)[: len(rows) - 3]
    return changed


def assert_same_lists(old, new):
    """Every item and every feature; targets of the query may differ."""
    assert list(old.users) == list(new.users)
    assert (old.query_items == new.query_items).all()
    assert (old.support_items == new.support_items).all()
    for side in ("support", "query"):
        before, after = getattr(old.batch, side), getattr(new.batch, side)
        for name in ("predictions", "algorithm_features", "context", "mask"):
            own, other = (getattr(batch, name).numpy() for batch in (before, after))
            np.testing.assert_array_equal(own, other, err_msg=f"{side} {name}")


@pytest.fixture(scope="module")
def table():
    return events()


@pytest.fixture(scope="module")
def episodes(table):
    return build(table)


def test_a_list_is_what_bases_without_the_user_propose(table, episodes):
    domain = domain_of(table)
    roles = assign_roles({"shop": domain}, "shop", SETTINGS, 0)
    fit_on = domain.without(roles.held_out(None))
    user = episodes.test.users[0]
    own = table[table["user"] == user].sort_values("timestamp")
    support = own["item"].to_numpy()[:3]
    codes = fit_on.item_index.get_indexer(support)
    history = Histories(np.array([3]), codes, own["weight"].to_numpy()[:3].astype(np.float32))
    expected = set()
    for name in BASES:
        scores = fit_ranking_base(name, fit_on, {}, seed=0).score(history)[0]
        scores[codes] = -np.inf
        expected |= set(fit_on.item_index[np.argsort(-scores, kind="stable")[:10]])
    found = {item for item in episodes.test.query_items[0] if item}
    # Ties at the last place may be cut in another way.
    assert len(found & expected) >= 0.9 * len(expected)
    assert not found & set(support)


def test_relevant_items_that_no_base_proposes_are_counted_and_are_no_candidates(table, episodes):
    for one in (episodes.train, episodes.validation, episodes.test):
        proposed = one.batch.query.targets.sum(1).numpy()
        assert (proposed <= one.relevant).all()
    assert sum(int(one.relevant.sum()) for one in (episodes.train, episodes.test)) > sum(
        float(one.batch.query.targets.sum()) for one in (episodes.train, episodes.test)
    )


def test_targets_are_the_users_later_items(table, episodes):
    one = episodes.validation
    for row, user in enumerate(one.users):
        later = set(table[table["user"] == user].sort_values("timestamp")["item"].to_numpy()[3:])
        marked = {
            item for item, is_relevant in zip(one.query_items[row], one.query_ratings[row], strict=True) if is_relevant
        }
        assert marked == later & {item for item in one.query_items[row] if item}


LEARNERS = {"popularity": {}, "item-knn": {}, "next-item": {}, "ease": {}, "ials": {"features": 4, "epochs": 2}}


@pytest.fixture(scope="module")
def of_learners(table):
    return build(table, LEARNERS)


@pytest.mark.parametrize("role", ["test", "validation"])
def test_later_items_of_held_out_users_move_no_list(table, of_learners, role):
    """Planted, one by one: candidates that hold the query; bases of train users' folds that are fitted on test users,
    so that co-occurrences (item-knn, next-item, EASE, iALS) have their rows; the popularity and the age of items from
    all rows; candidates beside a support item that are drawn from the query, or never from it.
    """
    again = build(with_other_queries(table, getattr(of_learners, role).users), LEARNERS)
    before, after = getattr(of_learners, role), getattr(again, role)
    assert not np.array_equal(before.query_ratings, after.query_ratings)
    for each in ("train", "validation", "test"):
        assert_same_lists(getattr(of_learners, each), getattr(again, each))


def test_later_items_of_train_users_do_not_move_their_own_lists(table):
    """Planted, one by one: candidates that hold the query; candidates beside a support item that are drawn from the
    query, or never from it; bases, and the popularity of items, from the rows of the users' own fold. A network learns
    from these lists, and would learn to find what is relevant by such a trace.
    """
    domain = domain_of(table)
    roles = assign_roles({"shop": domain}, "shop", SETTINGS, 0)
    own = {user for user, fold in roles.folds.items() if fold == 0}
    found = []
    for changed in (domain, domain_of(with_other_queries(table, own))):
        cuts = cut_tasks(changed, roles, SETTINGS, 0)
        tasks = ranking_tasks(changed, cuts, repeats=False)
        groups = _build._groups(changed, roles, tasks)
        lists = _build.lists_of_groups(changed, groups, tasks, RANKING, LEARNERS, seed=0, jobs=1, on_progress=None)
        rows = [row for row, task in enumerate(tasks) if task.user in own]
        found.append({name: values[rows] for name, values in lists.items() if values.ndim and name != "relevant"})
    before, after = found
    assert before["query-items"].shape[0] == len(own) > 5
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def test_support_rows_are_scored_without_the_item(table, episodes):
    domain = domain_of(table)
    fit_on = domain.without(assign_roles({"shop": domain}, "shop", SETTINGS, 0).held_out(None))
    one = episodes.test
    items, targets = one.support_items[0], one.batch.support.targets[0].numpy()
    own = table[table["user"] == one.users[0]].sort_values("timestamp").head(3)
    assert items[targets == 1].tolist() == own["item"].tolist()
    base = fit_ranking_base("item-knn", fit_on, {}, seed=0)
    rest = own.iloc[1:]
    codes = fit_on.item_index.get_indexer(rest["item"])
    scores = base.score(Histories(np.array([2]), codes, rest["weight"].to_numpy(dtype=np.float32)))[0]
    # The first support item and the candidates beside it are in the order of their scores.
    places = fit_on.item_index.get_indexer(items[:3])
    found = one.batch.support.predictions[0, :3, 1].numpy()
    assert np.array_equal(np.argsort(scores[places], kind="stable"), np.argsort(found, kind="stable"))


def test_the_number_of_processes_and_the_cache_change_nothing(table, episodes, tmp_path):
    for options in ({"jobs": 2, "cache": tmp_path}, {"cache": tmp_path}):
        again = build(table, **options)
        for role in ("train", "validation", "test"):
            old, new = getattr(episodes, role), getattr(again, role)
            assert np.array_equal(
                old.batch.query.algorithm_features.numpy(), new.batch.query.algorithm_features.numpy()
            )
            assert np.array_equal(old.relevant, new.relevant)


def test_the_order_of_rows_changes_nothing(table, episodes):
    again = build(table.sample(frac=1, random_state=3))
    assert np.array_equal(
        again.test.batch.query.algorithm_features.numpy(), episodes.test.batch.query.algorithm_features.numpy()
    )


def test_bases_are_never_fitted_on_users_that_they_rank(table):
    domain = domain_of(table)
    support = [(np.array(["i00"], dtype=object), np.array([1.0]))]
    with pytest.raises(AssertionError, match="fitted on 1 of the users"):
        _build._fold_lists(domain, BASES, support, {"u00"}, RANKING, 0)


def test_items_outside_of_the_catalogue_count_nowhere(table):
    domain = domain_of(table)
    roles = assign_roles({"shop": domain}, "shop", SETTINGS, 0)
    user = next(user for user, role in roles.roles.items() if role == "test")
    more = table[table["user"] == user].tail(1).assign(item="new", timestamp=1e9)
    again = build(pd.concat([table, more], ignore_index=True))
    before = build(table)
    place = list(before.test.users).index(user)
    assert again.test.relevant[place] == before.test.relevant[place]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"draws": 2}, "episodes.draws must be 1 for ranking but got 2"),
        ({"shots": 100}, "users have the 102 items"),
    ],
)
def test_wrong_settings_are_one_line(table, settings, problem):
    with pytest.raises(InputError, match=problem):
        build_ranking_episodes({"shop": domain_of(table)}, "shop", SETTINGS.model_copy(update=settings), RANKING, BASES)


def test_a_catalogue_of_one_item(table):
    with pytest.raises(InputError, match="a ranking needs at least two items but has 1"):
        build(table.drop_duplicates("user").assign(item="i00"))


def history(items, weights):
    return UserHistory(np.array(items, dtype=object), np.array(weights, dtype=float), np.ones(len(items), dtype=int))


def test_a_new_user_has_the_list_of_the_test_user_with_the_same_history(table, episodes):
    domain = domain_of(table)
    fit_on = domain.without(assign_roles({"shop": domain}, "shop", SETTINGS, 0).held_out(None))
    maker = RankingTaskMaker.fit(fit_on, BASES, episodes.ranking_standards, RANKING)
    histories = []
    for user in episodes.test.users:
        own = table[table["user"] == user].sort_values("timestamp").head(3)
        histories.append(history(own["item"], own["weight"]))
    found = maker.users(histories)
    assert (found.query_items == episodes.test.query_items).all()
    for side in ("support", "query"):
        for name in ("predictions", "algorithm_features", "context", "mask"):
            old, new = (getattr(getattr(one.batch, side), name).numpy() for one in (episodes.test, found))
            assert np.array_equal(old, new, equal_nan=True), (side, name)


def test_a_new_user_without_a_history_has_candidates(table, episodes):
    maker = RankingTaskMaker.fit(domain_of(table), BASES, episodes.ranking_standards, RANKING)
    found = maker.users([history([], [])])
    assert (found.query_items[0] != "").sum() == 10
    assert not found.batch.support.mask.any()
    with pytest.raises(InputError, match="every weight of a history must be finite and > 0 but got -1"):
        maker.users([history(["i01"], [-1.0])])
    with pytest.raises(InputError, match="a history must hold each item once"):
        maker.users([history(["i01", "i01"], [1.0, 1.0])])
    with pytest.raises(InputError, match="an item of a history must have at least 1 event but has 0"):
        maker.users([history(["i01"], [1.0])._replace(counts=np.zeros(1, dtype=int))])


def test_over_all_folds_every_user_is_a_test_user_once(table):
    domain = domain_of(table)
    tested = []
    for fold in range(4):
        roles = fold_roles(domain, SETTINGS, fold=fold, folds=4, seed=0)
        tested += [user for user, role in roles.roles.items() if role == "test"]
        assert set(roles.folds) == {user for user, role in roles.roles.items() if role == "train"}
    assert sorted(tested) == sorted(set(table["user"]))


def test_a_user_without_a_relevant_item_in_the_catalogue_makes_no_episode(table):
    roles = assign_roles({"shop": domain_of(table)}, "shop", SETTINGS, 0)
    user = next(user for user, role in sorted(roles.roles.items()) if role == "test")
    changed = table.copy()
    rows = changed.index[changed["user"] == user]
    rows = rows[np.argsort(changed.loc[rows, "timestamp"].to_numpy())][3:]
    changed.loc[rows, "item"] = [f"new{place}" for place in range(len(rows))]
    found = build(changed)
    assert user not in found.test.users
    assert all((one.relevant > 0).all() for one in (found.train, found.validation, found.test))
