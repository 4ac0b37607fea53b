"""What every strategy promises, and what each of them may look at."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.meta import Shape
from metarec.transfer import STRATEGIES, TransferSettings, few_users
from metarec.transfer.sources._training import fine_tune

SHORT = TransferSettings(epochs=6, patience=3, outer_lr=0.01, options={"hidden_dim": 8})
strategies = pytest.mark.parametrize("name", STRATEGIES.names())


def fitted(name, worlds, target, *, seed=0, sources=("books", "music")):
    strategy = STRATEGIES.get(name)(SHORT, seed=seed)
    return strategy.fit({source: worlds[source] for source in sources}, target)


def with_targets(episodes, change):
    """The same users, whose ratings are others."""
    sides = (
        side._replace(targets=torch.where(side.mask, change(side.targets), side.targets)) for side in episodes.batch
    )
    return replace(episodes, batch=type(episodes.batch)(*sides))


@pytest.fixture(scope="module")
def few(worlds):
    return few_users(worlds["movies"].train, 6, seed=0)


@strategies
def test_every_strategy_predicts_and_repeats_itself(name, worlds, few):
    judged = worlds["movies"].test
    model = fitted(name, worlds, few)
    predicted = model.predict(judged)
    assert predicted.shape == tuple(judged.batch.query.mask.shape)
    assert ((predicted >= 0) & (predicted <= 1)).all()
    state = torch.random.get_rng_state()
    assert np.array_equal(fitted(name, worlds, few).predict(judged), predicted)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not np.array_equal(fitted(name, worlds, few, seed=1).predict(judged), predicted)


@strategies
def test_a_strategy_sees_what_it_says_it_sees(name, worlds, few):
    """zero_shot knows no rating of the target, scratch none of the sources; nobody sees their test users."""
    judged = worlds["movies"].test
    before = fitted(name, worlds, few).predict(judged)
    other_target = fitted(name, worlds, with_targets(few, lambda ratings: 1 - ratings)).predict(judged)
    assert np.array_equal(other_target, before) == (name == "zero_shot")

    def with_train(source):
        return replace(source, train=with_targets(source.train, lambda ratings: 1 - ratings))

    turned = {source: with_train(worlds[source]) for source in ("books", "music")}
    assert np.array_equal(fitted(name, turned, few).predict(judged), before) == (name == "scratch")
    blind = {
        source: replace(worlds[source], test=with_targets(worlds[source].test, torch.zeros_like))
        for source in ("books", "music")
    }
    assert np.array_equal(fitted(name, blind, few).predict(judged), before)


@strategies
def test_what_cannot_be_learned_from_is_refused(name, worlds, few):
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
def test_every_network_can_be_carried(name, worlds, few):
    """The attention network, whose weights of the loss a study searches, is the one unlike the others."""
    options = {"hidden_dim": 8, "meta_hidden_dim": 8}
    network = SHORT.model_copy(update={"network": "attention", "options": options, "loss": "fusion", "epochs": 2})
    strategy = STRATEGIES.get(name)(network, seed=0)
    predicted = strategy.fit({"books": worlds["books"]}, few).predict(worlds["movies"].test)
    assert ((predicted >= 0) & (predicted <= 1)).all()


def test_few_users_are_among_more_users(worlds):
    train = worlds["movies"].train
    five, twenty = few_users(train, 5, seed=3), few_users(train, 20, seed=3)
    assert set(five.users) < set(twenty.users) <= set(train.users)
    assert set(few_users(train, 5, seed=4).users) != set(five.users)
    place = list(train.users).index(five.users[0])
    assert torch.equal(five.batch.query.targets[0], train.batch.query.targets[place])
    assert np.array_equal(five.query_items[0], train.query_items[place])


def test_a_good_start_is_left_alone_where_training_does_not_help(worlds, few):
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
