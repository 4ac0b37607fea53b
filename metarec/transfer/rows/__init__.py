"""Transfer between domains of rated feature rows, without episodes."""

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
