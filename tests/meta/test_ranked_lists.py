"""Ranked lists: the engines with list-wise losses, and what adaptation is worth where the support rows tell."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import NETWORKS
from metarec.fusion.losses import LIST_LOSSES
from metarec.meta import NetworkConfig, make_engine
from metarec.meta._ridge import list_residuals, ridge_coefficients
from tests.fusion.conftest import build, stirred, with_terms
from tests.meta.reference import apart, batch_sizes, draw_batch, gradient, loop

engines = pytest.mark.parametrize("engine", ["batched", "learn2learn", "higher"])
every_loss = pytest.mark.parametrize("loss", LIST_LOSSES)

LENGTHS = {"shots": (6, 3, 0, 5, 4), "queries": (7, 9, 5, 1, 0)}
"""Lists of different lengths: one without support, one of a single row, and one without any."""


def fitting(name, batch, loss):
    terms = {**with_terms(name), "prediction_loss": loss, "temperature": 0.2}
    return stirred(build(name, **batch_sizes(batch), **terms), std=0.4)


def lists(make_batch, seed=0, **options):
    return make_batch(seed, **LENGTHS, relevant=0.4, **options)


@engines
@pytest.mark.parametrize(
    ("loss", "steps", "learn_rates", "adapted"),
    [("softmax", steps, True, adapted) for steps in (0, 1, 3) for adapted in ("all", "head")]
    + [(loss, steps, False, "all") for loss in ("bpr", "lambda") for steps in (0, 3)],
)
def test_every_engine_equals_the_written_out_loop(engine, loss, steps, learn_rates, adapted, make_batch):
    batch = lists(make_batch)
    network = fitting("gated", batch, loss)
    how = {"inner_steps": steps, "first_order": False, "loss": "fusion"}
    learner = make_engine(engine, network, inner_lr=0.1, learn_rates=learn_rates, adapted=adapted, **how)
    if learn_rates:
        with torch.no_grad():
            learner.log_rates += torch.linspace(-1, 1, len(learner.log_rates), dtype=learner.log_rates.dtype)
    names = [name for name, _ in network.named_parameters()] if adapted == "all" else network.head_names()
    rates = learner.log_rates.exp() if learn_rates else torch.full((len(names),), 0.1, dtype=torch.float64)
    expected, weights = loop(network, batch, inner_lr=None, rates=dict(zip(names, rates, strict=True)), **how)
    actual = learner.meta_loss(batch)
    assert actual > 0
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)
    assert apart(gradient(actual, learner), gradient(expected, learner)) <= 1e-10
    fast = learner.adapt(batch.support).fast_weights
    for name in names:
        expected_weights = torch.stack([task[f"network.{name}"].detach() for task in weights])
        torch.testing.assert_close(fast[name], expected_weights)


@pytest.mark.parametrize(
    ("name", "loss"), [*((name, "softmax") for name in NETWORKS.builtins()), ("gated", "bpr"), ("gated", "lambda")]
)
def test_both_paths_of_every_network_equal_the_loop(name, loss, make_batch):
    batch = lists(make_batch)
    network = fitting(name, batch, loss)
    for first_order in (False, True):
        how = {"inner_lr": 0.1, "inner_steps": 2, "first_order": first_order, "loss": "fusion"}
        expected, _ = loop(network, batch, **how)
        exact = gradient(expected, network)
        for path in (None, "vmap"):
            learner = make_engine("batched", network, **how)
            learner.path = path
            actual = learner.meta_loss(batch)
            assert learner.path == (path or "low-rank"), learner.why
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)
            assert apart(gradient(actual, network), exact) <= 1e-10


@settings(max_examples=10, deadline=None)
@given(
    data=st.data(),
    loss=st.sampled_from([*LIST_LOSSES]),
    tasks=st.integers(1, 4),
    relevant=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    steps=st.integers(0, 2),
    adapted=st.sampled_from(["all", "head"]),
)
def test_engines_agree_on_any_lists(make_batch, data, loss, tasks, relevant, steps, adapted):
    """Lists without a relevant row, without an irrelevant one, and without any row are among them."""
    batch = draw_batch(data, make_batch, tasks, (3, 2, 2), relevant=relevant)
    network = fitting("gated", batch, loss)
    learners = [
        make_engine(engine, network, inner_lr=0.1, inner_steps=steps, loss="fusion", adapted=adapted)
        for engine in ("batched", "learn2learn", "higher")
    ]
    values = [learner.meta_loss(batch) for learner in learners]
    gradients = [gradient(value, learner) for value, learner in zip(values, learners, strict=True)]
    assert gradients[0].isfinite().all()
    for value, found in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found, gradients[0], rtol=1e-9, atol=1e-12)


@every_loss
@pytest.mark.parametrize("steps", [0, 2])
def test_one_user_alone_is_adapted_and_judged_as_among_others(loss, steps, make_batch):
    batch = lists(make_batch)
    learner = make_engine("batched", fitting("gated", batch, loss), inner_lr=0.1, inner_steps=steps, loss="fusion")
    together = learner.adapt(batch.support)
    for task in range(batch.num_tasks):
        support, query = (side.select(torch.tensor([task])) for side in batch)
        alone = learner.adapt(support)
        rows = query.mask
        torch.testing.assert_close(alone.predict(query)[rows], together.predict(batch.query)[[task]][rows])
        torch.testing.assert_close(alone.row_losses(query)[rows], together.row_losses(batch.query)[[task]][rows])


def two_kinds_of_users(seed, tasks=80):
    """Lists that the first base orders for half of the users and the second for the others; the other base is noise.

    Only the support rows tell which: no feature does.
    """
    generator = torch.Generator().manual_seed(seed)
    second = torch.rand(tasks, generator=generator) < 0.5

    def rows(width, relevant):
        targets = torch.zeros(tasks, width)
        targets[:, :relevant] = 1
        draws = 0.5 + 0.1 * torch.randn(tasks, width, 2, generator=generator)
        right = torch.stack([~second, second], -1).unsqueeze(1)
        predictions = draws + 0.2 * targets.unsqueeze(-1) * right
        order = torch.rand(tasks, width, generator=generator).argsort(-1)
        targets, predictions = targets.gather(-1, order), predictions.take_along_dim(order.unsqueeze(-1), 1)
        return FusionInputs(
            predictions, torch.zeros(tasks, width, 2, 1), torch.zeros(tasks, width, 1), targets, targets >= 0
        )

    return EpisodeBatch(rows(16, 4), rows(30, 5))


class LackOfGain:
    """1 - nDCG@10, where every relevant row is among the candidates."""

    name = "lack_of_gain"

    def __call__(self, predictions, queries):
        discounts = 1 / torch.log2(torch.arange(10) + 2.0)
        found = []
        for scores, query in zip(predictions, queries, strict=True):
            top = query.targets.gather(-1, scores.topk(10).indices)
            ideal = query.targets.topk(10).values
            found.append((top @ discounts) / (ideal @ discounts))
        return 1 - float(torch.cat(found).mean())


def test_adaptation_pays_where_the_support_shows_which_base_is_right():
    train, validation = two_kinds_of_users(0), two_kinds_of_users(1)
    test, judge = two_kinds_of_users(2), LackOfGain()
    gains = {}
    for steps, adapted in ((0, "all"), (1, "all"), (3, "all"), (1, "ridge")):
        config = NetworkConfig(
            options={"prediction_loss": "softmax", "dropout": 0.0, "hidden_dim": 8},
            inner_lr=0.1,
            inner_steps=steps,
            adapted=adapted,
            learn_rates=True,
            epochs=8,
            outer_lr=0.02,
        )
        learner = config.fit([train], [validation], seed=0, judge=judge).learner
        gains[steps, adapted] = 1 - judge([learner.adapt(test.support).fuse(test.query).prediction], [test.query])
    plain = gains.pop((0, "all"))
    assert min(gains.values()) > plain + 0.03, (plain, gains)


def test_the_correction_of_a_list_is_its_linear_discriminant():
    """Scores that are all equal expect every row alike, so that the residuals compare relevant rows with all rows."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    targets = (features[:, 0] > 0.9).double()
    network = build("gated", prediction_loss="softmax", temperature=0.2)
    mask = torch.ones(40, dtype=torch.bool)
    residuals, weights = list_residuals(network, torch.full((40,), 0.3, dtype=torch.float64), targets, mask)
    assert residuals.sum().abs() < 1e-12
    assert weights.sum() == pytest.approx(targets.sum())
    found = ridge_coefficients(features, residuals, weights, torch.tensor(1e-9, dtype=torch.float64))
    second_moments = features.T @ features / 40
    apart_by = features[targets > 0].mean(0) - features.mean(0)
    torch.testing.assert_close(found, 0.2 * torch.linalg.solve(second_moments, apart_by), rtol=1e-6, atol=1e-9)
