import copy
import math
import pickle

import pytest
import torch

from metarec.episodes import EpisodeBatch
from metarec.errors import InputError
from metarec.fusion import FusionNetwork
from metarec.fusion.losses import task_means
from metarec.meta import MetaLearningTrainer, NetworkConfig, NonFiniteLossError, Shape, make_engine
from metarec.meta import trainer as trainer_module
from metarec.meta.trainer import LEARNED_FEATURES_FACTOR, LOGARITHMS_FACTOR, Validation, make_adam


@pytest.fixture(scope="session")
def learnable(make_batch):
    """Episodes in which one base is right and the others are noise."""

    def make(seed, tasks=24, **options):
        batch = make_batch(
            seed, shots=(3,) * tasks, queries=(5,) * (tasks - 1) + (2,), missing=0, dtype=torch.float32, **options
        )
        parts = []
        for inputs in batch:
            predictions = inputs.predictions.clone()
            predictions[..., 0] = inputs.targets
            parts.append(inputs._replace(predictions=predictions))
        return EpisodeBatch(*parts)

    return make


def make_trainer(make_network, batch, *, inner_steps=1, loss="fusion", seed=0, stirred=True, **options):
    network = make_network(batch, anchored=True, combine="product", stirred=stirred).train()
    learner = make_engine("batched", network, inner_lr=0.05, inner_steps=inner_steps, loss=loss)
    return MetaLearningTrainer(learner, seed=seed, **options)


def weights_of(trainer):
    return torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()


@pytest.mark.parametrize("adapting", [True, False])
def test_training_improves_on_other_users(adapting, learnable, make_network):
    train, validation = learnable(0), learnable(1)
    if adapting:
        trainer = make_trainer(make_network, train, stirred=False)
    else:
        trainer = MetaLearningTrainer(make_network(train, anchored=True, combine="product", stirred=False))
    best = trainer.fit(train, validation, num_epochs=8, learning_rate=0.02, batch_size=8)
    history = trainer.training_history
    assert {name: len(values) for name, values in history.items()} == {
        "train_losses": 8,
        "val_losses": 8,
        "val_rmse": 8,
        "meta_losses": 0,
    }
    assert best == min(history["val_rmse"]) < 0.5 * history["val_rmse"][0]
    assert min(history["train_losses"]) < 0.5 * history["train_losses"][0]


def test_the_best_weights_are_restored(learnable, make_network):
    train, validation = learnable(0), learnable(1)
    trainer = make_trainer(make_network, train)
    # A rate at which the curve goes up and down.
    best = trainer.fit(train, validation, num_epochs=12, learning_rate=0.3)
    assert trainer.training_history["val_rmse"][-1] != best
    assert trainer.validate(validation).error == pytest.approx(best, rel=1e-6)
    assert not trainer.model.training


def test_learned_rates_are_trained_and_restored_with_the_best_weights(learnable, make_network, monkeypatch):
    episodes = learnable(0)
    network = make_network(episodes, anchored=True, combine="product").train()
    learner = make_engine("batched", network, inner_lr=0.05, inner_steps=1, learn_rates=True, adapted="head")
    scores = iter([0.4, 0.3, 0.2, 0.3, 0.3])
    monkeypatch.setattr(trainer_module, "validate", lambda *_, **__: Validation(0.0, next(scores)))
    states = []

    def on_epoch(epoch, metrics):
        states.append(copy.deepcopy(learner.state_dict()))

    MetaLearningTrainer(learner).fit(episodes, episodes, num_epochs=5, learning_rate=0.01, on_epoch=on_epoch)
    assert all(torch.equal(value, states[2][name]) for name, value in learner.state_dict().items())
    assert (learner.log_rates - math.log(0.05)).abs().min() > 0.05
    assert not torch.equal(states[2]["log_rates"], states[4]["log_rates"])


def test_learned_rates_have_a_larger_outer_rate(make_batch, make_network):
    learner = make_engine("batched", make_network(make_batch()), inner_lr=0.1, inner_steps=1, learn_rates=True)
    weights, rates = make_adam(learner, 0.01).param_groups
    assert rates["params"] == [learner.log_rates]
    assert weights["lr"] == 0.01
    assert rates["lr"] == pytest.approx(LOGARITHMS_FACTOR * 0.01)
    assert {id(p) for p in weights["params"]} == {id(p) for p in learner.network.parameters()}


def test_a_ridge_head_has_outer_rates_of_its_own(make_batch, make_network):
    batch = make_batch()
    how = {"inner_lr": 0.1, "inner_steps": 1, "adapted": "ridge", "shape": Shape.of(batch)}
    learner = make_engine("batched", make_network(batch), **how)
    weights, logarithms, learned = make_adam(learner, 0.01).param_groups
    assert logarithms["params"] == [learner.ridge.logarithms]
    assert logarithms["lr"] == pytest.approx(LOGARITHMS_FACTOR * 0.01)
    assert learned["params"] == list(learner.ridge.learned.parameters())
    assert learned["lr"] == pytest.approx(LEARNED_FEATURES_FACTOR * 0.01)
    assert {id(p) for p in weights["params"]} == {id(p) for p in learner.network.parameters()}


class Misses:
    """The share of users whose highest prediction is not for their highest target."""

    name = "misses"

    def __init__(self):
        self.seen = []

    def __call__(self, predictions, queries):
        self.seen.append(
            [(predicted.shape, query.targets) for predicted, query in zip(predictions, queries, strict=True)]
        )
        highest = [
            [numbers.masked_fill(~query.mask, -9).argmax(-1) for numbers in (predicted, query.targets)]
            for predicted, query in zip(predictions, queries, strict=True)
        ]
        return float(torch.cat([ours != theirs for ours, theirs in highest]).double().mean())


def test_a_judge_decides_about_the_best_epoch(learnable, make_network, monkeypatch):
    monkeypatch.setattr(trainer_module, "VALIDATION_TASKS", 7)
    validation = [learnable(1, tasks=9), learnable(2, tasks=5)]
    judge, seen = Misses(), []
    trainer = make_trainer(make_network, learnable(0), stirred=False)
    best = trainer.fit(
        learnable(0),
        validation,
        num_epochs=12,
        learning_rate=0.1,
        judge=judge,
        on_epoch=lambda _, metrics: seen.append(metrics["val_misses"]),
    )
    history = trainer.training_history
    assert list(history) == ["train_losses", "val_losses", "val_misses", "meta_losses"]
    assert history["val_misses"] == seen
    assert best == min(seen) < max(seen)
    # Each batch is whole and in its place, however many tasks are adapted at once.
    for calls in judge.seen:
        assert [shape for shape, _ in calls] == [part.query.targets.shape for part in validation]
        assert all(torch.equal(found, part.query.targets) for (_, found), part in zip(calls, validation, strict=True))
    assert trainer.validate(validation, judge).error == best
    # Without one it is the RMSE, and the history of the judge before is gone.
    assert trainer.fit(learnable(0), validation, num_epochs=1) == trainer.training_history["val_rmse"][0]
    assert "val_misses" not in trainer.training_history


def test_the_judge_of_a_configuration_is_that_of_its_training(learnable):
    judge = Misses()
    trained = NetworkConfig(epochs=3).fit([learnable(0)], [learnable(1)], seed=0, judge=judge)
    assert trained.error == min(trained.curves["val_misses"])
    assert len(judge.seen) == 3


def test_an_error_of_the_judge_that_is_not_finite_is_named(learnable, make_network):
    class Lost(Misses):
        def __call__(self, predictions, queries):
            return math.nan

    trainer = make_trainer(make_network, learnable(0))
    with pytest.raises(
        NonFiniteLossError, match=r"the validation misses must be finite but is nan in epoch 0, validation"
    ):
        trainer.fit(learnable(0), learnable(1), num_epochs=1, judge=Lost())


def test_training_stops_without_progress(learnable, make_network, monkeypatch):
    train = learnable(0)
    trainer = make_trainer(make_network, train)
    scores = iter([0.5, 0.4, 0.45, 0.41, 0.4, 0.39])
    monkeypatch.setattr(trainer, "validate", lambda *_: trainer_module.Validation(1.0, next(scores)))
    assert trainer.fit(train, train, num_epochs=50, patience=3) == 0.4
    assert trainer.training_history["val_rmse"] == [0.5, 0.4, 0.45, 0.41, 0.4]


def test_the_rate_is_halved_without_progress(learnable, make_network, monkeypatch):
    train = learnable(0, tasks=2)
    trainer = make_trainer(make_network, train)
    monkeypatch.setattr(trainer, "validate", lambda *_: trainer_module.Validation(1.0, 0.5))
    rates = []
    real = trainer.train_epoch
    monkeypatch.setattr(
        trainer,
        "train_epoch",
        lambda data, adam, **o: rates.append(adam.param_groups[0]["lr"]) or real(data, adam, **o),
    )
    trainer.fit(train, train, num_epochs=13, learning_rate=0.01)
    # The first epoch is progress, the ten after it are not.
    assert rates == [0.01] * 11 + [0.005] * 2


def test_the_gradient_is_clipped(learnable, make_network):
    train = learnable(0)
    trainer = make_trainer(
        make_network, train, inner_steps=0, loss=lambda output, inputs: 1e6 * (output.prediction - 3).square()
    )
    before = weights_of(trainer)
    trainer.train_epoch(train, torch.optim.SGD(trainer.model.parameters(), lr=1.0), batch_size=len(train.query.mask))
    assert (weights_of(trainer) - before).norm().item() == pytest.approx(1, rel=1e-3)


def test_the_same_seed_gives_the_same_numbers(learnable, make_network):
    train, validation = [learnable(0), learnable(3, tasks=7)], learnable(1)
    results = []
    for seed in (5, 5, 6):
        torch.rand(3)
        trainer = make_trainer(make_network, train[0], seed=seed)
        before = torch.get_rng_state()
        trainer.fit(train, validation, num_epochs=3, batch_size=4)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((trainer.training_history, weights_of(trainer)))
    assert results[0][0] == results[1][0] != results[2][0]
    assert torch.equal(results[0][1], results[1][1])


def test_fitting_again_begins_a_new_history(learnable, make_network):
    train = learnable(0)
    trainer = make_trainer(make_network, train)
    trainer.fit(train, train, num_epochs=2)
    trainer.fit(train, train, num_epochs=3)
    assert len(trainer.training_history["train_losses"]) == 3


def test_every_task_of_every_domain_is_seen_once(make_batch, make_network, monkeypatch):
    domains = [make_batch(0, shots=(2,) * 7, queries=(3,) * 7), make_batch(1, shots=(1,) * 5, queries=(6,) * 5)]
    trainer = make_trainer(make_network, domains[0])
    seen = []
    real = trainer.model.meta_loss

    def meta_loss(batch):
        seen.append(batch.query.targets)
        return real(batch)

    monkeypatch.setattr(trainer.model, "meta_loss", meta_loss)
    trainer.train_epoch(domains, torch.optim.Adam(trainer.model.parameters()), batch_size=3)
    assert sorted(len(targets) for targets in seen) == [1, 2, 3, 3, 3]
    for domain in domains:
        width = domain.query.targets.shape[1]
        drawn = torch.cat([targets for targets in seen if targets.shape[1] == width])
        torch.testing.assert_close(drawn.sort(0).values, domain.query.targets.sort(0).values)
        assert not torch.equal(drawn, domain.query.targets)
    widths = [targets.shape[1] for targets in seen]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


def test_validation_pools_rows_and_counts_the_whole_loss(make_batch, make_network, monkeypatch):
    monkeypatch.setattr(trainer_module, "VALIDATION_TASKS", 3)
    batch = make_batch(0, shots=(2, 0, 1, 3, 2), queries=(4, 1, 0, 2, 5))
    trainer = make_trainer(make_network, batch)
    trainer.model.eval()
    score = trainer.validate(batch)
    prediction = trainer.model.adapt(batch.support).predict(batch.query)
    error = (prediction - batch.query.targets)[batch.query.mask]
    assert len(error) == 12
    assert score.error == pytest.approx(error.square().mean().sqrt().item())
    # The meta-loss has the confidence part in it, which validation must not drop.
    assert score.loss == pytest.approx(trainer.model.meta_loss(batch).item())


@pytest.mark.parametrize("own_loss", [False, True])
@pytest.mark.parametrize("loss", ["fusion", "mse", "mae", "huber", lambda output, rows: output.weights[..., 0]])
def test_validation_predicts_once_and_computes_the_loss_itself(make_batch, make_network, loss, own_loss):
    """Where the loss follows from the predictions it is computed from them: the number is the same to the last bit."""
    batch = make_batch()
    network = make_network(batch)
    if not own_loss:
        # As a network that leaves its loss to the base class.
        network.__class__ = type("Plain", (type(network),), {"row_losses": FusionNetwork.row_losses})
    learner = make_engine("batched", network, inner_lr=0.1, inner_steps=1, loss=loss)
    losses = task_means(learner.adapt(batch.support).row_losses(batch.query), batch.query.mask)
    assert MetaLearningTrainer(learner).validate(batch).loss == float(losses.mean())


def test_a_callback_sees_each_epoch_and_may_stop_the_training(learnable, make_network):
    train, validation = learnable(0), learnable(1)
    trainer = make_trainer(make_network, train)
    seen = []

    class Pruned(Exception):
        pass

    def on_epoch(epoch, metrics):
        seen.append((epoch, metrics))
        if epoch == 4:
            raise Pruned

    with pytest.raises(Pruned):
        trainer.fit(train, validation, num_epochs=9, learning_rate=0.3, on_epoch=on_epoch)
    history = trainer.training_history
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3, 4]
    assert [metrics["val_rmse"] for _, metrics in seen] == history["val_rmse"]
    assert [metrics["train_loss"] for _, metrics in seen] == history["train_losses"]
    assert [metrics["val_loss"] for _, metrics in seen] == history["val_losses"]
    assert trainer.validate(validation).error == pytest.approx(min(history["val_rmse"]), rel=1e-6)


def test_the_error_of_a_non_finite_loss_names_epoch_and_batch(learnable, make_network):
    train = learnable(0)
    calls = []

    def loss(output, inputs):
        calls.append(1)
        return output.prediction * (float("nan") if len(calls) > 3 else 1.0)

    trainer = make_trainer(make_network, train, inner_steps=0, loss=loss)
    with pytest.raises(NonFiniteLossError, match="the loss must be finite but is nan in epoch 1, batch 0") as caught:
        # Two batches and the validation make three calls an epoch.
        trainer.fit(train, train, num_epochs=9, batch_size=12)
    assert (caught.value.epoch, caught.value.batch) == (1, 0)
    assert math.isnan(caught.value.value)
    assert isinstance(caught.value, FloatingPointError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert weights_of(trainer).isfinite().all()


def test_a_gradient_that_is_not_finite_takes_no_step(learnable, make_network):
    train = learnable(0)
    # The square root of zero: a finite value with an infinite slope.
    trainer = make_trainer(
        make_network, train, inner_steps=0, loss=lambda output, inputs: (output.prediction * 0).sqrt()
    )
    before = weights_of(trainer)
    with pytest.raises(NonFiniteLossError, match="the gradient's norm must be finite but is nan in epoch 0, batch 0"):
        trainer.train_epoch(train, torch.optim.Adam(trainer.model.parameters()))
    assert torch.equal(weights_of(trainer), before)


def test_too_large_an_inner_rate_ends_as_a_named_error(learnable, make_network):
    train = learnable(0)
    learner = make_engine("batched", make_network(train), inner_lr=1e12, inner_steps=5)
    with pytest.raises(NonFiniteLossError, match="try smaller inner and outer rates"):
        MetaLearningTrainer(learner).fit(train, train, num_epochs=2)


def test_progress_is_drawn_only_on_request(learnable, make_network, capsys):
    train = learnable(0, tasks=2)
    for progress in (False, True):
        make_trainer(make_network, train, progress=progress).fit(train, train, num_epochs=1)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert ("epochs" in printed.err) == progress


def rows_as_dicts(batch):
    query = batch.query
    return [
        {
            "algorithm_features": query.algorithm_features[t, n].tolist(),
            "context_features": query.context[t, n],
            "algorithm_targets": query.predictions[t, n].numpy(),
            "targets": query.targets[t, n].item(),
        }
        for t, n in query.mask.nonzero().tolist()
    ]


def test_meta_fusion_takes_single_rows(learnable, make_network):
    train, validation = learnable(0), learnable(1)
    rows = rows_as_dicts(train)
    order = [id(row) for row in rows]
    trainer = MetaLearningTrainer(make_network(train, anchored=True, combine="product"))
    history = trainer.train_meta_fusion(rows, rows_as_dicts(validation), num_epochs=8, learning_rate=0.02)
    assert [id(row) for row in rows] == order
    assert history is trainer.training_history
    assert history["val_rmse"][-1] < history["val_rmse"][0]
    # Single rows and whole episodes hold the same query rows.
    assert trainer.validate(rows_as_dicts(validation)).error == pytest.approx(
        trainer.validate(validation).error, rel=1e-5
    )


def test_meta_fusion_takes_episodes(learnable, make_network):
    train = learnable(0)
    trainer = make_trainer(make_network, train)
    assert len(trainer.train_meta_fusion(train, learnable(1), num_epochs=2)["val_losses"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, r'train\[1\]: has no "targets"'),
        ({"algorithm_targets": None}, r'train\[1\]: has neither "algorithm_predictions" nor "algorithm_targets"'),
        ({"context_features": [1.0]}, r"train\[1\]: context_features must have the shape \[5\].*got \[1\]"),
        ({"targets": [1.0, 2.0]}, r"train\[1\]: targets must be one number"),
    ],
)
def test_rows_are_checked(change, message, learnable, make_network):
    rows = rows_as_dicts(learnable(0, tasks=2))
    rows[1] = {name: value for name, value in {**rows[1], **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        MetaLearningTrainer(make_network(learnable(0))).train_meta_fusion(rows, rows, num_epochs=1)


def test_ratings_off_the_unit_scale_are_not_clipped(learnable, make_network):
    train = learnable(0)
    rows = [{**row, "targets": 4.0} for row in rows_as_dicts(train)]
    network = make_network(train)
    torch.nn.init.constant_(network.head[-1].bias, 4.0)
    torch.nn.init.zeros_(network.head[-1].weight)
    assert MetaLearningTrainer(network).validate(rows).error == pytest.approx(0, abs=1e-6)


def sine_tasks(seed, batches=3, tasks=6):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        batch = []
        for task in range(tasks):
            slope = torch.randn(2, 1, generator=generator)
            xs = [torch.randn(n, 2, generator=generator) for n in (4 + task % 2, 5)]
            batch.append((xs[0], xs[0] @ slope, xs[1], (xs[1] @ slope).squeeze(-1)))
        made.append(batch)
    return made


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_equals_the_written_out_loop(first_order):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    by_hand = copy.deepcopy(model)
    batches = sine_tasks(0)
    trainer = MetaLearningTrainer(model, inner_lr=0.1, inner_steps=2, first_order=first_order)
    history = trainer.train_maml(batches, num_meta_epochs=3, meta_learning_rate=0.01)

    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    expected = []
    for _ in range(3):
        losses = []
        for batch in batches:
            outer = []
            for support_x, support_y, query_x, query_y in batch:
                fast = dict(by_hand.named_parameters())
                for _ in range(2):
                    inner = (torch.func.functional_call(by_hand, fast, (support_x,)) - support_y).square().mean()
                    gradients = torch.autograd.grad(inner, list(fast.values()), create_graph=not first_order)
                    fast = {n: p - 0.1 * g for (n, p), g in zip(fast.items(), gradients, strict=True)}
                answer = torch.func.functional_call(by_hand, fast, (query_x,)).squeeze(-1)
                outer.append((answer - query_y).square().mean())
            loss = torch.stack(outer).mean()
            losses.append(loss.item())
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
            adam.step()
        expected.append(sum(losses) / len(losses))
    assert history["meta_losses"] == pytest.approx(expected, rel=1e-4)
    for mine, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_maml_learns_to_adapt():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    trainer = MetaLearningTrainer(model, inner_lr=0.05, inner_steps=3)
    losses = trainer.train_maml(sine_tasks(1), num_meta_epochs=40, meta_learning_rate=0.01)["meta_losses"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda t, b: t.fit(b, b, num_epochs=0), "num_epochs must be an integer >= 1 but got 0"),
        (lambda t, b: t.fit(b, b, learning_rate=0), "learning_rate must be a finite number > 0 but got 0"),
        (lambda t, b: t.fit(b, b, batch_size=-1), "batch_size must be an integer >= 1 but got -1"),
        (lambda t, b: t.fit(b, b, patience=0), "patience must be an integer >= 1 but got 0"),
        (lambda t, b: t.fit([], b), "train must have at least one query row but has none"),
        (lambda t, b: t.fit(b, [3]), "validation must be episodes, or a list of dicts, but holds int"),
        (lambda t, b: t.train_maml([[]]), "but is a meta-learner; use fit"),
        (lambda t, b: MetaLearningTrainer(torch.nn.Linear(2, 1)).fit(b, b), "for others use train_maml"),
        (lambda t, b: MetaLearningTrainer(torch.nn.Linear(2, 1)).train_maml([[]]), "task_batches must hold"),
        (lambda t, b: MetaLearningTrainer(3), "model must be a torch module but got int"),
        (lambda t, b: MetaLearningTrainer(t.model, seed=-1), "seed must be an integer >= 0 but got -1"),
        (lambda t, b: MetaLearningTrainer(t.model, inner_steps=-1), "inner_steps must be an integer >= 0 but got -1"),
    ],
)
def test_arguments_are_checked(act, message, learnable, make_network):
    batch = learnable(0, tasks=2)
    with pytest.raises(InputError, match=message):
        act(make_trainer(make_network, batch), batch)
