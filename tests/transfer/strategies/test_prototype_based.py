"""Prototypes are found without query ratings, and their corrections reduce errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeBatch, Episodes
from metarec.fusion.stackers import true_ratings
from metarec.transfer import TransferredModel, TransferSettings, few_users
from metarec.transfer.strategies.parts.user_prototypes import UserPrototypes, embeddings
from metarec.transfer.strategies.prototype_based import PrototypeBased, PrototypeMixture

SHORT = TransferSettings(epochs=4, patience=3, outer_lr=0.01, options={"hidden_dim": 8}, stackers=("ridge",))


class MeanOfBases(TransferredModel):
    """A model without prototypes."""

    def members(self, episodes):
        return episodes.batch.query.predictions.nan_to_num(0.5).mean(-1, keepdim=True).double().numpy()

    def predict(self, episodes):
        return self.members(episodes)[..., 0]


def two_kinds(episodes, share=0.5, seed=0):
    """Some users rate as the first base predicts, the others as the last; all features are 0."""
    first = torch.rand(len(episodes), generator=torch.Generator().manual_seed(seed)) < share
    sides = []
    for number, side in enumerate(episodes.batch):
        noise = 0.02 * torch.randn(side.mask.shape, generator=torch.Generator().manual_seed(seed + number))
        predictions = side.predictions.nan_to_num(0.5)
        spread = torch.rand(predictions.shape, generator=torch.Generator().manual_seed(seed + 9 + number))
        predictions = torch.where(side.mask.unsqueeze(-1), 0.3 + 0.4 * spread, predictions)
        targets = torch.where(first.unsqueeze(1), predictions[..., 0], predictions[..., -1]) + noise
        sides.append(
            side._replace(
                predictions=predictions,
                targets=torch.where(side.mask, targets, 0.0),
                algorithm_features=torch.zeros_like(side.algorithm_features),
                context=torch.zeros_like(side.context),
            )
        )
    return replace(episodes, batch=EpisodeBatch(*sides))


def rmse(model, episodes):
    query = episodes.batch.query
    return float(np.sqrt(np.mean((model.predict(episodes)[query.mask.numpy()] - true_ratings(query)) ** 2)))


@pytest.fixture(scope="module")
def made(worlds):
    """Users for clustering, for coefficients, few users, and test users; of two kinds each."""
    many = [Episodes.joined([worlds[name].train] * 10) for name in ("books", "music")]
    sides = [*many, worlds["movies"].validation, Episodes.joined([worlds["movies"].train] * 5)]
    return [two_kinds(side, seed=seed) for seed, side in enumerate(sides)]


def mixture(made, count):
    train, others, few, _ = made
    return PrototypeMixture(MeanOfBases(), UserPrototypes(train, count, 0), others, few)


def test_two_prototypes_have_smaller_errors_than_one(made):
    one, two = (rmse(mixture(made, count), made[-1]) for count in (1, 2))
    assert two < 0.8 * one


def test_predictions_depend_on_prototypes(made):
    model = mixture(made, 2)
    before = model.predict(made[-1])
    model.coefficients = model.coefficients[::-1]
    assert np.abs(model.predict(made[-1]) - before)[made[-1].batch.query.mask.numpy()].max() > 0.01
    assert rmse(model, made[-1]) > 1.2 * rmse(mixture(made, 2), made[-1])


def test_the_few_users_move_memberships_to_frequent_prototypes(worlds, made):
    train = made[0]
    prototypes = UserPrototypes(train, 2, 0)
    shares = [
        prototypes.priors(two_kinds(few_users(worlds["movies"].train, 20, 0), share), 10.0) for share in (0.05, 0.95)
    ]
    assert np.abs(shares[0] - shares[1]).max() > 0.3
    for priors in shares:
        assert priors.sum() == pytest.approx(1)
        frequent = int(np.argmax(priors))
        gained = prototypes.memberships(train, priors) - prototypes.memberships(train)
        assert gained[:, frequent].min() >= 0
        assert gained[:, frequent].max() > 0.01
    np.testing.assert_allclose(prototypes.memberships(train, prototypes.shares), prototypes.memberships(train))


def test_embeddings_do_not_depend_on_query_ratings(worlds):
    train = worlds["movies"].train
    query = train.batch.query

    def embedded(**changed):
        return embeddings(replace(train, batch=train.batch._replace(**changed)))

    before = embeddings(train)
    assert before.shape[0] == len(train)
    assert np.isfinite(before).all()
    assert np.array_equal(embedded(query=query._replace(targets=1 - query.targets)), before)
    support = train.batch.support
    assert not np.array_equal(embedded(support=support._replace(targets=1 - support.targets)), before)
    no_support = embedded(support=support._replace(mask=torch.zeros_like(support.mask)))
    assert np.isfinite(no_support).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_memberships_sum_to_1(worlds, count):
    prototypes = UserPrototypes(worlds["books"].train, count, seed=0)
    found = prototypes.memberships(worlds["movies"].test)
    assert found.shape == (len(worlds["movies"].test), count)
    np.testing.assert_allclose(found.sum(1), 1)
    assert prototypes.shares.sum() == pytest.approx(1)


def test_the_strategy_gives_reasons(worlds):
    few = few_users(worlds["movies"].train, 6, seed=0)
    sources = {name: worlds[name] for name in ("books", "music")}
    reasons = PrototypeBased(SHORT, seed=0).fit(sources, few).reasons()
    assert json.loads(json.dumps(reasons)) == reasons
    users = sum(len(source.train) for source in sources.values())
    assert reasons["prototypes"] == len(reasons["shares_in_target"]) == min(8, users // 20)
