"""Meta-learned across the sources, adapted to the target in two levels: the domain, then each user."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources, Taught

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
        return SteppedModel(sources.teach(self.settings, self.seed), target)


class SteppedModel(TransferredModel):
    """What sources taught, and a step from there to the target's few users."""

    def __init__(self, taught: Taught, few: Episodes) -> None:
        self._taught = taught
        self._step = DomainStep(few, taught.members(few))

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._step.predict(episodes, self._taught.members(episodes))
