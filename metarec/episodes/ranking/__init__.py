"""Ranking episodes: candidates from the bases, leave-one-out lists of the support items, features, tensors."""

from metarec.episodes.ranking._build import RankingEpisodes, build_ranking_episodes
from metarec.episodes.ranking._by_time import TimedEpisodes, build_timed_episodes
from metarec.episodes.ranking._checks import check_choice
from metarec.episodes.ranking._features import (
    RANKING_CONTEXT_NAMES,
    RANKING_FEATURE_NAMES,
    REPEAT_CONTEXT_NAMES,
    RankingStandards,
)
from metarec.episodes.ranking._new_users import RankingTaskMaker
from metarec.episodes.ranking._small_worlds import SmallRankingWorlds
from metarec.episodes.ranking._tasks import UserHistory
from metarec.episodes.ranking._validation import validation_lists
from metarec.episodes.ranking.settings import RankingSettings

__all__ = [
    "RANKING_CONTEXT_NAMES",
    "RANKING_FEATURE_NAMES",
    "REPEAT_CONTEXT_NAMES",
    "RankingEpisodes",
    "RankingSettings",
    "RankingStandards",
    "RankingTaskMaker",
    "SmallRankingWorlds",
    "TimedEpisodes",
    "UserHistory",
    "build_ranking_episodes",
    "build_timed_episodes",
    "check_choice",
    "validation_lists",
]
