"""Linear stacking by ridge regression, for a whole grid of penalties at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.linear_model import Ridge

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion.stackers._base import Family, Rows, Stacker, TrainingRows

__all__ = ["STRENGTHS", "LinearCombination", "RidgeStacker", "ridge_family"]

STRENGTHS = tuple(10.0**exponent for exponent in np.arange(3.0, -6.5, -0.5))
"""Penalties per train row, from "hardly anything but the intercept" to "hardly any penalty"; alpha is this times R."""

Design = Callable[[Rows], np.ndarray]


def predictions_only(rows: Rows) -> np.ndarray:
    return rows.predictions


def everything(rows: Rows) -> np.ndarray:
    flat = rows.algorithm_features.reshape(len(rows.mean), -1)
    return np.concatenate([rows.predictions, flat, rows.context], axis=1)


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


@dataclass(frozen=True)
class Standardiser:
    """Centres and scales the columns that vary, and leaves out the ones that do not.

    A design with no varying column keeps one, as zeros, so that there is something to fit an intercept beside.
    """

    kept: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> Standardiser:
        mean, spread = columns.mean(0), columns.std(0)
        kept = np.flatnonzero(spread > 1e-9)
        if len(kept) == 0:
            return cls(np.array([0]), mean[:1], np.array([np.inf]))
        return cls(kept, mean[kept], spread[kept])

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        return (columns[:, self.kept] - self.mean) / self.spread


@dataclass(frozen=True)
class LinearCombination:
    """[R, S] linear predictions; those in `is_residual` [S] are added to the mean of the bases."""

    design: Design
    standardise: Standardiser
    coefficients: np.ndarray
    intercepts: np.ndarray
    is_residual: np.ndarray

    def learned(self, column: int) -> dict[str, Learned]:
        """The values that define one of the predictions, without the design."""
        return {
            "kept": self.standardise.kept,
            "mean": self.standardise.mean,
            "spread": self.standardise.spread,
            "coefficients": self.coefficients[column : column + 1],
            "intercepts": self.intercepts[column : column + 1],
            "is_residual": self.is_residual[column : column + 1],
        }

    @classmethod
    def of(cls, design: Design, learned: Mapping[str, Any]) -> LinearCombination:
        """From the values of :meth:`learned`.

        Raises:
            InputError: a value is missing, or breaks its rule.
        """
        rules = {
            "kept": Stored("columns", kind="whole", low=0),
            "mean": Stored("columns"),
            "spread": Stored("columns", low=1e-12, high=np.inf),
            "coefficients": Stored("1 columns"),
            "intercepts": Stored("1"),
            "is_residual": Stored("1", low=0, high=1),
        }
        check_stored("the linear combination", learned, rules)
        standardise = Standardiser(learned["kept"], learned["mean"], learned["spread"])
        return cls(design, standardise, *(learned[name] for name in ("coefficients", "intercepts", "is_residual")))

    def __call__(self, rows: Rows) -> np.ndarray:
        linear = self.standardise(self.design(rows)) @ self.coefficients.T + self.intercepts
        return linear + np.outer(rows.mean, self.is_residual)


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
