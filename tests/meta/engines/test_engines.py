"""The engines against a loop written out, against each other, and against finite differences."""

import copy
import gc

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from metarec.errors import InputError
from metarec.fusion import NETWORKS, FusionNetwork, FusionOutput
from metarec.meta import make_engine
from tests.fusion.conftest import build, stirred, with_terms
from tests.meta.reference import Call, apart, batch_sizes, draw_batch, gradient, loop, loss_of, rows_of

ENGINE_NAMES = ["batched", "learn2learn", "higher"]
engines = pytest.mark.parametrize("engine", ENGINE_NAMES)


def cubed(output, inputs):
    return (output.prediction - inputs.targets).abs() ** 3


@engines
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "fusion", cubed])
@pytest.mark.parametrize("options", [{"combine": "softmax"}, {"combine": "product", "anchored": True}])
def test_every_engine_equals_the_written_out_loop(engine, first_order, loss, options, make_batch, make_network):
    how = {"inner_lr": 0.05, "inner_steps": 3, "first_order": first_order, "loss": loss}
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        batch = make_batch(dtype=dtype)
        network = make_network(batch, **options)
        expected, _ = loop(network, batch, **how)
        actual = make_engine(engine, network, **how).meta_loss(batch)
        assert actual.shape == ()
        assert apart(actual, expected) <= tolerance
        assert apart(gradient(actual, network), gradient(expected, network)) <= tolerance


def is_head(name):
    return name.startswith(("head.", "correction."))


def make_inner_loop(engine, network, **options):
    """A meta-learner whose learned rates all differ, so that none can stand in for another."""
    learner = make_engine(engine, network, inner_lr=0.2, **options)
    if learner.log_rates is not None:
        with torch.no_grad():
            learner.log_rates += torch.linspace(-1, 1, len(learner.log_rates), dtype=learner.log_rates.dtype)
    return learner


INNER_LOOPS = [(True, "all"), (False, "head"), (True, "head")]
inner_loops = pytest.mark.parametrize(("learn_rates", "adapted"), INNER_LOOPS)


@engines
@inner_loops
@pytest.mark.parametrize("first_order", [False, True])
def test_learned_rates_and_heads_equal_the_loop(engine, learn_rates, adapted, first_order, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch, combine="product", anchored=True)
    for loss, steps in (("mse", 1), ("mae", 2), ("huber", 3), ("fusion", 3), ("fusion", 0)):
        how = {"inner_steps": steps, "first_order": first_order, "loss": loss}
        learner = make_inner_loop(engine, network, learn_rates=learn_rates, adapted=adapted, **how)
        names = [name for name, _ in network.named_parameters() if adapted == "all" or is_head(name)]
        rates = learner.log_rates.exp() if learn_rates else torch.full((len(names),), 0.2, dtype=torch.float64)
        expected, weights = loop(network, batch, inner_lr=None, rates=dict(zip(names, rates, strict=True)), **how)
        actual = learner.meta_loss(batch)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)
        assert apart(gradient(actual, learner), gradient(expected, learner)) <= 1e-10
        fast = learner.adapt(batch.support).fast_weights
        assert list(fast) == list(learner.rates) == names
        for name, value in fast.items():
            torch.testing.assert_close(value, torch.stack([task[f"network.{name}"].detach() for task in weights]))


@settings(max_examples=12, deadline=None)
@given(
    data=st.data(),
    tasks=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)),
    steps=st.integers(0, 3),
)
def test_engines_agree_on_any_shape(make_batch, make_network, data, tasks, sizes, steps):
    missing = data.draw(st.sampled_from([0.0, 0.5, 0.95]))
    batch = draw_batch(data, make_batch, tasks, sizes, missing=missing)
    network = make_network(batch, combine="product")
    learn_rates, adapted = data.draw(st.sampled_from([(False, "all"), *INNER_LOOPS]))
    options = {
        "inner_steps": steps,
        "first_order": data.draw(st.booleans()),
        "loss": data.draw(st.sampled_from(["mse", "mae", "huber", "fusion"])),
    }
    learners = [
        make_inner_loop(name, network, learn_rates=learn_rates, adapted=adapted, **options) for name in ENGINE_NAMES
    ]
    values = [learner.meta_loss(batch) for learner in learners]
    gradients = [gradient(value, learner) for value, learner in zip(values, learners, strict=True)]
    assert all(g.isfinite().all() for g in gradients)
    for value, found in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found, gradients[0], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(NETWORKS.names()),
    tasks=st.integers(1, 3),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    first_order=st.booleans(),
    loss=st.sampled_from(["mse", "mae", "huber", "fusion"]),
    precision=st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-5)]),
)
def test_engines_agree_on_every_network(make_batch, data, name, tasks, sizes, first_order, loss, precision):
    dtype, tolerance = precision
    batch = draw_batch(data, make_batch, tasks, sizes, dtype=dtype)
    network = stirred(build(name, **batch_sizes(batch)), std=0.3)
    learners = [
        make_engine(engine, network, inner_lr=0.05, inner_steps=2, first_order=first_order, loss=loss)
        for engine in ENGINE_NAMES
    ]
    found = [gradient(learner.meta_loss(batch), network) for learner in learners]
    assert all(own.isfinite().all() for own in found)
    if found[0].any():
        for other in found[1:]:
            assert apart(other, found[0]) <= tolerance


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("first_order", [False, True])
@inner_loops
def test_inner_optimizers_equal_those_of_torch(optimizer, first_order, learn_rates, adapted, make_batch, make_network):
    """Against higher, and the weights that come out against torch."""
    batch = make_batch()
    network = make_network(batch, combine="product", anchored=True)
    how = {"first_order": first_order, "learn_rates": learn_rates, "adapted": adapted, "inner_optimizer": optimizer}
    batched, higher = (make_inner_loop(name, network, inner_steps=3, **how) for name in ("batched", "higher"))
    losses = [learner.meta_loss(batch) for learner in (batched, higher)]
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-13)
    found = [gradient(loss, learner) for loss, learner in zip(losses, (batched, higher), strict=True)]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-11)
    assert batched.path == "vmap"
    assert batched.why == f"inner_optimizer {optimizer} has a state for every weight"
    adapted_weights = [learner.adapt(batch.support).fast_weights for learner in (batched, higher)]
    torch.testing.assert_close(*adapted_weights)
    if optimizer == "adam":
        # torch adds Adam's epsilon elsewhere than the paper's short form, which higher has.
        return
    for task in (0, 1):
        copied = copy.deepcopy(network)
        parameters = dict(copied.named_parameters())
        groups = [{"params": [parameters[name]], "lr": rate} for name, rate in batched.rates.items()]
        stepper = torch.optim.SGD(groups, momentum=0.9)
        call = Call(copied, "fuse")
        for _ in range(3):
            stepper.zero_grad()
            loss_of(copied, dict(call.named_parameters()), rows_of(batch.support, task), "mse").mean().backward()
            stepper.step()
        for name, value in adapted_weights[0].items():
            torch.testing.assert_close(value[task], parameters[name].detach())


def test_learn2learn_takes_plain_steps_only(make_batch, make_network):
    with pytest.raises(InputError, match=r'must be "sgd" .* but got "adam"; use the engine higher or batched'):
        make_engine("learn2learn", make_network(make_batch()), inner_lr=0.1, inner_steps=1, inner_optimizer="adam")


@engines
@pytest.mark.parametrize(
    ("loss", "learn_rates", "adapted"),
    [("mse", False, "all"), ("fusion", False, "all"), ("mae", True, "all"), ("huber", False, "head")]
    + [(loss, True, "head") for loss in ("mse", "fusion")],
)
def test_the_gradient_is_that_of_finite_differences(engine, loss, learn_rates, adapted, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch, combine="product", anchored=True)
    learner = make_inner_loop(engine, network, inner_steps=2, loss=loss, learn_rates=learn_rates, adapted=adapted)
    hold_to_finite_differences(learner, batch)


@pytest.mark.parametrize("name", NETWORKS.builtins())
@pytest.mark.parametrize("loss", ["mse", "fusion"])
def test_the_gradient_of_every_network_is_that_of_finite_differences(name, loss, make_batch):
    batch = make_batch()
    network = stirred(build(name, **batch_sizes(batch), **with_terms(name)), std=0.3)
    hold_to_finite_differences(make_engine("batched", network, inner_lr=0.1, inner_steps=2, loss=loss), batch)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_gradient_through_an_optimizer_is_that_of_finite_differences(optimizer, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch, combine="product", anchored=True)
    how = {"inner_lr": 0.01, "inner_steps": 3, "inner_optimizer": optimizer}
    # A step of Adam has about the same length whatever the gradient, and bends sharply where that is small.
    hold_to_finite_differences(make_engine("batched", network, **how), batch, length=1e-8, tolerance=1e-4)


def hold_to_finite_differences(learner, batch, length=1e-5, tolerance=1e-5):
    exact = gradient(learner.meta_loss(batch), learner)
    start = torch.nn.utils.parameters_to_vector(learner.parameters()).detach().clone()
    generator = torch.Generator().manual_seed(0)

    def value(point):
        torch.nn.utils.vector_to_parameters(point, learner.parameters())
        return learner.meta_loss(batch).item()

    for _ in range(3):
        direction = torch.randn(start.shape, generator=generator, dtype=start.dtype)
        direction /= direction.norm()
        step = length * direction
        numeric = (value(start + step) - value(start - step)) / (2 * length)
        assert numeric == pytest.approx(float(exact @ direction), rel=tolerance, abs=1e-9)


@engines
def test_first_order_is_another_gradient_of_the_same_loss(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    exact, first = (
        make_engine(engine, network, inner_lr=0.5, inner_steps=2, first_order=order).meta_loss(batch)
        for order in (False, True)
    )
    torch.testing.assert_close(first, exact)
    assert apart(gradient(first, network), gradient(exact, network)) > 1e-3


@engines
def test_adapt_equals_the_inner_loop(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch, combine="product")
    options = {"inner_lr": 0.3, "inner_steps": 2, "first_order": False, "loss": "fusion"}
    _, expected = loop(network, batch, **options)
    adapted = make_engine(engine, network, **options).adapt(batch.support)
    for name, weights in adapted.fast_weights.items():
        assert not weights.requires_grad
        torch.testing.assert_close(weights, torch.stack([task[f"network.{name}"] for task in expected]))
    output = adapted.fuse(batch.query)
    for task, parameters in enumerate(expected):
        rows = batch.query.mask[task]
        one = functional_call(Call(network, "fuse"), parameters, (rows_of(batch.query, task),))
        for mine, other in zip(output, one, strict=True):
            torch.testing.assert_close(mine[task][rows], other)
    own = adapted.row_losses(batch.query)[2][batch.query.mask[2]]
    torch.testing.assert_close(own, loss_of(network, expected[2], rows_of(batch.query, 2), "fusion"))


@engines
def test_predict_keeps_no_graph_and_changes_nothing(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learner = make_engine(engine, network, inner_lr=5.0, inner_steps=2)
    with torch.no_grad():
        adapted = learner.adapt(batch.support)
    prediction = adapted.predict(batch.query)
    assert prediction.grad_fn is None
    assert not prediction.requires_grad
    assert prediction.shape == batch.query.targets.shape
    assert ((prediction >= 0) & (prediction <= 1)).all()
    # Dropout is off, so a second call gives the same; the mode of the network is unchanged.
    torch.testing.assert_close(learner.adapt(batch.support).predict(batch.query), prediction, rtol=0, atol=0)
    assert all(part.training for part in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in network.parameters())


@engines
def test_without_steps_or_support_nothing_is_adapted(engine, make_batch, make_network):
    cold = make_batch(shots=(0, 0), queries=(3, 2))
    network = make_network(cold)
    plain = network.fuse(cold.query).prediction.detach().clamp(0, 1)
    for batch, steps in ((cold, 3), (make_batch(shots=(2, 1), queries=(3, 2)), 0)):
        learner = make_engine(engine, network, inner_lr=0.5, inner_steps=steps)
        expected = network.fuse(batch.query).prediction.detach().clamp(0, 1) if batch is not cold else plain
        torch.testing.assert_close(learner.adapt(batch.support).predict(batch.query), expected)
        value, _ = loop(network, batch, inner_lr=0.5, inner_steps=0, first_order=False, loss="mse")
        torch.testing.assert_close(learner.meta_loss(batch), value)


@engines
def test_a_batch_without_query_rows_has_a_loss_of_zero_with_a_graph(engine, make_batch, make_network):
    batch = make_batch(shots=(2, 1), queries=(0, 0))
    network = make_network(batch)
    loss = make_engine(engine, network, inner_lr=0.5, inner_steps=1).meta_loss(batch)
    assert loss == 0
    assert (gradient(loss, network) == 0).all()


@engines
def test_frozen_parameters_are_not_adapted(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    network.encoders.requires_grad_(False)
    learner = make_engine(engine, network, inner_lr=0.3, inner_steps=2)
    learner.meta_loss(batch).backward()
    assert all(parameter.grad is None for parameter in network.encoders.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    adapted = learner.adapt(batch.support)
    assert not any(name.startswith("encoders") for name in adapted.fast_weights)
    with_batched = make_engine("batched", network, inner_lr=0.3, inner_steps=2).adapt(batch.support)
    torch.testing.assert_close(adapted.predict(batch.query), with_batched.predict(batch.query))


class Bare(FusionNetwork):
    """Parameters read directly in fuse, one of them unused, and no weights in the output."""

    def __init__(self, algorithms):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.linspace(-1, 1, algorithms, dtype=torch.float64))
        self.unused = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    def fuse(self, inputs):
        return FusionOutput((inputs.predictions.nan_to_num(0.5) * self.scale).sum(-1))


@engines
def test_any_network_can_be_adapted(engine, make_batch):
    batch = make_batch()
    network = Bare(3)
    options = {"inner_lr": 0.3, "inner_steps": 2, "first_order": False, "loss": "fusion"}
    expected, _ = loop(network, batch, **options)
    learner = make_engine(engine, network, **options)
    actual = learner.meta_loss(batch)
    assert apart(gradient(actual, network), gradient(expected, network)) <= 1e-10
    output = learner.adapt(batch.support).fuse(batch.query)
    assert output.weights is None
    assert output.prediction.shape == batch.query.targets.shape


@engines
def test_dropout_is_on_in_the_query_of_a_training_network_only(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    learner = make_engine(engine, network, inner_lr=0.3, inner_steps=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        still = [learner.meta_loss(batch).item() for _ in range(2)]
        learner.train()
        moving = {learner.meta_loss(batch).item() for _ in range(3)}
    assert still[0] == still[1]
    assert len(moving) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "path"), [("batched", "low-rank"), ("batched", "vmap"), ("learn2learn", None), ("higher", None)]
)
def test_steps_do_not_grow_the_process(engine, path, make_batch, make_network):
    batch = make_batch(shots=(3, 2), queries=(2, 3))
    learner = make_engine(engine, make_network(batch), inner_lr=0.1, inner_steps=2)
    if path:
        learner.path = path
    optimizer = torch.optim.Adam(learner.parameters())
    process = psutil.Process()

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            learner.meta_loss(batch).backward()
            optimizer.step()
        learner.adapt(batch.support).predict(batch.query)
        gc.collect()
        return process.memory_info().rss

    before = steps(100)
    # 20 kB a step, which is less than one graph of a batch.
    assert steps(300) - before < 6 * 2**20
