"""Base recommenders: what a fusion combines."""

from metarec.bases._base import BaseRecommender, HistoryQuery, Recommender, predict_queries
from metarec.bases._catalogue import BASES, applicable_bases, make_base

__all__ = [
    "BASES",
    "BaseRecommender",
    "HistoryQuery",
    "Recommender",
    "applicable_bases",
    "make_base",
    "predict_queries",
]
