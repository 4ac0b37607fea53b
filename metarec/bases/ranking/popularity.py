"""The items that most users have, the recent ones more."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import PositiveFloat

from metarec.bases._base import BaseConfig
from metarec.bases._learned import Stored
from metarec.bases._searched import Choices
from metarec.bases.ranking._base import Histories, RankingBase
from metarec.ratings import Domain

__all__ = ["Popularity"]

DAY = 86_400.0
"""Seconds; timestamps count seconds."""


class PopularityConfig(BaseConfig):
    """Settings of :class:`Popularity`."""

    half_life: PositiveFloat | None = None
    "Days after which an event counts half, where there is time; None: every event counts 1."


class Popularity(RankingBase):
    """The logarithm of one plus the number of users who have the item.

    With a half-life, an event counts ``0.5 ** (age / half_life)``; its age is the time to the latest event of the fit.
    """

    name = "popularity"
    Config = PopularityConfig
    config: PopularityConfig
    searched: ClassVar = {"half_life": Choices((None, 7.0, 30.0, 90.0, 365.0, 1000.0))}
    is_personal = False
    learned: ClassVar = {"popularity": Stored("items", low=0)}

    def fit(self, domain: Domain) -> Self:
        events = domain.ratings
        counts = np.ones(len(events))
        if self.config.half_life is not None and domain.has_timestamps:
            times = events["timestamp"].to_numpy(dtype=np.float64)
            counts = 0.5 ** ((times.max() - times) / (DAY * self.config.half_life))
        items = domain.item_index.get_indexer(events["item"])
        self._popularity = np.log1p(np.bincount(items, counts, len(domain.item_index)))
        return self

    def score_items(self, histories: Histories) -> np.ndarray:
        return np.tile(self._popularity.astype(np.float32), (len(histories.lengths), 1))
