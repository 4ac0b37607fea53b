"""What a study proposes, as a thing to use: a recommender that adapts to a history, and how it is kept."""

from metarec.model.files import load_model, save_model
from metarec.model.fused import FusedRecommender, Prescription, UserModel

__all__ = ["FusedRecommender", "Prescription", "UserModel", "load_model", "save_model"]
