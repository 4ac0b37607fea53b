"""The arguments, the state and the errors of a meta-learner."""

import copy
import gc
from collections import deque

import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import FusionNetwork, FusionOutput
from metarec.meta import ENGINES, make_engine

ENGINE_NAMES = ["batched", "learn2learn", "higher"]
engines = pytest.mark.parametrize("engine", ENGINE_NAMES)


@pytest.mark.parametrize("engine", ["learn2learn", "higher"])
def test_the_error_of_a_library_names_the_inner_step(engine, make_batch, make_network):
    batch = make_batch()
    learner = make_engine(
        engine,
        make_network(batch),
        inner_lr=0.3,
        inner_steps=1,
        loss=lambda output, inputs: output.prediction.detach(),
    )
    with pytest.raises(RuntimeError, match=rf"{engine} failed in inner step 0 on 4 support rows.*require grad"):
        learner.meta_loss(batch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inner_lr": -0.1}, "inner_lr must be a finite number > 0 but got -0.1"),
        ({"inner_lr": float("nan")}, "inner_lr must be"),
        ({"inner_steps": -1}, "inner_steps must be an integer >= 0 but got -1"),
        ({"inner_steps": 1.5}, "inner_steps must be an integer >= 0 but got 1.5"),
        ({"first_order": "no"}, "first_order must be True or False but got 'no'"),
        ({"learn_rates": 1}, "learn_rates must be True or False but got 1"),
        ({"adapted": "tail"}, 'adapted must be "all", "head" or "ridge" but got \'tail\''),
        ({"loss": "hubert"}, 'unknown loss "hubert"; did you mean "huber"'),
        ({"network": torch.nn.Linear(2, 1)}, "network must be a FusionNetwork but got Linear"),
        ({"name": "bached"}, 'unknown engine "bached"; did you mean "batched"'),
    ],
)
def test_arguments_are_checked(wrong, message, make_batch, make_network):
    right = {"name": "batched", "network": make_network(make_batch()), "inner_lr": 0.1, "inner_steps": 1}
    with pytest.raises(InputError, match=message):
        make_engine(**{**right, **wrong})


def test_a_network_without_anything_to_train_is_refused(make_batch, make_network):
    with pytest.raises(InputError, match="network must have parameters that can be trained"):
        make_engine("batched", make_network(make_batch()).requires_grad_(False), inner_lr=0.1, inner_steps=1)


def test_queries_of_other_tasks_are_refused(make_batch, make_network):
    batch = make_batch()
    adapted = make_engine("batched", make_network(batch), inner_lr=0.1, inner_steps=1).adapt(batch.support)
    with pytest.raises(InputError, match="query must have the 4 tasks of the support but got 2"):
        adapted.predict(batch.query.select(torch.tensor([0, 1])))


def test_the_state_of_a_learner_names_each_parameter_once(make_batch, make_network):
    network = make_network(make_batch())
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1)
    assert [name.removeprefix("network.") for name in learner.state_dict()] == list(network.state_dict())


def test_every_engine_has_a_name():
    assert ENGINES.names()[:3] == ENGINE_NAMES


class TwoLayers(FusionNetwork):
    """Names no last layers, and records whether the gradient of its output has a graph."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(5, 3, dtype=torch.float64)
        self.header = torch.nn.Linear(3, 1, dtype=torch.float64)
        # Copies of the network share it, as they do not share a list.
        self.recorded = deque()

    def fuse(self, inputs):
        prediction = self.header(self.first(inputs.context).tanh()).squeeze(-1)
        if prediction.requires_grad:
            prediction.register_hook(lambda gradient: self.recorded.append(torch.is_grad_enabled()))
        return FusionOutput(prediction)


class Headed(TwoLayers):
    last_layers = ("head", "header.weight")


def test_a_network_names_its_last_layers(make_batch, make_network):
    batch = make_batch()
    assert TwoLayers().head_names() == ["first.weight", "first.bias", "header.weight", "header.bias"]
    # A name means that module or parameter, not everything that begins with the same letters.
    assert Headed().head_names() == ["header.weight"]
    plain, anchored = (make_network(batch, anchored=anchored).head_names() for anchored in (False, True))
    assert plain == ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"]
    assert set(anchored) == {*plain, "correction.weight", "correction.bias"}


def test_last_layers_that_are_frozen_cannot_be_adapted(make_batch, make_network):
    network = make_network(make_batch())
    network.head.requires_grad_(False)
    with pytest.raises(InputError, match=r'the last layers of MetaRec.* no parameter .*; use adapted="all"'):
        make_engine("batched", network, inner_lr=0.1, inner_steps=1, adapted="head")


@engines
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_learned_rates_start_at_the_inner_rate_and_are_in_the_state(engine, adapted, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    options = {"inner_lr": 0.07, "inner_steps": 1, "adapted": adapted}
    learner = make_engine(engine, network, learn_rates=True, **options)
    names = network.head_names() if adapted == "head" else [name for name, _ in network.named_parameters()]
    assert learner.rates == pytest.approx(dict.fromkeys(names, 0.07))
    assert any(parameter is learner.log_rates for parameter in learner.parameters())
    assert set(learner.state_dict()) == {"log_rates", *(f"network.{name}" for name in network.state_dict())}
    fixed = make_engine(engine, network, **options)
    torch.testing.assert_close(learner.meta_loss(batch), fixed.meta_loss(batch))
    assert "log_rates" not in fixed.state_dict()

    # A copy has rates of its own, also where the engine hands them to a library.
    other = copy.deepcopy(learner)
    with torch.no_grad():
        other.log_rates += 2
    assert learner.rates == pytest.approx(dict.fromkeys(names, 0.07))
    assert other.meta_loss(batch) != learner.meta_loss(batch)
    learner.load_state_dict(other.state_dict())
    torch.testing.assert_close(learner.meta_loss(batch), other.meta_loss(batch), rtol=0, atol=0)
    torch.testing.assert_close(
        learner.adapt(batch.support).predict(batch.query), other.adapt(batch.support).predict(batch.query)
    )


@engines
def test_frozen_parameters_have_no_rate_in_use(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    network.encoders.requires_grad_(False)
    learner = make_engine(engine, network, inner_lr=0.3, inner_steps=2, learn_rates=True)
    learner.meta_loss(batch).backward()
    frozen = torch.tensor([name.startswith("encoders") for name, _ in network.named_parameters()])
    assert (learner.log_rates.grad[frozen] == 0).all()
    assert (learner.log_rates.grad[~frozen] != 0).any()
    assert not any(name.startswith("encoders") for name in [*learner.rates, *learner.adapt(batch.support).fast_weights])


@pytest.mark.parametrize("engine", ["learn2learn", "higher"])
@pytest.mark.parametrize("learn_rates", [False, True])
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_adapting_records_no_gradient_of_a_gradient(engine, learn_rates, adapted, make_batch):
    batch = make_batch()
    network = Headed()
    learner = make_engine(engine, network, inner_lr=0.1, inner_steps=2, learn_rates=learn_rates, adapted=adapted)
    learner.meta_loss(batch)
    assert any(network.recorded)  # Second order, so the test can see it.
    network.recorded.clear()
    learner.adapt(batch.support).predict(batch.query)
    assert network.recorded
    assert not any(network.recorded)


@pytest.mark.parametrize("path", ["low-rank", "vmap"])
@pytest.mark.parametrize("learn_rates", [False, True])
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_batched_adapting_keeps_nothing_for_a_gradient(path, learn_rates, adapted, make_batch, make_network):
    batch = make_batch()
    learner = make_engine(
        "batched", make_network(batch), inner_lr=0.1, inner_steps=2, learn_rates=learn_rates, adapted=adapted
    )
    learner.path = path

    def in_a_graph():
        return {id(kept) for kept in gc.get_objects() if isinstance(kept, torch.Tensor) and kept.grad_fn is not None}

    before = in_a_graph()
    adapted_network = learner.adapt(batch.support)
    assert in_a_graph() <= before
    assert not any(weights.requires_grad for weights in adapted_network.fast_weights.values())
