"""The best single base, the sum of scores, and the sum of reciprocal ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion._combiner import Family
from metarec.fusion.rankers._base import Judged, Lists, Ranker
from metarec.fusion.rankers._transforms import TRANSFORMS, ranks_of

__all__ = ["BestSingleRanker", "CombSumRanker", "ReciprocalRankRanker"]

CONSTANTS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0)


class BestSingleRanker(Ranker):
    """The base with the highest nDCG@10 on validation users; the mean of the others where it has no score.

    >>> BestSingleRanker().name
    'best-single'
    """

    name = "best-single"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        yield Family([{"base": name} for name in train.base_names], _each_base)

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {"base": combine.base if isinstance(combine, _OneBase) else column}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        check_stored("the best base", state, {"base": Stored(kind="whole", low=0)})
        return _OneBase(int(np.asarray(state["base"])))


@dataclass(frozen=True)
class _OneBase:
    base: int

    def __call__(self, lists: Lists) -> np.ndarray:
        return lists.predictions[..., self.base : self.base + 1]


def _each_base(lists: Lists) -> np.ndarray:
    return lists.predictions


class CombSumRanker(Ranker):
    """The sum of the bases' scores on one scale; which scale is chosen on validation users.

    The scales are standard scores, percentiles, and the range from 0 to 1, of each user and base over the candidates.
    E. A. Fox and J. A. Shaw, "Combination of multiple searches", TREC-2, 1994.

    >>> CombSumRanker().name
    'combsum'
    """

    name = "combsum"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        for transform in TRANSFORMS:
            yield Family([{"transform": transform}], _Summed(transform))

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        TRANSFORMS[settings["transform"]]
        return _Summed(settings["transform"])


@dataclass(frozen=True)
class _Summed:
    transform: str

    def __call__(self, lists: Lists) -> np.ndarray:
        return TRANSFORMS[self.transform](lists.predictions, lists.mask).sum(-1, keepdims=True)


class ReciprocalRankRanker(Ranker):
    """Reciprocal rank fusion: the sum of 1 / (k + rank) over the bases; k is chosen on validation users.

    G. V. Cormack, C. L. A. Clarke, S. Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", SIGIR 2009.

    >>> ReciprocalRankRanker().name
    'rrf'
    """

    name = "rrf"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        yield Family([{"k": constant} for constant in CONSTANTS], _Reciprocal(CONSTANTS))

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {"k": combine.constants[column]}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        check_stored("reciprocal rank fusion", state, {"k": Stored(low=0)})
        return _Reciprocal((float(np.asarray(state["k"])),))


@dataclass(frozen=True)
class _Reciprocal:
    constants: tuple[float, ...]

    def __call__(self, lists: Lists) -> np.ndarray:
        ranks = ranks_of(lists.predictions, lists.mask)
        # The rank of padding is 0, and its score is not used.
        return np.stack([(1 / (constant + np.maximum(ranks, 1))).sum(-1) for constant in self.constants], axis=-1)
