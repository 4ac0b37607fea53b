"""Trains on the target and on sources, weighted by the agreement of their gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from metarec.episodes import EpisodeBatch, Episodes
from metarec.meta import MetaLearner, clipped_step, make_adam
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings, fine_tune
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.model_agnostic import SteppedModel

__all__ = ["GradientBased", "agreeing_gradient", "gradient_of", "set_gradient"]

SHARPNESS = 5.0
"""A source counts e times more for each 0.2 of cosine with the target's gradient."""

EPOCHS = 20
"""The most epochs of the target's users: the initial parameters are good already."""

PATIENCE = 4
"""Epochs without progress on the target's users that end training."""

KEPT = 4
"""Steps for which the sources' gradients are kept: steps are small, and sources are many."""


class GradientBased(TransferStrategy):
    """Fine-tunes on the target's few users together with the sources, as far as their gradients agree.

    It begins as :class:`~metarec.transfer.strategies.model_agnostic.ModelAgnostic` does. Then every step on the
    target's users also uses as many users of each source, see :func:`agreeing_gradient`: the gradient of few users is
    noisy.
    """

    name = "gradient_based"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        model = sources.model(self.settings, self.seed)
        batches = [source.train.batch for source in sources.values()]
        own = self.settings
        short = own.model_copy(update={"epochs": min(EPOCHS, own.epochs), "patience": min(PATIENCE, own.patience)})
        epochs = partial(_epochs, sources=batches, settings=short, seed=self.seed)
        learner = fine_tune(copy.deepcopy(model.learner), target, short, self.seed, epochs)
        return SteppedModel(model.with_learner(learner), target)


def gradient_of(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """[P] the flat gradient with respect to all parameters; 0 where the loss does not depend on them."""
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True)
    # Gradients of some layers are not contiguous, which torch's parameters_to_vector cannot flatten.
    return torch.cat([one.reshape(-1) for one in found])


def set_gradient(parameters: Sequence[Tensor], gradient: Tensor) -> None:
    """Write a flat [P] gradient to the parameters' ``grad``."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, gradient.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def agreeing_gradient(target: Tensor, sources: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Add the sources' gradients to the target's, without their parts that conflict with it (Yu et al. 2020).

    Sources are weighted by a softmax of the cosine of their gradient with the target's. The component of a source's
    gradient against the target's is projected out, so that no source undoes the target's step.

    Args:
        target: [P]; sources: S gradients [P] of the same parameters.

    Returns:
        [P] the target's gradient plus the weighted mean of the projected ones of the sources; [S] the weights, which
        sum to 1.

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
    """Epochs of the target's tasks, each batch with the gradients of tasks that are drawn from each source."""
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
                set_gradient(parameters, combined)
                clipped_step(learner, optimizer, epoch=epoch, batch=number)
                step += 1
        yield
