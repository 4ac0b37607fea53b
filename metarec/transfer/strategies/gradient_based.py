"""Sources weighed by how far their gradients agree with the target's, what conflicts projected out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from metarec.episodes import EpisodeBatch, Episodes
from metarec.meta import MetaLearner, clipped_step, make_adam
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings, fine_tune
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.model_agnostic import SteppedModel

__all__ = ["GradientBased", "agreeing_gradient", "gradient_of"]

SHARPNESS = 5.0
"""How much more a source counts whose gradient agrees more: e times more for every 0.2 of cosine."""

EPOCHS = 20
"""Of the target's users, at the most: the start is a good one already."""

PATIENCE = 4
"""Epochs without progress among the target's users after which there is no more."""

KEPT = 4
"""Steps for which the sources' gradients are kept: steps are small, and it is sources that there are many of."""


class GradientBased(TransferStrategy):
    """The target's few users go on being trained on together with the sources, as far as these agree with them.

    It begins as :class:`~metarec.transfer.strategies.model_agnostic.ModelAgnostic` does. Then every step on the
    target's users also takes a step on as many users of each source, see :func:`agreeing_gradient`. The gradient of few
    users is noisy. The sources' gradients add to it where they agree, and are projected where they conflict.
    """

    name: ClassVar[str] = "gradient_based"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        model = sources.model(self.settings, self.seed)
        batches = [source.train.batch for source in sources.values()]
        short = self.settings.model_copy(
            update={
                "epochs": min(EPOCHS, self.settings.epochs),
                "patience": min(PATIENCE, self.settings.patience),
            }
        )
        epochs = partial(_epochs, sources=batches, settings=short, seed=self.seed)
        learner = fine_tune(copy.deepcopy(model.learner), target, short, self.seed, epochs)
        return SteppedModel(model.with_learner(learner), target)


def gradient_of(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """[P] the gradient with respect to all parameters, one after the other; 0 for what the loss does not depend on."""
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True)
    # Gradients of some layers lie in memory the other way round, which torch's own function cannot flatten.
    return torch.cat([one.reshape(-1) for one in found])


def agreeing_gradient(target: Tensor, sources: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient to go along, and how much each source counts in it.

    Sources are weighed by the cosine of their gradient with the target's (a softmax: all count, those that agree count
    more). Of a source that conflicts, the part that lies against the target's gradient is taken away (Yu et al. 2020);
    so the sum never undoes what the target wants.

    Args:
        target: [P]; sources: S gradients [P] of the same parameters.

    Returns:
        [P] the target's gradient plus the weighted mean of what is left of the sources'; [S] the weights, which add up
        to 1.

    >>> combined, weights = agreeing_gradient(torch.tensor([1.0, 0.0]), [torch.tensor([-1.0, 2.0])])
    >>> combined
    tensor([1., 2.])
    """
    others = torch.stack(list(sources))
    weights = torch.softmax(SHARPNESS * cosine_similarity(others, target.unsqueeze(0)), dim=0)
    along = others @ target / target.square().sum().clamp(min=torch.finfo(target.dtype).tiny)
    others = others - along.clamp(max=0).unsqueeze(1) * target
    return target + weights @ others, weights


def _epochs(
    learner: MetaLearner,
    batch: EpisodeBatch,
    count: int,
    *,
    sources: Sequence[EpisodeBatch],
    settings: TransferSettings,
    seed: int,
) -> Iterator[None]:
    """Epochs of the target's tasks, and beside every batch the gradients of tasks drawn from each source."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = make_adam(learner, settings.outer_lr)
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    size = min(settings.batch_size, batch.num_tasks)

    def gradient(tasks: EpisodeBatch) -> Tensor:
        return gradient_of(learner.meta_loss(tasks), parameters)

    def drawn(tasks: EpisodeBatch) -> EpisodeBatch:
        return tasks.select(torch.randperm(tasks.num_tasks, generator=generator)[:size])

    step = 0
    others: list[Tensor] = []
    for epoch in range(count):
        learner.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            order = torch.randperm(batch.num_tasks, generator=generator)
            for number, tasks in enumerate(order.split(settings.batch_size)):
                if step % KEPT == 0:
                    others = [gradient(drawn(source)) for source in sources]
                combined, _ = agreeing_gradient(gradient(batch.select(tasks)), others)
                place = 0
                for parameter in parameters:
                    parameter.grad = combined[place : place + parameter.numel()].view_as(parameter).clone()
                    place += parameter.numel()
                clipped_step(learner, optimizer, epoch=epoch, batch=number)
                step += 1
        yield
