"""Episodes: the split of users, out-of-fold and leave-one-out predictions, features, tensors, and a cache."""

from metarec.episodes._assemble import DomainEpisodes, PredictedTasks
from metarec.episodes._episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.episodes._few_users import able_users, draw_train_users
from metarec.episodes._predictions import QueryScores
from metarec.episodes._split import MIN_USERS, ROLES, Role, UserRoles, assign_roles, eligible_users, fold_roles, too_few
from metarec.episodes._standards import Standards
from metarec.episodes.builders import (
    CrossValidation,
    HeldOut,
    History,
    NewUsers,
    RatingRoles,
    SmallWorld,
    TaskMaker,
    assign_ratings,
    build_episodes,
    build_warm_episodes,
    cross_validate,
    shared_folds,
    small_worlds,
    validation_predictions,
    warm_validation_predictions,
)
from metarec.episodes.settings import EpisodeSettings, Progress

__all__ = [
    "MIN_USERS",
    "ROLES",
    "CrossValidation",
    "DomainEpisodes",
    "EpisodeBatch",
    "EpisodeSettings",
    "Episodes",
    "FusionInputs",
    "HeldOut",
    "History",
    "NewUsers",
    "PredictedTasks",
    "Progress",
    "QueryScores",
    "RatingRoles",
    "Role",
    "SmallWorld",
    "Standards",
    "TaskMaker",
    "UserRoles",
    "able_users",
    "assign_ratings",
    "assign_roles",
    "build_episodes",
    "build_warm_episodes",
    "cross_validate",
    "draw_train_users",
    "eligible_users",
    "fold_roles",
    "shared_folds",
    "small_worlds",
    "too_few",
    "validation_predictions",
    "warm_validation_predictions",
]
