"""Modules after reports to learn2learn and higher, which docs/decisions/010-cases-from-public-reports.md lists.

Each case is named by its report. What the reports do is done to learn2learn's MAML and to BatchedMAML.
"""

import pytest
import torch
from torch import nn

from metarec.errors import InputError
from metarec.meta import BatchedMAML

squared = nn.MSELoss(reduction="none")


@pytest.fixture(scope="module")
def learn2learn_maml():
    from metarec.meta.engines.learn2learn_engine import _import_algorithms

    return _import_algorithms()[0]


def rows(seed, number=6):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(number, width, generator=generator, dtype=torch.float64) for width in (4, 1))


def together(*seeds):
    """Inputs and targets [tasks, rows, ...]."""
    return tuple(torch.stack(part) for part in zip(*map(rows, seeds), strict=True))


class Parts(nn.Module):
    """Parameters that belong to no layer."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([0.3 * torch.randn(4, 4), 0.3 * torch.randn(4, 1)])
        self.more = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(1))})

    def forward(self, x):
        return torch.tanh(x @ self.weights[0]) @ self.weights[1] + self.more["bias"]


class Nested(nn.Module):
    """Layers under two names: one of a list, and in it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 1)
        self.net = nn.Sequential(self.body, self.head)

    def forward(self, x):
        return self.net(x)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden if float(hidden.detach().mean()) > 0 else -hidden)


class Embedded(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.last = nn.Embedding(9, 4, **options), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.table((3 * x[:, 0].abs()).long().clamp(max=8)))


def hooked():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    network[0].register_forward_hook(lambda module, given, output: 2 * output)
    return network


class Unused(nn.Module):
    """A layer that the loss does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x):
        return self.used(x)


# fmt: off
NETWORKS = {
    "learn2learn 152, 169": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), {}),
    "learn2learn 174, 176": (Nested, {}),
    "learn2learn 207, batch norm in training": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), {}),
    "pytorch-maml 8, batch norm without running statistics": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)), {}),
    "learn2learn 363": (Unused, {"allow_unused": True}),
    "higher 8, a frozen body": (
        lambda: nn.Sequential(nn.Linear(4, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 1)),
        {"allow_nograd": True}),
    "higher 41, parameters without a layer": (Parts, {}),
    "HowToTrainYourMAMLPytorch 42, a buffer that changes": (Counting, {}),
    "a branch on the data": (Branching, {}),
    "a hook on a layer": (hooked, {}),
    "an embedding with padding": (lambda: Embedded(padding_idx=0), {}),
    "several cards": (lambda: nn.DataParallel(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))), {}),
}
# fmt: on


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


def after(learner, loss):
    """The loss, and the gradients of the parameters that have one."""
    loss.backward()
    return loss.item(), [own.grad.clone() for own in learner.parameters() if own.grad is not None]


def written_out(learner):
    """The loss of three tasks, one clone each."""
    total = torch.zeros((), dtype=torch.float64)
    for task in range(3):
        clone, (inputs, targets), (queries, answers) = learner.clone(), rows(task), rows(100 + task)
        for _ in range(2):
            clone.adapt(squared(clone(inputs), targets).mean())
        total = total + squared(clone(queries), answers).mean() / 3
    return total


@pytest.mark.parametrize("case", NETWORKS)
def test_gradients_are_those_of_learn2learn(learn2learn_maml, case):
    make, options = NETWORKS[case]
    expected, batched, cloned = (kind(made(make), lr=0.1, **options) for kind in (learn2learn_maml, *[BatchedMAML] * 2))
    loss, gradients = after(expected, written_out(expected))
    sides = (
        tuple(torch.stack(part) for part in zip(*map(rows, seeds), strict=True))
        for seeds in ((0, 1, 2), (100, 101, 102))
    )
    for learner, own in ((cloned, written_out(cloned)), (batched, batched.meta_loss(*sides, loss=squared, steps=2))):
        found, found_gradients = after(learner, own)
        assert found == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(found_gradients, gradients)


def test_a_step_of_the_outer_optimizer_alone_changes_the_model():
    """After learn2learn 169."""
    network = made(NETWORKS["learn2learn 152, 169"][0])
    before = [own.clone() for own in network.parameters()]
    learner = BatchedMAML(network, lr=0.1)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    _, gradients = after(learner, written_out(learner))
    torch.testing.assert_close(list(network.parameters()), before)
    optimizer.step()
    torch.testing.assert_close(
        list(network.parameters()), [own - step for own, step in zip(before, gradients, strict=True)]
    )


def test_the_gradients_are_those_of_the_model_and_not_of_a_clone(learn2learn_maml):
    """After learn2learn 188."""
    for kind in (learn2learn_maml, BatchedMAML):
        learner = kind(made(NETWORKS["learn2learn 152, 169"][0]), lr=0.1)
        clone, (inputs, targets) = learner.clone(), rows(0)
        clone.adapt(squared(clone(inputs), targets).mean())
        squared(clone(inputs), targets).mean().backward()
        with pytest.warns(UserWarning, match="not a leaf Tensor"):
            assert all(own.grad is None for own in clone.parameters())
        assert all(own.grad is not None for own in learner.parameters())


def test_a_layer_without_a_part_in_the_loss_names_the_cure():
    """After learn2learn 314, 335 and 387, where it ends in an UnboundLocalError."""
    clone = BatchedMAML(made(Unused), lr=0.1).clone()
    inputs, targets = rows(0)
    with pytest.raises(RuntimeError, match="allow_unused=True"):
        clone.adapt(squared(clone(inputs), targets).mean())


def test_a_frozen_layer_names_the_cure():
    """After higher 8 and its pull request 11."""
    learner = BatchedMAML(made(NETWORKS["higher 8, a frozen body"][0]), lr=0.1)
    with pytest.raises(InputError, match="must require a gradient, or allow_nograd be True"):
        learner.meta_loss(together(0), together(1), loss=squared)


def test_an_inner_rate_that_is_far_too_large_gives_no_number():
    """After learn2learn 244; learn2learn has NaN too."""
    learner = BatchedMAML(made(NETWORKS["learn2learn 152, 169"][0]), lr=1e200)
    assert not torch.isfinite(learner.meta_loss(together(0), together(1), loss=squared, steps=3))


def test_sparse_gradients_name_the_cure():
    learner = BatchedMAML(made(lambda: Embedded(sparse=True)), lr=0.1)
    with pytest.raises(InputError, match="table has sparse gradients, which meta_loss cannot add; set sparse=False"):
        learner.meta_loss(together(0), together(1), loss=squared)
