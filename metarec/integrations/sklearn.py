"""Fusion of a matrix of predictions, as an estimator for scikit-learn."""

from __future__ import annotations

import copy
import logging
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.errors import InputError
from metarec.meta import NetworkConfig
from metarec.threads import one_thread

__all__ = ["FusionRegressor"]

logger = logging.getLogger(__name__)

BLOCK = 32
"""The number of rows in a task if there are no `groups`."""

BATCH = 32
"""Users in one step of the outer loop."""

LONGEST = 4
"""A user's most rows in training, in units of the mean over users, because users are padded to the longest one."""


class FusionRegressor(RegressorMixin, BaseEstimator):
    """Combines the columns of a matrix of predictions, and can adapt to a user from a few rows.

    The features of a row come from the row alone: the prediction of each base, its deviation from the others, missing
    predictions, and the disagreement. From these a :class:`~metarec.fusion.GatedFusion` makes a weight for each base
    and a correction. With `groups` it is meta-learned (MAML, Finn et al. 2017): in every step some of a user's rows
    adapt it, and the others give the loss.

    The rows for adaptation must be like later rows: predicted by the same bases from as much of the user's history.
    Rows that were each predicted from the others alone made it worse. For such rows use episodes
    (:func:`metarec.episodes.build_episodes`).

    Args:
        hidden_dim: width of the network. dropout: share of its outputs that is dropped in training, in [0, 1).
        shots: number of a user's rows for adaptation in training, at most half; best as many as for later users.
        inner_lr: rate of the steps on a user's own rows. inner_steps: their number; 0 does not adapt.
        learning_rate: rate of Adam over users. epochs: the most passes over the users. patience: epochs without
            progress on held-out users before it stops. validation_fraction: the share of held-out users.
        scale: the lowest and the highest rating; by default those of `y`. Predictions are clipped to it.
        random_state: of the network's weights, of the held-out users and of the order of users.

    Attributes:
        n_features_in_: A, the number of bases. scale_: the range of predictions.
        validation_rmse_: on held-out users, in units of `y`, after adaptation.

    Raises:
        InputError: in :meth:`fit`, an argument breaks its rule.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(1, 5, 400)
    >>> P = np.stack([truth + rng.normal(0, 0.3, 400), truth + rng.normal(0, 2, 400)], axis=1)
    >>> fusion = FusionRegressor(epochs=20, random_state=0).fit(P, truth, groups=np.arange(400) // 20)
    >>> error = np.sqrt(np.mean((fusion.predict(P) - truth) ** 2))
    >>> bool(error < np.sqrt(np.mean((P.mean(1) - truth) ** 2)))
    True
    """

    def __init__(
        self,
        *,
        hidden_dim: int = 32,
        dropout: float = 0.3,
        shots: int = 10,
        inner_lr: float = 0.02,
        inner_steps: int = 1,
        learning_rate: float = 0.01,
        epochs: int = 100,
        patience: int = 15,
        validation_fraction: float = 0.2,
        scale: tuple[float, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.shots = shots
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.scale = scale
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # scikit-learn's name
        """Learn to combine.

        Args:
            X: [n, A] the prediction of each base, or NaN. y: [n] the ratings.
            groups: [n] the user of each row. Without it tasks are blocks of rows, without adaptation. Every user counts
                as much as any other: of one with more than four times the mean number of rows (and more than four times
                `shots`), a random part of that size takes part in training, which a warning in the log states.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True)
        if np.isinf(X).any():
            raise InputError("X must hold numbers and NaN but has an infinite one")
        users = np.arange(len(y)) // BLOCK if groups is None else _numbered(groups, len(y))
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must be > 0 and < 1 but got {self.validation_fraction!r}")
        random = check_random_state(self.random_state)
        low, high = (float(y.min()), float(y.max())) if self.scale is None else self.scale
        if self.scale is not None and not low < high:
            raise InputError(f"scale must be (low, high) with low < high but got {self.scale}")
        self.scale_ = (low, high if high > low else low + 1.0)
        self._mean = float(y.mean())
        unit = self._unit(self._filled(X))
        self._centre, spread = unit.mean(0), unit.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        steps = 0 if groups is None else self.inner_steps
        seed = int(random.randint(2**31))
        batch = self._episodes(X, y, users, with_support=steps > 0, random=random)
        train, validation = self._held_out(batch, random)
        config = NetworkConfig(
            options={"hidden_dim": self.hidden_dim, "dropout": self.dropout},
            inner_lr=self.inner_lr,
            inner_steps=steps,
            loss="mse",
            outer_lr=self.learning_rate,
            epochs=self.epochs,
            batch_size=BATCH,
            patience=self.patience,
        )
        with one_thread():
            trained = config.fit([train], [validation], seed=seed)
        self._learner = trained.learner
        self.validation_rmse_ = trained.error * (self.scale_[1] - self.scale_[0])
        self._support = self._inputs(X[:0], y[:0])
        return self

    def adapt(self, X: Any, y: Any) -> FusionRegressor:
        """A copy of the regressor, adapted to one user.

        Args:
            X: [k, A] the prediction of each base. y: [k] the user's ratings.
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True, reset=False)
        adapted = copy.copy(self)
        adapted._support = self._inputs(X, y)
        return adapted

    def predict(self, X: Any) -> np.ndarray:
        """[n] the combined predictions, in units of `y`; a row without base predictions gets a guess."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        with one_thread():
            unit = self._learner.adapt(self._support).predict(self._inputs(X, np.zeros(len(X))))[0]
        low, high = self.scale_
        return low + (high - low) * unit.numpy().astype(np.float64)

    def _unit(self, ratings: np.ndarray) -> np.ndarray:
        low, high = self.scale_
        return (ratings - low) / (high - low)

    def _filled(self, X: np.ndarray) -> np.ndarray:
        """The matrix with NaN replaced by the mean of the other bases, or by the mean rating if all are missing."""
        finite = np.isfinite(X)
        count = finite.sum(1, keepdims=True)
        means = np.where(count > 0, np.where(finite, X, 0.0).sum(1, keepdims=True) / np.maximum(count, 1), self._mean)
        return np.where(finite, X, means)

    def _inputs(self, X: np.ndarray, y: np.ndarray) -> FusionInputs:
        """One task of these rows. The features of a row depend on this row alone."""
        filled = self._unit(self._filled(X))
        means, spreads = filled.mean(1, keepdims=True), filled.std(1, keepdims=True)
        missing = ~np.isfinite(X)
        features = np.stack([(filled - self._centre) / self._spread, (filled - means) / self._spread, missing], axis=-1)
        context = np.concatenate([means - self._centre.mean(), spreads, missing.mean(1, keepdims=True)], axis=1)
        # If all bases are missing, the mean rating replaces all of them.
        filled = np.where(missing & ~missing.all(1, keepdims=True), np.nan, filled)
        predictions, features, context, targets = (
            torch.from_numpy(np.asarray(part, dtype=np.float32))[None]
            for part in (filled, features, context, self._unit(y))
        )
        return FusionInputs(predictions, features, context, targets, torch.ones(1, len(y), dtype=torch.bool))

    def _episodes(
        self, X: np.ndarray, y: np.ndarray, users: np.ndarray, *, with_support: bool, random: np.random.RandomState
    ) -> EpisodeBatch:
        """A task for each user, whose rows are randomly divided into support and query."""
        rows = self._inputs(X, y)
        supports, queries = [], []
        counts = np.bincount(users)
        most = LONGEST * max(self.shots, int(np.ceil(counts.mean())))
        for own in np.split(np.argsort(users, kind="stable"), counts.cumsum()[:-1]):
            own = random.permutation(own)[:most]
            shots = min(self.shots, len(own) // 2) if with_support else 0
            supports.append(own[:shots])
            queries.append(own[shots:])
        if counts.max() > most:
            long = int((counts > most).sum())
            logger.warning(
                "%d of %d users have more than %d rows; a random part of them trains", long, len(counts), most
            )
        return EpisodeBatch(_padded(rows, supports), _padded(rows, queries))

    def _held_out(self, batch: EpisodeBatch, random: np.random.RandomState) -> tuple[EpisodeBatch, EpisodeBatch]:
        """Train users, and held-out users for early stopping; a single user is both."""
        order = random.permutation(batch.num_tasks)
        held = int(np.ceil(self.validation_fraction * len(order)))
        if held == len(order):
            return batch, batch
        return batch.select(torch.from_numpy(order[held:])), batch.select(torch.from_numpy(order[:held]))


def _numbered(groups: Any, rows: int) -> np.ndarray:
    """[n] each row's user as a number, from 0 in the order of the users' ids."""
    shape = np.shape(groups)
    if shape != (rows,):
        raise InputError(f"groups must have one entry for each of the {rows} rows but has shape {shape}")
    numbers, _ = pd.factorize(np.asarray(groups), sort=True)
    missing = np.flatnonzero(numbers < 0)
    if len(missing):
        raise InputError(
            f"groups must name the user of every row but has NaN or None in {len(missing)} of {rows} rows, "
            f"first in row {missing[0]}; leave these rows out"
        )
    return numbers


def _padded(rows: FusionInputs, places: list[np.ndarray]) -> FusionInputs:
    """[T, N] rows of the only task of `rows`, by their places, padded to the longest."""
    width = max(map(len, places))
    index = torch.zeros(len(places), width, dtype=torch.int64)
    mask = torch.zeros(len(places), width, dtype=torch.bool)
    for task, own in enumerate(places):
        index[task, : len(own)] = torch.from_numpy(own)
        mask[task, : len(own)] = True
    chosen = FusionInputs(*(tensor[0][index] for tensor in rows))
    return chosen._replace(mask=mask, targets=torch.where(mask, chosen.targets, 0.0))
