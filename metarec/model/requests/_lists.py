"""Requests for lists: each row names a user, and the answer has the best new items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.files import Limit
from metarec.model.ranking_recommender import NO_EVENTS, Events, RankingRecommender
from metarec.model.requests._base import Requests, history_column, id_column, is_missing

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

__all__ = ["LISTS", "ListRequests"]

LISTS = Limit("METAREC_MAX_REQUEST_LISTS", 1_000, "rows")
"""Of one request. A list takes longer than the prediction of a rating, because the bases score the whole catalogue."""

LENGTH, LONGEST = 10, 1_000
"""Items of a list: by default, and at most."""


class ListRequests(Requests[Events]):
    """Each row has a user of the model, or a history, which replaces the user's; and ``n``, 10 by default.

    The answers are ``items``, a list of at most n items, the best first; ``scores``, their scores, which have a meaning
    within the list only; and ``unknown_in_history``, the number of items of each history that are not in the catalogue
    and tell nothing, if there is any.
    """

    columns: ClassVar = ("user", "history", "n")
    needed: ClassVar = ()
    flat: ClassVar = ("user",)
    limit = LISTS
    entry: ClassVar = ("item", "weight", "timestamp")
    needed_in_entry: ClassVar = ("item",)
    noun = "events"

    def __init__(self, recommender: RankingRecommender) -> None:
        super().__init__(recommender)
        self._recommender = recommender

    def answer(self, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
        self._check_count(rows)
        lengths = [_length(place, row[2]) for place, row in enumerate(rows)]
        histories, places = self._grouped([(row[0], row[1]) for row in rows])
        items: list[list[str]] = [[] for _ in rows]
        scores: list[list[float]] = [[] for _ in rows]
        unknown = np.zeros(len(rows), dtype=np.int64)
        catalogue = self._recommender.maker.catalogue.index
        for own, found, history in zip(places, self._recommender.lists(histories), histories, strict=True):
            for place in own:
                best = found.first(lengths[place])
                items[place], scores[place] = best.items.tolist(), best.scores.tolist()
            unknown[own] = np.count_nonzero(catalogue.get_indexer(history.items) < 0)
        table = pd.DataFrame({"items": items, "scores": scores})
        return table.assign(unknown_in_history=unknown) if unknown.any() else table

    @staticmethod
    def signature() -> ModelSignature:
        from mlflow.models import ModelSignature
        from mlflow.types.schema import Array, ColSpec, DataType, Schema

        return ModelSignature(
            inputs=Schema(
                [
                    id_column("user", required=False),
                    history_column(ListRequests.entry),
                    ColSpec(DataType.long, "n", required=False),
                ]
            ),
            outputs=Schema([ColSpec(Array(DataType.string), "items"), ColSpec(Array(DataType.double), "scores")]),
        )

    def example(self) -> pd.DataFrame:
        return pd.DataFrame({"user": self._recommender.users[:2].tolist(), "n": [3, 3]})

    def _given(self, items: np.ndarray, values: np.ndarray, times: np.ndarray | None) -> Events:
        return Events.added_up(items, values, times)

    @property
    def _nothing(self) -> Events:
        return NO_EVENTS


def _length(place: int, value: Any) -> int:
    if is_missing(value):
        return LENGTH
    # A column in which some rows have no number holds floats.
    is_whole = isinstance(value, int | np.integer) or (isinstance(value, float | np.floating) and value.is_integer())
    if isinstance(value, bool) or not is_whole or not 1 <= value <= LONGEST:
        raise InputError(f"row {place}: n must be a whole number in 1..{LONGEST:,} but got {shown(value)}")
    return int(value)
