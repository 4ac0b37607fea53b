"""The first of two levels of adaptation: from the source models to one target domain, by its few users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from metarec.episodes import Episodes
from metarec.fusion.stackers import query_rows, true_ratings
from metarec.transfer.sources._few_users import fold_indices

__all__ = ["STRENGTH", "DomainStep", "mean_deviations", "out_of_fold", "user_squared_errors"]

STRENGTH = 5.0
"""The ridge penalty: the cost of a squared coefficient, in units of a squared error on the common scale. Ratings
differ from the models' mean by about a twentieth of that scale, so the penalty weighs about 2,000 rows. Chosen on
validation users of seven sets: 1,000 to 5,000 rows are within .1 % of each other for 5, 20 and 100 target users."""

LEVEL = 0.1
"""The value of the intercept column: its coefficient is as free as that of a base that deviates by this."""


class DomainStep:
    """Ridge regression of the residuals of the models' mean on the deviations of bases and models from that mean.

    Without users it changes nothing; with many it becomes a stacking of bases and models. It is the posterior mean
    when domains differ from the source models by normal coefficients (Lindley and Smith 1972), and the only part that
    is fitted to the domain.

    Args:
        few: the target's few users. members: [T, N, M] the models' predictions of their query rows.
    """

    def __init__(self, few: Episodes, members: np.ndarray) -> None:
        columns, mean = _columns(few, members)
        residuals = true_ratings(few.batch.query) - mean
        penalty = STRENGTH * np.eye(columns.shape[1])
        self.coefficients = np.linalg.solve(columns.T @ columns + penalty, columns.T @ residuals)

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N] predictions of the query rows, in [0, 1]; 0.5 in padding. `members`: [T, N, M] as for the fit."""
        columns, mean = _columns(episodes, members)
        mask = episodes.batch.query.mask.numpy()
        predictions = np.full(mask.shape, 0.5)
        predictions[mask] = np.clip(mean + columns @ self.coefficients, 0.0, 1.0)
        return predictions


def mean_deviations(episodes: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, A + M + 1] deviations of bases and models from the models' mean, and the level; [R] that mean."""
    own = members[episodes.batch.query.mask.numpy()]
    mean: np.ndarray = own.mean(1)
    deviations = np.concatenate([query_rows(episodes).predictions, own], axis=1) - mean[:, None]
    return np.column_stack([deviations, np.full(len(mean), LEVEL)]), mean


def _columns(episodes: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, A + M + 2] the columns of :func:`mean_deviations` and the slope; [R] the models' mean."""
    deviations, mean = mean_deviations(episodes, members)
    return np.column_stack([deviations, mean - 0.5]), mean


class _Fitted(Protocol):
    def predict(self, episodes: Episodes, members: np.ndarray, /) -> np.ndarray: ...


def out_of_fold(
    fit: Callable[[Episodes, np.ndarray], _Fitted], few: Episodes, members: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """[U, N, ...] predictions for each of two users or more, by a model that was fitted on users of other folds.

    Args:
        fit: makes a model from users and the predictions of the source models for them.
        few: U users. members: [U, N, M] predictions by models that were not trained on them. folds: at most.
    """
    parts, predictions = [], []
    for others, part in fold_indices(len(few), folds, seed):
        model = fit(few.select(others), members[others.numpy()])
        predictions.append(model.predict(few.select(part), members[part.numpy()]))
        parts.append(part)
    return np.concatenate(predictions)[torch.cat(parts).argsort().numpy()]


def user_squared_errors(episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
    """[U] squared errors on the unit scale, summed over each user's query rows."""
    query = episodes.batch.query
    errors = np.where(query.mask.numpy(), predictions - query.targets.numpy(), 0.0)
    sums: np.ndarray = np.square(errors).sum(1)
    return sums
