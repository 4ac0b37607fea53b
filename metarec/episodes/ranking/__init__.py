"""Ranking episodes: candidates from the bases, leave-one-out lists of the support items, features, tensors."""

from metarec.episodes.ranking._build import RankingEpisodes, build_ranking_episodes
from metarec.episodes.ranking._features import RANKING_CONTEXT_NAMES, RANKING_FEATURE_NAMES, RankingStandards
from metarec.episodes.ranking._new_users import RankingTaskMaker
from metarec.episodes.ranking._small_worlds import SmallRankingWorlds
from metarec.episodes.ranking.settings import RankingSettings

__all__ = [
    "RANKING_CONTEXT_NAMES",
    "RANKING_FEATURE_NAMES",
    "RankingEpisodes",
    "RankingSettings",
    "RankingStandards",
    "RankingTaskMaker",
    "SmallRankingWorlds",
    "build_ranking_episodes",
]
