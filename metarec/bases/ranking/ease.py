"""A linear item-item model in closed form."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from scipy import linalg, sparse

from metarec.bases._learned import Stored
from metarec.bases._searched import Choices, Range
from metarec.bases.ranking._base import Histories, RankingBase, WeightedConfig, strengths, user_rows
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["Ease"]

AT_ONCE = 1000
"""Rows or columns of a table that are worked on together."""


class EaseConfig(WeightedConfig):
    """Settings of :class:`Ease`."""

    penalty: PositiveFloat = 400.0
    "L2 penalty of the item-item weights."
    max_items: PositiveInt = 8000
    "With more items and more users than this, only so many items, the most popular, are modelled: 256 MB for 8,000."


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
            self._inverse = _inverse(_gram(events), self.config.penalty)
            self._diagonal = np.concatenate(
                [
                    1 - _quadratic(events[:, first : first + AT_ONCE], self._inverse)
                    for first in range(0, events.shape[1], AT_ONCE)
                ]
            )
        else:
            self._events = sparse.csr_array((0, events.shape[1]), dtype=np.float32)
            self._inverse = _inverse(_gram(events.T.tocsr()), self.config.penalty)
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


def _gram(rows: sparse.csr_array) -> np.ndarray:
    """The products of all pairs of rows, float32. They are computed in blocks, because sparse ones take more memory."""
    gram = np.empty((rows.shape[0], rows.shape[0]), dtype=np.float32)
    columns = rows.T.tocsr()
    for first in range(0, len(gram), AT_ONCE):
        gram[first : first + AT_ONCE] = (rows[first : first + AT_ONCE] @ columns).toarray()
    return gram


def _inverse(gram: np.ndarray, penalty: float) -> np.ndarray:
    """The inverse of a positive semidefinite table plus a penalty, in the memory of the table, which is float32.

    With 8,000 rows the table takes 256 MB, and folds are fitted in processes at the same time.
    """
    gram[np.diag_indices(len(gram))] += penalty
    # The transposed table is the same one, in the order of LAPACK, which would copy it otherwise.
    factor, _ = linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1)
    half, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    # Only one half is computed: the upper one of the table in its own order.
    inverse: np.ndarray = half.T
    for first in range(0, len(inverse), AT_ONCE):
        last = first + AT_ONCE
        square = inverse[first:last, first:last]
        square[:] = np.triu(square) + np.triu(square, 1).T
        inverse[last:, first:last] = inverse[first:last, last:].T
    return inverse


def _quadratic(columns: sparse.csr_array, table: np.ndarray) -> np.ndarray:
    """x'Mx for each column x."""
    dense = columns.toarray()
    return np.einsum("uc,uc->c", dense, table @ dense)
