"""Requests for ratings: each row names an item, and the answer has the predicted rating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from metarec.episodes import History
from metarec.errors import InputError, shown
from metarec.files import Limit
from metarec.model.recommender import NO_HISTORY, FusedRecommender
from metarec.model.requests._base import Requests, history_column, id_column, requested_id

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

__all__ = ["ROWS", "RatingRequests"]

ROWS = Limit("METAREC_MAX_REQUEST_ROWS", 10_000, "rows")
"""Of one request."""


class RatingRequests(Requests[History]):
    """Each row has an item of the model; and a user of the model, or a history, which replaces the user's.

    The answers are ``prediction``, in the domain's own units; and ``unknown_in_history``, the number of ratings of
    unknown items in the history of each row, if there is any. The rating of an unknown item shows how its user rates,
    and nothing else: no base predicts from it.
    """

    columns: ClassVar = ("item", "user", "history")
    needed: ClassVar = ("item",)
    flat: ClassVar = ("item", "user")
    limit = ROWS
    entry: ClassVar = ("item", "rating", "timestamp")
    needed_in_entry: ClassVar = ("item", "rating")
    noun = "ratings"

    def __init__(self, recommender: FusedRecommender) -> None:
        super().__init__(recommender)
        self._recommender = recommender

    def answer(self, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
        self._check_count(rows)
        items = np.empty(len(rows), dtype=object)
        items[:] = [requested_id(row[0], f"row {place}: item") for place, row in enumerate(rows)]
        known = pd.Index(self._recommender.items)
        codes = known.get_indexer(items)
        if (codes < 0).any():
            place = int((codes < 0).argmax())
            raise InputError(f'row {place}: unknown item "{shown(items[place])}"; the model has {len(known):,} items')
        histories, places = self._grouped([(row[1], row[2]) for row in rows])
        predicted, unknown = np.empty(len(rows)), np.zeros(len(rows), dtype=np.int64)
        answers = self._recommender.predict(histories, [items[own] for own in places])
        for own, values, history in zip(places, answers, histories, strict=True):
            predicted[own] = values
            unknown[own] = np.count_nonzero(known.get_indexer(history.items) < 0)
        table = pd.DataFrame({"prediction": predicted})
        return table.assign(unknown_in_history=unknown) if unknown.any() else table

    @staticmethod
    def signature() -> ModelSignature:
        from mlflow.models import ModelSignature
        from mlflow.types.schema import ColSpec, DataType, Schema

        return ModelSignature(
            inputs=Schema(
                [
                    id_column("item", required=True),
                    id_column("user", required=False),
                    history_column(RatingRequests.entry),
                ]
            ),
            outputs=Schema([ColSpec(DataType.double, "prediction")]),
        )

    def example(self) -> pd.DataFrame:
        items = self._recommender.items[:2].tolist()
        return pd.DataFrame({"item": items, "user": [str(self._recommender.users[0])] * len(items)})

    def _given(self, items: np.ndarray, values: np.ndarray, times: np.ndarray | None) -> History:
        given = History(items, values, times)
        self._recommender.maker.check(given)
        return given

    @property
    def _nothing(self) -> History:
        return NO_HISTORY
