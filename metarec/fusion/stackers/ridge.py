"""Linear stacking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from metarec.bases import Learned
from metarec.fusion.stackers._base import Family, Known, Stacker
from metarec.fusion.stackers._common import Rows
from metarec.fusion.stackers._linear import LinearCombination, ridge_family

__all__ = ["RidgeStacker"]


class RidgeStacker(Stacker):
    """Ridge regression on the bases' predictions, alone or with all their features and the context.

    Predicts the rating, or its residual to the mean of the bases, where all shrinkage is towards the mean. Features
    and target and penalty are chosen on validation users. L. Breiman, "Stacked regressions", Machine Learning 24,
    1996.

    >>> RidgeStacker().name
    'ridge'
    """

    name = "ridge"

    def _families(self, train: Known, validation: Known, seed: int) -> Iterator[Family]:
        for name, design in DESIGNS.items():
            yield ridge_family(design, {"features": name}, train)

    def _learned(self, combine: LinearCombination, column: int) -> dict[str, Learned]:
        return combine.learned(column)

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> LinearCombination:
        return LinearCombination.of(DESIGNS[settings["features"]], state)


def predictions_only(rows: Rows) -> np.ndarray:
    return rows.predictions


def everything(rows: Rows) -> np.ndarray:
    flat = rows.algorithm_features.reshape(len(rows.mean), -1)
    return np.concatenate([rows.predictions, flat, rows.context], axis=1)


DESIGNS = {"predictions": predictions_only, "all": everything}
"""What the setting ``features`` means."""
