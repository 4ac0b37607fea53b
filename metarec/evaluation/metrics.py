"""Metrics of models on the same query rows of the same test users, in the domain's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes import Episodes

__all__ = [
    "KEYS",
    "METAREC",
    "METRICS",
    "Gain",
    "Metric",
    "Scores",
    "base_unit_predictions",
    "drawn_gains",
    "paired_gains",
    "prediction_rows",
    "scores",
    "squared_errors",
]

METAREC = "metarec"

KEYS = ["domain", "user", "item", "rating"]

RESAMPLES = 2000


def rmse(errors: np.ndarray) -> float:
    """The root mean squared error; errors: [n] predictions minus ratings."""
    return float(np.sqrt(np.mean(errors**2)))


def mae(errors: np.ndarray) -> float:
    """The mean absolute error; errors: [n] predictions minus ratings."""
    return float(np.mean(np.abs(errors)))


class Metric(NamedTuple):
    """A metric of the test table; less is better.

    Attributes:
        label: the head of its column. of: [n] errors in the domain's own units -> the metric in these units.
        unit: it is divided by the width of the rating scale. Printed tables leave it out.
    """

    label: str
    of: Callable[[np.ndarray], float]
    unit: bool = False


METRICS: Mapping[str, Metric] = {
    "rmse": Metric("RMSE", rmse),
    "mae": Metric("MAE", mae),
    "unit_rmse": Metric("RMSE (unit scale)", rmse, unit=True),
}
"""Every metric, by its key in ``--json`` and in MLflow, in the order of the tables."""


@dataclass(frozen=True)
class Scores:
    """A model's metrics over all test users, of ratings over all their query rows.

    Attributes:
        values: the value of each metric, by its key. n_ratings: None in ranking.
    """

    values: Mapping[str, float]
    n_users: int
    n_ratings: int | None = None

    @property
    def rmse(self) -> float:
        """The RMSE in the domain's own units, by which models are ranked."""
        return self.values["rmse"]

    def to_json(self) -> dict[str, Any]:
        """All numbers in one mapping."""
        counts = {"n_users": self.n_users} | ({} if self.n_ratings is None else {"n_ratings": self.n_ratings})
        return {**self.values, **counts}


def base_unit_predictions(episodes: Episodes) -> dict[str, np.ndarray]:
    """base -> [T, N] on the unit scale, with the fallback where the base has no prediction."""
    predictions = episodes.batch.query.predictions.numpy()
    fallback = episodes.query_fallback.numpy()
    return {
        name: np.where(np.isfinite(predictions[..., base]), predictions[..., base], fallback)
        for base, name in enumerate(episodes.base_names)
    }


def prediction_rows(episodes: Episodes, unit_predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row for each query: domain, user, item, rating, and a column for each model, in the domain's own units.

    Args:
        unit_predictions: model -> [T, N] on the unit scale.

    Raises:
        FloatingPointError: a model's predictions are not finite.
    """
    mask = episodes.batch.query.mask.numpy()
    users = np.repeat(episodes.users, mask.sum(1))
    columns = {
        "domain": episodes.domain,
        "user": users,
        "item": episodes.query_items[mask],
        "rating": episodes.query_ratings[mask],
    }
    for model, unit in unit_predictions.items():
        values = np.asarray(unit)[mask].astype(np.float64)
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"{model} makes {int((~np.isfinite(values)).sum())} predictions that are not finite"
            )
        columns[model] = episodes.scale.to_ratings(np.clip(values, 0.0, 1.0))
    return pd.DataFrame(columns)


def scores(rows: pd.DataFrame, span: float) -> dict[str, Scores]:
    """Each model's scores from the rows of one domain; `span` is the width of its rating scale."""
    truth = rows["rating"].to_numpy()
    table = {}
    for model in rows.columns.drop(KEYS):
        errors = rows[model].to_numpy() - truth
        values = {name: metric.of(errors) / (span if metric.unit else 1.0) for name, metric in METRICS.items()}
        table[model] = Scores(values, rows["user"].nunique(), len(rows))
    return table


class Gain(NamedTuple):
    """How much better one model's metric is than another's, in percent, with a 95 % interval.

    >>> print(Gain(1.0, 0.25, 1.75))
    +1.00 % [+0.25, +1.75]
    """

    percent: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the gain is significant by its interval.

        >>> Gain(1.0, -0.5, 2.5).verdict, Gain(1.0, 0.5, 1.5).verdict
        ('no significant difference', 'better')
        """
        if self.low <= 0 <= self.high:
            return "no significant difference"
        return "better" if self.low > 0 else "worse"

    def __str__(self) -> str:
        return f"{self.percent:+.2f} % [{self.low:+.2f}, {self.high:+.2f}]"


def squared_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Sums of squared errors from the rows of one domain: a row for each user, in order, a column for each model."""
    errors = rows[rows.columns.drop(KEYS)].sub(rows["rating"], axis=0)
    return (errors**2).groupby(rows["user"], sort=False).sum()


def paired_gains(ours: np.ndarray, theirs: pd.DataFrame, *, seed: int = 0) -> dict[str, Gain]:
    """How much lower the RMSE behind `ours` is than that behind each column of `theirs`, in percent.

    The interval is a percentile bootstrap over users (Efron, Tibshirani 1993), because the rows of one user are not
    independent.

    Args:
        ours: [U] each user's sum of squared errors. theirs: [U] the same of every other model, a column each.
    """
    return drawn_gains(ours, theirs, _percent, seed=seed)


def drawn_gains(
    ours: np.ndarray, theirs: pd.DataFrame, percent: Callable[[Any, Any], Any], *, seed: int
) -> dict[str, Gain]:
    """The gain over each column of `theirs`, with the percentile bootstrap over users.

    Args:
        ours: [U] a number of each user. theirs: [U] the same of every other model, a column each.
        percent: from the sums of `ours` and of a column over users, each a number or [draws], to the gain in percent.
    """
    number = len(ours)
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    ours_drawn = draws @ ours
    result = {}
    for model, column in theirs.items():
        other = column.to_numpy()
        low, high = np.percentile(percent(ours_drawn, draws @ other), [2.5, 97.5])
        result[str(model)] = Gain(float(percent(ours.sum(), other.sum())), float(low), float(high))
    return result


def _percent(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return 100 * (1 - np.sqrt(ours / np.maximum(theirs, 1e-300)))
