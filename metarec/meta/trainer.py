"""Training of a start: the outer loop, its steps and its validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.errors import InputError, check_at_least
from metarec.fusion import FusionNetwork
from metarec.fusion.losses import PREDICTION_LOSSES, task_means
from metarec.meta._base import AdaptedNetwork, MetaLearner, check_adaptation
from metarec.meta._calls import Loss
from metarec.meta._data import RegressionNetwork, Row, Task, TrainingData, as_batches, stack_tasks
from metarec.meta.engines.batched import BatchedMetaLearner

__all__ = [
    "RMSE",
    "Judge",
    "MetaLearningTrainer",
    "NonFiniteLossError",
    "Validation",
    "clipped_step",
    "make_adam",
    "outer_step",
]

PLATEAU_EPOCHS = 10
MAX_GRADIENT_NORM = 1.0

LOGARITHMS_FACTOR = 10
"""The outer rate of learned logarithms, of inner rates and of a ridge head, in units of that of the weights."""
LEARNED_FEATURES_FACTOR = 0.1
"""The outer rate of the learned features of a ridge head, in the same units: with few users they overfit first."""

VALIDATION_TASKS = 256


class NonFiniteLossError(FloatingPointError):
    """Training met a loss or a gradient that is not finite.

    Attributes:
        what: the name of the number; value: the number.
        epoch: counted from 0; batch: within the epoch, None in validation.
    """

    def __init__(self, what: str, value: float, epoch: int, batch: int | None) -> None:
        # All are args, so that the error can be pickled on its way out of a worker process.
        super().__init__(what, value, epoch, batch)
        self.what = what
        self.value = value
        self.epoch = epoch
        self.batch = batch

    def __str__(self) -> str:
        where = "validation" if self.batch is None else f"batch {self.batch}"
        return (
            f"{self.what} must be finite but is {self.value} in epoch {self.epoch}, {where}; "
            "try smaller inner and outer rates"
        )


class Judge(Protocol):
    """An error of predictions for validation users, by which training stops early and keeps the best epoch.

    Attributes:
        name: a short one, such as "rmse"; the error of each epoch is in the history as ``val_<name>``.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, predictions: Sequence[Tensor], queries: Sequence[FusionInputs]) -> float:
        """The error; lower is better.

        Args:
            predictions: [T, N] for each validation batch, after adaptation, not clipped; any finite number in padding.
            queries: the query rows of the same batches, in the order in which :meth:`MetaLearningTrainer.fit` got them.
        """


class _RootMeanSquare:
    """The RMSE on the unit scale, predictions clipped to it, over all query rows of all users together.

    Where targets lie outside of [0, 1], they are not on the unit scale and predictions are not clipped to it.
    """

    name = "rmse"

    def __call__(self, predictions: Sequence[Tensor], queries: Sequence[FusionInputs]) -> float:
        unit = all(bool(((query.targets >= 0) & (query.targets <= 1))[query.mask].all()) for query in queries)
        squares = [
            ((predicted.clamp(0, 1) if unit else predicted) - query.targets).square()[query.mask]
            for predicted, query in zip(predictions, queries, strict=True)
        ]
        return float(torch.cat(squares).mean().sqrt())


RMSE: Judge = _RootMeanSquare()
"""The judge of ratings."""


class Validation(NamedTuple):
    """The scores of a network on validation users, after adaptation.

    Attributes:
        loss: the meta-learner's loss.
        error: that of the judge.
    """

    loss: float
    error: float


class MetaLearningTrainer:
    """Trains a meta-learner, or a fusion network without adaptation, with Adam.

    Learned inner rates are trained with the weights, their logarithms at ten times the outer rate. The gradient's norm
    is clipped at 1. The rate is halved after 10 epochs without progress on validation users; training stops after
    `patience` such epochs and restores the best epoch's weights. Progress is a lower error of the judge, which is the
    RMSE by default, and not a lower loss: trials with different loss weights are compared by that error, and the
    diversity and confidence parts of a loss can fall while the predictions get worse.

    The same seed gives the same numbers, and torch's global generator is left as it was.

    Args:
        model: a :class:`MetaLearner`; or a :class:`~metarec.fusion.FusionNetwork`, trained on query rows without
            adaptation; or for :meth:`train_maml` any module that maps x[B, F] to [B, 1].
        device: the model is moved there.
        seed: of the order of the tasks and of dropout.
        loss: of a model that is not a meta-learner, as in :func:`~metarec.meta.make_engine`. "fusion" if left out;
            :meth:`train_maml` then takes "mse".
        inner_lr: inner rate of :meth:`train_maml`; inner_steps: its inner steps; first_order: whether its inner
            gradients are constants. A meta-learner has its own.
        progress: draw a progress bar on stderr.

    Attributes:
        training_history: one number per epoch of the latest training. "train_losses" (of a meta-learner the meta-loss),
            "val_losses" and the judge's error, "val_rmse" by default, from :meth:`fit`; "meta_losses" from
            :meth:`train_maml`.

    Raises:
        InputError: an argument breaks its rule.

    >>> from metarec.episodes import FusionInputs
    >>> from metarec.fusion import MetaRecommenderFusion
    >>> from metarec.meta import make_engine
    >>> rows = FusionInputs(torch.rand(8, 6, 3), torch.rand(8, 6, 3, 4), torch.rand(8, 6, 4), torch.rand(8, 6),
    ...                     torch.ones(8, 6, dtype=torch.bool))
    >>> episodes = EpisodeBatch(support=rows, query=rows)
    >>> network = MetaRecommenderFusion(num_algorithms=3, feature_dim=4, hidden_dim=8, meta_hidden_dim=8)
    >>> trainer = MetaLearningTrainer(make_engine("batched", network, inner_lr=0.1, inner_steps=1))
    >>> best_rmse = trainer.fit(episodes, episodes, num_epochs=3)
    >>> best_rmse == min(trainer.training_history["val_rmse"])
    True
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device = "cpu",
        *,
        seed: int = 0,
        loss: Loss | None = None,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
        progress: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch module but got {type(model).__name__}")
        check_adaptation(inner_lr=inner_lr, inner_steps=inner_steps, first_order=first_order, loss=loss or "fusion")
        check_at_least(0, seed=seed)
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.seed = seed
        self.loss = loss
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.first_order = first_order
        self.progress = progress
        self.training_history: dict[str, list[float]] = {}
        self._restart()

    def fit(
        self,
        train: TrainingData,
        validation: TrainingData,
        *,
        num_epochs: int = 100,
        learning_rate: float = 0.001,
        batch_size: int = 32,
        patience: int = 20,
        judge: Judge = RMSE,
        on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> float:
        """Train, and keep the best epoch on the validation users. The model is left in eval mode.

        Args:
            train: the episodes of one domain, or a list of episodes of several, of any shapes; or a list of dicts, see
                :meth:`train_meta_fusion`.
            validation: the same, of other users.
            num_epochs: the most passes over the train tasks.
            learning_rate: the outer rate; batch_size: tasks per step, all of one domain.
            patience: epochs without progress after which training stops.
            judge: the error of the predictions for validation users; by default the RMSE on the unit scale.
            on_epoch: called with the epoch, from 0, and its "train_loss", "val_loss" and "val_rmse", or "val_" and the
                name of another judge. An error that it raises passes through, after the best weights are restored, so
                that a search can prune.

        Returns:
            the best error on validation users.

        Raises:
            InputError: an argument breaks its rule.
            NonFiniteLossError: a loss or a gradient is not finite; the best weights so far are restored.
        """
        check_at_least(1, num_epochs=num_epochs, batch_size=batch_size, patience=patience)
        learner = self._learner()
        train = as_batches(train, self.device, "train")
        validation = as_batches(validation, self.device, "validation")
        optimizer = make_adam(learner, learning_rate)
        # It acts on the epoch after its patience.
        scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=PLATEAU_EPOCHS - 1, threshold=0)
        self._restart(judge)
        curve = _curve_of(judge)
        best, best_epoch, best_weights = math.inf, 0, None
        try:
            with tqdm(range(num_epochs), desc="epochs", disable=not self.progress) as bar:
                for epoch in bar:
                    train_loss = self.train_epoch(train, optimizer, batch_size=batch_size)
                    loss, error = self.validate(validation, judge)
                    self.training_history["val_losses"].append(loss)
                    self.training_history[curve].append(error)
                    if error < best:
                        best, best_epoch, best_weights = error, epoch, copy.deepcopy(learner.state_dict())
                    scheduler.step(error)
                    bar.set_postfix({"train_loss": train_loss, curve: error, "best": best})
                    if on_epoch is not None:
                        on_epoch(epoch, {"train_loss": train_loss, "val_loss": loss, curve: error})
                    if epoch - best_epoch >= patience:
                        break
        finally:
            if best_weights is not None:
                learner.load_state_dict(best_weights)
            learner.eval()
        return best

    def train_epoch(self, train: TrainingData, optimizer: torch.optim.Optimizer, *, batch_size: int = 32) -> float:
        """Train once on every task. Returns the mean loss per task, which is added to the history.

        Each batch holds tasks of one domain; tasks, and the batches of all domains, are drawn in a seeded order.

        Raises:
            NonFiniteLossError: a loss or a gradient is not finite; the step is not taken.
        """
        learner = self._learner()
        domains = as_batches(train, self.device, "train")
        draws = [
            (domain, tasks)
            for domain in domains
            for tasks in self._shuffled(domain.num_tasks).to(self.device).split(batch_size)
        ]
        learner.train()
        epoch = len(self.training_history["train_losses"])
        total = 0.0
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
            for number, draw in enumerate(self._shuffled(len(draws)).tolist()):
                domain, tasks = draws[draw]
                loss = outer_step(learner, domain.select(tasks), optimizer, epoch=epoch, batch=number)
                total += loss * len(tasks)
        mean = total / sum(domain.num_tasks for domain in domains)
        self.training_history["train_losses"].append(mean)
        return mean

    def validate(self, validation: TrainingData, judge: Judge = RMSE) -> Validation:
        """Adapt to each task's support and score its query rows; nothing is trained.

        Raises:
            NonFiniteLossError: the loss or the error is not finite.
        """
        batches = as_batches(validation, self.device, "validation")
        epoch = max(0, len(self.training_history["train_losses"]) - 1)
        return validate(self._learner(), batches, judge, epoch=epoch)

    def train_meta_fusion(
        self,
        train_data: EpisodeBatch | Sequence[Row],
        val_data: EpisodeBatch | Sequence[Row],
        num_epochs: int = 100,
        learning_rate: float = 0.001,
        batch_size: int = 32,
    ) -> dict[str, list[float]]:
        """Train on episodes, or on single rows, as :meth:`fit` does. Returns the history.

        Args:
            train_data: episodes; or a list of dicts, one per row, with ``algorithm_features`` [A, F],
                ``context_features`` [C], ``targets`` (one rating), and ``algorithm_predictions`` [A], the bases'
                predictions, for which ``algorithm_targets`` [A] is another name (the first wins where both are there).
                Missing features have width 0. The list is not changed.
            val_data: the same, of other users.
        """
        self.fit(train_data, val_data, num_epochs=num_epochs, learning_rate=learning_rate, batch_size=batch_size)
        return self.training_history

    def train_maml(
        self, task_batches: Sequence[Sequence[Task]], num_meta_epochs: int = 100, meta_learning_rate: float = 0.001
    ) -> dict[str, list[float]]:
        """Meta-learn the start of a plain network by MAML (Finn et al. 2017). Returns the history.

        Args:
            task_batches: one outer step per batch, in this order; each a list of tasks
                (support_x[K, F], support_y[K], query_x[N, F], query_y[N]), whose K and N may differ.
            num_meta_epochs: passes over the batches; meta_learning_rate: the outer rate.

        Raises:
            InputError: an argument breaks its rule, or the model is a meta-learner, which has :meth:`fit`.
            NonFiniteLossError: a loss or a gradient is not finite; the step is not taken.
        """
        check_at_least(1, num_meta_epochs=num_meta_epochs)
        if isinstance(self.model, MetaLearner):
            raise InputError("model must be a module that maps x[B, F] to [B, 1] but is a meta-learner; use fit")
        if not task_batches or not all(len(tasks) for tasks in task_batches):
            raise InputError(f"task_batches must hold batches of at least one task but got {len(task_batches)} batches")
        learner = BatchedMetaLearner(
            RegressionNetwork(self.model),
            inner_lr=self.inner_lr,
            inner_steps=self.inner_steps,
            first_order=self.first_order,
            loss=self.loss or "mse",
        )
        batches = [stack_tasks(tasks, self.device) for tasks in task_batches]
        optimizer = make_adam(learner, meta_learning_rate)
        self._restart()
        learner.train()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            for epoch in tqdm(range(num_meta_epochs), desc="epochs", disable=not self.progress):
                losses = [
                    outer_step(learner, batch, optimizer, epoch=epoch, batch=number)
                    for number, batch in enumerate(batches)
                ]
                self.training_history["meta_losses"].append(sum(losses) / len(losses))
        learner.eval()
        return self.training_history

    def _learner(self) -> MetaLearner:
        if isinstance(self.model, MetaLearner):
            return self.model
        if not isinstance(self.model, FusionNetwork):
            name = type(self.model).__name__
            raise InputError(
                f"model must be a MetaLearner or a FusionNetwork but got {name}; for others use train_maml"
            )
        # Without inner steps a meta-learner trains on the query rows alone and does not use its inner rate.
        return BatchedMetaLearner(self.model, inner_lr=self.inner_lr, inner_steps=0, loss=self.loss or "fusion")

    def _restart(self, judge: Judge = RMSE) -> None:
        self.training_history.clear()
        for name in ("train_losses", "val_losses", _curve_of(judge), "meta_losses"):
            self.training_history[name] = []
        self._generator = torch.Generator().manual_seed(self.seed)

    def _shuffled(self, length: int) -> Tensor:
        return torch.randperm(length, generator=self._generator)


def outer_step(
    learner: MetaLearner, tasks: EpisodeBatch, optimizer: torch.optim.Optimizer, *, epoch: int, batch: int
) -> float:
    """One step on the meta-loss of these tasks, its gradient's norm clipped at 1. Returns the loss before it.

    Raises:
        NonFiniteLossError: the loss or the gradient is not finite; the step is not taken.
    """
    loss = learner.meta_loss(tasks)
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteLossError("the loss", value, epoch=epoch, batch=batch)
    optimizer.zero_grad()
    loss.backward()
    clipped_step(learner, optimizer, epoch=epoch, batch=batch)
    return value


def clipped_step(learner: MetaLearner, optimizer: torch.optim.Optimizer, *, epoch: int, batch: int) -> None:
    """One step along the parameters' gradients, their norm clipped at 1.

    Raises:
        NonFiniteLossError: the gradient is not finite; the step is not taken.
    """
    norm = nn.utils.clip_grad_norm_(learner.parameters(), MAX_GRADIENT_NORM).item()
    if not math.isfinite(norm):
        raise NonFiniteLossError("the gradient's norm", norm, epoch=epoch, batch=batch)
    optimizer.step()


def make_adam(learner: MetaLearner, learning_rate: float) -> torch.optim.Optimizer:
    """Adam on all parameters of the meta-learner. Raises InputError for a rate that is not a finite number > 0."""
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be a finite number > 0 but got {learning_rate!r}")
    special: list[tuple[list[nn.Parameter], float]] = []
    if learner.logarithms:
        special.append((learner.logarithms, LOGARITHMS_FACTOR))
    if learner.ridge is not None:
        special.append((list(learner.ridge.learned.parameters()), LEARNED_FEATURES_FACTOR))
    apart = {id(own) for parameters, _ in special for own in parameters}
    weights = [p for p in learner.parameters() if p.requires_grad and id(p) not in apart]
    groups: list[dict[str, Any]] = [{"params": weights}]
    groups += [{"params": parameters, "lr": factor * learning_rate} for parameters, factor in special]
    return torch.optim.Adam(groups, lr=learning_rate)


def validate(learner: MetaLearner, batches: Sequence[EpisodeBatch], judge: Judge, *, epoch: int) -> Validation:
    """See :meth:`MetaLearningTrainer.validate`; `epoch` is for messages."""
    predictions, losses = [], []
    for batch in batches:
        parts = []
        for tasks in torch.arange(batch.num_tasks, device=batch.query.mask.device).split(VALIDATION_TASKS):
            support, query = batch.select(tasks)
            adapted = learner.adapt(support)
            parts.append(adapted.fuse(query).prediction)
            losses.append(task_means(_row_losses(learner, adapted, query, parts[-1]), query.mask)[query.mask.any(-1)])
        predictions.append(torch.cat(parts))
    loss = float(torch.cat(losses).mean())
    score = Validation(loss, judge(predictions, [batch.query for batch in batches]))
    for name, value in zip(("the validation loss", f"the validation {judge.name}"), score, strict=True):
        if not math.isfinite(value):
            raise NonFiniteLossError(name, value, epoch=epoch, batch=None)
    return score


def _row_losses(learner: MetaLearner, adapted: AdaptedNetwork, query: FusionInputs, prediction: Tensor) -> Tensor:
    """[T, N] the meta-learner's loss of each row, computed from the predictions where it depends on nothing else."""
    loss, network = learner.loss, learner.network
    if loss == "fusion" and type(network).row_losses is FusionNetwork.row_losses and not network.loss_weights:
        return network.prediction_losses(prediction, query.targets, query.mask)
    if isinstance(loss, str) and loss in PREDICTION_LOSSES:
        return PREDICTION_LOSSES[loss](prediction, query.targets)
    return adapted.row_losses(query)


def _curve_of(judge: Judge) -> str:
    """The name of its error in the history and among an epoch's metrics."""
    return f"val_{judge.name}"
