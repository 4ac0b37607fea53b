"""Across domains: how alike two of them are, and what one is worth to the other."""

from metarec.transfer._base import TransferStrategy
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources
from metarec.transfer._training import few_users
from metarec.transfer.alignment import AlignedModel, FeatureAligner
from metarec.transfer.competitors import Said, competitors, predict_round
from metarec.transfer.rounds import Round, TransferRounds
from metarec.transfer.settings import FusionSettings
from metarec.transfer.similarity import Similarity, domain_similarity
from metarec.transfer.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "AlignedModel",
    "FeatureAligner",
    "FusionSettings",
    "Round",
    "Said",
    "Similarity",
    "Sources",
    "TransferRounds",
    "TransferStrategy",
    "TransferredModel",
    "competitors",
    "domain_similarity",
    "few_users",
    "predict_round",
]
