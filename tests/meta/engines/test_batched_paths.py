"""The two paths of the batched engine: which one is taken, and that they are the same."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarec.episodes import EpisodeBatch
from metarec.fusion import NETWORKS, FusionNetwork, FusionOutput
from metarec.meta import _base, _paths, make_engine
from metarec.meta._linear_steps import BuiltSteps, KeptSteps
from metarec.meta.engines import batched
from tests.fusion.conftest import build, stirred, with_terms
from tests.meta.reference import apart, batch_sizes, draw_batch, gradient, loop


def fitting(name: str, batch: EpisodeBatch) -> FusionNetwork:
    """A small network of that name with no parameter at zero."""
    terms = with_terms(name) if name in NETWORKS.builtins() else {}
    return stirred(build(name, **batch_sizes(batch), **terms), std=0.4)


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_built_in_network_takes_the_low_rank_path(name, dtype, tolerance, make_batch):
    batch = make_batch(dtype=dtype)
    network = fitting(name, batch)
    for loss in ("mse", "mae", "huber", "fusion"):
        for first_order in (False, True):
            how = {"inner_lr": 0.1, "inner_steps": 3, "first_order": first_order, "loss": loss}
            expected, _ = loop(network, batch, **how)
            learner = make_engine("batched", network, **how)
            actual = learner.meta_loss(batch)
            assert learner.path == "low-rank", learner.why
            assert apart(actual, expected) <= tolerance
            assert apart(gradient(actual, network), gradient(expected, network)) <= tolerance


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(NETWORKS.names()),
    tasks=st.integers(1, 5),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    how=st.fixed_dictionaries(
        {
            "inner_steps": st.integers(1, 4),
            "first_order": st.booleans(),
            "loss": st.sampled_from(["mse", "mae", "huber", "fusion"]),
            "learn_rates": st.booleans(),
            "adapted": st.sampled_from(["all", "head"]),
        }
    ),
)
def test_the_paths_are_the_same_on_any_shape(make_batch, data, name, tasks, sizes, how):
    batch = draw_batch(data, make_batch, tasks, sizes)
    network = fitting(name, batch)
    low_rank, general = (make_engine("batched", network, inner_lr=0.1, **how) for _ in range(2))
    general.path = "vmap"
    for learner in (low_rank, general):
        if learner.log_rates is not None:
            with torch.no_grad():
                learner.log_rates += torch.linspace(-1, 1, len(learner.log_rates), dtype=learner.log_rates.dtype)
    losses = [learner.meta_loss(batch) for learner in (low_rank, general)]
    assert low_rank.path in ("low-rank", None), low_rank.why
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-13)
    found = [gradient(loss, learner) for loss, learner in zip(losses, (low_rank, general), strict=True)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
    adapted = [learner.adapt(batch.support) for learner in (low_rank, general)]
    torch.testing.assert_close(*(one.predict(batch.query) for one in adapted))
    torch.testing.assert_close(*(one.row_losses(batch.query)[batch.query.mask] for one in adapted))
    assert adapted[0].fast_weights.keys() == adapted[1].fast_weights.keys()
    torch.testing.assert_close(*(one.fast_weights for one in adapted))


class Linears(FusionNetwork):
    """Two linear layers; how they are used is up to those who inherit."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(features, 4), nn.Linear(4, 1)

    def hidden(self, x):
        return torch.tanh(self.first(x))

    def fuse(self, inputs):
        return FusionOutput(self.last(self.hidden(inputs.context)).squeeze(-1))


class Wide(Linears):
    """As many hidden numbers as features, so that the first layer is as large as they are many."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.first, self.last = nn.Linear(features, features), nn.Linear(features, 1)


class Normed(Linears):
    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.norm = nn.LayerNorm(4)

    def hidden(self, x):
        return self.norm(super().hidden(x))


class Attending(Linears):
    """Attention over the four numbers that it has made of a row."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.attention = nn.MultiheadAttention(1, 1, batch_first=True)

    def hidden(self, x):
        hidden = super().hidden(x)
        tokens = hidden.reshape(-1, 4, 1)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].reshape(hidden.shape)


class OwnModule(Linears):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.linspace(0.5, 2, 4))

        def forward(self, x):
            return x * self.by

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.scale = self.Scale()

    def hidden(self, x):
        return self.scale(super().hidden(x))


class BehindItsBack(Linears):
    """Uses a layer's weight without calling the layer: nothing shows that from outside."""

    def hidden(self, x):
        return torch.tanh(x @ self.first.weight.T)


class Twice(Linears):
    """Uses a layer's weight beside the layer."""

    def hidden(self, x):
        return torch.tanh(self.first(x)) + x @ self.first.weight.T


class OwnMatrix(Linears):
    """A matrix of the network's own, which does not broadcast over a task's rows."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.mix = nn.Parameter(torch.linspace(-1, 1, 16).reshape(4, 4))

    def hidden(self, x):
        return torch.tanh(nn.functional.linear(super().hidden(x), self.mix))


class Shared(Linears):
    """One layer called twice: the low-rank path knows that."""

    def hidden(self, x):
        return torch.tanh(self.first(x)) - torch.tanh(self.first(x.flip(-1)))


GENERAL = [Normed, Attending, OwnModule, BehindItsBack, Twice, OwnMatrix]


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("kind", [*GENERAL, Linears, Shared])
def test_any_other_network_has_the_same_gradient(kind, first_order, make_batch):
    batch = make_batch(context=5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(5).double().eval()
    how = {"inner_lr": 0.2, "inner_steps": 3, "first_order": first_order, "loss": "mse"}
    with sdpa_kernel(SDPBackend.MATH):
        expected, weights = loop(network, batch, **how)
    learner = make_engine("batched", network, **how)
    actual = learner.meta_loss(batch)
    assert learner.path == ("vmap" if kind in GENERAL else "low-rank"), learner.why
    assert bool(learner.why) == (kind in GENERAL)
    exact = gradient(expected, network)
    assert apart(gradient(actual, network), exact) <= 1e-10
    for other in ("learn2learn", "higher"):
        assert apart(gradient(make_engine(other, network, **how).meta_loss(batch), network), exact) <= 1e-10
    fast = learner.adapt(batch.support).fast_weights
    for name, value in fast.items():
        torch.testing.assert_close(value, torch.stack([task[f"network.{name}"].detach() for task in weights]))


def test_a_gradient_of_the_gradient_is_the_same_on_both_paths(make_batch):
    """No engine needs it, but a gradient that can be computed must be right."""
    batch = make_batch(shots=(2, 1), queries=(3, 2))
    network = fitting("attention", batch)
    found = []
    for path in ("low-rank", "vmap"):
        learner = make_engine("batched", network, inner_lr=0.1, inner_steps=3, learn_rates=True)
        learner.path = path
        parameters = list(learner.parameters())
        gradients = torch.autograd.grad(
            learner.meta_loss(batch), parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        found.append(gradient(sum(own.square().sum() for own in gradients), learner))
    assert apart(*found) <= 1e-9


@pytest.mark.parametrize(("width", "kind"), [(2, BuiltSteps), (40, KeptSteps)])
def test_small_weights_are_built_and_of_large_ones_the_steps_are_kept(width, kind, make_batch, monkeypatch):
    batch = make_batch(context=width)
    taken = []
    monkeypatch.setattr(kind, "take", lambda self, *rest, take=kind.take: taken.append(take(self, *rest)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Wide(width).double().eval()
    how = {"inner_lr": 0.2, "inner_steps": 3, "first_order": False, "loss": "mse"}
    expected, _ = loop(network, batch, **how)
    learner = make_engine("batched", network, **how)
    actual = learner.meta_loss(batch)
    assert learner.path == "low-rank"
    # Three steps of a layer, in the trial of the path and in earnest.
    assert len(taken) == 2 * 3 * (2 if kind is BuiltSteps else 1)
    assert apart(gradient(actual, network), gradient(expected, network)) <= 1e-10


def test_the_reason_against_the_low_rank_path_is_logged(make_batch, caplog):
    batch = make_batch(context=5)
    caplog.set_level("INFO", logger="metarec")
    learner = make_engine("batched", Normed(5).double(), inner_lr=0.1, inner_steps=1)
    assert learner.path is None
    learner.meta_loss(batch)
    assert "weight of norm, a LayerNorm, is adapted" in learner.why
    assert "Normed takes the vmap path" in caplog.text


def test_a_frozen_layer_of_another_kind_is_no_obstacle(make_batch):
    batch = make_batch(context=5)
    network = Normed(5).double().eval()
    network.norm.requires_grad_(False)
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1)
    learner.meta_loss(batch)
    assert learner.path == "low-rank"


@pytest.mark.parametrize("path", ["low-rank", "vmap"])
@pytest.mark.parametrize("shots", [(0,), (0, 0, 0)])
def test_empty_support_changes_nothing(path, shots, make_batch):
    batch = make_batch(shots=shots, queries=(3,) * len(shots))
    network = fitting("attention", batch)
    learner, still = (make_engine("batched", network, inner_lr=0.1, inner_steps=steps) for steps in (2, 0))
    learner.path = path
    torch.testing.assert_close(learner.meta_loss(batch), still.meta_loss(batch))
    torch.testing.assert_close(
        learner.adapt(batch.support).predict(batch.query), still.adapt(batch.support).predict(batch.query)
    )


@pytest.mark.parametrize("path", ["low-rank", "vmap"])
def test_a_batch_in_parts_equals_the_whole_batch(path, make_batch, monkeypatch):
    batch = make_batch(shots=(4, 2, 0, 3, 1), queries=(3, 5, 2, 1, 0))
    network = fitting("gated", batch)
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=2, learn_rates=True)
    learner.path = path
    whole = learner.meta_loss(batch)
    expected = gradient(whole, learner)
    monkeypatch.setattr(_paths, "TASKS_AT_ONCE", 2)
    parts = learner.meta_loss(batch)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient(3 * parts, learner), 3 * expected)
    with torch.no_grad():
        torch.testing.assert_close(learner.meta_loss(batch), whole.detach())


def test_users_in_parts_equal_all_users(make_batch, monkeypatch):
    batch = make_batch()
    learner = make_engine("batched", fitting("attention", batch), inner_lr=0.1, inner_steps=2)
    whole = learner.adapt(batch.support)
    expected = [whole.predict(batch.query), whole.row_losses(batch.query), whole.fast_weights]
    monkeypatch.setattr(batched, "TASK_CHUNK", 3)
    parts = learner.adapt(batch.support)
    found = [parts.predict(batch.query), parts.row_losses(batch.query), parts.fast_weights]
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr(batched, "MANY_ROWS", 2)
    monkeypatch.setattr(_base, "ROWS_AT_ONCE", 7)
    found = [parts.predict(batch.query), parts.row_losses(batch.query), parts.fast_weights]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize(
    "how",
    [{}, {"learn_rates": True}, {"adapted": "head"}, {"inner_optimizer": "momentum"}, {"inner_optimizer": "adam"}],
)
def test_one_user_alone_is_adapted_as_among_others(name, how, make_batch):
    """One task goes a way of its own: there is nothing to batch."""
    batch = make_batch()
    learner = make_engine("batched", fitting(name, batch), inner_lr=0.1, inner_steps=3, **how).train()
    together = learner.adapt(batch.support)
    for task in range(batch.num_tasks):
        support, query = (side.select(torch.tensor([task])) for side in batch)
        alone = learner.adapt(support)
        torch.testing.assert_close(alone.predict(query), together.predict(batch.query)[[task]])
        torch.testing.assert_close(alone.row_losses(query), together.row_losses(batch.query)[[task]])
        for own, value in alone.fast_weights.items():
            torch.testing.assert_close(value, together.fast_weights[own][[task]])
    assert all(module.training for module in learner.modules())


def test_an_adapted_network_stays_as_it_is_when_training_goes_on(make_batch):
    batch = make_batch()
    network = fitting("gated", batch)
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1)
    adapted = learner.adapt(batch.support)
    before = adapted.predict(batch.query)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    assert torch.equal(adapted.predict(batch.query), before)


@pytest.mark.parametrize("path", ["low-rank", "vmap"])
def test_parameters_that_are_not_adapted_are_shared_with_the_network(path, make_batch, monkeypatch):
    """The body of a network whose head is adapted goes on being trained: all ways of answering see the same body."""
    batch = make_batch()
    network = fitting("gated", batch)
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1, adapted="head")
    learner.path = path
    adapted = learner.adapt(batch.support)
    support, query = (side.select(torch.tensor([0])) for side in batch)
    alone = learner.adapt(support)
    with torch.no_grad():
        network.body[0].weight += 0.5
    few = adapted.predict(batch.query)
    monkeypatch.setattr(batched, "MANY_ROWS", 0)
    torch.testing.assert_close(adapted.predict(batch.query), few)
    torch.testing.assert_close(alone.predict(query), few[:1])


def test_layers_are_unchanged_after_adaptation(make_batch):
    batch = make_batch()
    network = fitting("gated", batch)
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1)
    learner.meta_loss(batch)
    assert not any("forward" in vars(module) for module in network.modules())
    with pytest.raises(ValueError, match="context"):
        learner.meta_loss(EpisodeBatch(*(side._replace(context=side.context[..., :2]) for side in batch)))
    assert not any("forward" in vars(module) for module in network.modules())


PEAK = """
import resource
import torch
from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import MetaRecommenderFusion
from metarec.meta import make_engine

torch.set_num_threads(1)
tasks, rows = 1024, 10
inputs = [torch.rand(tasks, rows, *shape) for shape in ((5,), (5, 16), (16,), ())]
side = FusionInputs(*inputs, torch.ones(tasks, rows, dtype=torch.bool))
learner = make_engine("batched", MetaRecommenderFusion(5, 16), inner_lr=0.01, inner_steps=5)
learner.meta_loss(EpisodeBatch(side, side)).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_large_batch_needs_little_memory():
    """1,024 tasks of the default network; a graph of all of them would need several gigabytes."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2 * 10**9
