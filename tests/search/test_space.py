"""The search space: the parameters of each network, without those that the spec fixes."""

import inspect
from types import SimpleNamespace

import optuna
import pytest
import torch

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import NETWORKS, Choice, FusionNetwork, FusionOutput, IntRange, RealRange
from metarec.fusion.losses import LIST_LOSSES
from metarec.meta import Shape
from metarec.meta import network_config as network_config_module
from metarec.search import COMMON_PARAMETERS, parameters_of, space, suggest_parameters
from metarec.search.space import own_parameters
from metarec.study import fusion_spec
from metarec.study.networks import network_config
from metarec.study.spec import StudySpec

COMMON = ["inner_lr", "inner_steps", "learn_rates", "adapted", "loss", "outer_lr"]
OF_ATTENTION = ["diversity_weight", "confidence_weight", "prediction_loss", "combine"]
OF_GATED = ["hidden_dim", "dropout", "prediction_loss", "diversity_weight", "correction_weight"]


class OnlyABias(FusionNetwork):
    """A plug-in without one option."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def fuse(self, inputs):
        return FusionOutput(self.bias.expand(inputs.targets.shape))


@pytest.fixture
def plugged_in(monkeypatch):
    class Registry:
        def get(self, name):
            return OnlyABias if name == "only-a-bias" else NETWORKS.get(name)

    for module in (network_config_module, space, fusion_spec):
        monkeypatch.setattr(module, "NETWORKS", Registry())


@pytest.fixture(scope="module")
def small_inputs():
    """The part of episodes that gives a network its shape."""
    shape = (1, 2)
    rows = FusionInputs(
        torch.rand(*shape, 3), torch.rand(*shape, 3, 4), torch.rand(*shape, 5), torch.rand(shape), torch.ones(shape) > 0
    )
    return SimpleNamespace(batch=EpisodeBatch(rows, rows))


def test_the_networks_own_parameters_are_options_of_its_constructor():
    for network, parameters in ((name, own_parameters(name)) for name in NETWORKS.builtins()):
        options = inspect.signature(NETWORKS.get(network)).parameters
        for name in parameters:
            assert name in options, f"{network}: {name}"
            assert name not in COMMON_PARAMETERS


def test_every_default_lies_in_its_usual_range():
    for network in NETWORKS.builtins():
        for task in ("rating", "ranking"):
            for name, parameter in parameters_of([network], task).items():
                assert parameter.range.holds(parameter.default), name


def test_a_ranking_study_searches_a_list_wise_loss_and_its_temperature():
    for network in NETWORKS.builtins():
        ratings, lists = (parameters_of([network], task) for task in ("rating", "ranking"))
        assert lists["prediction_loss"].default == "softmax"
        assert sorted(lists["prediction_loss"].range.choices) == sorted(LIST_LOSSES)
        assert lists["temperature"].range == RealRange(low=0.01, high=0.5, log=True)
        assert lists["loss"].allowed is None
        own = {"prediction_loss", "temperature", "loss", "confidence_weight", "inner_lr"}
        assert {n: p for n, p in lists.items() if n not in own} == {n: p for n, p in ratings.items() if n not in own}
        assert "confidence_weight" not in lists
        assert "temperature" not in ratings


def test_inner_rates_of_a_ranking_study_are_far_smaller():
    ratings, lists = (parameters_of(["gated"], task)["inner_lr"] for task in ("rating", "ranking"))
    assert lists.default < lists.range.high <= 0.1 * ratings.range.high
    assert lists.range.low < ratings.range.low


def test_a_plug_in_without_a_loss_of_its_own_has_no_more_parameters_in_ranking(plugged_in):
    assert own_parameters("only-a-bias", "ranking") == {}


def test_the_space_has_the_parameters_of_the_network(plugged_in):
    assert list(StudySpec().space) == [*COMMON, *OF_GATED]
    assert list(StudySpec(fusion={"network": "attention"}).space) == [*COMMON, *OF_ATTENTION]
    plain = StudySpec(fusion={"network": "only-a-bias", "options": {}})
    assert list(plain.space) == list(plain.trial_zero) == COMMON
    with pytest.raises(ValueError, match=r'unknown parameter "combine" of the network only-a-bias; .*Known: adapted, '):
        StudySpec(fusion={"network": "only-a-bias", "options": {}}, search={"combine": {"choices": ["product"]}})


def test_trial_zero_is_the_default_configuration():
    assert StudySpec().trial_zero == {
        "inner_lr": 0.02,
        "inner_steps": 1,
        "learn_rates": False,
        "adapted": "all",
        "loss": "fusion",
        "outer_lr": 3e-3,
        "hidden_dim": 64,
        "dropout": 0.5,
        "prediction_loss": "mse",
        "diversity_weight": 1e-4,
        "correction_weight": 1e-2,
    }


def built(spec, episodes, params):
    return network_config(spec, params).build(Shape.of(episodes.batch), spec.seed)


def test_an_option_of_the_network_fixes_its_parameter(small_inputs):
    options = {"hidden_dim": 8, "combine": "softmax", "diversity_weight": 0.5}
    fixed = StudySpec(fusion={"network": "attention", "options": options})
    assert list(fixed.space) == list(fixed.trial_zero) == [*COMMON, "confidence_weight", "prediction_loss"]
    network = built(fixed, small_inputs, {**fixed.trial_zero, "confidence_weight": 0.7}).network
    assert (network.combine, network.diversity_weight, network.confidence_weight) == ("softmax", 0.5, 0.7)


def test_a_range_of_one_value_fixes_its_parameter():
    fixed = StudySpec(
        search={
            "loss": {"choices": ["mae"]},
            "learn_rates": {"choices": [True]},
            "inner_steps": {"first": 3, "last": 3},
            "inner_lr": {"low": 0.1, "high": 0.1},
        }
    )
    expected = {**StudySpec().trial_zero, "loss": "mae", "learn_rates": True, "inner_steps": 3, "inner_lr": 0.1}
    assert fixed.trial_zero == expected
    with pytest.raises(ValueError, match=r"defaults.loss must lie in the search range mae but is 'mse'"):
        StudySpec(search={"loss": {"choices": ["mae"]}}, defaults={"loss": "mse"})


def test_a_network_is_built_with_the_parameters_of_the_trial(small_inputs, plugged_in):
    plain = StudySpec(fusion={"network": "only-a-bias", "options": {}})
    params = {
        "inner_lr": 0.3,
        "inner_steps": 2,
        "learn_rates": True,
        "adapted": "head",
        "loss": "huber",
        "outer_lr": 0.1,
    }
    learner = built(plain, small_inputs, params)
    found = {name: getattr(learner, name) for name in params if name != "outer_lr"}
    assert found == {name: value for name, value in params.items() if name != "outer_lr"}
    assert isinstance(learner.network, OnlyABias)


def test_every_trial_searches_a_weight_of_the_loss():
    for network in NETWORKS.builtins():
        assert any(name.endswith("_weight") for name in StudySpec(fusion={"network": network}).space), network


def test_several_networks_have_spaces_of_their_own(small_inputs):
    both = StudySpec(fusion={"network": {"choices": ["gated", "attention"]}})
    expected = [
        "network",
        *COMMON,
        *(f"gated.{name}" for name in OF_GATED),
        *(f"attention.{name}" for name in OF_ATTENTION),
    ]
    assert list(both.space) == list(both.trial_zero) == expected
    assert [trial["network"] for trial in both.first_trials] == ["gated", "attention"]
    params = {
        **both.trial_zero,
        "network": "attention",
        "attention.combine": "softmax",
        "attention.diversity_weight": 0.05,
    }
    network = built(both, small_inputs, params).network
    assert (type(network).__name__, network.combine, network.diversity_weight) == (
        "MetaRecommenderFusion",
        "softmax",
        0.05,
    )


def test_a_trial_draws_the_parameters_of_its_own_network_only():
    both = StudySpec(fusion={"network": {"choices": ["gated", "attention"]}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        params = suggest_parameters(study.ask(), both.space)
        seen.add(params["network"])
        owners = {name.partition(".")[0] for name in params if "." in name}
        assert owners == {params["network"]}
    assert seen == {"gated", "attention"}


def test_options_of_several_networks_are_given_by_network(small_inputs):
    spec = StudySpec(
        fusion={"network": {"choices": ["gated", "linear"]}, "options": {"gated": {"hidden_dim": 8, "dropout": 0.1}}},
        search={"gated.diversity_weight": {"low": 0.001, "high": 0.01}},
        defaults={"gated.diversity_weight": 0.002},
    )
    assert not {"gated.hidden_dim", "gated.dropout"} & set(spec.space)
    network = built(spec, small_inputs, spec.trial_zero).network
    assert (network.body[0].out_features, network.loss_weights["diversity"]) == (8, 0.002)
    with pytest.raises(ValueError, match=r"fusion.options must be a mapping from gated, linear .*hidden_dim: 8"):
        StudySpec(fusion={"network": {"choices": ["gated", "linear"]}, "options": {"hidden_dim": 8}})
    with pytest.raises(ValueError, match=r'"gated" is named twice'):
        StudySpec(fusion={"network": {"choices": ["gated", "gated"]}})
    with pytest.raises(ValueError, match=r'unknown fusion network "gatd"'):
        StudySpec(fusion={"network": {"choices": ["gated", "gatd"]}})
    with pytest.raises(ValueError, match=r'unknown parameter "dropout" of the network gated, linear; .*gated.dropout'):
        StudySpec(fusion={"network": {"choices": ["gated", "linear"]}}, search={"dropout": {"low": 0, "high": 0.5}})


def test_a_loss_without_terms_can_still_be_named():
    assert StudySpec(search={"loss": {"choices": ["fusion", "mae"]}}).space["loss"].choices == ["fusion", "mae"]
    assert StudySpec().space["loss"].only() == "fusion"


def test_only_value_and_members_of_a_range():
    assert RealRange(low=0.1, high=0.2).only() is None
    assert IntRange(first=0, last=0).only() == 0
    assert Choice(choices=[False]).only() is False
    assert Choice(choices=["a", "b"]).only() is None
    assert not Choice(choices=[False, True]).holds(1)
    assert not Choice(choices=[0, 1]).holds(True)
    assert Choice(choices=[1, 2]).holds(1.0)


def test_the_old_place_of_the_loss_is_pointed_out():
    with pytest.raises(ValueError, match=r"training.loss is now the parameter loss.*search.loss=\{choices: \[mae\]\}"):
        StudySpec(training={"loss": "mae"})
