"""The models that show what a fusion's gain is made of, against their definitions."""

import numpy as np
import pytest

from metarec.episodes import EpisodeSettings, build_episodes
from metarec.meta import NetworkConfig
from metarec.model import Fusion, FusionConfig
from metarec.model.contrasts import AVERAGED, contrasts_of, stacks_of, without_inner_loop
from metarec.ratings import simulate_domains

NETWORKS = {"one": NetworkConfig(epochs=2, inner_steps=2), "two": NetworkConfig(epochs=1)}


@pytest.fixture(scope="module")
def episodes():
    domains = {"movies": simulate_domains(num_users=60, num_items=60, ratings_per_user=20)["movies"]}
    return build_episodes(domains, "movies", EpisodeSettings(shots=5, folds=2), {"bias": {}, "item-knn": {}})["movies"]


@pytest.fixture(scope="module")
def fusion(episodes):
    return Fusion(FusionConfig(networks=NETWORKS, stackers=("mean", *AVERAGED["rating"])), seed=1).fit(episodes)


def test_the_stack_is_the_fusion_of_the_same_stackers_without_networks(fusion, episodes):
    stack = contrasts_of(fusion, "one")["stack"]
    alone = Fusion(FusionConfig(networks={}, stackers=("mean", *AVERAGED["rating"])), seed=1).fit(episodes)
    assert stack.weights == pytest.approx(alone.weights)
    np.testing.assert_allclose(stack.predict(episodes.test), alone.predict(episodes.test))
    assert sum(stack.weights.values()) == pytest.approx(1)
    assert set(stack.weights) == set(fusion.stackers)


def test_the_stack_mean_is_the_plain_mean_of_three(fusion, episodes):
    members = fusion.members(episodes.test)
    expected = np.mean([members[name] for name in AVERAGED["rating"]], axis=0)
    found = contrasts_of(fusion, "one")["stack-mean"].predict(episodes.test)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("best", ["one", "two"])
def test_the_network_is_the_best_one_alone(fusion, episodes, best):
    found = contrasts_of(fusion, best)["network"].predict(episodes.test)
    np.testing.assert_array_equal(found, fusion.members(episodes.test)[best])


def test_models_that_need_a_stacker_that_is_not_there_are_left_out(fusion, episodes):
    assert stacks_of(fusion.part(["one"])) == {}
    assert set(stacks_of(fusion.part(["one", "mean"]))) == {"stack"}


def test_without_the_inner_loop_all_else_is_the_same():
    plain = without_inner_loop(NETWORKS["one"])
    assert plain.inner_steps == 0
    assert plain == NETWORKS["one"].model_copy(update={"inner_steps": 0})
