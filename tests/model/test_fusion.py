"""The fusion: its members, weights without test ratings, its state, and a study's proposal."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeSettings, build_episodes
from metarec.errors import InputError
from metarec.meta import NetworkConfig, Shape
from metarec.model import Fusion, FusionConfig
from metarec.model._arrays import read_arrays, write_arrays
from metarec.search import ranked
from metarec.study.stages import member_name

NETWORK = NetworkConfig(options={"hidden_dim": 4}, epochs=3, inner_lr=0.01)
CONFIG = FusionConfig(networks={"network": NETWORK}, stackers=("mean", "ridge"))


@pytest.fixture(scope="module")
def episodes(world):
    settings = EpisodeSettings(shots=4, max_query=10, folds=2)
    return build_episodes({"movies": world["movies"]}, "movies", settings, {"bias": {}, "item-knn": {}})["movies"]


@pytest.fixture(scope="module")
def fusion(episodes):
    return Fusion(CONFIG).fit(episodes)


def with_other_test_ratings(episodes):
    query = episodes.test.batch.query
    batch = episodes.test.batch._replace(query=query._replace(targets=1 - query.targets))
    return replace(episodes, test=replace(episodes.test, batch=batch, query_ratings=-episodes.test.query_ratings))


def test_trials_are_ranked_by_error_and_the_earlier_of_equals_comes_first():
    trials = [SimpleNamespace(number=number, values=[value]) for number, value in enumerate([0.3, 0.1, 0.2, 0.1, 0.5])]
    assert [member_name(trial) for trial in ranked(trials)[:3]] == ["trial 1", "trial 3", "trial 2"]


def test_it_is_a_convex_combination_of_its_members(episodes, fusion):
    assert list(fusion.weights) == ["network", "mean", "ridge"]
    assert min(fusion.weights.values()) >= 0
    assert sum(fusion.weights.values()) == pytest.approx(1)
    support, query = episodes.test.batch
    members = [fusion.networks["network"].adapt(support).predict(query).numpy()]
    members += [fusion.stackers[name].predict(episodes.test) for name in ("mean", "ridge")]
    expected = sum(weight * member for weight, member in zip(fusion.weights.values(), members, strict=True))
    np.testing.assert_allclose(fusion.predict(episodes.test), expected, atol=1e-9)


def test_on_validation_users_it_is_no_worse_than_its_best_member(episodes, fusion):
    """The penalty towards equal weights costs almost nothing."""
    query = episodes.validation.batch.query
    rows, truth = query.mask.numpy(), query.targets.numpy()

    def rmse(predictions):
        return float(np.sqrt(np.mean((predictions - truth)[rows] ** 2)))

    best = min(map(rmse, fusion.members(episodes.validation).values()))
    assert rmse(fusion.predict(episodes.validation)) <= best * 1.002


def test_test_ratings_change_nothing(episodes, fusion):
    other = with_other_test_ratings(episodes)
    again = Fusion(CONFIG).fit(other)
    assert again.weights == fusion.weights
    np.testing.assert_array_equal(again.predict(other.test), fusion.predict(episodes.test))


def test_weights_chosen_on_test_users_are_detected(episodes, monkeypatch):
    """The planted fault: the test above must be able to fail."""
    honest = Fusion._weigh

    def leak(domain):
        monkeypatch.setattr(
            Fusion, "_weigh", lambda self, validation, members: honest(self, domain.test, self.members(domain.test))
        )
        return Fusion(CONFIG).fit(domain).weights

    assert leak(episodes) != leak(with_other_test_ratings(episodes))


def test_the_same_seed_makes_the_same_fusion_and_another_seed_another(episodes, fusion):
    same, other = Fusion(CONFIG).fit(episodes), Fusion(CONFIG, seed=1).fit(episodes)
    np.testing.assert_array_equal(same.predict(episodes.test), fusion.predict(episodes.test))
    assert not np.array_equal(other.predict(episodes.test), fusion.predict(episodes.test))


def test_given_members_are_not_trained_again(episodes, fusion):
    learner = NETWORK.build(Shape.of(episodes.train.batch), 7)
    other = Fusion(CONFIG).fit(episodes, networks={"network": learner}, stackers={"ridge": fusion.stackers["ridge"]})
    assert other.networks["network"] is learner
    assert other.stackers["ridge"] is fusion.stackers["ridge"]
    assert other.stackers["mean"] is not fusion.stackers["mean"]


def test_equal_weights_are_the_plain_mean(episodes, fusion):
    equal = Fusion(CONFIG.model_copy(update={"weights": "equal"}))
    equal.fit(episodes, networks=fusion.networks, stackers=fusion.stackers)
    mean = np.mean(list(fusion.members(episodes.test).values()), axis=0)
    np.testing.assert_allclose(equal.predict(episodes.test), mean, atol=1e-7)


def test_members_without_weight_are_left_out_and_change_nothing(episodes, fusion):
    fusion = Fusion(CONFIG).fit(episodes, networks=fusion.networks, stackers=fusion.stackers)
    fusion.weights = {"network": 0.4, "mean": 0.0, "ridge": 0.6}
    used = fusion.used()
    assert list(used.weights) == ["network", "ridge"]
    assert used.config.stackers == ("ridge",)
    np.testing.assert_array_equal(used.predict(episodes.test), fusion.predict(episodes.test))


def test_it_is_restored_from_its_state(episodes, fusion):
    restored = Fusion.restore(fusion.state())
    assert (restored.config, restored.seed, restored.weights) == (fusion.config, fusion.seed, fusion.weights)
    np.testing.assert_allclose(restored.predict(episodes.test), fusion.predict(episodes.test), rtol=1e-12)


def test_a_network_with_a_ridge_head_is_restored_with_it(episodes, tmp_path):
    ridge = NETWORK.model_copy(update={"adapted": "ridge", "epochs": 2})
    fusion = Fusion(FusionConfig(networks={"network": ridge}, stackers=())).fit(episodes)
    state = fusion.state()
    write_arrays(tmp_path / "network.npz", state["networks"]["network"])
    arrays = read_arrays((tmp_path / "network.npz").read_bytes(), "network.npz")
    restored = Fusion.restore(state | {"networks": {"network": arrays}})
    expected = fusion.predict(episodes.test)
    np.testing.assert_array_equal(restored.predict(episodes.test), expected)
    with torch.no_grad():
        restored.networks["network"].ridge.logarithms += 1
    assert np.abs(restored.predict(episodes.test) - expected).max() > 1e-5
    with pytest.raises(InputError, match="the network network must have weights of the shapes"):
        Fusion.restore(state | {"networks": {"network": {**arrays, "ridge.logarithms": np.zeros(2)}}})


def test_it_has_no_state_before_it_is_fitted():
    with pytest.raises(RuntimeError, match=r"call fit\(episodes\) first"):
        Fusion(CONFIG).state()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"networks": {}, "stackers": ()}, "must have at least one network or stacker but has none"),
        ({"stackers": ("rigde",)}, 'unknown baseline "rigde"; did you mean "ridge"'),
        ({"stackers": ("ridge", "ridge")}, 'must have different names but "ridge" is there twice'),
        ({"networks": {"ridge": NETWORK}}, 'must have different names but "ridge" is there twice'),
        ({"weights": "best"}, "weights must be 'validation' or 'equal' but got 'best'"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        FusionConfig(**wrong)


def test_several_domains_are_trained_on_together(world):
    settings = EpisodeSettings(shots=4, max_query=10, folds=2)
    domains = {name: world[name] for name in ("movies", "books")}
    both = build_episodes(domains, "movies", settings, {"bias": {}, "item-knn": {}})
    fusion = Fusion(CONFIG).fit(list(both.values()))
    alone = Fusion(CONFIG).fit(both["movies"])
    assert not np.array_equal(fusion.predict(both["movies"].test), alone.predict(both["movies"].test))
