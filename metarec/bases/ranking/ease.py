"""A linear item-item model in closed form."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from scipy import linalg, sparse

from metarec.bases._learned import Stored
from metarec.bases.ranking._base import Choices, Histories, Range, RankingBase, WeightedConfig, strengths, user_rows
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["Ease"]

COLUMNS_AT_ONCE = 1000


class EaseConfig(WeightedConfig):
    """Settings of :class:`Ease`."""

    penalty: PositiveFloat = 400.0
    "L2 penalty of the item-item weights."
    max_items: PositiveInt = 8000
    "With more items and more users than this, only so many items, the most popular, are modelled."


class Ease(RankingBase):
    """Each item regressed on all others, in closed form (Steck 2019).

    The weights follow from the inverse of ``X'X + penalty``, a table of items. With fewer users than items, the table
    of users ``XX' + penalty`` is inverted in its place (Woodbury's identity), which gives the same scores. With more
    than `max_items` of both, all items but the most popular have the lowest score of the row.
    """

    name = "ease"
    Config = EaseConfig
    config: EaseConfig
    searched: ClassVar = {"penalty": Range(1.0, 5000.0, log=True), "weights": Choices(("binary", "log"))}
    learned: ClassVar = {
        "modelled": Stored("items", kind="flag"),
        "events": Stored("users columns", is_sparse=True, low=0),
        "inverse": Stored("size size"),
        "diagonal": Stored("columns", low=1e-9),
    }

    def fit(self, domain: Domain) -> Self:
        events = user_rows(domain, self.config.weights)
        users, items = events.shape
        self._modelled = np.ones(items, dtype=bool)
        if min(users, items) > self.config.max_items:
            # Ties go to the first in the order of codes.
            order = np.argsort(-np.bincount(events.indices, minlength=items), kind="stable")
            self._modelled[order[self.config.max_items :]] = False
            events = events[:, self._modelled]
        if users < events.shape[1]:
            self._events = events
            self._inverse = _inverse((events @ events.T).toarray(), self.config.penalty)
            self._diagonal = np.concatenate(
                [
                    1 - _quadratic(events[:, first : first + COLUMNS_AT_ONCE], self._inverse)
                    for first in range(0, events.shape[1], COLUMNS_AT_ONCE)
                ]
            )
        else:
            self._events = sparse.csr_array((0, events.shape[1]), dtype=np.float32)
            self._inverse = _inverse((events.T @ events).toarray(), self.config.penalty)
            self._diagonal = self._inverse.diagonal().copy()
        return self

    def _derive(self) -> None:
        users, columns = self._events.shape
        if columns != np.count_nonzero(self._modelled) or len(self._inverse) != (users or columns):
            raise InputError(f"the state of the ranking base {self.name} must have an inverse of its users or items")

    def score_items(self, histories: Histories) -> np.ndarray:
        rows = histories.rows(strengths(histories.weights, self.config.weights), self.num_items)
        items = np.unique(histories.items)
        if len(items) < len(histories.lengths):
            # Scores are linear in the history, and histories that leave one item out share all others.
            single = sparse.eye_array(self.num_items, dtype=np.float32, format="csr")[items]
            scores = rows[:, items].toarray() @ self._scores(single[:, self._modelled])
        else:
            scores = self._scores(rows[:, self._modelled])
        if self._modelled.all():
            return scores
        whole = np.repeat(scores.min(axis=1, keepdims=True), self.num_items, axis=1)
        whole[:, self._modelled] = scores
        return whole

    def _scores(self, rows: sparse.csr_array) -> np.ndarray:
        """[B, columns] the scores of the modelled items, from sparse rows of these items."""
        if self._events.shape[0]:
            explained = (rows @ self._events.T) @ self._inverse @ self._events
            beyond = rows.toarray() - explained
        else:
            beyond = rows @ self._inverse
        # An item does not explain itself: its own weight is taken out.
        return np.asarray(rows.toarray() - beyond / self._diagonal.astype(np.float32))


def _inverse(gram: np.ndarray, penalty: float) -> np.ndarray:
    """The inverse of a positive semidefinite table plus a penalty, float32, in the table's own memory."""
    gram = np.asfortranarray(gram, dtype=np.float32)
    gram[np.diag_indices(len(gram))] += penalty
    factor, _ = linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    # Only the lower half is computed.
    return np.tril(inverse) + np.tril(inverse, -1).T


def _quadratic(columns: sparse.csr_array, table: np.ndarray) -> np.ndarray:
    """x'Mx for each column x."""
    dense = columns.toarray()
    return np.einsum("uc,uc->c", dense, table @ dense)
