"""Draws of a few users, their folds, and stackers that are fitted on them by cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from metarec.episodes import Episodes
from metarec.fusion import Task
from metarec.fusion.ranks import standard_scores
from metarec.model import fit_stacker

__all__ = ["CrossFitted", "few_users", "fold_indices", "mean_of"]

UNFITTED: Mapping[Task, tuple[str, ...]] = {
    "rating": ("mean", "best-single"),
    "ranking": ("best-single", "combsum", "rrf"),
}
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
        if name in UNFITTED[few.task] or len(few) == 1:
            self._fitted = [fit_stacker(name, few, few, seed=seed)]
        else:
            divided = ((few.select(others), few.select(part)) for others, part in fold_indices(len(few), folds, seed))
            self._fitted = [fit_stacker(name, *pair, seed=seed) for pair in divided if _has_lessons(pair[0])]

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale, in [0, 1]; in ranking standard scores."""
        return mean_of([stacker.predict(episodes) for stacker in self._fitted], episodes)

    @property
    def settings(self) -> Sequence[dict[str, object]]:
        """The chosen settings, fold by fold."""
        return [stacker.settings for stacker in self._fitted]


def mean_of(predictions: Sequence[np.ndarray], episodes: Episodes) -> np.ndarray:
    """[T, N] the mean of several predictions of the query rows, [T, N] each.

    The scores of lists have no common unit: in ranking it is the mean of standard scores, as standard scores.
    """
    if episodes.task == "rating":
        mean: np.ndarray = np.mean(predictions, axis=0)
        return mean
    mask = episodes.batch.query.mask.numpy()
    return standard_scores(np.mean([standard_scores(own, mask) for own in predictions], axis=0), mask)


def _has_lessons(users: Episodes) -> bool:
    """Whether anything can be learned from these users: in ranking at least one candidate must be relevant."""
    return users.task == "rating" or bool(users.batch.query.targets.any())
