"""A transfer strategy: what the sources teach, moved by how far off it is among the target's few users."""

from typing import Any, ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer import Sources, TransferredModel, TransferStrategy

__all__ = ["SourcesThenShift"]

PENALTY = 50
"""So many rows' worth is the belief that there is nothing to move."""


class SourcesThenShift(TransferStrategy):
    """Learns on all sources, and adds the mean error on the few known users, shrunk towards 0."""

    name: ClassVar[str] = "sources_then_shift"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        # Learned once for all strategies that ask for the same settings and seed.
        taught = sources.teach(self.settings, self.seed)
        query = target.batch.query
        errors = (query.targets.numpy() - taught.predict(target))[query.mask.numpy()]
        return Shifted(taught, float(errors.sum() / (len(errors) + PENALTY)))


class Shifted(TransferredModel):
    """A model, and what is added to all that it says."""

    def __init__(self, model: TransferredModel, shift: float) -> None:
        self._model = model
        self._shift = shift

    def predict(self, episodes: Episodes) -> np.ndarray:
        return np.clip(self._model.predict(episodes) + self._shift, 0, 1)

    def reasons(self) -> dict[str, Any]:
        """Kept with every trial and every cell of a comparison."""
        return {"shift": self._shift}
