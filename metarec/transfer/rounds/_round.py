"""What a strategy is asked in one round."""

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
"""What there is little of in the target: everything (the bases know the few users alone, too), or only labels (the
bases know the whole domain, and the fusion sees few users)."""


@dataclass(frozen=True)
class Round:
    """One target with a few known users, and its sources.

    On the common scale (see :func:`~metarec.ratings.common_scale`) are `sources`, `few`, `validation` and `test`: what
    is learned in one domain can be said in another. `plain_few`, `plain_validation` and `plain_test` are the same users
    on the target's own scale, whose features are measured against those of the few users alone: what whoever has no
    sources would see.

    Attributes:
        sources: name -> episodes of train and validation users; no test user of the target is among them.
        few: the known users. test: those to be judged on.
        validation: users of the target whom whoever knows but a few does not have; research chooses strategies by them.
        everyone: all train users of the target, plain; what nobody has who knows but a few.
        scale: the target's own.
        few_standards: what the few users' own features are like on the common scale, the sources' left out.
    """

    sources: Sources
    few: Episodes
    validation: Episodes
    test: Episodes
    plain_few: Episodes
    plain_validation: Episodes
    plain_test: Episodes
    everyone: DomainEpisodes
    scale: RatingScale
    few_standards: Standards

    def to_unit(self, predictions: np.ndarray, *, plain: bool) -> np.ndarray:
        """[T, N] predictions of the queries on the unit scale of the target, and never outside of it.

        Args:
            predictions: for `test` or, if `plain`, for `plain_test`; for `validation` and `plain_validation` alike.
        """
        if not plain:
            predictions = self.scale.to_unit(self.test.scale.to_ratings(predictions))
        return np.clip(predictions, 0.0, 1.0)
