"""Many queries at once: ids become codes in one look-up, and answers go back to where they were asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.bases._base import HistoryQuery, Recommender
from metarec.ratings import RatingScale

__all__ = ["CodedQueries", "FoldInRecommender"]

CHUNK = 200_000
"""History entries and asked items that are answered in one go; it bounds the memory, not the number of queries."""


class CodedQueries(NamedTuple):
    """Queries as flat arrays, without the items that the base does not know; B queries, each a run of entries.

    Attributes:
        lengths: [B] how many known items each history has; their sum is R.
        items: [R] item codes of the histories, query after query.
        unit: [R] their ratings on the unit scale.
        asked: [P] codes of the known items that are asked for, query after query.
        owners: [P] the query that asks.
    """

    lengths: np.ndarray
    items: np.ndarray
    unit: np.ndarray
    asked: np.ndarray
    owners: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """[B] where each history begins in `items`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def history_owners(self) -> np.ndarray:
        """[R] the query that each history entry belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class FoldInRecommender(Recommender):
    """A base that predicts from item codes, for many histories at once.

    `fit` sets the rating scale and the items that are known, in the order of their codes.
    """

    _scale: RatingScale
    _items: pd.Index

    @abstractmethod
    def predict_coded(self, queries: CodedQueries) -> np.ndarray:
        """[P] predictions of the asked items on the unit scale, NaN where it cannot say."""

    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        answers: list[np.ndarray] = []
        for chunk in _chunks(queries):
            history_ids = np.concatenate([query.history_items for query in chunk])
            ratings = np.concatenate([query.history_ratings for query in chunk])
            asked_ids = np.concatenate([query.items for query in chunk])
            codes = self._items.get_indexer(np.concatenate([history_ids, asked_ids]))
            history, asked = codes[: len(history_ids)], codes[len(history_ids) :]
            history_owners = np.repeat(np.arange(len(chunk)), [len(query.history_items) for query in chunk])
            num_asked = np.array([len(query.items) for query in chunk])
            seen, known = history >= 0, asked >= 0
            coded = CodedQueries(
                np.bincount(history_owners[seen], minlength=len(chunk)),
                history[seen],
                self._scale.to_unit(ratings[seen].astype(np.float64)),
                asked[known],
                np.repeat(np.arange(len(chunk)), num_asked)[known],
            )
            flat = np.full(len(asked), np.nan)
            flat[known] = self._scale.to_ratings(self.predict_coded(coded))
            answers.extend(np.split(flat, np.cumsum(num_asked)[:-1]))
        return answers


def _chunks(queries: Sequence[HistoryQuery]) -> Iterator[Sequence[HistoryQuery]]:
    """Runs of queries with about `CHUNK` entries; a query is never divided."""
    first = size = 0
    for position, query in enumerate(queries):
        size += len(query.history_items) + len(query.items) + 1
        if size >= CHUNK:
            yield queries[first : position + 1]
            first, size = position + 1, 0
    if first < len(queries):
        yield queries[first:]
