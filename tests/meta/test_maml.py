"""BatchedMAML takes the place of learn2learn's MAML: the same manners, the same numbers."""

import difflib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarec.errors import InputError
from metarec.meta import BatchedMAML
from tests.meta.reference import apart, gradient

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
squared, entropy = nn.MSELoss(reduction="none"), nn.CrossEntropyLoss(reduction="none")


class Tied(nn.Module):
    """The same layer in two places, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 1)
        self.again = self.first

    def forward(self, x):
        return self.last(torch.tanh(self.again(torch.tanh(self.first(x)))))


class Centred(nn.Sequential):
    """Looks at all rows that it is given together."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


class Scaled(nn.Linear):
    """Not quite a linear layer."""

    def forward(self, x):
        return 2 * super().forward(x)


class TiedWeights(nn.Module):
    """Two layers with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.again.weight = self.first.weight

    forward = Tied.forward


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 1)), "low-rank"),
    "flat": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 5)), "low-rank"),
    "tied": (Tied, "low-rank"),
    "tied weights": (TiedWeights, "vmap"),
    "dropout": (lambda: nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.Linear(24, 1)).eval(), "low-rank"),
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)), "vmap"),
    "norm": (lambda: nn.Sequential(nn.Linear(16, 4), nn.LayerNorm(4), nn.Linear(4, 1)), "vmap"),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)),
        "vmap",
    ),
    "centred": (lambda: Centred(nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 1)), "vmap"),
    "subclass": (lambda: nn.Sequential(Scaled(16, 4), nn.Tanh(), nn.Linear(4, 1)), "vmap"),
}


@pytest.fixture(scope="module")
def learn2learn_maml():
    from metarec.meta.engines.learn2learn_engine import _import_algorithms

    return _import_algorithms()[0]


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name][0]().double()


def tasks(name, lengths, width, seed=0):
    """Inputs, targets and mask of as many tasks as there are lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 4, 4) if name in ("flat", "conv") else (16,)
    inputs = torch.rand(len(lengths), width, *shape, generator=generator, dtype=torch.float64)
    if name in ("flat", "conv"):
        targets = torch.randint(5, (len(lengths), width), generator=generator)
    else:
        targets = torch.rand(len(lengths), width, 1, generator=generator, dtype=torch.float64)
    return inputs, targets, torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)


def loss_of(name):
    return entropy if name in ("flat", "conv") else squared


def one_by_one(maml, loss, support, query, steps):
    """The meta-loss as a user of learn2learn writes it."""
    found = []
    for (x, y, m), (qx, qy, qm) in zip(zip(*support, strict=True), zip(*query, strict=True), strict=True):
        task = maml.clone()
        for _ in range(steps if m.any() else 0):
            task.adapt(loss(task(x[m]), y[m]).mean())
        if qm.any():
            found.append(loss(task(qx[qm]), qy[qm]).mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_clone_adapt_and_many_tasks_equal_learn2learn(name, first_order, learn2learn_maml):
    model, loss = made(name), loss_of(name)
    support, query = tasks(name, (4, 4, 4), 4), tasks(name, (3, 3, 3), 3, seed=1)
    expected = one_by_one(learn2learn_maml(model, lr=0.1, first_order=first_order), loss, support, query, 3)
    exact = gradient(expected, model)
    maml = BatchedMAML(model, lr=0.1, first_order=first_order)
    for actual in (
        one_by_one(maml, loss, support, query, 3),
        maml.meta_loss(support[:2], query[:2], loss=loss, steps=3),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
        assert apart(gradient(actual, model), exact) <= 1e-10
    assert maml.path == MODELS[name][1], maml.why
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from([name for name in MODELS if name not in ("centred", "batch norm")]),
    number=st.integers(1, 4),
    steps=st.integers(0, 3),
    first_order=st.booleans(),
)
def test_ragged_tasks_equal_learn2learn(learn2learn_maml, data, name, number, steps, first_order):
    lengths = st.lists(st.integers(0, 4), min_size=number, max_size=number)
    support = tasks(name, data.draw(lengths), 4)
    query = tasks(name, data.draw(lengths.filter(any)), 4, seed=1)
    model, loss = made(name), loss_of(name)
    expected = one_by_one(learn2learn_maml(model, lr=0.1, first_order=first_order), loss, support, query, steps)
    actual = BatchedMAML(model, lr=0.1, first_order=first_order).meta_loss(support, query, loss=loss, steps=steps)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    assert apart(gradient(actual, model), gradient(expected, model)) <= 1e-10
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())


def test_mixing_of_rows_is_detected_as_soon_as_there_are_two_tasks():
    maml = BatchedMAML(made("centred"), lr=0.1)
    for number, path in ((1, "low-rank"), (2, "vmap"), (1, "low-rank")):
        one = tasks("centred", (4,) * number, 4)
        maml.meta_loss(one, one, loss=squared)
        assert maml.path == path
    assert maml.why is None


def test_a_frozen_parameter_stays_as_it_is(learn2learn_maml):
    model = made("mlp")
    model[0].weight.requires_grad_(False)
    support = tasks("mlp", (4, 3), 4)
    free = {"lr": 0.1, "allow_nograd": True}
    expected = one_by_one(learn2learn_maml(model, **free), squared, support, support, 2)
    maml = BatchedMAML(model, **free)
    torch.testing.assert_close(one_by_one(maml, squared, support, support, 2), expected)
    torch.testing.assert_close(maml.meta_loss(support, support, loss=squared, steps=2), expected)
    task = BatchedMAML(model, lr=0.1).clone()
    with pytest.raises(InputError, match=r"0\.weight must require a gradient, or allow_nograd be True"):
        task.adapt(task(support[0][0]).sum())


def test_a_recurrent_model_is_cloned_and_adapted(learn2learn_maml):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.last(self.lstm(x)[0][:, -1])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Recurrent().double()
    inputs, targets, mask = tasks("mlp", (4, 4), 4)
    support = inputs.unflatten(-1, (4, 4)), targets, mask
    expected = one_by_one(learn2learn_maml(model, lr=0.1), squared, support, support, 2)
    actual = one_by_one(BatchedMAML(model, lr=0.1), squared, support, support, 2)
    torch.testing.assert_close(actual, expected)
    assert apart(gradient(actual, model), gradient(expected, model)) <= 1e-10


def test_a_clone_shares_nothing_that_is_adapted():
    model = made("mlp")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maml = BatchedMAML(model, lr=0.1)
    task = maml.clone()
    inner = task.clone()
    inner.adapt(inner(torch.rand(3, 16).double()).square().mean())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(task.module.state_dict()), before, rtol=0, atol=0)
    assert not torch.equal(inner.module[0].weight, model[0].weight)
    assert list(maml.state_dict()) == [f"module.{name}" for name in before]


def test_a_new_loss_is_tried_anew():
    maml = BatchedMAML(made("mlp"), lr=0.1)
    one = tasks("mlp", (4, 4), 4)
    maml.meta_loss(one, one, loss=squared)
    assert maml.path == "low-rank"
    maml.meta_loss(one, one, loss=lambda predicted, true: squared(predicted - predicted.mean(), true))
    assert maml.path == "vmap"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be an integer >= 0 but got -1"),
        ({"loss": nn.MSELoss()}, 'use reduction="none"'),
        ({"support": (torch.rand(2, 4, 16),)}, "support must be .* but has 1 parts"),
        (
            {"support": (torch.rand(2, 4, 16), torch.rand(2, 3, 1))},
            r"targets of support .* \[2, 4\] but got \[2, 3, 1\]",
        ),
        ({"query": (torch.rand(3, 4, 16), torch.rand(3, 4, 1))}, "query must have the 2 tasks of support but got 3"),
        ({"query": (torch.rand(2, 4, 16), torch.rand(2, 4, 1), torch.ones(2, 4))}, "mask of query must be .* of bool"),
    ],
)
def test_misfitting_shapes_are_refused(change, message):
    one = torch.rand(2, 4, 16), torch.rand(2, 4, 1)
    arguments = {"support": one, "query": one, "loss": squared, "steps": 1} | change
    maml = BatchedMAML(made("mlp").float(), lr=0.1)
    with pytest.raises(InputError, match=message):
        maml.meta_loss(arguments.pop("support"), arguments.pop("query"), **arguments)


@pytest.mark.parametrize(("wrong", "message"), [({"lr": 0}, "lr must be"), ({"model": print}, "model must be")])
def test_arguments_are_checked(wrong, message):
    with pytest.raises(InputError, match=message):
        BatchedMAML(**{"model": nn.Linear(1, 1), "lr": 0.1} | wrong)


def test_the_two_lines_that_change():
    """docs/examples has a script for learn2learn and its twin: three lines differ, an import among them."""
    scripts = [EXAMPLES / f"sines_{name}.py" for name in ("learn2learn", "metarec")]
    lines = [script.read_text(encoding="utf-8").splitlines() for script in scripts]
    changed = [line for line in difflib.ndiff(*lines) if line.startswith("- ")]
    assert [line.startswith("- import") for line in changed] == [True, False, False]
    losses = []
    for own in lines:
        variables: dict = {}
        exec("\n".join(own).replace("ITERATIONS = 200", "ITERATIONS = 3"), variables)
        losses.append(variables["losses"])
    assert len(losses[0]) == 3
    torch.testing.assert_close(*(torch.tensor(own) for own in losses), rtol=1e-4, atol=0)
