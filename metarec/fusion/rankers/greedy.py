"""Greedy ensemble selection by nDCG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion._combiner import Family
from metarec.fusion.blend import greedy_path
from metarec.fusion.rankers._base import Judged, Lists, Ranker
from metarec.fusion.rankers._transforms import TRANSFORMS

__all__ = ["GreedyRanker"]

STEPS = 15
MOST_USERS = 1000


class GreedyRanker(Ranker):
    """Adds repeatedly, with replacement, the base with which the sum of scores has the highest nDCG@10 on train users.

    The scale of the scores and the number of steps are chosen on validation users, which ends the selection early
    (:func:`metarec.fusion.blend.greedy_path`).

    >>> GreedyRanker().name
    'greedy'
    """

    name = "greedy"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        users = len(train.relevant)
        if users > MOST_USERS:
            train = train.users(np.sort(np.random.default_rng(seed).choice(users, MOST_USERS, replace=False)))
        for transform in ("standard", "percentile"):
            scores = np.moveaxis(TRANSFORMS[transform](train.lists.predictions, train.lists.mask), -1, 0)
            weights = greedy_path(scores, train.ndcg, STEPS).T
            settings = [{"transform": transform, "steps": step + 1} for step in range(weights.shape[1])]
            yield Family(settings, _Weighted(transform, weights))

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {"weights": combine.weights[:, column : column + 1]}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        check_stored("the greedy ensemble", state, {"weights": Stored("bases 1", low=0, high=1)})
        TRANSFORMS[settings["transform"]]
        return _Weighted(settings["transform"], np.asarray(state["weights"]))


@dataclass(frozen=True)
class _Weighted:
    """[T, N, S] weighted sums of the bases' scores with the weights [A, S]."""

    transform: str
    weights: np.ndarray

    def __call__(self, lists: Lists) -> np.ndarray:
        summed: np.ndarray = TRANSFORMS[self.transform](lists.predictions, lists.mask) @ self.weights
        return summed
