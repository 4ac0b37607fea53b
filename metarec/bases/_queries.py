"""Many queries at once, as flat arrays of item codes from one look-up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.bases._base import (
    Answer,
    BaseRecommender,
    HistoryQuery,
    Recommender,
    base_errors,
    predict_queries,
)
from metarec.bases._learned import Learned, Stored, check_stored
from metarec.ratings import RatingScale

__all__ = ["CodedQueries", "FoldInRecommender", "QueryBatch", "answer_queries"]

CHUNK = 200_000
"""History entries and requested items in one chunk; it bounds the memory, not the number of queries."""


class QueryBatch(tuple[HistoryQuery, ...]):
    """Queries for several bases: what does not depend on the base is computed once, above all the look-up of ids.

    The look-up of a thousand strings takes as long as a simple base's arithmetic for them.
    """

    @cached_property
    def chunks(self) -> list[FlatQueries]:
        """Runs of whole queries with about `CHUNK` entries, as flat arrays."""
        found = []
        first = size = 0
        for position, query in enumerate(self):
            size += len(query.history_items) + len(query.items) + 1
            if size >= CHUNK:
                found.append(FlatQueries.of(self[first : position + 1]))
                first, size = position + 1, 0
        return [*found, FlatQueries.of(self[first:])] if first < len(self) else found


@dataclass(frozen=True, eq=False)
class FlatQueries:
    """B queries as flat arrays, each a run of entries.

    Attributes:
        ids: [R + P] the items of all histories, then all requested items; ratings: [R] those of the histories.
        history_owners: [R] the query that each history entry belongs to.
        num_requested: [B] the number of requested items of each query.
    """

    ids: np.ndarray
    ratings: np.ndarray
    history_owners: np.ndarray
    num_requested: np.ndarray
    _codes: dict[int, tuple[pd.Index, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of(cls, queries: Sequence[HistoryQuery]) -> FlatQueries:
        """Lay queries out."""
        return cls(
            np.concatenate([*(query.history_items for query in queries), *(query.items for query in queries)]),
            np.concatenate([query.history_ratings for query in queries]).astype(np.float64),
            np.repeat(np.arange(len(queries)), [len(query.history_items) for query in queries]),
            np.array([len(query.items) for query in queries]),
        )

    def codes(self, index: pd.Index) -> tuple[np.ndarray, np.ndarray]:
        """[R] and [P] the codes of the ids, -1 for unknown items; one look-up for all bases with the same index."""
        # The index is kept with its codes, so that its id is not reused.
        if id(index) not in self._codes:
            self._codes[id(index)] = index, index.get_indexer(self.ids)
        codes = self._codes[id(index)][1]
        return codes[: len(self.ratings)], codes[len(self.ratings) :]


class CodedQueries(NamedTuple):
    """B queries as flat arrays, each a run of entries, without items that are unknown to the base.

    Attributes:
        lengths: [B] the number of items in each history; their sum is R.
        items: [R] item codes of the histories, query after query.
        unit: [R] their ratings on the unit scale.
        requested: [P] codes of the requested items, query after query.
        owners: [P] the query of each.
    """

    lengths: np.ndarray
    items: np.ndarray
    unit: np.ndarray
    requested: np.ndarray
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
        """[P] the evidence of a sum of a user's and an item's mean, in ratings; 0 for an empty history.

        The variances of two means add up, so u ratings of the user and i of the item (`counts`, [I]) are worth
        ui / (u + i).
        """
        users, items = self.lengths[self.owners], counts[self.requested]
        return users * items / np.maximum(users + items, 1)


class FoldInRecommender(Recommender):
    """A base that predicts from item codes, for many histories at once.

    `fit` sets the rating scale and the items in the order of their codes: the domain's own `item_index` where these
    are the rated ones, so that bases share its look-ups.

    Attributes:
        learned: the other values that `fit` sets, and the rule of each: ``"levels"`` for the attribute ``_levels``.
            One of their axes may be "items".
    """

    learned: ClassVar[Mapping[str, Stored]]

    _scale: RatingScale
    _items: pd.Index

    def _derive(self) -> None:
        """Derive from the learned values what fold-in needs besides."""

    def state(self) -> dict[str, Learned]:
        """The learned values; :meth:`restore` makes the same recommender of them, with the same settings."""
        return {
            "items": self._items.to_numpy().astype(np.str_),
            "scale": np.array([self._scale.low, self._scale.high]),
            **{name: getattr(self, f"_{name}") for name in self.learned},
        }

    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take the state of another recommender with the same settings.

        Raises:
            InputError: something is missing from the state, or breaks its rule.
        """
        own = {"items": Stored("items", kind="text", unique=True), "scale": Stored("2")}
        check_stored(f"the state of the base {self.name}", state, {**own, **self.learned})
        self._items = pd.Index(np.asarray(state["items"]).astype(object), dtype=object)
        self._scale = RatingScale(*np.asarray(state["scale"]).tolist())
        for name in self.learned:
            setattr(self, f"_{name}", state[name])
        self._derive()
        return self

    @abstractmethod
    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        """[P] predictions of the requested items on the unit scale, NaN for none, and [P] their evidence."""

    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        return [answer.predictions for answer in self.answer_queries(queries)]

    def answer_queries(self, queries: Sequence[HistoryQuery]) -> list[Answer]:
        """One answer for each query."""
        answers: list[Answer] = []
        batch = queries if isinstance(queries, QueryBatch) else QueryBatch(queries)
        for flat in batch.chunks:
            history, requested = flat.codes(self._items)
            seen, available = history >= 0, requested >= 0
            count = len(flat.num_requested)
            coded = CodedQueries(
                np.bincount(flat.history_owners[seen], minlength=count),
                history[seen],
                self._scale.to_unit(flat.ratings[seen]),
                requested[available],
                np.repeat(np.arange(count), flat.num_requested)[available],
            )
            predictions, evidence = np.full(len(requested), np.nan), np.zeros(len(requested))
            unit, evidence[available] = self.predict_coded(coded)
            predictions[available] = self._scale.to_ratings(unit)
            stops = np.cumsum(flat.num_requested).tolist()
            answers.extend(
                Answer(predictions[stop - size : stop], evidence[stop - size : stop])
                for stop, size in zip(stops, flat.num_requested.tolist(), strict=True)
            )
        return answers


def answer_queries(base: BaseRecommender, queries: Sequence[HistoryQuery], where: str = "new users") -> list[Answer]:
    """Predictions of any base, as from `predict_queries`, with their evidence.

    For several bases and the same queries, pass a :class:`QueryBatch`: ids are looked up once.

    Args:
        where: what the queries are about, for messages.

    Raises:
        InputError: the base raised an error, or a plug-in returned a wrong number of predictions or evidences, or
            evidence that is negative or not finite.
    """
    with base_errors(base.name, where):
        if isinstance(base, FoldInRecommender):
            return base.answer_queries(queries)
        answers = []
        for query, predictions in zip(queries, predict_queries(base, queries), strict=True):
            finite = ~np.isnan(predictions)
            answers.append(Answer(predictions, np.where(finite, _evidence(base, query), 0.0)))
        return answers


def _evidence(base: BaseRecommender, query: HistoryQuery) -> np.ndarray:
    """[n] the evidence of a plug-in, 1 where it has no such method."""
    method = getattr(base, "evidence", None)
    if method is None:
        return np.ones(len(query.items))
    history = pd.DataFrame({"item": query.history_items, "rating": query.history_ratings})
    evidence = np.asarray(method(history, query.items), dtype=np.float64)
    rule = f"evidence of base recommender {base.name} must be {len(query.items)} finite numbers >= 0"
    if evidence.shape != (len(query.items),):
        raise ValueError(f"{rule} but has the shape {evidence.shape}")
    wrong = ~(np.isfinite(evidence) & (evidence >= 0))
    if wrong.any():
        raise ValueError(f"{rule} but has {evidence[wrong][0]}")
    return evidence
