"""A control: the same network and stackers, trained on the target's few users alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._few import CrossFitted
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources, network_predictions
from metarec.transfer._training import fine_tune
from metarec.transfer.settings import FusionSettings

__all__ = ["Scratch"]


class Scratch(TransferStrategy):
    """A control: the same network and stackers, trained on the target's few users alone."""

    name: ClassVar[str] = "scratch"
    needs_sources: ClassVar[bool] = False

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return _FewUsersModel(target, self.settings, self.seed)


class _FewUsersModel(TransferredModel):
    def __init__(self, few: Episodes, settings: FusionSettings, seed: int) -> None:
        self._learner = fine_tune(settings.start(few, seed), few, settings, seed)
        self._stackers = [CrossFitted(name, few, settings.folds, seed) for name in settings.stackers]

    def predict(self, episodes: Episodes) -> np.ndarray:
        said = [network_predictions(self._learner, episodes), *(own.predict(episodes) for own in self._stackers)]
        mean: np.ndarray = np.mean(said, axis=0)
        return mean
