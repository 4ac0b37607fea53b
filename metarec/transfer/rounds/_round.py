"""One transfer round: the data that a strategy is fitted and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes, Standards
from metarec.ratings import RatingScale
from metarec.transfer.sources import Sources

__all__ = ["REGIMES", "Regime", "Round"]

Regime = Literal["labels", "everything"]
REGIMES: tuple[Regime, ...] = ("everything", "labels")
"""What is scarce in the target: everything (bases and fusion are fitted on the few users alone), or only labels (bases
are fitted on the whole domain, and the fusion on the few users)."""


@dataclass(frozen=True)
class Round:
    """One target with a few users, and its sources.

    `sources`, `few`, `validation` and `test` are on the common scale (:func:`~metarec.ratings.common_scale`), so that
    models carry over between domains. `plain_few`, `plain_validation` and `plain_test` are the same users on the
    target's own scale, with features standardised by the few users alone: the data of a model without sources.

    In ranking there is no scale, and features are standardised by the few users alone in both.

    Attributes:
        sources: name -> episodes of train and validation users; no test user of the target is among them.
        few: the target's users that strategies are fitted on. test: those that predictions are scored on.
        validation: users for the choice of a strategy; no strategy is fitted on them.
        more_users: train users of the target beyond the few, plain, for the oracle: all train users where only labels
            are few, otherwise at most 100 others, predicted by bases of the few users.
        scale: the target's own.
        few_standards: statistics of the few users' own features on the common scale, without the sources'; None in
            ranking.
    """

    sources: Sources
    few: Episodes
    validation: Episodes
    test: Episodes
    plain_few: Episodes
    plain_validation: Episodes
    plain_test: Episodes
    more_users: DomainEpisodes
    scale: RatingScale
    few_standards: Standards | None

    def to_unit(self, predictions: np.ndarray, *, plain: bool) -> np.ndarray:
        """[T, N] predictions of the queries on the target's unit scale, clipped to it; scores of lists as they are.

        Args:
            predictions: for `test` or, if `plain`, for `plain_test`; likewise for the validation users.
        """
        if self.few.task == "ranking":
            return predictions
        if not plain:
            predictions = self.scale.to_unit(self.test.scale.to_ratings(predictions))
        return np.clip(predictions, 0.0, 1.0)
