"""A transfer strategy: a model of the sources plus its mean error on the target's few users."""

from typing import Any, ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer import Sources, TransferredModel, TransferStrategy

__all__ = ["SourcesThenShift"]

PENALTY = 50
"""The weight of a prior shift of 0, in rows."""


class SourcesThenShift(TransferStrategy):
    """Trains on all sources, and adds the mean error on the few train users, shrunk towards 0."""

    name: ClassVar[str] = "sources_then_shift"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        # It is trained once for all strategies with the same settings and seed.
        source_model = sources.model(self.settings, self.seed)
        query = target.batch.query
        errors = (query.targets.numpy() - source_model.predict(target))[query.mask.numpy()]
        return Shifted(source_model, float(errors.sum() / (len(errors) + PENALTY)))


class Shifted(TransferredModel):
    """A model with a constant added to its predictions."""

    def __init__(self, model: TransferredModel, shift: float) -> None:
        self._model = model
        self._shift = shift

    def predict(self, episodes: Episodes) -> np.ndarray:
        return np.clip(self._model.predict(episodes) + self._shift, 0, 1)

    def reasons(self) -> dict[str, Any]:
        """Recorded with every trial and every cell of a comparison."""
        return {"shift": self._shift}
