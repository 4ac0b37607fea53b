"""Many queries at once: ids become codes in one look-up, and answers go back to where they were asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.bases._base import Answer, BaseRecommender, HistoryQuery, Recommender, predict_queries
from metarec.ratings import RatingScale

__all__ = ["CodedQueries", "FoldInRecommender", "answer_queries"]

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

    def ratings_behind(self, counts: np.ndarray) -> np.ndarray:
        """[P] how many ratings a sum of a user's and an item's mean is worth; 0 for an empty history.

        The variances of two means add up, so u ratings of the user and i of the item (`counts`, [I]) are worth
        ui / (u + i): a few of the user's beside many of the item's count in full.
        """
        users, items = self.lengths[self.owners], counts[self.asked]
        return users * items / np.maximum(users + items, 1)


class FoldInRecommender(Recommender):
    """A base that predicts from item codes, for many histories at once.

    `fit` sets the rating scale and the items that are known, in the order of their codes.
    """

    _scale: RatingScale
    _items: pd.Index

    @abstractmethod
    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        """[P] predictions of the asked items on the unit scale, NaN where it cannot say, and [P] their evidence."""

    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        return [answer.predictions for answer in self.answer_queries(queries)]

    def answer_queries(self, queries: Sequence[HistoryQuery]) -> list[Answer]:
        """One answer for each query."""
        answers: list[Answer] = []
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
            predictions, evidence = np.full(len(asked), np.nan), np.zeros(len(asked))
            unit, evidence[known] = self.predict_coded(coded)
            predictions[known] = self._scale.to_ratings(unit)
            stops = np.cumsum(num_asked).tolist()
            answers.extend(
                Answer(predictions[stop - size : stop], evidence[stop - size : stop])
                for stop, size in zip(stops, num_asked.tolist(), strict=True)
            )
        return answers


def answer_queries(base: BaseRecommender, queries: Sequence[HistoryQuery]) -> list[Answer]:
    """Ask any base as `predict_queries` does, and also how much evidence it has for each prediction.

    Raises:
        ValueError: a plug-in answered with another number of predictions or evidences than it was asked for, or with
            evidence that is negative or not finite.
    """
    if isinstance(base, FoldInRecommender):
        return base.answer_queries(queries)
    answers = []
    for query, predictions in zip(queries, predict_queries(base, queries), strict=True):
        can_say = ~np.isnan(predictions)
        answers.append(Answer(predictions, np.where(can_say, _evidence(base, query), 0.0)))
    return answers


def _evidence(base: BaseRecommender, query: HistoryQuery) -> np.ndarray:
    """[n] what a plug-in says of its evidence, 1 where it offers no such method."""
    tell = getattr(base, "evidence", None)
    if tell is None:
        return np.ones(len(query.items))
    history = pd.DataFrame({"item": query.history_items, "rating": query.history_ratings})
    evidence = np.asarray(tell(history, query.items), dtype=np.float64)
    rule = f"evidence of base recommender {base.name} must be {len(query.items)} finite numbers >= 0"
    if evidence.shape != (len(query.items),):
        raise ValueError(f"{rule} but has the shape {evidence.shape}")
    wrong = ~(np.isfinite(evidence) & (evidence >= 0))
    if wrong.any():
        raise ValueError(f"{rule} but has {evidence[wrong][0]}")
    return evidence


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
