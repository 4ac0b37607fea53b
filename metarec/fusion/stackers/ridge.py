"""Linear stacking by ridge regression, for a whole grid of penalties at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.linear_model import Ridge

from metarec.bases import Learned
from metarec.fusion._combiner import Family
from metarec.fusion._linear import Design, LinearCombination, Standardiser, everything, predictions_only
from metarec.fusion.stackers._base import Stacker, TrainingRows

__all__ = ["STRENGTHS", "RidgeStacker", "ridge_family"]

STRENGTHS = tuple(10.0**exponent for exponent in np.arange(3.0, -6.5, -0.5))
"""Penalties per train row, from "hardly anything but the intercept" to "hardly any penalty"; alpha is this times R."""


class RidgeStacker(Stacker):
    """Ridge regression on the bases' predictions, alone or with all their features and the context.

    Predicts the rating, or its residual to the mean of the bases, where all shrinkage is towards the mean. Features
    and target and penalty are chosen on validation users. L. Breiman, "Stacked regressions", Machine Learning 24,
    1996.

    Attributes:
        setting: the name of the setting that selects the columns; designs: its values.

    >>> RidgeStacker().name
    'ridge'
    """

    name = "ridge"
    setting: ClassVar[str] = "features"
    designs: ClassVar[Mapping[str, Design]] = {"predictions": predictions_only, "all": everything}

    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        for name, design in self.designs.items():
            yield ridge_family(design, {self.setting: name}, train)

    def _learned(self, combine: LinearCombination, column: int) -> dict[str, Learned]:
        return combine.learned(column)

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> LinearCombination:
        return LinearCombination.of(self.designs[settings[self.setting]], state)


def ridge_family(design: Design, settings: Mapping[str, Any], train: TrainingRows) -> Family:
    """Ridge on `design` for each of `STRENGTHS`, of the targets and of their residuals to the mean of the bases.

    Args:
        design: a module-level function from R rows to [R, D] columns. settings: its name in the logs.
        train: the rows to fit on.
    """
    alphas = np.array(STRENGTHS) * len(train.targets)
    columns = design(train.rows)
    standardise = Standardiser.of(columns)
    # One fit for all: with a penalty per output the products of the columns are computed only once.
    outputs = np.stack([train.targets - train.rows.mean, train.targets], axis=1).repeat(len(alphas), axis=1)
    model = Ridge(alpha=np.tile(alphas, 2), solver="cholesky").fit(standardise(columns), outputs)
    return Family(
        [
            {**settings, "predicts": predicts, "alpha": float(alpha)}
            for predicts in ("residual to the mean", "rating")
            for alpha in alphas
        ],
        LinearCombination(design, standardise, model.coef_, model.intercept_, np.repeat([1.0, 0.0], len(alphas))),
    )
