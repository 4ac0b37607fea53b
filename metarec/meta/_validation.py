"""How a meta-learner does on users that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import FusionNetwork
from metarec.fusion.losses import PREDICTION_LOSSES, task_means
from metarec.meta._base import AdaptedNetwork, MetaLearner
from metarec.meta._outer import NonFiniteLossError

__all__ = ["Validation", "validate"]

VALIDATION_TASKS = 256


class Validation(NamedTuple):
    """How a network does on validation users, after adaptation.

    Attributes:
        loss: the meta-learner's loss, in all its parts.
        rmse: on the unit scale, clipped to it, over all query rows of all users together.
    """

    loss: float
    rmse: float


def validate(learner: MetaLearner, batches: Sequence[EpisodeBatch], *, epoch: int) -> Validation:
    """Adapt to each task's support and judge its query rows; nothing is trained. `epoch` is for messages.

    Ratings that lie outside [0, 1] are not on the unit scale; predictions for such data are not clipped to it.

    Raises:
        NonFiniteLossError: the loss or the RMSE is not finite.
    """
    unit = all(bool(((b.query.targets >= 0) & (b.query.targets <= 1))[b.query.mask].all()) for b in batches)
    squares, losses = [], []
    for batch in batches:
        for tasks in torch.arange(batch.num_tasks, device=batch.query.mask.device).split(VALIDATION_TASKS):
            support, query = batch.select(tasks)
            adapted = learner.adapt(support)
            said = adapted.fuse(query).prediction
            squares.append(((said.clamp(0, 1) if unit else said) - query.targets).square()[query.mask])
            losses.append(task_means(_row_losses(learner, adapted, query, said), query.mask)[query.mask.any(-1)])
    score = Validation(float(torch.cat(losses).mean()), float(torch.cat(squares).mean().sqrt()))
    for name, value in zip(("the validation loss", "the validation RMSE"), score, strict=True):
        if not math.isfinite(value):
            raise NonFiniteLossError(name, value, epoch=epoch, batch=None)
    return score


def _row_losses(learner: MetaLearner, adapted: AdaptedNetwork, query: FusionInputs, prediction: Tensor) -> Tensor:
    """[T, N] the meta-learner's loss of each row: from its predictions if they are all that it looks at."""
    loss = learner.loss
    if loss == "fusion" and type(learner.network).row_losses is FusionNetwork.row_losses:
        loss = "mse"
    if isinstance(loss, str) and loss in PREDICTION_LOSSES:
        return PREDICTION_LOSSES[loss](prediction, query.targets)
    return adapted.row_losses(query)
