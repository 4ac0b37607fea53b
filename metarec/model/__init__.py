"""The fusion, and the recommender that a study proposes: fitted bases with their fusion."""

from metarec.model._kept import KeptRecommender
from metarec.model.files import load_model, save_model
from metarec.model.fusion import AdaptedFusion, Fusion, FusionConfig, fit_stacker, outputs_of, stackers_of
from metarec.model.ranking_recommender import Events, RankingRecommender, RankingUserModel
from metarec.model.recommender import FusedRecommender, UserModel

__all__ = [
    "AdaptedFusion",
    "Events",
    "FusedRecommender",
    "Fusion",
    "FusionConfig",
    "KeptRecommender",
    "RankingRecommender",
    "RankingUserModel",
    "UserModel",
    "fit_stacker",
    "load_model",
    "outputs_of",
    "save_model",
    "stackers_of",
]
