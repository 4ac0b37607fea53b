"""The first of two levels of adaptation: from the source models to one target domain, by its few users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import minimize

from metarec.episodes import Episodes
from metarec.evaluation.metrics import base_unit_predictions
from metarec.fusion.ranks import standard_scores
from metarec.fusion.stackers import query_rows, true_ratings
from metarec.model import fold_indices

__all__ = ["DomainStep", "corrections", "mean_deviations", "out_of_fold"]

STRENGTH = 5.0
"""The ridge penalty: the cost of a squared coefficient, in units of a squared error on the common scale. Ratings
differ from the models' mean by about a twentieth of that scale, so the penalty weighs about 2,000 rows. Chosen on
validation users of seven sets: 1,000 to 5,000 rows are within .1 % of each other for 5, 20 and 100 target users."""

LEVEL = 0.1
"""The value of the intercept column: its coefficient is as free as that of a base that deviates by this."""


LIST_STRENGTH = 5.0
"""The same in ranking, in units of the cross-entropy of one user's list; a coefficient is that of standard scores."""


class DomainStep:
    """Ridge regression of the residuals of the models' mean on the deviations of bases and models from that mean.

    In ranking it is a logit of each user's list instead, with the same columns, of standard scores: the models' mean
    plus the correction minimises the softmax cross-entropy of the relevant candidates and the ridge penalty.

    Without users it changes nothing; with many it becomes a stacking of bases and models. It is the posterior mean
    when domains differ from the source models by normal coefficients (Lindley and Smith 1972), and the only part that
    is fitted to the domain.

    Args:
        few: the target's few users. members: [T, N, M] the models' predictions of their query rows.
    """

    def __init__(self, few: Episodes, members: np.ndarray) -> None:
        columns, mean = _columns(few, members)
        self.coefficients = corrections(few, columns, mean)

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N] predictions of the query rows, in [0, 1]; 0.5 in padding. `members`: [T, N, M] as for the fit.

        In ranking they are standard scores; 0 in padding.
        """
        columns, mean = _columns(episodes, members)
        mask = episodes.batch.query.mask.numpy()
        if episodes.task == "ranking":
            scores = np.zeros(mask.shape)
            scores[mask] = mean + columns @ self.coefficients
            return standard_scores(scores, mask)
        predictions = np.full(mask.shape, 0.5)
        predictions[mask] = np.clip(mean + columns @ self.coefficients, 0.0, 1.0)
        return predictions


def mean_deviations(episodes: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, A + M + 1] deviations of bases and models from the models' mean, and the level; [R] that mean."""
    mask = episodes.batch.query.mask.numpy()
    own = members[mask]
    mean: np.ndarray = own.mean(1)
    bases = np.stack(list(base_unit_predictions(episodes).values()), axis=-1)
    if episodes.task == "ranking":
        bases = standard_scores(bases, mask)
    deviations = np.concatenate([bases[mask], own], axis=1) - mean[:, None]
    return np.column_stack([deviations, np.full(len(mean), LEVEL)]), mean


def _columns(episodes: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, A + M + 2] the columns of :func:`mean_deviations` and the slope; [R] the models' mean."""
    deviations, mean = mean_deviations(episodes, members)
    return np.column_stack([deviations, mean - 0.5]), mean


def corrections(episodes: Episodes, columns: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """[P] coefficients of `columns` [R, P] that correct the models' mean [R] for the query rows of these users."""
    truth = true_ratings(episodes.batch.query)
    if episodes.task == "rating":
        penalty = STRENGTH * np.eye(columns.shape[1])
        solved: np.ndarray = np.linalg.solve(columns.T @ columns + penalty, columns.T @ (truth - mean))
        return solved
    user = query_rows(episodes).task
    # Each user counts once; one without a relevant candidate says nothing of the order.
    share = truth / np.maximum(np.bincount(user, weights=truth), 1)[user]
    counts = np.bincount(user, weights=share)[user]

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        scores = mean + columns @ coefficients
        highest = np.full(user.max() + 1, -np.inf)
        np.maximum.at(highest, user, scores)
        odds = np.exp(scores - highest[user])
        chances = odds / np.bincount(user, weights=odds)[user]
        value = -float(share @ np.log(np.maximum(chances, 1e-300))) + LIST_STRENGTH * float(coefficients @ coefficients)
        return value, columns.T @ (counts * chances - share) + 2 * LIST_STRENGTH * coefficients

    found: np.ndarray = minimize(loss, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B").x
    return found


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
