"""Across domains: how alike two of them are, and what one is worth to the other."""

from metarec.transfer.alignment import AlignedModel, FeatureAligner
from metarec.transfer.similarity import Similarity, domain_similarity

__all__ = ["AlignedModel", "FeatureAligner", "Similarity", "domain_similarity"]
