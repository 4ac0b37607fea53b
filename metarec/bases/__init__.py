"""Base recommenders, the inputs of a fusion."""

from metarec.bases._base import (
    Answer,
    BaseRecommender,
    HistoryQuery,
    Learned,
    Recommender,
    base_errors,
    predict_queries,
)
from metarec.bases._catalogue import BASES, applicable_bases, fit_base, make_base
from metarec.bases._offsets import item_offsets
from metarec.bases._queries import QueryBatch, answer_queries

__all__ = [
    "BASES",
    "Answer",
    "BaseRecommender",
    "HistoryQuery",
    "Learned",
    "QueryBatch",
    "Recommender",
    "answer_queries",
    "applicable_bases",
    "base_errors",
    "fit_base",
    "item_offsets",
    "make_base",
    "predict_queries",
]
