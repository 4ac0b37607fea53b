"""Base recommenders, the inputs of a fusion."""

from metarec.bases._base import Answer, BaseRecommender, HistoryQuery, Recommender, base_errors, predict_queries
from metarec.bases._catalogue import BASES, applicable_bases, fit_base, make_base
from metarec.bases._learned import Learned, Stored, check_finite, check_stored
from metarec.bases._offsets import item_offsets
from metarec.bases._queries import QueryBatch, answer_queries
from metarec.bases._searched import Choices, Limits, Range, Setting, searched_settings

__all__ = [
    "BASES",
    "Answer",
    "BaseRecommender",
    "Choices",
    "HistoryQuery",
    "Learned",
    "Limits",
    "QueryBatch",
    "Range",
    "Recommender",
    "Setting",
    "Stored",
    "answer_queries",
    "applicable_bases",
    "base_errors",
    "check_finite",
    "check_stored",
    "fit_base",
    "item_offsets",
    "make_base",
    "predict_queries",
    "searched_settings",
]
