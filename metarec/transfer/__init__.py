"""Across domains: how alike two of them are, and what one is worth to the other."""

from metarec.transfer._base import AdaptingModel, TransferredModel, TransferStrategy
from metarec.transfer._training import few_users
from metarec.transfer.alignment import AlignedModel, FeatureAligner
from metarec.transfer.settings import FusionSettings
from metarec.transfer.similarity import Similarity, domain_similarity
from metarec.transfer.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "AdaptingModel",
    "AlignedModel",
    "FeatureAligner",
    "FusionSettings",
    "Similarity",
    "TransferStrategy",
    "TransferredModel",
    "domain_similarity",
    "few_users",
]
