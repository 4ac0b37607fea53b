"""Transfer from source domains to a target domain with few users."""

from metarec.transfer.competitors import (
    ORACLE,
    RoundPrediction,
    check_competitors,
    competitors,
    controls,
    predict_round,
)
from metarec.transfer.rounds import REGIMES, RankingRounds, Regime, Round, Rounds, TransferRounds
from metarec.transfer.rows import (
    AlignedModel,
    CrossDomainMetaLearner,
    FeatureAligner,
    PrototypeBasedModel,
    Prototypes,
    extract_prototypes,
)
from metarec.transfer.similarity import Similarity, domain_similarity
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings, few_users
from metarec.transfer.strategies import STRATEGIES, TransferStrategy

__all__ = [
    "ORACLE",
    "REGIMES",
    "STRATEGIES",
    "AlignedModel",
    "CrossDomainMetaLearner",
    "FeatureAligner",
    "PrototypeBasedModel",
    "Prototypes",
    "RankingRounds",
    "Regime",
    "Round",
    "RoundPrediction",
    "Rounds",
    "Similarity",
    "Sources",
    "TransferRounds",
    "TransferSettings",
    "TransferStrategy",
    "TransferredModel",
    "check_competitors",
    "competitors",
    "controls",
    "domain_similarity",
    "extract_prototypes",
    "few_users",
    "predict_round",
]
