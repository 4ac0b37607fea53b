"""Fusion for people who have nothing but a matrix of predictions: an estimator in scikit-learn's manner."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.errors import InputError
from metarec.meta import NetworkConfig
from metarec.threads import one_thread

__all__ = ["FusionRegressor"]

BLOCK = 32
"""Rows that make a task where nobody says whose they are."""


BATCH = 32
"""Users in one step of the outer loop."""


class FusionRegressor(RegressorMixin, BaseEstimator):
    """Combines the columns of a matrix of predictions, and learns how to start so that a user's few rows can adapt it.

    What it knows of a row is the row itself: what each base says, how far that is from the others, who says nothing,
    and how much they disagree. From that a :class:`~metarec.fusion.GatedFusion` makes a weight for each base and a
    correction. With `groups` it is meta-learned (MAML, Finn et al. 2017): in every step some of a user's rows adapt it,
    and the others judge it.

    The rows that adapt it have to be of the same kind as those that are asked for later: predicted by the same bases,
    from as much of the user's history. Rows that are each predicted from the others alone made it worse. Where rows
    differ so, episodes are the way (:func:`metarec.episodes.build_episodes`).

    Args:
        hidden_dim: width of the network. dropout: share of its outputs that is dropped while it learns, in [0, 1).
        shots: how many of a user's rows adapt it while it learns, at most half; as many as will be known of one later.
        inner_lr: rate of the steps on a user's own rows. inner_steps: how many; 0 does not adapt.
        learning_rate: rate of Adam over users. epochs: how often every user is seen, at most. patience: epochs without
            progress on held-out users before it stops. validation_fraction: the share of users that is held out.
        scale: the lowest and the highest rating; by default those of `y`. Predictions are clipped to it.
        random_state: of the network's start, of who is held out and of the order of users.

    Attributes:
        n_features_in_: A, the number of bases. scale_: what is clipped to.
        validation_rmse_: on held-out users, in units of `y`, after adaptation.

    Raises:
        InputError: on fitting, an argument breaks its rule.

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
            X: [n, A] what each base predicts; NaN where it cannot say. y: [n] the ratings.
            groups: [n] whose row it is. Without it rows are taken in blocks, and nothing is adapted.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True)
        if np.isinf(X).any():
            raise InputError("X must hold numbers and NaN but has an infinite one")
        whose = np.arange(len(y)) // BLOCK if groups is None else np.asarray(groups)
        if whose.shape != y.shape:
            raise InputError(f"groups must have one entry for each of the {len(y)} rows but has shape {whose.shape}")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must be > 0 and < 1 but got {self.validation_fraction!r}")
        random = check_random_state(self.random_state)
        low, high = (float(y.min()), float(y.max())) if self.scale is None else self.scale
        if self.scale is not None and not low < high:
            raise InputError(f"scale must be (low, high) with low < high but got {self.scale}")
        self.scale_ = (low, high if high > low else low + 1.0)
        self._usual = float(y.mean())
        unit = self._unit(self._filled(X))
        self._centre, spread = unit.mean(0), unit.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        steps = 0 if groups is None else self.inner_steps
        seed = int(random.randint(2**31))
        batch = self._episodes(X, y, whose, with_support=steps > 0, random=random)
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
        self.validation_rmse_ = trained.rmse * (self.scale_[1] - self.scale_[0])
        self._support = self._inputs(X[:0], y[:0])
        return self

    def adapt(self, X: Any, y: Any) -> FusionRegressor:
        """The same regressor for one user, of whom these rows are known; this one stays as it is.

        Args:
            X: [k, A] what each base predicted. y: [k] the user's ratings.
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True, reset=False)
        adapted = copy.copy(self)
        adapted._support = self._inputs(X, y)
        return adapted

    def predict(self, X: Any) -> np.ndarray:
        """[n] the combined predictions, in units of `y`; of a row where no base says anything they are guesses."""
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
        """The matrix with the mean of the others where a base says nothing, and the mean rating where nobody does."""
        known = np.isfinite(X)
        count = known.sum(1, keepdims=True)
        means = np.where(count > 0, np.where(known, X, 0.0).sum(1, keepdims=True) / np.maximum(count, 1), self._usual)
        return np.where(known, X, means)

    def _inputs(self, X: np.ndarray, y: np.ndarray) -> FusionInputs:
        """One task of these rows. A row's features depend on this row alone."""
        filled = self._unit(self._filled(X))
        means, spreads = filled.mean(1, keepdims=True), filled.std(1, keepdims=True)
        silent = ~np.isfinite(X)
        features = np.stack([(filled - self._centre) / self._spread, (filled - means) / self._spread, silent], axis=-1)
        context = np.concatenate([means - self._centre.mean(), spreads, silent.mean(1, keepdims=True)], axis=1)
        # Where nobody says anything the mean rating stands for all of them.
        says = np.where(silent & ~silent.all(1, keepdims=True), np.nan, filled)
        parts = (says, features, context, self._unit(y))
        said, features, context, targets = (
            torch.from_numpy(np.asarray(part, dtype=np.float32))[None] for part in parts
        )
        return FusionInputs(said, features, context, targets, torch.ones(1, len(y), dtype=torch.bool))

    def _episodes(
        self,
        X: np.ndarray,
        y: np.ndarray,
        whose: np.ndarray,
        *,
        with_support: bool,
        random: np.random.RandomState,
    ) -> EpisodeBatch:
        """A task for each user: some of the rows, dealt at random, to adapt on, and the others."""
        rows = self._inputs(X, y)
        supports, queries = [], []
        for group in np.unique(whose):
            own = random.permutation(np.flatnonzero(whose == group))
            known = min(self.shots, len(own) // 2) if with_support else 0
            supports.append(own[:known])
            queries.append(own[known:])
        return EpisodeBatch(_padded(rows, supports), _padded(rows, queries))

    def _held_out(self, batch: EpisodeBatch, random: np.random.RandomState) -> tuple[EpisodeBatch, EpisodeBatch]:
        """Users to learn from, and users to stop by; one user alone is both."""
        order = random.permutation(batch.num_tasks)
        held = int(np.ceil(self.validation_fraction * len(order)))
        if held == len(order):
            return batch, batch
        return batch.select(torch.from_numpy(order[held:])), batch.select(torch.from_numpy(order[:held]))


def _padded(rows: FusionInputs, places: list[np.ndarray]) -> FusionInputs:
    """[T, N] the rows at these places of the only task of `rows`, padded to the longest."""
    width = max(map(len, places))
    index = torch.zeros(len(places), width, dtype=torch.int64)
    mask = torch.zeros(len(places), width, dtype=torch.bool)
    for task, own in enumerate(places):
        index[task, : len(own)] = torch.from_numpy(own)
        mask[task, : len(own)] = True
    chosen = FusionInputs(*(tensor[0][index] for tensor in rows))
    return chosen._replace(mask=mask, targets=torch.where(mask, chosen.targets, 0.0))
