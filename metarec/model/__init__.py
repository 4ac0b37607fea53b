"""The fusion, and the recommender that a study proposes: fitted bases with their fusion."""

from metarec.model.files import load_model, save_model
from metarec.model.fusion import AdaptedFusion, Fusion, FusionConfig, fit_stacker, outputs_of, stackers_of
from metarec.model.recommender import FusedRecommender, UserModel

__all__ = [
    "AdaptedFusion",
    "FusedRecommender",
    "Fusion",
    "FusionConfig",
    "UserModel",
    "fit_stacker",
    "load_model",
    "outputs_of",
    "save_model",
    "stackers_of",
]
