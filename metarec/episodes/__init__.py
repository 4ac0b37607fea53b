"""Episodes: the split of users, out-of-fold and leave-one-out predictions, features, tensors, and a cache."""

from metarec.episodes._assemble import DomainEpisodes, PredictedTasks
from metarec.episodes._episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.episodes._few_users import able_users, draw_train_users
from metarec.episodes._predictions import QueryScores
from metarec.episodes._split import MIN_USERS, Role, UserRoles, assign_roles, eligible_users, fold_roles, too_few
from metarec.episodes._standards import Standards
from metarec.episodes.builders import (
    CrossValidation,
    History,
    NewUsers,
    SmallWorld,
    TaskMaker,
    build_episodes,
    cross_validate,
    shared_folds,
    small_worlds,
    validation_predictions,
)
from metarec.episodes.settings import EpisodeSettings, Progress

__all__ = [
    "MIN_USERS",
    "CrossValidation",
    "DomainEpisodes",
    "EpisodeBatch",
    "EpisodeSettings",
    "Episodes",
    "FusionInputs",
    "History",
    "NewUsers",
    "PredictedTasks",
    "Progress",
    "QueryScores",
    "Role",
    "SmallWorld",
    "Standards",
    "TaskMaker",
    "UserRoles",
    "able_users",
    "assign_roles",
    "build_episodes",
    "cross_validate",
    "draw_train_users",
    "eligible_users",
    "fold_roles",
    "shared_folds",
    "small_worlds",
    "too_few",
    "validation_predictions",
]
