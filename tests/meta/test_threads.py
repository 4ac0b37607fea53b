"""Several threads may adapt and call one network: no call changes what another one uses."""

import copy

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

from metarec.episodes import FusionInputs
from metarec.fusion import NETWORKS, MAMLRecommenderFusion, copy_with
from metarec.meta import BatchedMAML, make_engine
from metarec.threads import one_thread
from tests.fusion.conftest import build, stirred
from tests.meta.engines.test_batched_paths import Attending, Normed
from tests.meta.reference import batch_sizes
from tests.support.threads import assert_same_bits, at_once

CALLS = 64


def requests(batch):
    """One user, two, and all users of a batch, in turn."""
    every = list(range(batch.num_tasks))
    groups = [[task] for task in every] + [[0, 3], [2, 1], every]
    return [torch.tensor(groups[number % len(groups)]) for number in range(CALLS)]


def answer_of(learner, batch):
    """A call that adapts to some tasks and predicts their queries."""

    def answer(tasks):
        some = batch.select(tasks)
        return learner.adapt(some.support).predict(some.query).nan_to_num(-1.0)

    # The path is chosen at the first call.
    answer(torch.arange(batch.num_tasks))
    return answer


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_threads_have_the_answers_of_one(name, make_batch):
    batch = make_batch(dtype=torch.float32)
    network = stirred(build(name, **batch_sizes(batch)))
    learner = make_engine("batched", network, inner_lr=0.05, inner_steps=2)
    assert_same_bits(answer_of(learner, batch), requests(batch))


@pytest.mark.parametrize("engine", ["batched", "learn2learn", "higher"])
@pytest.mark.parametrize("kind", [Normed, Attending])
def test_every_engine_serves_threads(engine, kind, make_batch):
    """In the middle of a training, too: afterwards every part is in its former mode."""
    batch = make_batch(dtype=torch.float32)
    network = kind(5).train()
    learner = make_engine(engine, network, inner_lr=0.05, inner_steps=2)
    assert_same_bits(answer_of(learner, batch), requests(batch)[:32])
    assert all(part.training for part in network.modules())
    assert all(type(tensor) is nn.Parameter for tensor in network.parameters())


@pytest.mark.parametrize("name", ["attention", "residual"])
def test_one_adapted_network_serves_threads(name, make_batch):
    batch = make_batch(dtype=torch.float32)
    learner = make_engine("batched", stirred(build(name, **batch_sizes(batch))), inner_lr=0.05, inner_steps=2)
    for tasks in ([0], [0, 1, 3]):
        some = batch.select(torch.tensor(tasks))
        adapted = learner.adapt(some.support)
        wide = FusionInputs(*(torch.cat([tensor] * 50, 1) for tensor in some.query))
        assert_same_bits(
            lambda rows, adapted=adapted: adapted.predict(rows).nan_to_num(-1.0), [some.query, wide] * (CALLS // 2)
        )


@pytest.mark.parametrize("kind", [Normed, Attending])
def test_gradients_are_those_of_one_thread(kind, make_batch):
    """The second derivative of attention needs a kernel that torch chooses for the whole process."""
    batches = [make_batch(seed, dtype=torch.float32) for seed in range(5)]
    network = kind(5).eval()
    learner = make_engine("batched", network, inner_lr=0.05, inner_steps=2)
    learner.meta_loss(batches[0])
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()

    def gradient(batch):
        found = torch.autograd.grad(learner.meta_loss(batch), list(network.parameters()), materialize_grads=True)
        return torch.cat([part.flatten() for part in found])

    assert_same_bits(gradient, [batches[number % 5] for number in range(40)])
    assert flags == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())


def test_batched_maml_serves_threads():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    maml = BatchedMAML(model, lr=0.1)
    row_loss = nn.MSELoss(reduction="none")
    tasks = [(torch.rand(4, 5, 3, generator=generator), torch.rand(4, 5, 1, generator=generator)) for _ in range(5)]

    def gradient(task):
        loss = maml.meta_loss(task, task, loss=row_loss, steps=2)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])

    gradient(tasks[0])
    assert_same_bits(gradient, [tasks[number % 5] for number in range(CALLS)])


def test_the_sketchs_own_inner_loop_serves_threads():
    torch.manual_seed(0)
    network = MAMLRecommenderFusion(feature_dim=3, hidden_dim=8)
    tasks = [(torch.rand(5, 3), torch.rand(5)) for _ in range(5)]

    def adapted(task):
        return torch.cat([value.detach().flatten() for value in network.inner_update(*task).values()])

    assert_same_bits(adapted, [tasks[number % 5] for number in range(CALLS)])


def test_the_number_of_threads_is_one_inside_and_as_before_outside():
    """Blocks of several threads overlap: the first one to end must not give the others more threads."""
    before, torch_before = _blas(), torch.get_num_threads()

    def inside(_):
        with one_thread():
            counts = {torch.get_num_threads(), *_blas().values()}
            np.linalg.solve(np.eye(60), np.ones(60))
            return counts | {torch.get_num_threads(), *_blas().values()}

    assert set().union(*at_once(inside, list(range(80)))) == {1}
    assert _blas() == before
    assert torch.get_num_threads() == torch_before


def _blas():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


class OddlyKept(nn.Module):
    """Refers to its parts in every way that Python allows beside torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.again = {"all": [self.layer, self.layer]}
        self.scales = (self.scale,)
        self.call = self.method
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))

    def method(self, x):
        return self.layer(x) * self.scale

    def forward(self, x):
        return self.call(x) + self.again["all"][1](x) * self.scales[0] + self.normed(x)


def test_a_copy_replaces_a_parameter_wherever_it_is_used():
    torch.manual_seed(0)
    module, rows = OddlyKept(), torch.rand(2, 3)
    others = {name: torch.rand_like(value) for name, value in module.named_parameters()}
    loaded = copy.deepcopy(module)
    loaded.load_state_dict(others)
    expected = loaded(rows)
    before = {name: value.clone() for name, value in module.named_parameters()}
    own = dict(module.named_parameters())
    copied = copy_with(module, {id(own[name]): value for name, value in others.items()}, training=False)
    assert torch.equal(copied(rows), expected)
    assert not torch.equal(module(rows), expected)
    assert module.training
    assert not any(part.training for part in copied.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.named_parameters())
