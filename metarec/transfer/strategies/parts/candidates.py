"""The candidates of a mixture: source models, and stackers of the target's few users."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.sources import CrossFitted, DomainStep

__all__ = ["NAMES", "OWN", "TRANSFERRED", "Candidates"]

TRANSFERRED = ("zero_shot", "model_agnostic")
"""The mean of the source models, without and with a step to the domain."""

OWN = ("mean", "best-single", "greedy", "ridge", "fwls")
"""Stackers of the bases, independent of the sources. Boosted trees are no better than any of them for a handful of
users, and take as long as all together."""

NAMES = (*TRANSFERRED, *OWN)


class Candidates:
    """Every candidate for one target, by their names in a comparison.

    Args:
        few: the target's few users. members: [T, N, M] the source models' predictions of their query rows.
        folds: the most folds of the users, see :class:`~metarec.transfer.sources.CrossFitted`.
    """

    def __init__(self, few: Episodes, members: np.ndarray, folds: int, seed: int) -> None:
        self._step = DomainStep(few, members)
        self._own = [CrossFitted(name, few, folds, seed) for name in OWN]

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N, K] predictions of the query rows, in the order of `NAMES`; `members`: [T, N, M] as for the fit."""
        own = (model.predict(episodes) for model in self._own)
        return np.stack([members.mean(-1), self._step.predict(episodes, members), *own], axis=-1)
