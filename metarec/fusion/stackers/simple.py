"""The mean of the bases, and the best single base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion._combiner import Family, Rows
from metarec.fusion.stackers._base import Stacker, TrainingRows

__all__ = ["BestSingleStacker", "MeanStacker"]


class MeanStacker(Stacker):
    """The mean of the bases' finite predictions, the fallback where there is none; hard to beat for cold users.

    >>> MeanStacker().name
    'mean'
    """

    name = "mean"

    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        yield Family([{}], _mean)

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        return _mean


def _mean(rows: Rows) -> np.ndarray:
    return rows.mean[:, None]


class BestSingleStacker(Stacker):
    """The base with the lowest RMSE on validation users; the fallback where it predicts NaN.

    Validation rows are fewer than train rows, but they are predicted by the same bases as test users (fitted on all
    train users), and the settings of all other stackers are chosen on them too.

    >>> BestSingleStacker().name
    'best-single'
    """

    name = "best-single"

    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        yield Family([{"base": name} for name in train.base_names], _each_base)

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        return {"base": combine.base if isinstance(combine, _OneBase) else column}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Any:
        check_stored("the best base", state, {"base": Stored(kind="whole", low=0)})
        return _OneBase(int(np.asarray(state["base"])))


@dataclass(frozen=True)
class _OneBase:
    base: int

    def __call__(self, rows: Rows) -> np.ndarray:
        return rows.predictions[:, self.base : self.base + 1]


def _each_base(rows: Rows) -> np.ndarray:
    return rows.predictions
