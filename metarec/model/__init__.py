"""The fusion, and the recommender that a study proposes: fitted bases with their fusion."""

from metarec.model._kept import KeptRecommender
from metarec.model.averaged import MeanNetwork, MeanStacker, fold_indices, mean_of
from metarec.model.files import load_model, save_model
from metarec.model.fusion import (
    AdaptedFusion,
    Fusion,
    FusionConfig,
    Stacked,
    Trained,
    fit_stacker,
    outputs_of,
    stackers_of,
    user_parts,
)
from metarec.model.ranking_recommender import Events, RankingRecommender, RankingUserModel
from metarec.model.recommender import FusedRecommender, UserModel

__all__ = [
    "AdaptedFusion",
    "Events",
    "FusedRecommender",
    "Fusion",
    "FusionConfig",
    "KeptRecommender",
    "MeanNetwork",
    "MeanStacker",
    "RankingRecommender",
    "RankingUserModel",
    "Stacked",
    "Trained",
    "UserModel",
    "fit_stacker",
    "fold_indices",
    "load_model",
    "mean_of",
    "outputs_of",
    "save_model",
    "stackers_of",
    "user_parts",
]
