"""The contract of every strategy, and the data that each may use."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.meta import Shape
from metarec.transfer import STRATEGIES, TransferSettings, few_users
from metarec.transfer.sources import fine_tune

SHORT = TransferSettings(epochs=6, patience=3, outer_lr=0.01, options={"hidden_dim": 8})
strategies = pytest.mark.parametrize("name", STRATEGIES.names())
strategies_slowly = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("auto", "stack") else ()) for name in STRATEGIES.names()],
)


def fitted(name, worlds, target, *, seed=0, sources=("books", "music")):
    strategy = STRATEGIES.get(name)(SHORT, seed=seed)
    return strategy.fit({source: worlds[source] for source in sources}, target)


def with_targets(episodes, change):
    """The same users with changed ratings."""
    sides = (
        side._replace(targets=torch.where(side.mask, change(side.targets), side.targets)) for side in episodes.batch
    )
    return replace(episodes, batch=type(episodes.batch)(*sides))


@pytest.fixture(scope="module")
def few(worlds):
    return few_users(worlds["movies"].train, 6, seed=0)


@strategies_slowly
def test_every_strategy_predicts_reproducibly(name, worlds, few):
    test = worlds["movies"].test
    model = fitted(name, worlds, few)
    predicted = model.predict(test)
    assert predicted.shape == tuple(test.batch.query.mask.shape)
    assert ((predicted >= 0) & (predicted <= 1)).all()
    state = torch.random.get_rng_state()
    assert np.array_equal(fitted(name, worlds, few).predict(test), predicted)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not np.array_equal(fitted(name, worlds, few, seed=1).predict(test), predicted)


@strategies_slowly
def test_a_strategy_uses_only_the_data_that_it_may_use(name, worlds, few):
    """zero_shot uses no target rating, scratch no source rating, and none uses test users."""
    test = worlds["movies"].test
    before = fitted(name, worlds, few).predict(test)
    other_target = fitted(name, worlds, with_targets(few, lambda ratings: 1 - ratings)).predict(test)
    assert np.array_equal(other_target, before) == (name == "zero_shot")

    def with_train(source):
        return replace(source, train=with_targets(source.train, lambda ratings: 1 - ratings))

    turned = {source: with_train(worlds[source]) for source in ("books", "music")}
    assert np.array_equal(fitted(name, turned, few).predict(test), before) == (name == "scratch")
    blind = {
        source: replace(worlds[source], test=with_targets(worlds[source].test, torch.zeros_like))
        for source in ("books", "music")
    }
    assert np.array_equal(fitted(name, blind, few).predict(test), before)


@strategies
def test_wrong_data_is_an_error(name, worlds, few):
    with pytest.raises(InputError, match='target "movies" must have at least one user but has none'):
        fitted(name, worlds, few_users(few, 0, seed=0))
    other = replace(worlds["books"], train=replace(worlds["books"].train, base_names=("a", "b", "c")))
    with pytest.raises(InputError, match=r'source "books" must have the base_names .* but has \(\'a\''):
        fitted(name, {**worlds, "books": other}, few)
    if name != "scratch":
        with pytest.raises(InputError, match=f'strategy "{name}" needs at least one source domain but got none'):
            fitted(name, worlds, few, sources=())


@strategies
def test_one_user_is_enough(name, worlds, few):
    predicted = fitted(name, worlds, few_users(few, 1, seed=0)).predict(worlds["movies"].test)
    assert ((predicted >= 0) & (predicted <= 1)).all()


@strategies
@pytest.mark.parametrize("adapted", ["head", "ridge"])
def test_every_strategy_works_with_the_attention_network(name, adapted, worlds, few):
    options = {"hidden_dim": 8, "meta_hidden_dim": 8}
    how = {"network": "attention", "options": options, "loss": "fusion", "epochs": 2, "adapted": adapted}
    strategy = STRATEGIES.get(name)(SHORT.model_copy(update=how), seed=0)
    predicted = strategy.fit({"books": worlds["books"]}, few).predict(worlds["movies"].test)
    assert ((predicted >= 0) & (predicted <= 1)).all()


def test_a_smaller_draw_is_a_subset_of_a_larger_one(worlds):
    train = worlds["movies"].train
    five, twenty = few_users(train, 5, seed=3), few_users(train, 20, seed=3)
    assert set(five.users) < set(twenty.users) <= set(train.users)
    assert set(few_users(train, 5, seed=4).users) != set(five.users)
    place = list(train.users).index(five.users[0])
    assert torch.equal(five.batch.query.targets[0], train.batch.query.targets[place])
    assert np.array_equal(five.query_items[0], train.query_items[place])


def test_no_epoch_is_chosen_where_training_does_not_help(worlds, few):
    """With a rate that ruins every network, cross-validation chooses no epoch at all."""
    ruinous = SHORT.model_copy(update={"outer_lr": 3.0})
    learner = SHORT.build(Shape.of(few.batch), 0)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    fine_tune(learner, few, ruinous, seed=0)
    torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)
    fine_tune(learner, few_users(few, 1, seed=0), SHORT, seed=0)
    torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": "gate"}, 'unknown fusion network "gate"; did you mean "gated"'),
        ({"epochs": 0}, "epochs must be >= 1 but got 0"),
        ({"folds": 1}, "folds must be >= 2 but got 1"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(InputError, match=message):
        TransferSettings(**wrong)
