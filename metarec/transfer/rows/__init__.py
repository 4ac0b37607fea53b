"""Transfer between rows of predictions and features, without episodes."""

from metarec.transfer.rows.alignment import AlignedModel, FeatureAligner
from metarec.transfer.rows.cross_domain import CrossDomainMetaLearner
from metarec.transfer.rows.prototypes import PrototypeBasedModel, Prototypes, extract_prototypes

__all__ = [
    "AlignedModel",
    "CrossDomainMetaLearner",
    "FeatureAligner",
    "PrototypeBasedModel",
    "Prototypes",
    "extract_prototypes",
]
