"""The choice of a path, in the mode in which it is used, and gradients to everything behind rows and loss."""

import copy
import gc
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from metarec.errors import InputError
from metarec.fusion import FusionNetwork, FusionOutput
from metarec.meta import BatchedMAML, _paths, make_engine
from tests.meta.reference import apart, gradient

squared = nn.MSELoss(reduction="none")


@pytest.fixture(scope="module")
def learn2learn_maml():
    from metarec.meta.engines.learn2learn_engine import _import_algorithms

    return _import_algorithms()[0]


def made(make, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments).double()


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def sides(number=3, seed=1):
    """Support and query rows of so many tasks, each of another scale."""
    generator = torch.Generator().manual_seed(seed)

    def side(rows):
        scale = 1 + torch.arange(number).view(-1, 1, 1) % 5
        inputs = torch.randn(number, rows, 6, generator=generator, dtype=torch.float64) * scale
        return inputs, torch.randn(number, rows, 1, generator=generator, dtype=torch.float64)

    return side(5), side(4)


def one_by_one(maml, loss, support, query, steps=2, *, training=True):
    """The loop of a user of learn2learn; with `training=False` the inner steps are in eval mode."""
    found = []
    for x, y, qx, qy in zip(*support, *query, strict=True):
        task = maml.clone()
        modes = [part.training for part in task.modules()]
        if not training:
            task.eval()
        for _ in range(steps):
            task.adapt(loss(task(x), y).mean())
        for part, mode in zip(task.modules(), modes, strict=True):
            part.training = mode
        found.append(loss(task(qx), qy).mean())
    return torch.stack(found).mean()


def assert_equal(actual, expected, points, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=0)
    found = [torch.autograd.grad(value, points, retain_graph=True) for value in (actual, expected)]
    for one, other in zip(*found, strict=True):
        assert apart(one, other) <= tolerance


class LearnedNoise(nn.Module):
    """A loss with a learned noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, predicted, true):
        return (predicted - true).square() * torch.exp(-self.log_var) + self.log_var


@pytest.mark.parametrize("path", ["low-rank", "vmap", "one-by-one"])
@pytest.mark.parametrize("number", [3, 7])
def test_the_gradient_reaches_everything_behind_rows_and_loss(number, path, learn2learn_maml, monkeypatch):
    """An encoder of the inputs, a teacher of the targets, a learned loss, and a number that the loss holds."""
    monkeypatch.setattr(_paths, "TASKS_AT_ONCE", 3)
    support, query = sides(number)
    body, teacher, model = made(nn.Linear, 6, 6), made(nn.Linear, 6, 1), made(mlp)
    noise, scale = LearnedNoise(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    doubled = 2 * scale

    def loss(predicted, true):
        return doubled * noise(predicted, true)

    def rows(side):
        return torch.tanh(body(side[0])), side[1] + teacher(side[0])

    points = [*body.parameters(), *teacher.parameters(), *model.parameters(), noise.log_var, scale]
    expected = one_by_one(learn2learn_maml(model, lr=0.1), loss, rows(support), rows(query))
    maml = BatchedMAML(model, lr=0.1)
    maml._meta_loss.path = path
    actual = maml.meta_loss(rows(support), rows(query), loss=loss, steps=2)
    assert_equal(actual, expected, points)
    actual.backward()
    assert all(point.grad is not None for point in points)


@pytest.mark.parametrize("number", [3, 7])
def test_a_loss_that_is_a_module_is_not_adapted(number, learn2learn_maml, monkeypatch):
    monkeypatch.setattr(_paths, "TASKS_AT_ONCE", 3)
    support, query = sides(number)
    model, loss = made(mlp), LearnedNoise()
    expected = one_by_one(learn2learn_maml(model, lr=0.1), loss, support, query)
    maml = BatchedMAML(model, lr=0.1)
    actual = maml.meta_loss(support, query, loss=loss, steps=2)
    assert maml.path == "low-rank"
    assert_equal(actual, expected, [*model.parameters(), loss.log_var])
    assert list(maml.state_dict()) == [f"module.{name}" for name in model.state_dict()]


def test_a_loss_may_use_the_start_itself(learn2learn_maml):
    """Its part in the inner loss belongs to the start and not to a task's copy."""
    support, query = sides()
    model = made(mlp)

    def loss(predicted, true):
        return squared(predicted, true) + model[0].weight.square().mean()

    expected = one_by_one(learn2learn_maml(model, lr=0.1), loss, support, query)
    for path in (None, "low-rank", "vmap", "one-by-one"):
        maml = BatchedMAML(model, lr=0.1)
        maml._meta_loss.path = path
        assert_equal(maml.meta_loss(support, query, loss=loss, steps=2), expected, list(model.parameters()))


@pytest.mark.parametrize("number", [3, 7])
def test_a_clone_has_a_gradient_for_its_own_parameters_and_for_the_start(number, monkeypatch):
    monkeypatch.setattr(_paths, "TASKS_AT_ONCE", 3)
    support, query = sides(number)
    model = made(mlp)
    task = BatchedMAML(model, lr=0.1).clone()
    task.adapt(squared(task(support[0][0]), support[1][0]).mean())
    actual = task.meta_loss(support, query, loss=squared, steps=2)
    expected = one_by_one(task, squared, support, query)
    assert_equal(actual, expected, [*task.parameters(), *model.parameters()])


class Centred(nn.Module):
    """Looks at all rows together, in training only."""

    def __init__(self, width=6) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, 8), nn.Linear(8, 1)

    def hidden(self, x):
        hidden = self.first(x)
        if self.training:
            hidden = hidden - hidden.mean(dim=tuple(range(hidden.dim() - 1)), keepdim=True)
        return torch.tanh(hidden)

    def forward(self, x):
        return self.last(self.hidden(x))


class OwnNorm(nn.Module):
    """A batch norm as in learn2learn's pull request 327, without weights."""

    def __init__(self, width=8) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, x):
        return nn.functional.batch_norm(x, self.mean, self.var, training=self.training)


def own_norm():
    return nn.Sequential(nn.Linear(6, 8), OwnNorm(), nn.Tanh(), nn.Linear(8, 1))


@pytest.mark.parametrize(("make", "path"), [(Centred, "vmap"), (own_norm, "one-by-one")])
def test_a_layer_that_mixes_rows_in_training_only(make, path, learn2learn_maml):
    support, query = sides()
    for training in (True, False, True):
        model = made(make).train(training)
        found = []
        for x, y, qx, qy in zip(*support, *query, strict=True):
            task = learn2learn_maml(copy.deepcopy(model), lr=0.1)
            one = [side[None] for side in (x, y, qx, qy)]
            found.append(one_by_one(task, squared, one[:2], one[2:], training=False))
        maml = BatchedMAML(model, lr=0.1)
        actual = maml.meta_loss(support, query, loss=squared, steps=2)
        torch.testing.assert_close(actual, torch.stack(found).mean(), rtol=1e-9, atol=0)
        assert maml.path == (path if training else "low-rank"), maml.why
        maml.module.train(not training)
        maml.meta_loss(support, query, loss=squared, steps=2)
        assert maml.path == ("low-rank" if training else path), maml.why


class Mixing(FusionNetwork):
    def __init__(self, body) -> None:
        super().__init__()
        self.body, self.last = body, nn.Linear(8, 1)

    def fuse(self, inputs):
        return FusionOutput(self.last(torch.tanh(self.body(inputs.context))).squeeze(-1))


class Flat(nn.Module):
    """A body for rows [N, 5] on rows of any leading shape."""

    def __init__(self, first, last) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden.reshape(-1, 8)).reshape(hidden.shape)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(1, 8, batch_first=True)

    def forward(self, x):
        return self.cell(x.reshape(-1, 5, 1))[0][:, -1].reshape(*x.shape[:-1], 8)


class CentredBody(Centred):
    def __init__(self) -> None:
        super().__init__(5)

    forward = Centred.hidden


BODIES = {
    "centred": (CentredBody, "one-by-one"),
    "batch norm": (lambda: Flat(nn.Linear(5, 8), nn.BatchNorm1d(8)), "one-by-one"),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(5, 8)), "one-by-one"),
    "recurrent": (Recurrent, "one-by-one"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(5, 8)), "vmap"),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("loss", ["mse", "learned"])
def test_the_engines_agree_on_such_networks_in_training(body, loss, make_batch):
    """Tasks of different lengths: padding must not have a part in the statistics of a task."""
    batch = make_batch(context=5, shots=(4, 3, 2), queries=(3, 5, 2))
    found, predicted = [], []
    for engine in ("batched", "learn2learn", "higher"):
        network = made(Mixing, made(BODIES[body][0])).train()
        noise = LearnedNoise()
        own = (lambda output, rows, noise=noise: noise(output.prediction, rows.targets)) if loss == "learned" else loss
        learner = make_engine(engine, network, inner_lr=0.1, inner_steps=2, loss=own).train()
        value = learner.meta_loss(batch)
        points = [*network.parameters(), *([noise.log_var] if loss == "learned" else [])]
        buffers = [own.double().flatten() for own in network.buffers()]
        found.append(torch.cat([value[None], *buffers, gradient(value, nn.ParameterList(points))]).detach())
        predicted.append(learner.eval().adapt(batch.support).predict(batch.query)[batch.query.mask])
        if engine == "batched":
            learner.train().meta_loss(batch)
            assert learner.path == BODIES[body][1], learner.why
    for other in (1, 2):
        assert apart(found[0], found[other]) <= 1e-9
        torch.testing.assert_close(predicted[0], predicted[other])


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning", "ignore:There is a performance drop")
@pytest.mark.parametrize("name", ["hook weight_norm", "hook spectral_norm", "prune"])
def test_weights_that_a_hook_computes_in_an_engine(name, make_batch):
    batch = make_batch(context=5)
    found = []
    for engine in ("batched", "learn2learn"):
        network = made(lambda: Mixing(COMPUTED[name](nn.Linear(5, 8)))).eval()
        value = make_engine(engine, network, inner_lr=0.1, inner_steps=2).meta_loss(batch)
        found.append(torch.cat([value[None], gradient(value, network)]).detach())
    assert apart(*found) <= 1e-9
    learner = make_engine("higher", network, inner_lr=0.1, inner_steps=2)
    for use in (lambda: learner.meta_loss(batch), lambda: learner.adapt(batch.support)):
        with pytest.raises(InputError, match="body has a hook"):
            use()


def test_a_loss_module_is_not_adapted_by_any_engine(make_batch):
    class Noise(LearnedNoise):
        def forward(self, output, rows):
            return super().forward(output.prediction, rows.targets)

    batch = make_batch(context=5)
    found = []
    for engine in ("batched", "learn2learn", "higher"):
        network, loss = made(Mixing, made(nn.Linear, 5, 8)), Noise()
        value = make_engine(engine, network, inner_lr=0.1, inner_steps=2, loss=loss).meta_loss(batch)
        found.append(torch.cat([value[None], gradient(value, nn.ModuleList([network, loss]))]).detach())
    assert apart(found[0], found[1]) <= 1e-9
    assert apart(found[0], found[2]) <= 1e-9


def test_rows_that_mix_within_a_task_are_not_mixed_with_padding(learn2learn_maml):
    """Without padding the path is vmap; with it, each task's own rows are taken."""
    make = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Tanh(), nn.Linear(8, 1))
    model = make.double()
    (x, y), query = sides()
    maml = BatchedMAML(model, lr=0.1)
    maml.meta_loss((x, y), query, loss=squared, steps=2)
    assert maml.path == "vmap"
    mask = torch.arange(5) < torch.tensor([5, 3, 4])[:, None]
    actual = maml.meta_loss((x, y, mask), query, loss=squared, steps=2)
    assert maml.path == "one-by-one"
    found = [
        one_by_one(
            learn2learn_maml(model, lr=0.1),
            squared,
            (x[task, rows][None], y[task, rows][None]),
            [side[task][None] for side in query],
        )
        for task, rows in enumerate(mask)
    ]
    assert_equal(actual, torch.stack(found).mean(), list(model.parameters()))


def test_the_module_is_looked_at_anew_each_time():
    support, query = sides()
    maml = BatchedMAML(made(nn.Linear, 6, 1), lr=0.1)
    maml.meta_loss(support, query, loss=squared)
    assert maml.path == "low-rank"
    for other in (made(mlp), made(Centred).train(), made(nn.Linear, 6, 1)):
        maml.module = other
        expected = one_by_one(maml, squared, support, query, training=False)
        assert_equal(maml.meta_loss(support, query, loss=squared, steps=2), expected, list(other.parameters()))
    maml.module = made(mlp)
    maml.meta_loss(support, query, loss=squared)

    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    maml.module[2] = made(Scaled, 8, 1)
    expected = one_by_one(maml, squared, support, query)
    assert_equal(maml.meta_loss(support, query, loss=squared, steps=2), expected, list(maml.module.parameters()))
    assert maml.path == "vmap"


def test_an_engine_looks_at_its_network_anew(make_batch):
    batch = make_batch(context=5)
    for engine in ("batched", "learn2learn", "higher"):
        learner = make_engine(engine, made(Mixing, made(nn.Linear, 5, 8)), inner_lr=0.1, inner_steps=2)
        learner.meta_loss(batch)
        learner.network.body = made(CentredBody)
        learner.train()
        value = learner.meta_loss(batch)
        again = make_engine(engine, learner.network, inner_lr=0.1, inner_steps=2).train().meta_loss(batch)
        torch.testing.assert_close(value, again, rtol=1e-12, atol=0)


def test_a_trial_leaves_no_trace():
    """No running statistics and no random numbers of it: a script has the same numbers with a trial and without."""
    support, query = sides()
    model = made(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))).train()
    values = []
    for path in (None, "one-by-one"):
        own = copy.deepcopy(model)
        maml = BatchedMAML(own, lr=0.1)
        maml._meta_loss.path = path
        torch.manual_seed(0)
        values.append((maml.meta_loss(support, query, loss=squared), *own.buffers(), torch.rand(1)))
    torch.testing.assert_close(*values, rtol=0, atol=0)
    assert values[0][3] == 2, "once for the inner step and once for the query rows"


def test_random_numbers_of_a_networks_own_leave_the_tasks_together():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.last(nn.functional.dropout(self.first(x), 0.5, self.training))

    support, query = sides()
    maml = BatchedMAML(made(Noisy).train(), lr=0.1)
    maml.meta_loss(support, query, loss=squared)
    assert maml.path == "vmap"
    assert "random" in maml.why
    dropout = made(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))).train()
    maml = BatchedMAML(dropout, lr=0.1)
    maml.meta_loss(support, query, loss=squared)
    assert maml.path == "low-rank"


COMPUTED = {
    "hook weight_norm": nn.utils.weight_norm,
    "weight_norm": parametrizations.weight_norm,
    "hook spectral_norm": nn.utils.spectral_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed(name, training, learn2learn_maml):
    support, query = sides()
    first, second = (
        made(lambda: nn.Sequential(COMPUTED[name](nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 1))).train(training)
        for _ in range(2)
    )
    expected = one_by_one(learn2learn_maml(first, lr=0.1), squared, support, query)
    maml = BatchedMAML(second, lr=0.1)
    actual = maml.meta_loss(support, query, loss=squared, steps=2)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    assert apart(gradient(actual, second), gradient(expected, first)) <= 1e-9
    assert maml.path == ("one-by-one" if training and "spectral" in name else "vmap"), maml.why
    torch.testing.assert_close(list(second.buffers()), list(first.buffers()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", ["encoder", "attention"])
def test_attention_has_its_second_derivative_in_any_mode(layer, training, make_batch):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.out = nn.Linear(2, 8), nn.Linear(8, 1)
            self.layer = (
                nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
                if layer == "encoder"
                else nn.MultiheadAttention(8, 2, batch_first=True)
            )

        def forward(self, x):
            x = self.up(x.reshape(len(x), 3, 2))
            x = self.layer(x) if layer == "encoder" else self.layer(x, x, x, need_weights=False)[0]
            return self.out(x.mean(1))

    support, query = sides()
    model = made(Attention).train(training)
    maml = BatchedMAML(model, lr=0.1)
    expected = one_by_one(maml, squared, support, query)
    assert_equal(maml.meta_loss(support, query, loss=squared, steps=2), expected, list(model.parameters()))
    assert maml.path == "vmap"
    assert torch.backends.mha.get_fastpath_enabled()


def test_memory_is_free_without_the_garbage_collector():
    support, query = sides()
    learners = [BatchedMAML(model, lr=0.1) for model in (made(mlp), made(Centred), made(own_norm))]
    counts = []
    gc.collect()
    gc.disable()
    try:
        for step in range(6):
            for maml in learners:
                one_by_one(maml, squared, support, query).backward()
                maml.meta_loss(support, query, loss=squared).backward()
                maml.zero_grad()
            if step in (2, 5):
                counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
    finally:
        gc.enable()
    assert counts[0] == counts[1]


def test_a_learner_is_kept_without_what_it_tried():
    support, query = sides()
    maml = BatchedMAML(made(mlp), lr=0.1)
    for loss in (lambda predicted, true: (predicted - true).square(), squared):
        expected = maml.meta_loss(support, query, loss=loss)
        file = io.BytesIO()
        torch.save(maml, file)
        file.seek(0)
        for kept in (copy.deepcopy(maml), torch.load(file, weights_only=False)):
            assert kept.path is None
            torch.testing.assert_close(kept.meta_loss(support, query, loss=loss), expected, rtol=0, atol=0)
            assert kept.path == "low-rank"
            assert kept.module[0].weight is not maml.module[0].weight


class Policy(nn.Linear):
    limit = 3

    def log_prob(self, x):
        return torch.log_softmax(self(x), -1)

    def __deepcopy__(self, memo):
        raise AssertionError("the learner is copied as a learner")


def test_what_only_the_model_has_is_handed_on():
    maml = BatchedMAML(Policy(3, 2), lr=0.1)
    x = torch.rand(4, 3)
    task = maml.clone()
    task.adapt(-task.log_prob(x)[:, 0].mean())
    torch.testing.assert_close(task.log_prob(x), torch.log_softmax(task(x), -1))
    assert task.limit == 3
    assert not hasattr(maml, "__deepcopy__")
    with pytest.raises(AttributeError, match="nothing"):
        _ = maml.nothing


def test_the_learner_itself_is_adapted_at_test_time(learn2learn_maml, caplog):
    """As in learn2learn's examples/rl/promp.py, and without a clone."""

    def of_a_copy(kind):
        task = copy.deepcopy(kind(made(nn.Linear, 3, 1), lr=0.1))
        for parameter in task.parameters():
            parameter.detach_().requires_grad_()
        task.adapt(task(torch.ones(2, 3).double()).square().mean(), first_order=True)
        return task(torch.ones(1, 3).double())

    def without_clone(kind):
        model = made(nn.Linear, 3, 1)
        maml = kind(model, lr=0.1)
        maml.adapt(maml(torch.ones(2, 3).double()).square().mean())
        return maml(torch.ones(1, 3).double())

    for way in (of_a_copy, without_clone):
        torch.testing.assert_close(way(BatchedMAML), way(learn2learn_maml))
    assert "in training, use clone()" in caplog.text


def test_an_error_that_names_the_cause():
    support, query = sides()
    maml = BatchedMAML(made(mlp), lr=0.1)
    with torch.no_grad():
        outside = maml.clone()
        with pytest.raises(InputError, match=r"gradients are off, by torch\.no_grad"):
            outside.adapt(squared(outside(support[0][0]), support[1][0]).mean())
        assert maml.meta_loss(support, query, loss=squared, steps=2).isfinite()
    with pytest.raises(InputError, match="gradients are off"):
        outside.adapt(squared(outside(support[0][0]), support[1][0]).mean())
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        maml.meta_loss(support, query, loss=squared)
    frozen = BatchedMAML(made(mlp).requires_grad_(False), lr=0.1, allow_nograd=True)
    with pytest.raises(InputError, match="must have a parameter that requires a gradient"):
        frozen.meta_loss(support, query, loss=squared)
    with pytest.raises(InputError, match=r"0\.weight must require a gradient"):
        BatchedMAML(made(mlp).requires_grad_(False), lr=0.1).meta_loss(support, query, loss=squared)
    with pytest.raises(InputError, match="depends on none of them"):
        maml.meta_loss(support, query, loss=lambda predicted, true: squared(predicted.detach(), true))
    task = maml.clone(allow_unused=True)
    with pytest.raises(InputError, match="depends on none of them"):
        task.adapt(maml(support[0][0]).mean())
    lazy = BatchedMAML(nn.LazyLinear(1), lr=0.1)
    for use in (lazy.clone, lambda: lazy.meta_loss(support, query, loss=squared)):
        with pytest.raises(InputError, match="weight of the model has no shape yet"):
            use()
    with pytest.raises(InputError, match="the model is compiled or scripted"):
        BatchedMAML(torch.jit.script(nn.Linear(6, 1)), lr=0.1)


@pytest.mark.slow
def test_a_compiled_part_is_refused():
    with pytest.raises(InputError, match="0 of the model is compiled or scripted"):
        BatchedMAML(nn.Sequential(torch.compile(nn.Linear(6, 1))), lr=0.1)


def test_a_state_that_a_forward_pass_keeps(learn2learn_maml):
    """A hidden state of a task goes on from step to step, as in a clone of learn2learn's."""

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)
            self.hidden = torch.zeros(8, dtype=torch.float64)

        def forward(self, x):
            hidden = torch.tanh(self.first(x) + self.hidden)
            self.hidden = hidden.mean(0).detach()
            return self.last(hidden)

    support, query = sides()
    model = made(Stateful)
    expected = one_by_one(learn2learn_maml(model, lr=0.1), squared, support, query)
    maml = BatchedMAML(model, lr=0.1)
    assert_equal(maml.meta_loss(support, query, loss=squared, steps=2), expected, list(model.parameters()))
    assert maml.path == "one-by-one"
    assert not model.hidden.any()
