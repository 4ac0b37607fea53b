"""MAML across the sources, with two levels of adaptation."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.sources import DomainStep, SourceModel, Sources, TransferredModel
from metarec.transfer.strategies._base import TransferStrategy

__all__ = ["ModelAgnostic", "SteppedModel"]


class ModelAgnostic(TransferStrategy):
    """Meta-learns initial parameters on tasks of all sources (MAML, Finn et al. 2017), then adapts in two levels.

    The first is a closed-form step to the domain by its few users (:class:`DomainStep`), the second is the inner loop
    for each user.
    """

    name = "model_agnostic"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return SteppedModel(sources.model(self.settings, self.seed), target)


class SteppedModel(TransferredModel):
    """A source model, and a domain step that is fitted on the target's few users."""

    def __init__(self, model: SourceModel, few: Episodes) -> None:
        self._model = model
        self._step = DomainStep(few, model.members(few))

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._step.predict(episodes, self._model.members(episodes))
