"""What makes a new user's task, but for the bases, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.bases import BaseRecommender, Learned
from metarec.episodes._features import Priors
from metarec.episodes._item_facts import KnownItems
from metarec.episodes._standards import Moments, Standards
from metarec.episodes.builders._new_users import TaskMaker
from metarec.ratings import RatingScale

__all__ = ["FittedFacts"]


class FittedFacts(NamedTuple):
    """What is known of items, and what features are measured against."""

    known_items: KnownItems
    standards: Standards

    @classmethod
    def of(cls, maker: TaskMaker) -> FittedFacts:
        """Those of a task maker."""
        return cls(maker.known_items, maker.standards)

    def maker(self, scale: RatingScale, bases: Mapping[str, BaseRecommender], now: float | None) -> TaskMaker:
        """The task maker with these bases."""
        return TaskMaker(scale, bases, self.known_items, now, self.standards)

    def arrays(self) -> dict[str, Learned]:
        """To be kept: :meth:`from_arrays` makes the same of it."""
        items, standards = self.known_items, self.standards
        return {
            "items": items.items.to_numpy().astype(np.str_),
            "table": items.table,
            "first": items.first,
            "absolute_error": standards.priors.absolute_error,
            "variance": standards.priors.variance,
            "algorithm_mean": standards.algorithm.mean,
            "algorithm_spread": standards.algorithm.spread,
            "context_mean": standards.context.mean,
            "context_spread": standards.context.spread,
            "damping": standards.damping,
        }

    @classmethod
    def from_arrays(cls, stored: Mapping[str, Any]) -> FittedFacts:
        """From what :meth:`arrays` said."""
        return cls(
            KnownItems(pd.Index(stored["items"].astype(object), dtype=object), stored["table"], stored["first"]),
            Standards(
                Priors(stored["absolute_error"], float(stored["variance"])),
                Moments(stored["algorithm_mean"], stored["algorithm_spread"]),
                Moments(stored["context_mean"], stored["context_spread"]),
                float(stored["damping"]),
            ),
        )
