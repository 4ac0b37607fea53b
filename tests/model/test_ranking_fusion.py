"""The fusion of ranking: its members, weights without test users, its state, and its contrasts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion.rankers import RANKERS, lambdamart
from metarec.fusion.ranks import RelevantRanks, ndcg, standard_scores
from metarec.meta import NetworkConfig
from metarec.model import Fusion, FusionConfig
from metarec.model.contrasts import AVERAGED, contrasts_of, stacks_of
from tests.support.ranking import ranking_episodes

NETWORK = NetworkConfig(options={"hidden_dim": 4}, epochs=3, inner_lr=0.01)
STACKERS = ("best-single", *AVERAGED["ranking"])
CONFIG = FusionConfig(task="ranking", networks={"one": NETWORK}, stackers=STACKERS)


@pytest.fixture(scope="module", autouse=True)
def few_settings():
    """LambdaMART with one of its settings, for time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambdamart, "GRID", lambdamart.GRID[:1])
        yield


@pytest.fixture(scope="module")
def episodes():
    return ranking_episodes(tasks=80, candidates=30, seed=2, others=0.6)


@pytest.fixture(scope="module")
def fusion(episodes):
    return Fusion(CONFIG).fit(episodes)


def quality(scores, episodes):
    query = episodes.batch.query
    ranks = RelevantRanks.of(scores, query.targets.numpy(), query.mask.numpy(), episodes.relevant)
    return float(ndcg(ranks).mean())


def with_other_test_targets(episodes):
    query = episodes.test.batch.query
    batch = episodes.test.batch._replace(query=query._replace(targets=1 - query.targets))
    return replace(episodes, test=replace(episodes.test, batch=batch, relevant=episodes.test.relevant + 30))


def test_its_default_stackers_are_the_rankers():
    assert FusionConfig(task="ranking").stackers == tuple(RANKERS.builtins())
    assert FusionConfig().stackers[0] == "mean"
    with pytest.raises(InputError, match='unknown ranker "ridge"'):
        FusionConfig(task="ranking", stackers=("ridge",))
    with pytest.raises(InputError, match="task must be 'rating' or 'ranking' but got 'lists'"):
        FusionConfig(task="lists")


def test_it_is_a_convex_combination_of_its_members_standard_scores(episodes, fusion):
    assert list(fusion.weights) == ["one", *STACKERS]
    assert min(fusion.weights.values()) >= 0
    assert sum(fusion.weights.values()) == pytest.approx(1)
    support, query = episodes.test.batch
    mask = query.mask.numpy()
    own = {"one": fusion.networks["one"].adapt(support).fuse(query).prediction.numpy()}
    own |= {name: fusion.stackers[name].predict(episodes.test) for name in STACKERS}
    expected = sum(weight * standard_scores(own[name], mask) for name, weight in fusion.weights.items())
    found = fusion.predict(episodes.test)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found[~mask] == 0).all()
    np.testing.assert_allclose(fusion.combine(fusion.members(episodes.test)), found, atol=1e-12)


def test_scores_of_a_network_are_not_clipped(episodes, fusion):
    """Scores outside of the unit scale would all be equal at its ends."""
    other = Fusion(CONFIG).fit(episodes, networks=fusion.networks, stackers=fusion.stackers)
    plain = other.members(episodes.test)["one"]

    class Shifted:
        def __init__(self, learner):
            self.learner = learner

        def adapt(self, support):
            adapted = self.learner.adapt(support)
            fuse = adapted.fuse
            adapted.fuse = lambda query: fuse(query)._replace(prediction=5 * fuse(query).prediction + 3)
            return adapted

    other.networks = {"one": Shifted(other.networks["one"])}
    np.testing.assert_allclose(other.members(episodes.test)["one"], plain, atol=1e-4)


def test_on_validation_users_it_is_no_worse_than_its_members_by_much(episodes, fusion):
    best = max(quality(own, episodes.validation) for own in fusion.members(episodes.validation).values())
    assert quality(fusion.predict(episodes.validation), episodes.validation) >= 0.97 * best


def test_test_users_relevance_changes_nothing(episodes, fusion):
    other = with_other_test_targets(episodes)
    again = Fusion(CONFIG).fit(other)
    assert again.weights == fusion.weights
    np.testing.assert_array_equal(again.predict(other.test), fusion.predict(episodes.test))


def test_weights_chosen_on_test_users_are_detected(episodes, fusion, monkeypatch):
    """The planted fault: the test above must be able to fail."""
    honest = Fusion._weigh

    def leak(domain):
        monkeypatch.setattr(
            Fusion, "_weigh", lambda self, validation, members: honest(self, domain.test, self.members(domain.test))
        )
        return Fusion(CONFIG).fit(domain, networks=fusion.networks, stackers=fusion.stackers).weights

    assert leak(episodes) != leak(with_other_test_targets(episodes))


def test_what_no_base_proposed_counts_for_the_weights(episodes, fusion):
    """A user with more missed items counts less; over candidates alone, these weights would be equal."""
    given = {"networks": fusion.networks, "stackers": fusion.stackers}
    half = np.arange(len(episodes.validation)) % 2 * 20
    other = replace(episodes, validation=replace(episodes.validation, relevant=episodes.validation.relevant + half))
    assert Fusion(CONFIG).fit(other, **given).weights != Fusion(CONFIG).fit(episodes, **given).weights


def test_it_is_restored_from_its_state_and_without_its_unused_members(episodes, fusion):
    restored = Fusion.restore(fusion.state())
    assert (restored.config, restored.seed, restored.weights) == (fusion.config, fusion.seed, fusion.weights)
    np.testing.assert_allclose(restored.predict(episodes.test), fusion.predict(episodes.test), rtol=1e-9)
    some = Fusion.restore(fusion.state())
    some.weights = {name: 0.5 * (name in ("one", "combsum")) for name in fusion.weights}
    used = some.used()
    assert list(used.weights) == ["one", "combsum"]
    assert used.config.task == "ranking"
    np.testing.assert_array_equal(used.predict(episodes.test), some.predict(episodes.test))


def test_adapted_once_it_ranks_the_same(episodes, fusion):
    adapted = fusion.adapt(episodes.test.batch.support)
    np.testing.assert_array_equal(adapted.predict(episodes.test), fusion.predict(episodes.test))
    alone = episodes.test.select(torch.tensor([3]))
    np.testing.assert_allclose(fusion.predict(alone)[0], fusion.predict(episodes.test)[3], atol=1e-4)


def test_episodes_of_the_other_task_are_refused(episodes, fusion):
    rating = replace(episodes.test, relevant=None)
    with pytest.raises(InputError, match="a fusion for ranking needs such episodes but got some of rating"):
        fusion.predict(rating)
    with pytest.raises(InputError, match="a fusion for rating needs such episodes but got some of ranking"):
        Fusion(FusionConfig(stackers=("mean",))).fit(episodes)


def test_the_contrasts_are_the_parts(episodes, fusion):
    found = contrasts_of(fusion, "one")
    members = fusion.members(episodes.test)
    np.testing.assert_allclose(found["network"].predict(episodes.test), members["one"])
    assert set(found["stack"].weights) == set(STACKERS)
    mean = np.mean([members[name] for name in AVERAGED["ranking"]], axis=0)
    np.testing.assert_allclose(found["stack-mean"].predict(episodes.test), mean, atol=1e-12)
    assert set(stacks_of(fusion.part(["combsum"]))) == {"stack"}


def test_equal_weights_are_the_plain_mean(episodes, fusion):
    equal = Fusion(CONFIG.model_copy(update={"weights": "equal"}))
    equal.fit(episodes, networks=fusion.networks, stackers=fusion.stackers)
    mean = np.mean(list(fusion.members(episodes.test).values()), axis=0)
    np.testing.assert_allclose(equal.predict(episodes.test), mean, atol=1e-12)
