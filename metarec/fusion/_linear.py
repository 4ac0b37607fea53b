"""Linear combinations of the columns of rows, as arrays that can be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion._combiner import Rows

__all__ = ["Design", "LinearCombination", "Standardiser", "everything", "predictions_only"]

Design = Callable[[Rows], np.ndarray]
"""A module-level function from R rows to [R, D] columns."""


def predictions_only(rows: Rows) -> np.ndarray:
    """[R, A] the bases' predictions."""
    return rows.predictions


def everything(rows: Rows) -> np.ndarray:
    """[R, A + A * F + C] predictions, all features of the bases, and the context."""
    flat = rows.algorithm_features.reshape(len(rows.mean), -1)
    return np.concatenate([rows.predictions, flat, rows.context], axis=1)


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
