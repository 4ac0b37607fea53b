"""What every ranking base promises; a new one passes by being in the registry."""

import numpy as np
import pytest
from scipy import sparse

from metarec.bases.ranking import (
    RANKING_BASES,
    Choices,
    Histories,
    Range,
    applicable_ranking_bases,
    fit_ranking_base,
    make_ranking_base,
)
from metarec.errors import InputError
from tests.support.events import EventDomain, events_of_groups, histories_of

NAMES = RANKING_BASES.names()
PERSONAL = [name for name in NAMES if name != "popularity"]
SMALL = {"vae": {"hidden": 16, "epochs": 6, "batch_users": 16}, "ials": {"features": 8}}


@pytest.fixture(scope="module")
def world():
    return events_of_groups(0)


@pytest.fixture(scope="module")
def held_out(world):
    return sorted(world.ratings["user"].unique())[::5]


@pytest.fixture(scope="module")
def fit_on(world, held_out):
    return EventDomain(world.ratings[~world.ratings["user"].isin(held_out)], world.items)


def fitted(name, domain, seed=1):
    return fit_ranking_base(name, domain, SMALL.get(name, {}), seed)


@pytest.fixture(scope="module")
def bases(fit_on):
    return {name: fitted(name, fit_on) for name in NAMES}


@pytest.fixture(scope="module")
def some(world, held_out, fit_on):
    return histories_of(fit_on, world.ratings[world.ratings["user"].isin(held_out)], shots=4)


def picked(histories, users):
    """The histories of some of the users."""
    starts = np.cumsum(histories.lengths) - histories.lengths
    places = np.concatenate([np.arange(starts[user], starts[user] + histories.lengths[user]) for user in users])
    places = places.astype(np.int64)
    return Histories(histories.lengths[users], histories.items[places], histories.weights[places])


def no_history():
    return Histories(np.array([0]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_scores_the_whole_catalogue_for_users_outside_of_the_fit(name, bases, some, fit_on):
    scores = bases[name].score(some)
    assert scores.shape == (len(some.lengths), len(fit_on.item_index))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert bases[name].num_items == len(fit_on.item_index)
    assert bases[name].name == name


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_history_is_nan_or_popularity(name, bases, fit_on):
    scores = bases[name].score(no_history())
    assert scores.shape == (1, len(fit_on.item_index))
    assert np.isfinite(scores).all() if name == "popularity" else np.isnan(scores).all()


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_the_other_users_of_the_call(name, bases, some):
    together = bases[name].score(some)
    empty = no_history()
    mixed = Histories(
        np.concatenate([empty.lengths, some.lengths[::-1]]),
        picked(some, np.arange(len(some.lengths))[::-1]).items,
        picked(some, np.arange(len(some.lengths))[::-1]).weights,
    )
    np.testing.assert_allclose(bases[name].score(mixed)[1:][::-1], together, rtol=1e-4, atol=1e-5)
    for user in (0, 3):
        alone = bases[name].score(picked(some, np.array([user])))
        np.testing.assert_allclose(alone[0], together[user], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_scores_whatever_the_order_of_rows(name, bases, fit_on, some):
    scores = bases[name].score(some)
    np.testing.assert_array_equal(fitted(name, fit_on).score(some), scores)
    shuffled = EventDomain(fit_on.ratings.sample(frac=1, random_state=0), fit_on.items.sample(frac=1, random_state=1))
    np.testing.assert_allclose(fitted(name, shuffled).score(some), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_the_ids_of_train_users(name, bases, fit_on, some):
    """Except by the order of sums, and of the draws of those that draw."""
    if name in ("vae", "ials"):
        pytest.skip("draws numbers for users one after the other")
    names = {user: f"v{999 - int(user[1:]):03}" for user in fit_on.ratings["user"].unique()}
    renamed = EventDomain(fit_on.ratings.assign(user=fit_on.ratings["user"].map(names)), fit_on.items)
    np.testing.assert_allclose(fitted(name, renamed).score(some), bases[name].score(some), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_users_outside_of_the_fit_do_moves_no_score(name, world, held_out, some, bases):
    """A planted leak: other events of the users who are held out. Only the same items must be there."""
    changed = world.ratings.copy()
    rows = changed["user"].isin(held_out)
    changed.loc[rows, ["item", "weight"]] = changed.loc[rows, ["item", "weight"]].to_numpy()[::-1]
    fit_on = EventDomain(changed[~rows], world.items)
    np.testing.assert_array_equal(fitted(name, fit_on).score(some), bases[name].score(some))
    # With their rows in the fit, scores move: the test can see a leak.
    leak = fitted(name, EventDomain(changed.drop_duplicates(["user", "item"]), world.items)).score(some)
    if name != "content":
        assert np.abs(leak - bases[name].score(some)).max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_base_of_the_same_state_scores_the_same(name, bases, some):
    restored = make_ranking_base(name, seed=1, **SMALL.get(name, {})).restore(bases[name].state())
    np.testing.assert_array_equal(restored.score(some), bases[name].score(some))
    assert restored.num_items == bases[name].num_items


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_state_is_refused(name, bases):
    state = bases[name].state()
    for key, value in state.items():
        rest = {other: kept for other, kept in state.items() if other != key}
        with pytest.raises(InputError, match=f'{name} must hold "{key}"'):
            make_ranking_base(name, **SMALL.get(name, {})).restore(rest)
        damaged = [np.zeros((2,) * (value.ndim + 1))]
        if value.dtype.kind == "f" and (value.nnz if sparse.issparse(value) else value.size):
            wrong = value.copy()
            (wrong.data if sparse.issparse(value) else wrong.reshape(-1))[:1] = np.nan
            damaged.append(wrong)
        for wrong in damaged:
            with pytest.raises(InputError, match=f"the state of the ranking base {name}"):
                make_ranking_base(name, **SMALL.get(name, {})).restore({**state, key: wrong})


@pytest.mark.parametrize("name", PERSONAL)
def test_the_history_matters_and_an_item_can_be_left_out(name, bases, some):
    scores = bases[name].score(some)
    ends = np.cumsum(some.lengths)
    rest = np.setdiff1d(np.arange(len(some.items)), ends - 1)
    shorter = Histories(some.lengths - 1, some.items[rest], some.weights[rest])
    left_out = bases[name].score(shorter)
    assert np.isfinite(left_out).all()
    assert np.abs(left_out - scores).max() > 1e-4


def ndcg(scores, histories, relevant):
    """Mean nDCG@10; `relevant` holds a set of codes for each user."""
    scores = scores.copy()
    scores[histories.owners, histories.items] = -np.inf
    discounts = 1 / np.log2(np.arange(2, 12))
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    gains = [
        sum(discounts[place] for place, item in enumerate(row) if item in wanted) / discounts[: len(wanted)].sum()
        for row, wanted in zip(top, relevant, strict=True)
    ]
    return np.mean(gains)


@pytest.mark.parametrize("name", PERSONAL)
def test_a_personal_base_is_better_than_popularity_where_tastes_differ(name, bases, world, held_out, fit_on, some):
    all_of_them = histories_of(fit_on, world.ratings[world.ratings["user"].isin(held_out)])
    users = np.split(all_of_them.items, np.cumsum(all_of_them.lengths)[:-1])
    relevant = [set(own[4:].tolist()) for own in users]
    popular = ndcg(bases["popularity"].score(some), some, relevant)
    assert ndcg(bases[name].score(some), some, relevant) > popular + 0.2


def test_a_base_with_wrong_scores_is_refused(bases, some):
    class Wrong(type(bases["popularity"])):
        name = "wrong"

        def score_items(self, histories):
            return self.answer

    wrong = Wrong().restore(bases["popularity"].state())
    wrong.answer = np.zeros((len(some.lengths), 3))
    with pytest.raises(ValueError, match=r"wrong must return an array of shape \(24, 60\) but returned \(24, 3\)"):
        wrong.score(some)
    wrong.answer = np.zeros((len(some.lengths), wrong.num_items))
    wrong.answer[2, 5] = np.nan
    with pytest.raises(ValueError, match="wrong must return finite scores"):
        wrong.score(some)


@pytest.mark.parametrize("name", NAMES)
def test_a_search_may_vary_settings_that_there_are(name):
    kind = RANKING_BASES.get(name)
    for setting, limits in kind.searched.items():
        assert setting in kind.Config.model_fields
        values = limits.values if isinstance(limits, Choices) else limits[:2]
        assert isinstance(limits, Choices | Range)
        for value in values:
            make_ranking_base(name, **{setting: value})
        default = kind.Config.model_fields[setting].default
        if isinstance(limits, Choices):
            assert default in limits.values
        elif default is not None:
            assert limits.low <= default <= limits.high


def test_a_base_is_left_out_where_no_domain_has_what_it_needs(world):
    plain = EventDomain(world.ratings.drop(columns="timestamp"))
    without = [name for name in NAMES if name not in ("content", "next-item")]
    assert applicable_ranking_bases(NAMES, [plain]) == without
    assert applicable_ranking_bases(NAMES, [plain, world]) == NAMES


def test_a_base_without_what_it_needs_says_nothing_or_takes_no_order(world, some):
    plain = EventDomain(world.ratings.drop(columns="timestamp"))
    assert np.isnan(fitted("content", plain).score(some)).all()
    assert np.isfinite(fitted("next-item", plain).score(some)).all()


def test_explicit_feedback_and_unknown_names_are_refused(world):
    explicit = EventDomain(world.ratings, feedback="explicit")
    with pytest.raises(InputError, match=r'domain "events": a ranking base needs implicit feedback but got explicit'):
        fit_ranking_base("ease", explicit, {})
    with pytest.raises(InputError, match='unknown ranking base "eese"; did you mean "ease"'):
        make_ranking_base("eese")
    with pytest.raises(InputError, match=r"bases\.item-knn\.neighbours"):
        fit_ranking_base("item-knn", world, {"neighbours": 0})
