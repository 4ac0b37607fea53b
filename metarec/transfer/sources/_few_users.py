"""Draws of a few users, and stackers that are fitted on them by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from metarec.episodes import Episodes
from metarec.fusion import Task
from metarec.model import MeanStacker, fit_stacker, fold_indices

__all__ = ["CrossFitted", "few_users"]

UNFITTED: Mapping[Task, tuple[str, ...]] = {
    "rating": ("mean", "best-single"),
    "ranking": ("best-single", "combsum", "rrf"),
}
"""Stackers without parameters. They choose on all users at once."""


def few_users(episodes: Episodes, count: int, seed: int) -> Episodes:
    """Draw `count` users by seed; a smaller draw is a subset of a larger one."""
    drawn = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes.select(drawn[:count].sort().values)


class CrossFitted(MeanStacker):
    """The mean of stackers that are fitted on all folds but one and tuned on that one.

    So it learns from every user, and no setting is chosen on users that the stacker was fitted on.

    Args:
        name: of the stacker. few: the users. folds: at most.
    """

    def __init__(self, name: str, few: Episodes, folds: int, seed: int) -> None:
        if name in UNFITTED[few.task] or len(few) == 1:
            super().__init__([fit_stacker(name, few, few, seed=seed)])
        else:
            divided = ((few.select(others), few.select(part)) for others, part in fold_indices(len(few), folds, seed))
            super().__init__([fit_stacker(name, *pair, seed=seed) for pair in divided if _has_lessons(pair[0])])


def _has_lessons(users: Episodes) -> bool:
    """Whether anything can be learned from these users: in ranking at least one candidate must be relevant."""
    return users.task == "rating" or bool(users.batch.query.targets.any())
