"""Bases for ranking: they score the whole catalogue from a user's clicks, plays or purchases."""

from metarec.bases._searched import Choices, Limits, Range
from metarec.bases.ranking._base import Histories, RankingBase
from metarec.bases.ranking._catalogue import (
    RANKING_BASES,
    applicable_ranking_bases,
    fit_ranking_base,
    make_ranking_base,
)

__all__ = [
    "RANKING_BASES",
    "Choices",
    "Histories",
    "Limits",
    "Range",
    "RankingBase",
    "applicable_ranking_bases",
    "fit_ranking_base",
    "make_ranking_base",
]
