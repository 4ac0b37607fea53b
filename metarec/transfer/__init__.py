"""Across domains: how alike two of them are, and what one is worth to the other."""

from metarec.transfer._base import TransferStrategy
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources
from metarec.transfer._training import few_users
from metarec.transfer.alignment import AlignedModel, FeatureAligner
from metarec.transfer.competitors import Said, competitors, predict_round
from metarec.transfer.cross_domain import CrossDomainMetaLearner
from metarec.transfer.prototypes import PrototypeBasedModel, Prototypes, extract_prototypes
from metarec.transfer.round import Round
from metarec.transfer.rounds import TransferRounds
from metarec.transfer.settings import FusionSettings
from metarec.transfer.similarity import Similarity, domain_similarity
from metarec.transfer.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "AlignedModel",
    "CrossDomainMetaLearner",
    "FeatureAligner",
    "FusionSettings",
    "PrototypeBasedModel",
    "Prototypes",
    "Round",
    "Said",
    "Similarity",
    "Sources",
    "TransferRounds",
    "TransferStrategy",
    "TransferredModel",
    "competitors",
    "domain_similarity",
    "extract_prototypes",
    "few_users",
    "predict_round",
]
