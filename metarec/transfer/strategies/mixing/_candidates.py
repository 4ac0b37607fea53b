"""What there is to choose from for a target: by what sources teach, and by what its few users say alone."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.sources import CrossFitted, DomainStep, deal_places

__all__ = ["NAMES", "OWN", "TRANSFERRED", "Candidates", "candidates_out_of_fold"]

TRANSFERRED = ("zero_shot", "model_agnostic")
"""What sources teach: untouched, and after a step to the domain."""

OWN = ("mean", "best-single", "greedy", "ridge", "fwls")
"""Ways of combining the bases that owe nothing to the sources. Boosted trees are as good as none of them for a handful
of users, and take as long as all together."""

NAMES = (*TRANSFERRED, *OWN)


class Candidates:
    """Every candidate for one target, by the names that they have in a comparison.

    Args:
        few: the known users. members: [T, N, M] what the sources' models predict of their query rows.
        folds: into how many parts the users are dealt, see :class:`~metarec.transfer.sources._few.CrossFitted`.
    """

    def __init__(self, few: Episodes, members: np.ndarray, folds: int, seed: int) -> None:
        self._step = DomainStep(few, members)
        self._own = [CrossFitted(name, few, folds, seed) for name in OWN]

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N, K] predictions of the query rows, in the order of `NAMES`.

        Args:
            members: [T, N, M] what the sources' models predict.
        """
        own = (model.predict(episodes) for model in self._own)
        return np.stack([members.mean(-1), self._step.predict(episodes, members), *own], axis=-1)


def candidates_out_of_fold(few: Episodes, members: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[U, N, K] what the candidates say of each of two users or more, made by the others of them."""
    predictions = np.full((*members.shape[:2], len(NAMES)), 0.5)
    for others, part in deal_places(len(few), folds, seed):
        made = Candidates(few.select(others), members[others.numpy()], folds, seed)
        predictions[part.numpy()] = made.predict(few.select(part), members[part.numpy()])
    return predictions
