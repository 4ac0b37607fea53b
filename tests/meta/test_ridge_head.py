"""The head that is solved in closed form: its regression, and the head in all engines, for users and for lists."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from metarec.errors import InputError
from metarec.fusion import NETWORKS, FusionNetwork, FusionOutput, all_features
from metarec.fusion.losses import LIST_LOSSES
from metarec.meta import NetworkConfig, Shape, make_engine
from metarec.meta._ridge import ridge_coefficients
from tests.fusion.conftest import build, stirred, with_terms
from tests.meta.engines.test_engines import hold_to_finite_differences
from tests.meta.reference import apart, batch_sizes, draw_batch, gradient, loss_of, rows_of
from tests.meta.test_ranked_lists import LENGTHS, fitting, lists

ENGINE_NAMES = ["batched", "learn2learn", "higher"]
engines = pytest.mark.parametrize("engine", ENGINE_NAMES)


def make_ridge(engine, network, batch, *, inner_steps=1, loss="mse", **options):
    """A learner whose head is as if it were trained; the same for each engine."""
    how = {"adapted": "ridge", "shape": Shape.of(batch), **options}
    learner = make_engine(engine, network, inner_lr=0.1, inner_steps=inner_steps, loss=loss, **how)
    stirred(learner.ridge, std=0.4)
    return learner


def draw_rows(seed=0, tasks=3, rows=6, features=4):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(tasks, rows, features + 1, generator=generator, dtype=torch.float64)
    return drawn[..., :-1], drawn[..., -1]


def test_the_coefficients_are_those_of_a_ridge_regression():
    features, residuals = draw_rows()
    weights = torch.tensor([[1.0] * 6, [1, 1, 1, 0, 0, 0], [0.5, 2, 1, 3, 0, 1]], dtype=torch.float64)
    found = ridge_coefficients(features, residuals, weights, torch.tensor(2.5, dtype=torch.float64))
    for task in range(3):
        own = Ridge(alpha=2.5, fit_intercept=False).fit(features[task], residuals[task], sample_weight=weights[task])
        torch.testing.assert_close(found[task], torch.tensor(own.coef_))


def test_rows_of_no_weight_have_no_influence_whatever_they_hold():
    features, residuals = draw_rows()
    weights = torch.ones(3, 6, dtype=torch.float64)
    weights[0], weights[1, 2:] = 0, 0
    strength = torch.tensor(0.5, dtype=torch.float64)
    expected = ridge_coefficients(features[1:2, :2], residuals[1:2, :2], weights[1:2, :2], strength)
    for bad in (1e30, float("nan"), float("inf")):
        spoiled = features.masked_fill((weights == 0).unsqueeze(-1), bad).requires_grad_()
        targets = residuals.masked_fill(weights == 0, bad).requires_grad_()
        found = ridge_coefficients(spoiled, targets, weights, strength)
        torch.testing.assert_close(found[1], expected[0])
        assert (found[0] == 0).all()
        for own in torch.autograd.grad(found.sum(), [spoiled, targets]):
            assert own.isfinite().all()
            assert (own[weights == 0] == 0).all()


def written_out(learner, batch, loss):
    """The meta-loss and each task's coefficients, with the kernel form of the regression."""
    network, head = learner.network, learner.ridge
    scale_learned, scale_deviations, strength = head.logarithms.exp()
    losses, coefficients = [], []

    def features(rows):
        finite = rows.predictions.isfinite()
        mean = torch.where(finite, rows.predictions, 0).sum(-1, keepdim=True) / finite.sum(-1, keepdim=True)
        columns = all_features(rows.algorithm_features, rows.context) * head.varying
        learned = torch.tanh(head.learned(columns))
        deviations = torch.where(finite, rows.predictions - mean, 0)
        return torch.cat([torch.ones_like(mean), scale_learned * learned, scale_deviations * deviations], -1)

    for task in range(batch.num_tasks):
        support, query = rows_of(batch.support, task), rows_of(batch.query, task)
        known = features(support)
        residuals = support.targets - network.fuse(support).prediction
        kernel = known @ known.T + strength * torch.eye(len(known), dtype=known.dtype)
        coefficients.append(known.T @ torch.linalg.solve(kernel, residuals))
        if len(query.mask):
            # The loss of a plain network that predicts the corrected number.
            shifted = query._replace(targets=query.targets - features(query) @ coefficients[-1])
            losses.append(loss_of(network, dict.fromkeys(()), shifted, loss).mean())
    return torch.stack(losses).mean(), torch.stack(coefficients)


@engines
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "fusion"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_engine_equals_the_written_out_regression(engine, loss, dtype, make_batch):
    batch, tolerance = make_batch(dtype=dtype), {torch.float64: 1e-10, torch.float32: 1e-5}[dtype]
    network = stirred(build("gated", **batch_sizes(batch), prediction_loss="huber"), std=0.3)
    learner = make_ridge(engine, network, batch, loss=loss, inner_steps=3, learn_rates=True, first_order=True)
    actual = learner.meta_loss(batch)
    assert learner.ridge.varying.all()
    expected, coefficients = written_out(learner, batch, loss)
    assert apart(actual, expected) <= tolerance
    assert apart(gradient(actual, learner), gradient(expected, learner)) <= tolerance
    adapted = learner.adapt(batch.support)
    assert list(adapted.fast_weights) == ["coefficients"]
    assert apart(adapted.fast_weights["coefficients"], coefficients) <= tolerance
    assert learner.rates == {}
    assert learner.log_rates is None
    # The judge of an epoch sees the loss that is trained.
    own = adapted.row_losses(batch.query)
    means = torch.stack([row[mask].mean() for row, mask in zip(own, batch.query.mask, strict=True)])
    torch.testing.assert_close(means.mean(), actual.detach())


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(NETWORKS.names()),
    tasks=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)),
    loss=st.sampled_from(["mse", "mae", "huber", "fusion"]),
    relevant=st.sampled_from([None, None, 0.0, 0.4, 1.0]),
)
def test_engines_agree_on_every_network_and_shape(make_batch, data, name, tasks, sizes, loss, relevant):
    batch = draw_batch(data, make_batch, tasks, sizes, missing=0.5, relevant=relevant)
    network = stirred(build(name, **batch_sizes(batch), **with_terms(name)), std=0.3)
    if relevant is not None:
        network, loss = fitting(name, batch, data.draw(st.sampled_from([*LIST_LOSSES]))), "fusion"
    learners = [make_ridge(engine, network, batch, loss=loss) for engine in ENGINE_NAMES]
    values = [learner.meta_loss(batch) for learner in learners]
    gradients = [gradient(value, learner) for value, learner in zip(values, learners, strict=True)]
    outputs = [learner.adapt(batch.support).fuse(batch.query).prediction for learner in learners]
    assert gradients[0].isfinite().all()
    for value, found, output in zip(values[1:], gradients[1:], outputs[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found, gradients[0], rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(output, outputs[0])


@engines
@pytest.mark.parametrize("loss", ["mse", "fusion"])
def test_the_gradient_is_that_of_finite_differences(engine, loss, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch, combine="product", anchored=True)
    hold_to_finite_differences(make_ridge(engine, network, batch, loss=loss), batch)


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_the_gradient_of_every_network_is_that_of_finite_differences(name, make_batch):
    batch = make_batch()
    network = stirred(build(name, **batch_sizes(batch), **with_terms(name)), std=0.3)
    hold_to_finite_differences(make_ridge("batched", network, batch, loss="fusion"), batch)


@engines
@pytest.mark.parametrize("loss", LIST_LOSSES)
def test_the_gradient_of_lists_is_that_of_finite_differences(engine, loss, make_batch):
    batch = lists(make_batch)
    hold_to_finite_differences(make_ridge(engine, fitting("gated", batch, loss), batch, loss="fusion"), batch)


def test_a_user_without_support_gets_the_prediction_of_the_network(make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    found = make_ridge("batched", network, batch).adapt(batch.support).fuse(batch.query)
    plain = network.fuse(batch.query)
    (empty,) = (~batch.support.mask.any(-1)).nonzero().flatten().tolist()
    assert torch.equal(found.prediction[empty], plain.prediction[empty])
    others = [task for task in range(batch.num_tasks) if task != empty]
    assert (found.prediction != plain.prediction)[others].any(-1).all()
    assert torch.equal(found.weights, plain.weights)


@engines
def test_the_learned_features_do_not_see_the_figures_of_a_user(engine, make_batch, make_network):
    batch = make_batch()
    query = batch.query
    # Of the first base the last feature, and the first of the context; padding holds other numbers.
    query.algorithm_features[:, :, 0, -1][query.mask] = 0.3
    query.context[..., 0] = torch.where(query.mask, torch.arange(4.0).unsqueeze(-1), query.context[..., 0])
    learner = make_ridge(engine, make_network(batch), batch)
    fixed = copy.deepcopy(learner).eval()
    assert not fixed.ridge.varying.any()
    fixed.meta_loss(batch)
    assert not fixed.ridge.varying.any()
    learner.meta_loss(batch).backward()
    own = torch.zeros(17, dtype=torch.bool)
    own[[3, 12]] = True
    assert torch.equal(~learner.ridge.varying, own)
    gradients = learner.ridge.learned.weight.grad
    assert (gradients[:, own] == 0).all()
    assert (gradients[:, ~own] != 0).all()


@pytest.mark.parametrize("relevant", [None, 0.4])
def test_padding_and_other_users_change_nothing(relevant, make_batch):
    batch = make_batch(**LENGTHS, relevant=relevant)
    network = fitting("gated", batch, "softmax" if relevant else "mse")
    learner = make_ridge("batched", network, batch, loss="fusion")
    learner.meta_loss(batch)
    together = learner.adapt(batch.support)
    for task in range(batch.num_tasks):
        support, query = (side.select(torch.tensor([task])) for side in batch)
        cut = type(support)(*(tensor[:, : int(support.mask.sum())] for tensor in support))
        for rows in (support, cut):
            alone = learner.adapt(rows)
            torch.testing.assert_close(alone.fuse(query).prediction, together.fuse(batch.query).prediction[[task]])
            kept = query.mask
            torch.testing.assert_close(alone.row_losses(query)[kept], together.row_losses(batch.query)[[task]][kept])


@engines
def test_without_inner_steps_there_is_the_network_alone(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    how = {"inner_lr": 0.1, "inner_steps": 0, "loss": "fusion"}
    plain = make_engine(engine, network, **how)
    ridge = make_engine(engine, network, adapted="ridge", shape=Shape.of(batch), **how)
    assert ridge.ridge is None
    assert list(ridge.state_dict()) == list(plain.state_dict())
    assert torch.equal(ridge.meta_loss(batch), plain.meta_loss(batch))
    found, expected = (one.adapt(batch.support).predict(batch.query) for one in (ridge, plain))
    assert torch.equal(found, expected)
    config = NetworkConfig(options={"hidden_dim": 4}, adapted="ridge")
    start = config.build(Shape.of(batch), 3).network.state_dict()
    for name, own in config.model_copy(update={"inner_steps": 0}).build(Shape.of(batch), 3).state_dict().items():
        assert torch.equal(own, start[name.removeprefix("network.")])


@engines
def test_the_state_has_the_head_and_makes_the_same_predictions(engine, make_batch, make_network):
    batch = make_batch()
    network = make_network(batch)
    learner = make_ridge(engine, network, batch)
    learner.meta_loss(batch)
    head = ["ridge.learned.bias", "ridge.learned.weight", "ridge.logarithms", "ridge.varying"]
    assert sorted(name for name in learner.state_dict() if not name.startswith("network.")) == head
    other = make_engine(
        engine, copy.deepcopy(network), inner_lr=0.1, inner_steps=1, adapted="ridge", shape=Shape.of(batch)
    )
    before = learner.adapt(batch.support).predict(batch.query)
    assert not torch.equal(other.adapt(batch.support).predict(batch.query), before)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.adapt(batch.support).predict(batch.query), before)


@engines
def test_dropout_is_off_in_the_support_and_on_in_the_query_of_training(engine, make_batch):
    batch = make_batch(shots=(4, 3), queries=(3, 2))
    network = stirred(build("gated", **batch_sizes(batch), dropout=0.5), std=0.5)
    learner = make_ridge(engine, network, batch).train()
    seen = []
    network.body[2].register_forward_hook(lambda part, inputs, output: seen.append((len(output), part.training)))
    if engine == "higher":
        learner._check_hooks = lambda: None
    assert len({learner.meta_loss(batch).item() for _ in range(3)}) == 3
    # The support comes first.
    assert {training for _, training in seen[::2]} == {False}
    assert {training for _, training in seen[1::2]} == {True}
    assert all(part.training for part in network.modules())


def test_the_shape_must_be_given(make_batch, make_network):
    with pytest.raises(InputError, match=r"needs the shape of the rows but got None; pass shape=Shape.of\(batch\)"):
        make_engine("batched", make_network(make_batch()), inner_lr=0.1, inner_steps=1, adapted="ridge")


class OwnLoss(FusionNetwork):
    """A loss that does not say which part of it is that of the predictions."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def fuse(self, inputs):
        return FusionOutput(inputs.context[..., 0] + self.level)

    def row_losses(self, inputs):
        return (self.fuse(inputs).prediction - inputs.targets) ** 4


def test_a_loss_that_cannot_see_the_corrections_is_refused(make_batch):
    batch = make_batch()
    learner = make_ridge("batched", OwnLoss(), batch, loss="fusion")
    with pytest.raises(InputError, match=r'OwnLoss.row_losses does not use prediction_losses; use loss="mse"'):
        learner.meta_loss(batch)
    assert make_ridge("batched", OwnLoss(), batch).meta_loss(batch) > 0
