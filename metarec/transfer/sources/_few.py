"""Learning from a few users alone: every setting is chosen by cross-validation among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from metarec.episodes import Episodes
from metarec.fusion.stackers import STACKERS, Stacker

__all__ = ["CrossFitted", "deal", "deal_places"]

UNFITTED = ("mean", "best-single")
"""Stackers with nothing to fit but a choice: they make it on all the users at once."""


class CrossFitted:
    """A stacker that learned from a few users, none of whom could be spared for its settings.

    The users are dealt into parts; for each part one is fitted on the others and tuned on it, and what they say is
    averaged. So every user is learned from, and no setting was chosen on whom it was fitted.

    Args:
        name: of the stacker. few: the users. folds: how many parts, at the most.
    """

    def __init__(self, name: str, few: Episodes, folds: int, seed: int) -> None:
        kind = STACKERS.get(name)
        self._fitted: list[Stacker]
        if name in UNFITTED or len(few) == 1:
            self._fitted = [kind().fit(few, few, seed=seed)]
        else:
            self._fitted = [kind().fit(others, part, seed=seed) for others, part in deal(few, folds, seed)]

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale, in [0, 1]."""
        mean: np.ndarray = np.mean([stacker.predict(episodes) for stacker in self._fitted], axis=0)
        return mean

    @property
    def settings(self) -> Sequence[dict[str, object]]:
        """What was chosen, part by part."""
        return [stacker.settings for stacker in self._fitted]


def deal(few: Episodes, folds: int, seed: int) -> Iterator[tuple[Episodes, Episodes]]:
    """Of each part of the users: the others, and the part."""
    for others, part in deal_places(len(few), folds, seed):
        yield few.select(others), few.select(part)


def deal_places(count: int, folds: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each part of so many users: the places of the others, and its own, in order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for part in order.tensor_split(min(folds, count)):
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[part] = True
        yield (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)
