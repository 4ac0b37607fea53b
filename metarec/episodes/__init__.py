"""Tasks: users split, predictions out of fold and leave one out, features, tensors, and a cache."""

from metarec.episodes._assemble import Answered, DomainEpisodes
from metarec.episodes._batch import EpisodeBatch, FusionInputs
from metarec.episodes._build import build_episodes
from metarec.episodes._cross_validation import CrossValidation, cross_validate, shared_folds
from metarec.episodes._episodes import Episodes
from metarec.episodes._fitted_facts import FittedFacts
from metarec.episodes._new_users import History, NewUsers, TaskMaker
from metarec.episodes._small_worlds import SmallWorld, able_users, draw_known, small_worlds
from metarec.episodes._split import UserRoles, assign_roles
from metarec.episodes._standards import Standards
from metarec.episodes.settings import EpisodeSettings

__all__ = [
    "Answered",
    "CrossValidation",
    "DomainEpisodes",
    "EpisodeBatch",
    "EpisodeSettings",
    "Episodes",
    "FittedFacts",
    "FusionInputs",
    "History",
    "NewUsers",
    "SmallWorld",
    "Standards",
    "TaskMaker",
    "UserRoles",
    "able_users",
    "assign_roles",
    "build_episodes",
    "cross_validate",
    "draw_known",
    "shared_folds",
    "small_worlds",
]
