"""The candidates of a mixture: source models, and stackers of the target's few users."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from metarec.episodes import Episodes
from metarec.fusion import Task
from metarec.model import mean_of
from metarec.transfer.sources import CrossFitted, DomainStep

__all__ = ["OWN", "TRANSFERRED", "Candidates", "names_of"]

TRANSFERRED = ("zero_shot", "model_agnostic")
"""The mean of the source models, without and with a step to the domain."""

OWN: Mapping[Task, tuple[str, ...]] = {
    "rating": ("mean", "best-single", "greedy", "ridge", "fwls"),
    "ranking": ("combsum", "best-single", "greedy", "rrf", "logistic"),
}
"""Stackers of the bases, independent of the sources; the first two are the simplest. Boosted trees are no better than
any of them for a handful of users, and take as long as all together."""


def names_of(task: Task) -> tuple[str, ...]:
    """The names of the candidates in a comparison, in their order."""
    return (*TRANSFERRED, *OWN[task])


class Candidates:
    """Every candidate for one target, by their names in a comparison.

    Args:
        few: the target's few users. members: [T, N, M] the source models' predictions of their query rows.
        folds: the most folds of the users, see :class:`~metarec.transfer.sources.CrossFitted`.
    """

    def __init__(self, few: Episodes, members: np.ndarray, folds: int, seed: int) -> None:
        self._step = DomainStep(few, members)
        self._own = [CrossFitted(name, few, folds, seed) for name in OWN[few.task]]

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N, K] predictions of the query rows, in the order of their names; `members`: [T, N, M] as for the fit.

        In ranking they are standard scores.
        """
        own = (model.predict(episodes) for model in self._own)
        untouched = mean_of(list(np.moveaxis(members, -1, 0)), episodes)
        return np.stack([untouched, self._step.predict(episodes, members), *own], axis=-1)
