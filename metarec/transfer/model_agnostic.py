"""Meta-learned across the sources, adapted to the target in two levels: the domain, then each user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import AdaptingModel, TransferredModel, TransferStrategy
from metarec.transfer._training import fine_tune, train_on_sources

__all__ = ["ModelAgnostic"]


class ModelAgnostic(TransferStrategy):
    """Meta-learned across the sources, adapted to the target in two levels: the domain, then each user.

    The start is learned on tasks of all sources (MAML, Finn et al. 2017). It goes on to the target's few users for as
    long as cross-validation among them says, which may be not at all; and from there to each user by the inner loop.
    """

    name: ClassVar[str] = "model_agnostic"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        learner = self.settings.start(target, self.seed)
        train_on_sources(learner, sources.values(), self.settings, self.seed)
        return AdaptingModel(fine_tune(learner, target, self.settings, self.seed))
