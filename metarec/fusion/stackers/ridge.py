"""Linear stacking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from metarec.fusion.stackers._base import Family, Known, Stacker
from metarec.fusion.stackers._common import Rows
from metarec.fusion.stackers._linear import ridge_family

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
        yield ridge_family(predictions_only, {"features": "predictions"}, train)
        yield ridge_family(everything, {"features": "all"}, train)


def predictions_only(rows: Rows) -> np.ndarray:
    return rows.predictions


def everything(rows: Rows) -> np.ndarray:
    flat = rows.algorithm_features.reshape(len(rows.mean), -1)
    return np.concatenate([rows.predictions, flat, rows.context], axis=1)
