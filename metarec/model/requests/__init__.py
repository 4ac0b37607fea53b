"""The requests of a served model, checked row by row, and its answers."""

from metarec.model.ranking_recommender import RankingRecommender
from metarec.model.recommender import FusedRecommender
from metarec.model.requests._base import Requests
from metarec.model.requests._lists import ListRequests
from metarec.model.requests._ratings import RatingRequests

__all__ = ["ListRequests", "RatingRequests", "Requests", "requests_of"]


def requests_of(recommender: FusedRecommender | RankingRecommender) -> Requests:
    """What a recommender is asked, and how it answers."""
    if isinstance(recommender, RankingRecommender):
        return ListRequests(recommender)
    return RatingRequests(recommender)
