"""From domains to episodes: by a split of the users, by cross-validation, in small worlds, and for new users."""

from metarec.episodes.builders._build import build_episodes, validation_predictions
from metarec.episodes.builders._cross_validation import CrossValidation, cross_validate, shared_folds
from metarec.episodes.builders._new_users import History, NewUsers, TaskMaker
from metarec.episodes.builders._small_worlds import SmallWorld, small_worlds
from metarec.episodes.builders._warm import (
    HeldOut,
    RatingRoles,
    assign_ratings,
    build_warm_episodes,
    warm_validation_predictions,
)

__all__ = [
    "CrossValidation",
    "HeldOut",
    "History",
    "NewUsers",
    "RatingRoles",
    "SmallWorld",
    "TaskMaker",
    "assign_ratings",
    "build_episodes",
    "build_warm_episodes",
    "cross_validate",
    "shared_folds",
    "small_worlds",
    "validation_predictions",
    "warm_validation_predictions",
]
