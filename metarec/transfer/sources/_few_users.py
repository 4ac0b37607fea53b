"""Draws of a few users, their folds, and stackers that are fitted on them by cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from metarec.episodes import Episodes
from metarec.fusion.stackers import STACKERS, Stacker

__all__ = ["CrossFitted", "few_users", "fold_indices"]

UNFITTED = ("mean", "best-single")
"""Stackers without parameters. They choose on all users at once."""


def few_users(episodes: Episodes, count: int, seed: int) -> Episodes:
    """Draw `count` users by seed; a smaller draw is a subset of a larger one."""
    drawn = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes.select(drawn[:count].sort().values)


def fold_indices(count: int, folds: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each fold of `count` users or rows: the sorted indices outside and inside of it."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for part in order.tensor_split(min(folds, count)):
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[part] = True
        yield (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


class CrossFitted:
    """The mean of stackers that are fitted on all folds but one and tuned on that one.

    So it learns from every user, and no setting is chosen on users that the stacker was fitted on.

    Args:
        name: of the stacker. few: the users. folds: at most.
    """

    def __init__(self, name: str, few: Episodes, folds: int, seed: int) -> None:
        kind = STACKERS.get(name)
        self._fitted: list[Stacker]
        if name in UNFITTED or len(few) == 1:
            self._fitted = [kind().fit(few, few, seed=seed)]
        else:
            self._fitted = [
                kind().fit(few.select(others), few.select(part), seed=seed)
                for others, part in fold_indices(len(few), folds, seed)
            ]

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale, in [0, 1]."""
        mean: np.ndarray = np.mean([stacker.predict(episodes) for stacker in self._fitted], axis=0)
        return mean

    @property
    def settings(self) -> Sequence[dict[str, object]]:
        """The chosen settings, fold by fold."""
        return [stacker.settings for stacker in self._fitted]
