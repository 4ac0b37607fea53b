"""Meta-learned across the sources, adapted to the target in two levels: the domain, then each user."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.sources import DomainStep, SourceModel, Sources, TransferredModel
from metarec.transfer.strategies._base import TransferStrategy

__all__ = ["ModelAgnostic", "SteppedModel"]


class ModelAgnostic(TransferStrategy):
    """Meta-learned across the sources, adapted to the target in two levels: the domain, then each user.

    The start is learned on tasks of all sources (MAML, Finn et al. 2017), whatever the models are. From there one
    closed step leads to the domain, as far as its few users bear it out (:class:`DomainStep`), and the inner loop to
    each user.
    """

    name: ClassVar[str] = "model_agnostic"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return SteppedModel(sources.model(self.settings, self.seed), target)


class SteppedModel(TransferredModel):
    """What sources model, and a step from there to the target's few users."""

    def __init__(self, model: SourceModel, few: Episodes) -> None:
        self._model = model
        self._step = DomainStep(few, model.members(few))

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._step.predict(episodes, self._model.members(episodes))
