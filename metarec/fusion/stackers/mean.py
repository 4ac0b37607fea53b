"""The mean of the bases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from metarec.bases import Learned
from metarec.fusion.stackers._base import Family, Rows, Stacker, TrainingRows

__all__ = ["MeanStacker"]


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
