"""Many queries at once: ids become codes in one look-up, and answers go back to where they were asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.bases._base import Answer, BaseRecommender, HistoryQuery, Learned, Recommender, predict_queries
from metarec.errors import InputError
from metarec.ratings import RatingScale

__all__ = ["CodedQueries", "FoldInRecommender", "QueryBatch", "answer_queries"]

CHUNK = 200_000
"""History entries and asked items that are answered in one go; it bounds the memory, not the number of queries."""


class QueryBatch(tuple[HistoryQuery, ...]):
    """Queries that several bases are asked: what does not depend on the base is worked out once.

    Ids above all. To look up a thousand strings takes as long as what a simple base then does with them.
    """

    @cached_property
    def chunks(self) -> list[FlatQueries]:
        """Runs of queries with about `CHUNK` entries, as flat arrays; a query is never divided."""
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
        ids: [R + P] the items of all histories, then all that are asked for; ratings: [R] those of the histories.
        history_owners: [R] the query that each history entry belongs to.
        num_asked: [B] how many items each query asks for.
    """

    ids: np.ndarray
    ratings: np.ndarray
    history_owners: np.ndarray
    num_asked: np.ndarray
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
        """[R] and [P] the codes of the ids, -1 for what is not known: one look-up for all bases with the same index."""
        # The index is kept beside its codes, so that no other object can take its place in memory.
        if id(index) not in self._codes:
            self._codes[id(index)] = index, index.get_indexer(self.ids)
        codes = self._codes[id(index)][1]
        return codes[: len(self.ratings)], codes[len(self.ratings) :]


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

    `fit` sets the rating scale and the items that are known, in the order of their codes: the domain's own
    `item_index` where these are the rated ones, so that bases share its look-ups.

    Attributes:
        learned: what `fit` sets besides and predictions are made from: ``"levels"`` stands for the attribute
            ``_levels``. Arrays, sparse ones, or numbers.
    """

    learned: ClassVar[tuple[str, ...]]

    _scale: RatingScale
    _items: pd.Index

    def _derive(self) -> None:
        """Lay out what was learned for folding in, where that takes another layout."""

    def state(self) -> dict[str, Learned]:
        """What was learned, to be kept: :meth:`restore` makes the same recommender of it, with the same settings."""
        return {
            "items": self._items.to_numpy().astype(np.str_),
            "scale": np.array([self._scale.low, self._scale.high]),
            **{name: getattr(self, f"_{name}") for name in self.learned},
        }

    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take on what another recommender with the same settings has learned.

        Raises:
            InputError: something is missing from the state.
        """
        for name in ("items", "scale", *self.learned):
            if name not in state:
                raise InputError(f'the state of the base {self.name} must hold "{name}" but has {", ".join(state)}')
        self._items = pd.Index(np.asarray(state["items"]).astype(object), dtype=object)
        self._scale = RatingScale(*np.asarray(state["scale"]).tolist())
        for name in self.learned:
            setattr(self, f"_{name}", state[name])
        self._derive()
        return self

    @abstractmethod
    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        """[P] predictions of the asked items on the unit scale, NaN where it cannot say, and [P] their evidence."""

    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        return [answer.predictions for answer in self.answer_queries(queries)]

    def answer_queries(self, queries: Sequence[HistoryQuery]) -> list[Answer]:
        """One answer for each query."""
        answers: list[Answer] = []
        batch = queries if isinstance(queries, QueryBatch) else QueryBatch(queries)
        for flat in batch.chunks:
            history, asked = flat.codes(self._items)
            seen, known = history >= 0, asked >= 0
            count = len(flat.num_asked)
            coded = CodedQueries(
                np.bincount(flat.history_owners[seen], minlength=count),
                history[seen],
                self._scale.to_unit(flat.ratings[seen]),
                asked[known],
                np.repeat(np.arange(count), flat.num_asked)[known],
            )
            predictions, evidence = np.full(len(asked), np.nan), np.zeros(len(asked))
            unit, evidence[known] = self.predict_coded(coded)
            predictions[known] = self._scale.to_ratings(unit)
            stops = np.cumsum(flat.num_asked).tolist()
            answers.extend(
                Answer(predictions[stop - size : stop], evidence[stop - size : stop])
                for stop, size in zip(stops, flat.num_asked.tolist(), strict=True)
            )
        return answers


def answer_queries(base: BaseRecommender, queries: Sequence[HistoryQuery]) -> list[Answer]:
    """Ask any base as `predict_queries` does, and also how much evidence it has for each prediction.

    Where several bases are asked the same, a :class:`QueryBatch` saves them looking up the same ids.

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
