"""Controls, which show what the other strategies add."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.meta import Shape
from metarec.model import mean_of, outputs_of
from metarec.transfer.sources import (
    CrossFitted,
    SourceModel,
    Sources,
    TransferredModel,
    TransferSettings,
    fine_tune,
)
from metarec.transfer.strategies._base import TransferStrategy

__all__ = ["Pooled", "Scratch", "ZeroShot"]


class Scratch(TransferStrategy):
    """A control: the same network and stackers, trained on the target's few users alone."""

    name = "scratch"
    needs_sources = False

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return _FewUsersModel(target, self.settings, self.seed)


class ZeroShot(TransferStrategy):
    """A control: the source model, adapted to nothing of the target but each user's support ratings."""

    name = "zero_shot"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return sources.model(self.settings, self.seed)


class Pooled(TransferStrategy):
    """A control: all domains are one, and the target's few users are train users beside those of the sources."""

    name = "pooled"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return SourceModel.learn(list(sources.values()), self.settings.fusion, self.seed, beside=[target])


class _FewUsersModel(TransferredModel):
    def __init__(self, few: Episodes, settings: TransferSettings, seed: int) -> None:
        self._learner = fine_tune(settings.build(Shape.of(few.batch), seed), few, settings, seed)
        self._stackers = [CrossFitted(name, few, settings.folds, seed) for name in settings.stackers]

    def predict(self, episodes: Episodes) -> np.ndarray:
        support, query = episodes.batch
        network = outputs_of(self._learner.adapt(support), query, episodes.task).astype(np.float64)
        return mean_of([network, *(stacker.predict(episodes) for stacker in self._stackers)], episodes)
